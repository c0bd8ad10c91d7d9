"""preserve-evidence and restore-settings, run as in Lambda: what is protected, kept, put back."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from moto.ec2.models import ec2_backends

from simulation import deploy
from simulation import ec2 as double
from simulation.calls import ApiError

ACCOUNT, REGION = "111122223333", "us-west-2"
SNAPSHOT_TAGS = {"Name", "forensic:finding", "forensic:instance", "forensic:isolated-at"}
SNAPSHOT_TAGS |= {"forensic:case", "forensic:volume", "forensic:device"}


@pytest.fixture(scope="module")
def functions(pack, tmp_path_factory):
    """The step behind the isolation, the same as a dry run, and the revert, each a function."""
    steps = {
        "evidence": (["isolate-instance", "preserve-evidence"], {}),
        "evidence-locked": ([{"type": "preserve-evidence", "lock-days": 7}], {}),
        "evidence-unlocked": ([{"type": "preserve-evidence", "lock-days": 0}], {}),
        "evidence-plan": (["isolate-instance", "preserve-evidence"], {"dryrun": True}),
        "evidence-back": (["restore-settings"], {}),
        "evidence-back-plan": (["restore-settings"], {"dryrun": True}),
    }
    path = tmp_path_factory.mktemp("evidence") / "evidence.yml"
    path.write_text(yaml.safe_dump({"policies": [policy(n, *s) for n, s in steps.items()]}))
    deploy.deploy(pack.cloud, [path], ACCOUNT, REGION)


def policy(name, actions, options):
    return {
        "name": name,
        "resource": "ec2",
        "mode": {
            "type": "guard-duty",
            "role": "guardduty-response-ec2-isolate",
            "packages": ["custom_actions"],
            "handler": "custom_actions.handler.run",
            "runtime": "python3.13",
            "timeout": 300,
            "execution-options": options,
        },
        "actions": [*actions, "fail-unless-complete"],
    }


class Bench:
    """An instance's settings and snapshots, and the functions that act on it."""

    def __init__(self, scene):
        self.scene, self.cloud, self.ec2 = scene, scene.cloud, scene.ec2

    def run(self, name, event):
        return self.cloud.invoke(f"custodian-{name}", event, ACCOUNT, REGION)

    def outcome(self, name, event, step=-1):
        invocation = self.run(name, event)
        assert invocation.error is None, invocation.error
        return invocation.result[name][step]

    def instance(self, *, size="t3.micro", delete=(True,), **attributes):
        """An instance with a root volume and more; `delete`: on termination, for each."""
        return self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            InstanceType=size,
            SubnetId=self.scene.subnet_id,
            SecurityGroupIds=self.scene.groups[:1],
            BlockDeviceMappings=[
                {
                    "DeviceName": f"/dev/sd{letter}",
                    "Ebs": {"VolumeSize": 8, "DeleteOnTermination": d},
                }
                for letter, d in zip("abcdefghij", delete, strict=False)
            ],
            **attributes,
        )["Instances"][0]["InstanceId"]

    def attach(self, instance, device="/dev/sdz", delete=True):
        volume = self.ec2.create_volume(Size=1, AvailabilityZone=REGION + "a")["VolumeId"]
        self.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device=device)
        self.ec2.modify_instance_attribute(
            InstanceId=instance,
            BlockDeviceMappings=[{"DeviceName": device, "Ebs": {"DeleteOnTermination": delete}}],
        )
        return volume

    def tag(self, resource, tags):
        self.ec2.create_tags(
            Resources=[resource], Tags=[{"Key": k, "Value": v} for k, v in tags.items()]
        )

    def describe(self, instance):
        return self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][
            0
        ]

    def attribute(self, instance, name):
        answer = self.ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)
        return answer[name[0].upper() + name[1:]]["Value"]

    def settings(self, instance):
        return (
            self.attribute(instance, "disableApiTermination"),
            self.attribute(instance, "disableApiStop"),
            self.attribute(instance, "instanceInitiatedShutdownBehavior"),
        )

    def volumes(self, instance):
        """Whether each attached volume is deleted on termination: {volume id: bool}."""
        return {
            m["Ebs"]["VolumeId"]: m["Ebs"]["DeleteOnTermination"]
            for m in self.describe(instance)["BlockDeviceMappings"]
        }

    def everything(self, instance):
        shown = self.describe(instance)
        shown["Tags"] = [t for t in shown.get("Tags", ()) if t["Key"] not in ISOLATION_TAGS]
        shown.pop("SecurityGroups"), shown.pop("NetworkInterfaces")  # isolate-instance's affair
        return shown, self.settings(instance)

    def snapshots(self, instance):
        return self.ec2.describe_snapshots(
            OwnerIds=["self"], Filters=[{"Name": "tag:forensic:instance", "Values": [instance]}]
        )["Snapshots"]

    def locks(self, instance):
        """The state and the days of the lock of each snapshot that has one: {snapshot id: both}."""
        ids = [s["SnapshotId"] for s in self.snapshots(instance)]
        shown = self.ec2.describe_locked_snapshots(SnapshotIds=ids)["Snapshots"]
        return {lock["SnapshotId"]: (lock["LockState"], lock["LockDuration"]) for lock in shown}

    def writes(self, name):
        """What a function wrote since the calls were noted, besides records on the instance."""
        calls = self.cloud.call_log.by(f"custodian-{name}")
        return [c for c in calls if not c.operation.startswith(("Describe", "Assume", "Get"))]

    def calls(self, name, operation):
        return [c for c in self.cloud.call_log.by(f"custodian-{name}") if c.operation == operation]


ISOLATION_TAGS = ("forensic:state", "forensic:finding", "forensic:isolated-at")
KEPT = (True, True, "stop")
OPEN = (False, False, "terminate")


@pytest.fixture
def bench(scene, functions):
    return Bench(scene)


def error(invocation):
    return invocation.error["errorMessage"]


def test_everything_is_protected_and_snapshotted_once(bench):
    instance = bench.instance(
        delete=[True, False, True], InstanceInitiatedShutdownBehavior="terminate"
    )
    event = bench.scene.finding(instance)
    assert bench.settings(instance) == OPEN

    report = bench.outcome("evidence", event)

    assert report["status"] == "done"
    assert bench.settings(instance) == KEPT
    assert set(bench.volumes(instance).values()) == {False}
    (call,) = bench.calls("evidence", "CreateSnapshots")
    assert call.parameters["InstanceSpecification"]["InstanceId"] == instance
    snapshots = bench.snapshots(instance)
    assert {s["VolumeId"] for s in snapshots} == set(bench.volumes(instance))
    for snapshot in snapshots:
        tags = {t["Key"]: t["Value"] for t in snapshot["Tags"]}
        assert set(tags) == SNAPSHOT_TAGS
        assert tags["forensic:finding"] == event["detail"]["id"]
        assert tags["forensic:isolated-at"] == bench.scene.tags(instance)["forensic:isolated-at"]
        assert instance in tags["Name"]
        assert tags["forensic:volume"] == snapshot["VolumeId"]
        assert re.fullmatch(rf"{instance}-20\d{{6}}T\d{{6}}", tags["forensic:case"])
        assert snapshot["SnapshotId"] in report["detail"]
    assert {(s["id"], s["volume_id"]) for s in report["snapshots"]} == {
        (s["SnapshotId"], s["VolumeId"]) for s in snapshots
    }
    assert {s["device"] for s in report["snapshots"]} == {"/dev/sda", "/dev/sdb", "/dev/sdc"}

    named = {(s["id"], s["device"]) for s in report["snapshots"]}
    assert {(s["SnapshotId"], bench.scene.tags(s["SnapshotId"])["forensic:device"])
            for s in snapshots} == named  # fmt: skip


def test_everything_is_locked_and_a_lock_that_is_there_is_nobodys_to_shorten(bench):
    instance = bench.instance(delete=[True, True, True])
    event = bench.scene.finding(instance)
    first, second, third = (f"/dev/sd{letter}" for letter in "abc")

    report = bench.outcome("evidence", event)

    assert set(bench.locks(instance).values()) == {("governance", 30)}
    of = {row["device"]: row["id"] for row in report["snapshots"]}
    assert bench.locks(instance).keys() == set(of.values())
    end = datetime.now(UTC) + timedelta(days=30)
    assert "Locked against deletion until 20" in report["detail"] and "NOT" not in report["detail"]
    for row in report["snapshots"]:
        assert row["lock"] == "governance"
        assert abs(datetime.fromisoformat(row["locked_until"]) - end) < timedelta(minutes=5)
        with pytest.raises(bench.ec2.exceptions.ClientError, match="OperationNotPermitted"):
            bench.ec2.delete_snapshot(SnapshotId=row["id"])
    # which costs one call to lock, one to tag, for each, and one to read the locks back
    calls = bench.cloud.call_log.by("custodian-evidence")
    operations = [c.operation for c in calls]
    assert operations.count("LockSnapshot") == 3
    assert operations.count("DescribeLockedSnapshots") == 1
    assert operations.count("DescribeSnapshots") == 2

    # somebody takes one off, prolongs one; one is over; the one that is left is refused at first
    bench.ec2.unlock_snapshot(SnapshotId=of[first])
    bench.ec2.lock_snapshot(SnapshotId=of[second], LockMode="governance", LockDuration=400)
    lock = ec2_backends[ACCOUNT][REGION].snapshots[of[third]].lock
    lock["began"] -= timedelta(days=31)
    bench.ec2.delete_tags(Resources=[of[second]], Tags=[{"Key": "forensic:device"}])
    bench.cloud.call_log.clear()
    bench.cloud.fail(
        "LockSnapshot",
        "UnauthorizedOperation",
        when=lambda call: of[first] in call.parameters.values(),
    )

    failed = bench.run("evidence", event)

    assert f"the lock of {of[first]}: UnauthorizedOperation" in error(failed)
    assert bench.locks(instance) == {of[second]: ("governance", 400), of[third]: ("governance", 30)}
    assert bench.outcome("evidence", event)["status"] == "done"
    assert bench.locks(instance)[of[first]] == ("governance", 30)
    assert [c.operation for c in bench.writes("evidence")] == [
        "LockSnapshot", "CreateTags", "LockSnapshot", "LockSnapshot"
    ]  # fmt: skip
    bench.cloud.call_log.clear()
    assert bench.outcome("evidence", event)["status"] == "unchanged"
    assert bench.writes("evidence") == []

    # what cannot be read is not changed
    bench.ec2.unlock_snapshot(SnapshotId=of[first])
    bench.cloud.fail("DescribeLockedSnapshots", "UnauthorizedOperation")
    assert "the locks: UnauthorizedOperation" in error(bench.run("evidence", event))
    assert of[first] not in bench.locks(instance)


def test_everything_is_locked_from_its_completion_on_or_not_at_all_as_the_policy_says(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)

    report = bench.outcome("evidence-unlocked", event)

    assert "They are not locked (lock-days: 0)." in report["detail"]
    assert bench.locks(instance) == {}
    (snapshot,) = bench.snapshots(instance)
    ec2_backends[ACCOUNT][REGION].snapshots[snapshot["SnapshotId"]].status = "pending"
    # as the same incident, since nothing has isolated it
    bench.cloud.call_log.clear()
    report = bench.outcome("evidence-locked", event)
    assert "Locked against deletion for 7 days from its completion" in report["detail"]
    assert report["snapshots"][0]["locked_until"] is None
    assert bench.locks(instance) == {snapshot["SnapshotId"]: ("governance", 7)}


def test_the_evidence_outlives_stop_terminate_and_the_instance(bench):
    instance = bench.instance(delete=[True, True])
    volumes = list(bench.volumes(instance))
    bench.outcome("evidence", bench.scene.finding(instance))

    for call in (bench.ec2.stop_instances, bench.ec2.terminate_instances):
        with pytest.raises(bench.ec2.exceptions.ClientError, match="OperationNotPermitted"):
            call(InstanceIds=[instance])
    for attribute in ("DisableApiStop", "DisableApiTermination"):
        bench.ec2.modify_instance_attribute(InstanceId=instance, **{attribute: {"Value": False}})
    bench.ec2.terminate_instances(InstanceIds=[instance])

    assert len(bench.ec2.describe_volumes(VolumeIds=volumes)["Volumes"]) == 2


@pytest.mark.parametrize("order", [["restore-settings"], ["restore-settings", "release-instance"]])
def test_everything_is_back_as_it_was_but_the_snapshots(bench, tmp_path, order):
    instance = bench.instance(
        delete=[True, False, True], InstanceInitiatedShutdownBehavior="terminate"
    )
    before = bench.everything(instance)
    bench.outcome("evidence", bench.scene.finding(instance))

    printed = by_hand(bench, tmp_path, instance, order)

    assert bench.everything(instance) == before
    assert len(bench.snapshots(instance)) == 3
    assert all(s["SnapshotId"] in printed for s in bench.snapshots(instance))
    assert set(bench.locks(instance).values()) == {("governance", 30)}
    assert "The snapshots stay, with their locks" in printed and "unlock-snapshot" in printed
    again = bench.outcome("evidence-back", bench.scene.finding(instance))
    assert again["status"] == "unchanged" and "Nothing to revert" in again["detail"]


def by_hand(bench, folder, instance, actions):
    """Run the actions on one instance as ec2-release does; returns what Custodian printed."""
    path = folder / "release.yml"
    release = {
        "name": "evidence-release",
        "resource": "ec2",
        "query": [{"instance-id": instance}],
        "filters": [{"InstanceId": instance}],
        "actions": [*actions, "fail-unless-complete"],
    }
    path.write_text(yaml.safe_dump({"policies": [release]}))
    arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", folder / "output", path]
    return deploy.custodian(bench.cloud, arguments, ACCOUNT, REGION).stdout


def test_what_a_person_protected_stays_protected(bench):
    instance = bench.instance(delete=[False, True])
    bench.ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": True})
    root, data = bench.volumes(instance)
    bench.outcome("evidence", bench.scene.finding(instance))
    assert bench.settings(instance) == KEPT

    bench.outcome("evidence-back", bench.scene.finding(instance))

    assert bench.settings(instance) == (True, False, "stop")
    assert bench.volumes(instance) == {root: False, data: True}


def test_a_second_finding_and_an_update_change_nothing(bench):
    instance = bench.instance(delete=[True, True], InstanceInitiatedShutdownBehavior="terminate")
    first = bench.outcome("evidence", bench.scene.finding(instance))
    tags = bench.scene.tags(instance)
    bench.cloud.call_log.clear()

    for name in ("ec2-malicious-ip-caller-update", "ec2-dns-crypto"):
        again = bench.outcome("evidence", bench.scene.finding(instance, name))
        assert again["status"] == "unchanged"
        assert again["facts"] == first["facts"]

    assert bench.scene.tags(instance) == tags
    assert len(bench.snapshots(instance)) == 2
    operations = {c.operation for c in bench.cloud.call_log.by("custodian-evidence")}
    assert not {o for o in operations if not o.startswith(("Describe", "Assume"))}


def test_a_new_incident_after_the_release_is_snapshotted_again(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    bench.outcome("evidence", event)
    first = {s["SnapshotId"] for s in bench.snapshots(instance)}
    # The release forgets the incident; whether or not the settings were restored as well.
    bench.ec2.delete_tags(Resources=[instance], Tags=[{"Key": k} for k in ISOLATION_TAGS])
    bench.ec2.create_tags(
        Resources=[instance],
        Tags=[
            {"Key": "forensic:isolated-at", "Value": "2024-01-01T00:00:00+00:00"},
            {"Key": "forensic:state", "Value": "isolated"},
        ],
    )

    report = bench.outcome("evidence", event)

    second = {s["SnapshotId"] for s in bench.snapshots(instance)} - first
    assert len(second) == 1 and second == {s["id"] for s in report["snapshots"]}


def test_dying_between_the_snapshots_and_their_record_makes_no_second_set(bench):
    instance = bench.instance(delete=[True, True])
    event = bench.scene.finding(instance)

    def die(call):
        bench.cloud.functions.kill("custodian-evidence")
        return ApiError("ServiceUnavailable", status=503)

    bench.cloud.before(
        "CreateTags",
        die,
        when=lambda call: any(t["Key"] == "forensic:snapshots" for t in call.parameters["Tags"]),
        times=None,
    )
    assert "exited" in error(bench.run("evidence", event))
    assert len(bench.snapshots(instance)) == 2
    assert "forensic:snapshots" not in bench.scene.tags(instance)
    bench.cloud.call_log.clear()

    report = bench.outcome("evidence", event)

    assert len(bench.snapshots(instance)) == 2
    ids = {s["SnapshotId"] for s in bench.snapshots(instance)}
    assert {s["id"] for s in report["snapshots"]} == ids
    assert ids <= set(bench.scene.tags(instance)["forensic:snapshots"].split())
    assert report["facts"] == bench.outcome("evidence", event)["facts"]


def test_the_record_of_a_run_that_died_is_used(bench):
    instance = bench.instance(InstanceInitiatedShutdownBehavior="terminate")
    event = bench.scene.finding(instance)

    def die(call):
        bench.cloud.functions.kill("custodian-evidence")
        return ApiError("ServiceUnavailable", status=503)

    bench.cloud.before("CreateSnapshots", die, times=None)
    bench.run("evidence", event)
    bench.cloud.call_log.clear()
    assert bench.settings(instance) == KEPT and not bench.snapshots(instance)

    bench.outcome("evidence", event)
    assert len(bench.snapshots(instance)) == 1

    bench.outcome("evidence-back", event)
    assert bench.settings(instance) == OPEN


def test_snapshots_that_describe_does_not_show_yet_are_not_made_twice(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    bench.cloud.fail("DescribeSnapshots", "UnauthorizedOperation", skip=1, times=5)

    assert "UnauthorizedOperation" in error(bench.run("evidence", event))
    assert "forensic:snapshots" in bench.scene.tags(instance)

    assert bench.outcome("evidence", event)["status"] == "unchanged"
    assert len(bench.snapshots(instance)) == 1


def test_without_the_right_to_look_for_snapshots_one_set_is_made(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    bench.cloud.fail(
        "DescribeSnapshots",
        "UnauthorizedOperation",
        when=lambda call: call.caller == "custodian-evidence",
        times=None,
    )

    for _ in range(2):
        assert "snapshots: UnauthorizedOperation" in error(bench.run("evidence", event))

    assert len(bench.snapshots(instance)) == 1


def test_snapshots_that_are_gone_are_made_anew_and_that_is_told(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    first = bench.outcome("evidence", event)
    (old,) = bench.snapshots(instance)
    bench.ec2.unlock_snapshot(SnapshotId=old["SnapshotId"])
    bench.ec2.delete_snapshot(SnapshotId=old["SnapshotId"])

    report = bench.outcome("evidence", event)

    (new,) = bench.snapshots(instance)
    told = f"On record for this incident were {old['SnapshotId']}, which EC2 does not show"
    assert told in report["detail"] and new["SnapshotId"] in report["detail"]
    assert report["status"] == "done" and report["facts"] != first["facts"]
    assert bench.outcome("evidence", event)["status"] == "unchanged"
    assert len(bench.snapshots(instance)) == 1


def test_a_record_that_somebody_wrote_before_does_not_keep_snapshots_from_being_made(bench):
    instance, began = bench.instance(), "2026-01-01T00:00:00+00:00"
    event = bench.scene.finding(instance)
    poison = {
        "forensic:state": "isolated",
        "forensic:isolated-at": began,
        "forensic:finding": event["detail"]["id"],
        "forensic:snapshots": f"{began} snap-0123456789abcdef0",
    }
    bench.tag(instance, poison)

    bench.outcome("evidence", event)

    assert len(bench.snapshots(instance)) == 1


@pytest.mark.parametrize("of_other_volume", [False, True])
def test_a_snapshot_that_only_carries_the_tags_does_not_count(bench, of_other_volume):
    instance, began = bench.instance(), "2024-01-01T00:00:00+00:00"
    event = bench.scene.finding(instance)
    volume = bench.instance() if of_other_volume else instance
    (volume,) = bench.volumes(volume)
    old = bench.ec2.create_snapshot(VolumeId=volume, Description="old")["SnapshotId"]
    incident = {"forensic:isolated-at": began, "forensic:finding": event["detail"]["id"]}
    bench.tag(instance, incident | {"forensic:snapshots": f"{began} {old}"})
    bench.tag(old, incident | {"forensic:instance": instance})

    report = bench.outcome("evidence", event)

    assert len(bench.snapshots(instance)) == 2
    assert old not in {s["id"] for s in report["snapshots"]}


def test_a_failed_snapshot_is_taken_again(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    bench.outcome("evidence", event)
    (broken,) = bench.snapshots(instance)
    ec2_backends[ACCOUNT][REGION].snapshots[broken["SnapshotId"]].status = "error"

    report = bench.outcome("evidence", event)

    states = {s["id"]: s["state"] for s in report["snapshots"]}
    assert report["status"] == "done" and sorted(states.values()) == ["completed", "error"]
    assert states[broken["SnapshotId"]] == "error"


@pytest.mark.parametrize(
    "kind, left, told",
    [
        ("spot", (False, False, "stop"), "EC2 has none for Spot Instances"),
        ("instance-store", (True, False, "terminate"), "cannot be stopped"),
        ("managed", OPEN, "it is managed by eks.amazonaws.com"),
    ],
)
def test_what_the_instance_cannot_have_is_told_and_no_failure(bench, kind, left, told):
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if kind == "spot" else {}
    instance = bench.instance(**spot, InstanceInitiatedShutdownBehavior="terminate")
    of = {"region": REGION, "account_id": ACCOUNT}
    if kind == "instance-store":
        double.put_root_on_instance_store(instance, **of)
    if kind == "managed":
        double.make_managed(instance, **of)
    event = bench.scene.finding(instance)
    before = bench.settings(instance)

    first = bench.outcome("evidence", event)

    assert first["status"] == "done" and f"Not possible here: {name(kind)}, " in first["detail"]
    assert told in first["detail"] and bench.settings(instance) == left
    assert len(bench.snapshots(instance)) == 1
    assert bench.outcome("evidence", event)["facts"] == first["facts"]
    bench.outcome("evidence-back", event)
    assert bench.settings(instance) == before


def name(kind):
    return "stop protection" if kind == "instance-store" else "termination protection"


def test_what_ec2_calls_unsupported_is_told_and_no_failure(bench):
    instance = bench.instance()
    bench.cloud.fail(
        "ModifyInstanceAttribute",
        "UnsupportedOperation",
        message="not for this kind",
        when=lambda call: "DisableApiStop" in call.parameters,
        times=None,
    )

    report = bench.outcome("evidence", bench.scene.finding(instance))

    assert "Not possible here: stop protection, EC2 says 'not for this kind'" in report["detail"]


def test_a_managed_instance_of_which_no_snapshot_is_allowed_is_told(bench):
    instance = bench.instance()
    double.make_managed(instance, region=REGION, account_id=ACCOUNT)
    bench.cloud.fail("CreateSnapshots", "OperationNotPermitted", times=None)

    report = bench.outcome("evidence", bench.scene.finding(instance))

    assert report["status"] == "skipped"
    assert "snapshots, OperationNotPermitted; it is managed by" in report["detail"]


@pytest.mark.parametrize(
    "key, word",
    [
        ("forensic:settings", "rubbish"),
        ("forensic:settings", "disableApiStop=True"),
        ("forensic:settings", "i-0=delete"),
        ("forensic:snapshots", "snap-x"),
    ],
)
def test_a_word_that_means_nothing_is_named_and_the_release_ends(bench, key, word):
    instance = bench.instance()
    before = bench.settings(instance)
    event = bench.scene.finding(instance)
    bench.outcome("evidence", event)
    bench.tag(instance, {key: f"{bench.scene.tags(instance)[key]} {word}"})

    failed = error(bench.run("evidence-back", event))

    assert f"in the record: {word}: means nothing" in failed
    assert bench.settings(instance) == before
    assert not {"forensic:settings", "forensic:snapshots"} & set(bench.scene.tags(instance))


@pytest.mark.parametrize(
    "operation, when, part, left",
    [
        (
            "ModifyInstanceAttribute",
            "DisableApiTermination",
            "termination protection",
            (False, True, "stop"),
        ),
        ("ModifyInstanceAttribute", "DisableApiStop", "stop protection", (True, False, "stop")),
        (
            "ModifyInstanceAttribute",
            "InstanceInitiatedShutdownBehavior",
            "shutdown behaviour",
            (True, True, "terminate"),
        ),
        ("CreateSnapshots", None, "snapshots", KEPT),
        ("DescribeInstanceTypes", None, "instance store", KEPT),
    ],
)
def test_one_part_is_refused_the_others_are_done_and_the_retry_completes(
    bench, operation, when, part, left
):
    instance = bench.instance(delete=[True, True], InstanceInitiatedShutdownBehavior="terminate")
    before = bench.everything(instance)
    event = bench.scene.finding(instance)
    bench.cloud.fail(
        operation,
        "UnauthorizedOperation",
        when=lambda call: when is None or when in call.parameters,
    )

    failed = bench.run("evidence", event)

    assert part in error(failed) and "UnauthorizedOperation" in error(failed)
    assert bench.settings(instance) == left
    assert set(bench.volumes(instance).values()) == {False}
    assert len(bench.snapshots(instance)) == (0 if part == "snapshots" else 2)
    bench.cloud.call_log.clear()

    bench.outcome("evidence", event)

    assert bench.settings(instance) == KEPT
    assert len(bench.snapshots(instance)) == 2
    expected = {"ModifyInstanceAttribute": 1, "CreateSnapshots": 1}.get(operation, 0)
    writes = [
        c.operation
        for c in bench.cloud.call_log.by("custodian-evidence")
        if c.operation in ("ModifyInstanceAttribute", "CreateSnapshots")
    ]
    assert writes == [operation] * expected
    bench.outcome("evidence-back", event)
    assert bench.everything(instance) == before


def test_one_volume_that_is_refused_does_not_keep_the_others(bench):
    instance = bench.instance(delete=[True, True, True])
    second = list(bench.volumes(instance))[1]
    bench.cloud.fail(
        "ModifyInstanceAttribute",
        "InvalidInstanceAttributeValue",
        when=lambda call: "/dev/sdb" in str(call.parameters.get("BlockDeviceMappings")),
        times=None,
    )

    failed = bench.run("evidence", bench.scene.finding(instance))

    assert f"{second}: InvalidInstanceAttributeValue" in error(failed)
    assert [v for v, delete in bench.volumes(instance).items() if delete] == [second]


def test_a_setting_that_cannot_be_read_once_is_recorded_and_set_all_the_same(bench):
    instance = bench.instance()
    before = bench.settings(instance)
    event = bench.scene.finding(instance)
    bench.cloud.fail(
        "DescribeInstanceAttribute",
        "UnauthorizedOperation",
        when=lambda call: call.parameters["Attribute"] == "disableApiStop",
    )

    assert bench.outcome("evidence", event)["status"] == "done"

    assert bench.settings(instance) == KEPT
    bench.outcome("evidence-back", event)
    assert bench.settings(instance) == before


def test_a_setting_that_cannot_be_read_is_named_and_not_changed_without_a_record(bench):
    instance = bench.instance()
    before = bench.settings(instance)
    event = bench.scene.finding(instance)
    bench.cloud.fail(
        "DescribeInstanceAttribute",
        "UnauthorizedOperation",
        times=None,
        when=lambda call: (
            call.parameters["Attribute"] == "disableApiStop" and call.caller == "custodian-evidence"
        ),
    )

    failed = bench.run("evidence", event)

    assert "stop protection: UnauthorizedOperation" in error(failed)
    assert bench.settings(instance) == (True, False, "stop")
    bench.outcome("evidence-back", event)
    assert bench.settings(instance) == before


def test_a_record_that_is_refused_is_told_and_all_is_protected(bench):
    instance = bench.instance(InstanceInitiatedShutdownBehavior="terminate")
    (volume,) = bench.volumes(instance)
    bench.cloud.fail(
        "CreateTags",
        "TagLimitExceeded",
        when=lambda call: any(t["Key"] == "forensic:settings" for t in call.parameters["Tags"]),
    )

    failed = bench.run("evidence", bench.scene.finding(instance))

    for word in ("TagLimitExceeded", "disableApiStop=False", f"{volume}=delete"):
        assert word in error(failed)
    assert bench.settings(instance) == KEPT and bench.volumes(instance) == {volume: False}
    assert len(bench.snapshots(instance)) == 1


def test_a_setting_that_does_not_stay_is_not_called_protected(bench):
    instance = bench.instance()

    def undo(call):
        bench.ec2.modify_instance_attribute(InstanceId=instance, DisableApiStop={"Value": False})

    bench.cloud.before(
        "DescribeInstanceAttribute",
        undo,
        when=lambda call: (
            call.parameters["Attribute"] == "disableApiStop" and call.caller == "custodian-evidence"
        ),
        times=None,
    )

    assert "EC2 does not show the new value" in error(
        bench.run("evidence", bench.scene.finding(instance))
    )


def test_a_volume_that_does_not_stay_kept_is_not_called_kept(bench):
    instance = bench.instance()
    (volume,) = bench.volumes(instance)

    def undo(call):
        bench.ec2.modify_instance_attribute(
            InstanceId=instance,
            BlockDeviceMappings=[{"DeviceName": "/dev/sda", "Ebs": {"DeleteOnTermination": True}}],
        )

    bench.cloud.before(
        "DescribeInstances",
        undo,
        when=lambda call: call.caller == "custodian-evidence",
        times=None,
    )

    failed = error(bench.run("evidence", bench.scene.finding(instance)))

    assert f"{volume}: PolicyExecutionError: EC2 does not show the new value" in failed


def test_a_volume_attached_later_is_kept_and_named_as_not_in_the_snapshots(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    first = bench.outcome("evidence", event)
    late = bench.attach(instance)

    report = bench.outcome("evidence", event)

    assert report["status"] == "done" and report["facts"] != first["facts"]
    assert bench.volumes(instance)[late] is False
    assert f"not in the snapshots: {late}" in report["detail"]
    assert len(bench.snapshots(instance)) == 1
    bench.outcome("evidence-back", event)
    assert bench.volumes(instance)[late] is True


def test_a_volume_attached_in_the_meantime_is_kept_too(bench):
    instance = bench.instance()
    attached = []
    bench.cloud.before(
        "ModifyInstanceAttribute", lambda call: attached.append(bench.attach(instance))
    )

    report = bench.outcome("evidence", bench.scene.finding(instance))

    assert set(bench.volumes(instance).values()) == {False}
    assert attached[0] in {s["volume_id"] for s in report["snapshots"]}


def test_a_volume_detached_since_is_named_on_release(bench):
    instance = bench.instance(delete=[True, True])
    event = bench.scene.finding(instance)
    data = list(bench.volumes(instance))[1]
    bench.outcome("evidence", event)
    bench.ec2.detach_volume(VolumeId=data, InstanceId=instance)

    report = bench.outcome("evidence-back", event)

    assert (
        report["status"] == "done"
        and f"No longer attached, nothing to put back: {data}" in (report["detail"])
    )


def test_an_instance_store_is_named(bench):
    stored, plain = bench.instance(size="m5d.large"), bench.instance()

    with_store = bench.outcome("evidence", bench.scene.finding(stored))
    without = bench.outcome("evidence", bench.scene.finding(plain))

    assert "instance store of m5d.large (75 GB) cannot be snapshotted" in with_store["detail"]
    assert "instance store" not in without["detail"]


def test_many_volumes_fit_into_the_record(bench):
    instance = bench.instance(delete=[True] * 10, InstanceInitiatedShutdownBehavior="terminate")
    more = [bench.attach(instance, f"/dev/xvd{a}{b}") for a in "bc" for b in "abcdefgh"]
    before = bench.everything(instance)
    event = bench.scene.finding(instance)

    assert bench.outcome("evidence", event)["status"] == "done"
    assert len(bench.snapshots(instance)) == 10 + len(more)
    assert "forensic:settings:2" in bench.scene.tags(instance)

    bench.outcome("evidence-back", event)
    assert bench.everything(instance) == before


def test_a_stopped_instance(bench):
    instance = bench.instance()
    bench.ec2.stop_instances(InstanceIds=[instance])

    assert bench.outcome("evidence", bench.scene.finding(instance))["status"] == "done"

    assert bench.settings(instance) == KEPT and len(bench.snapshots(instance)) == 1


def test_a_terminated_instance(bench):
    instance = bench.instance()
    bench.ec2.terminate_instances(InstanceIds=[instance])

    report = bench.outcome("evidence", bench.scene.finding(instance))

    assert report["status"] == "skipped" and "terminated" in report["detail"]


def test_an_exempt_instance(bench):
    instance = bench.instance()
    bench.ec2.create_tags(Resources=[instance], Tags=[{"Key": "forensic:exempt", "Value": ""}])

    assert bench.outcome("evidence", bench.scene.finding(instance))["status"] == "exempt"

    assert bench.settings(instance)[:2] == (False, False) and not bench.snapshots(instance)


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(bench):
    instance = bench.instance(delete=[True, False])
    before = bench.everything(instance), bench.scene.tags(instance)

    report = bench.outcome("evidence-plan", bench.scene.finding(instance))

    assert report["status"] == "planned"
    for told in ("termination protection", "stop protection", "1 of 2 volumes", "snapshot"):
        assert told in report["detail"]
    assert (bench.everything(instance), bench.scene.tags(instance)) == before
    operations = {c.operation for c in bench.cloud.call_log.by("custodian-evidence-plan")}
    assert not {o for o in operations if not o.startswith(("Describe", "Assume"))}


def test_a_dry_run_of_the_revert_changes_nothing(bench):
    instance = bench.instance()
    event = bench.scene.finding(instance)
    bench.outcome("evidence", event)
    before = bench.everything(instance)

    report = bench.outcome("evidence-back-plan", event)

    assert report["status"] == "planned" and "disableApiStop=False" in report["detail"]
    assert bench.everything(instance) == before


def test_a_revert_that_is_refused_keeps_the_record(bench):
    instance = bench.instance()
    before = bench.everything(instance)
    event = bench.scene.finding(instance)
    bench.outcome("evidence", event)
    bench.cloud.fail(
        "ModifyInstanceAttribute",
        "UnauthorizedOperation",
        when=lambda call: "DisableApiStop" in call.parameters,
    )

    failed = bench.run("evidence-back", event)

    assert "stop protection: UnauthorizedOperation" in error(failed)
    assert bench.settings(instance) == (False, True, "stop")
    assert "forensic:settings" in bench.scene.tags(instance)

    bench.outcome("evidence-back", event)
    assert bench.everything(instance) == before


def test_a_rate_limit_of_snapshots_is_waited_for(bench):
    instance = bench.instance()
    bench.cloud.fail("CreateSnapshots", "SnapshotCreationPerVolumeRateExceeded")

    assert bench.outcome("evidence", bench.scene.finding(instance))["status"] == "done"

    assert len(bench.snapshots(instance)) == 1


def test_the_outcome_is_json_and_short(bench):
    instance = bench.instance()

    report = bench.outcome("evidence", bench.scene.finding(instance))

    assert json.dumps(report) and re.fullmatch(r"[^\n]+", report["detail"])
