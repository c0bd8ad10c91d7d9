"""The shipped policies against recorded answers, without a network.

placebo gives the recorded answers in order and ignores what is asked. So each test asserts what
was sent, and that every recording was used, once.
"""

import filecmp
import json
import re
from collections import Counter
from datetime import datetime

import pytest
import scenarios
from c7n.exceptions import PolicyExecutionError

from custom_actions import record


class Recorded(datetime):
    """The clock of the recordings: an incident begins when its snapshots say that it did."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 23, 9, tzinfo=tz)


class Replay:
    def __init__(self, name, monkeypatch):
        self.folder = scenarios.RECORDINGS / name
        self.event = json.loads((self.folder / "event.json").read_text())
        self.instance = self.event["detail"]["resource"]["instanceDetails"]["instanceId"]
        # Nothing listens there: a call that is not recorded cannot succeed by accident.
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setattr(record, "datetime", Recorded)
        self.factory = scenarios.Factory(self.folder, "playback")

    def isolate(self):
        return scenarios.run("ec2-isolate", self.event, self.factory)

    def release(self):
        return scenarios.run("ec2-release", None, self.factory, self.instance)

    def answer(self, operation, number=1):
        (path,) = self.folder.glob(f"*.{operation}_{number}.json")
        return json.loads(path.read_text())["data"]

    @property
    def sent(self):
        return self.factory.sent

    def sent_to(self, operation):
        return [parameters for name, parameters in self.sent if name == operation]

    def groups_before(self):
        (reservation,) = self.answer("DescribeInstances")["Reservations"]
        return {
            i["NetworkInterfaceId"]: [g["GroupId"] for g in i["Groups"]]
            for i in reservation["Instances"][0]["NetworkInterfaces"]
        }

    def unused(self):
        """Recordings against calls: empty when each was used exactly once."""
        recorded = Counter(
            re.fullmatch(r"\w+\.(\w+)_\d+\.json", path.name)[1]
            for path in self.folder.glob("*_*.json")
        )
        called = Counter(operation for operation, _ in self.sent)
        return (recorded - called) + (called - recorded)


@pytest.fixture
def replay(request, monkeypatch):
    replay = Replay(request.param, monkeypatch)
    yield replay
    assert not replay.unused(), "recordings that were not used, or used twice"


def scenario(name):
    return pytest.mark.parametrize("replay", [name], indirect=True)


def swaps(replay):
    return {
        p["NetworkInterfaceId"]: p["Groups"]
        for p in replay.sent_to("ModifyNetworkInterfaceAttribute")
    }


@scenario("isolate")
def test_isolate(replay):
    replay.isolate()

    before = replay.groups_before()
    (group,) = replay.answer("DescribeSecurityGroups")["SecurityGroups"]
    operation, request = replay.sent[0]
    assert (operation, request["InstanceIds"]) == ("DescribeInstances", [replay.instance])
    assert swaps(replay) == dict.fromkeys(before, [group["GroupId"]])
    tags = replay.sent_to("CreateTags")
    record, notified = tags[0], tags[-1]
    (state,) = [t for t in tags if "forensic:state" in str(t["Tags"])]
    # with the claim, which the brake counts, in one call
    *recorded, claim = record["Tags"]
    assert set(record["Resources"]) == {*before, group["GroupId"]}
    assert {t["Key"].split(":")[2]: t["Value"].split() for t in recorded} == before
    assert claim["Key"] == f"forensic:record:{replay.instance}"
    (tidied,) = [t for t in replay.sent_to("DeleteTags") if t["Resources"] == [group["GroupId"]]]
    assert {t["Key"] for t in tidied["Tags"]} == {t["Key"] for t in recorded}
    assert state["Resources"] == notified["Resources"] == [replay.instance]
    assert {"Key": "forensic:state", "Value": "isolated"} in state["Tags"]
    operations = [operation for operation, _ in replay.sent]
    assert operations.index("CreateTags") < operations.index("ModifyNetworkInterfaceAttribute")
    assert operations.index("DescribeNetworkInterfaces") < operations.index("Publish")
    # every other step comes after the swap of the last interface
    swapped = max(i for i, o in enumerate(operations) if o == "ModifyNetworkInterfaceAttribute")
    for step in ("CreateNetworkAclEntry", "CreateSnapshots", "ModifyInstanceAttribute"):
        assert operations.index(step) > swapped
    # with their locks, and then the scan
    last = ["CreateSnapshots", "LockSnapshot", "DescribeLockedSnapshots", "StartMalwareScan"]
    assert [o for o in operations if o in last] == last
    denies = replay.sent_to("CreateNetworkAclEntry")
    assert {(d["CidrBlock"], d["Egress"], d["RuleAction"]) for d in denies} == {
        ("203.0.113.7/32", False, "deny"),
        ("203.0.113.7/32", True, "deny"),
    }
    (message,) = replay.sent_to("Publish")
    assert message["TopicArn"].endswith(":guardduty-response")


@scenario("isolate-without-group")
def test_isolate_without_group(replay):
    replay.isolate()

    (made,) = replay.sent_to("CreateSecurityGroup")
    group = replay.answer("CreateSecurityGroup")["GroupId"]
    assert made["GroupName"] == "ForensicSecurityGroup"
    (revoked,) = replay.sent_to("RevokeSecurityGroupEgress")
    shown = replay.answer("DescribeSecurityGroups", 2)["SecurityGroups"][0]
    assert revoked["GroupId"] == group
    assert revoked["IpPermissions"] == shown["IpPermissionsEgress"]
    assert set(map(tuple, swaps(replay).values())) == {(group,)}


@scenario("isolate-again")
def test_isolate_again(replay):
    replay.isolate()

    reads = ("Describe", "Get", "List")
    assert [o for o, _ in replay.sent if not o.startswith(reads)] == []


@scenario("isolate-refused")
def test_isolate_refused(replay):
    refused = replay.answer("ModifyNetworkInterfaceAttribute", 2)["Error"]["Code"]

    with pytest.raises(PolicyExecutionError, match=refused):
        replay.isolate()

    assert len(swaps(replay)) == 2
    (state,) = [t for t in replay.sent_to("CreateTags") if "forensic:state" in str(t)]
    assert {"Key": "forensic:state", "Value": "incomplete"} in state["Tags"]
    assert len(replay.sent_to("Publish")) == 1


@scenario("release")
def test_release(replay):
    replay.release()

    interfaces = replay.answer("DescribeNetworkInterfaces")["NetworkInterfaces"]
    recorded = {
        i["NetworkInterfaceId"]: next(
            t["Value"].split()
            for t in i["TagSet"]
            if t["Key"] == f"forensic:original-groups:{i['NetworkInterfaceId']}"
        )
        for i in interfaces
    }
    assert replay.sent[0][1]["Filters"] == [{"Name": "instance-id", "Values": [replay.instance]}]
    assert swaps(replay) == recorded
    forgotten = [p for p in replay.sent_to("DeleteTags") if set(recorded) <= set(p["Resources"])]
    assert [set(p["Resources"]) for p in forgotten] == [{replay.instance, *recorded}]
    for parameters in replay.sent_to("DeleteTags"):
        assert all(t["Key"].startswith("forensic:") for t in parameters["Tags"])
    assert len(replay.sent_to("DeleteNetworkAclEntry")) == 2


def test_every_scenario_has_recordings_and_the_other_way_round():
    assert {p.name for p in scenarios.RECORDINGS.iterdir()} == set(scenarios.NAMES)


@pytest.mark.parametrize("name", scenarios.NAMES)
def test_recording_again_gives_the_same_files(name, tmp_path, monkeypatch):
    """The recordings are of the code as it is: `make record` would change nothing."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", scenarios.REGION)

    scenarios.record(name, tmp_path / name)

    comparison = filecmp.dircmp(tmp_path / name, scenarios.RECORDINGS / name)
    assert comparison.left_only == comparison.right_only == comparison.diff_files == []
