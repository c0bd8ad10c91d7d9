"""The case record of an incident: what is in it, that it grows, and how it is proven."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from c7n.exceptions import PolicyValidationError
from pack import ACCOUNT, REGION

from custom_actions import case, provision, timeline
from deployment.case import lost
from simulation import deploy

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "case.schema.json").read_text())
CASE, MANIFEST = "case.json", "manifest.json"


@pytest.fixture(scope="module")
def bucket(cloud):
    return deploy.stack(cloud, "evidence.yml", ACCOUNT, REGION)["BucketName"]


@pytest.fixture(scope="module")
def pack(stacks, bucket):
    deploy.deploy(
        stacks.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION, evidence_bucket=bucket
    )
    return stacks


class Record:
    """The case of an instance in the bucket."""

    def __init__(self, scene, bucket, instance):
        self.s3 = scene.cloud.client("s3", ACCOUNT, REGION)
        self.scene, self.bucket, self.instance = scene, bucket, instance

    def keys(self):
        """The keys of what is in the folder, by name."""
        prefix = f"cases/{ACCOUNT}/{REGION}/{self.instance}-"
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", ())
        return {shown["Key"].rpartition("/")[2]: shown["Key"] for shown in found}

    def body(self, name):
        return self.s3.get_object(Bucket=self.bucket, Key=self.keys()[name])["Body"].read()

    @property
    def case(self):
        document = json.loads(self.body(CASE))
        jsonschema.validate(document, SCHEMA, format_checker=jsonschema.FormatChecker())
        return document

    def versions(self, name=CASE):
        shown = self.s3.list_object_versions(Bucket=self.bucket, Prefix=self.keys()[name])
        return [version["VersionId"] for version in shown["Versions"]]

    def hashes_on_snapshots(self):
        of = [{"Name": "tag:forensic:instance", "Values": [self.instance]}]
        shown = self.scene.ec2.describe_snapshots(Filters=of)["Snapshots"]
        return {
            tag["Value"] for s in shown for tag in s["Tags"] if tag["Key"] == "forensic:case-sha256"
        }

    def command(self, name, *said):
        """`make case` or `make verify-case`: (exit code, output)."""
        arguments = [name, "--region", REGION, *(said or ("--instance", self.instance))]
        done = deploy.deployment(self.scene.cloud, arguments, ACCOUNT, REGION)
        return done.returncode, done.stdout


def outcome(result):
    (outcomes,) = result.values()
    return next(o for o in outcomes if o["step"] == "write-case")


def test_from_the_isolation_to_the_release(scene, pack, bucket, tmp_path):
    instance = scene.instance(scene.groups)
    event = scene.finding(instance)
    event["detail"]["title"] = "\x1b[31mnot a colour"
    pack.deliver(event)

    record = Record(scene, bucket, instance)
    told = outcome(scene.cloud.invocations[-1].result)
    manifest = record.body(MANIFEST)
    hashed = hashlib.sha256(manifest).hexdigest()
    assert told["status"] == "done" and told["manifest_sha256"] == hashed
    (mail,) = pack.messages()
    (said,) = [o for o in mail["resources"][0]["c7n:response"] if o["step"] == "write-case"]
    assert f"s3://{bucket}/cases/{ACCOUNT}/{REGION}/{instance}-" in said["detail"]
    assert hashed in said["detail"] and record.hashes_on_snapshots() == {hashed}
    assert "Enforcing" not in json.dumps(mail) and "Linux version" not in json.dumps(mail)

    case = record.case
    assert case["findings"] == [event["detail"]]
    assert case["described"]["InstanceId"] == instance and len(case["snapshots"]) == 1
    (run,) = case["runs"]
    assert run["by"].endswith("role/guardduty-response-ec2-isolate") and not run["by_hand"]
    ((interface, before),) = run["groups"]["before"].items()
    assert sorted(before) == sorted(scene.groups)
    assert run["groups"]["after"] == {interface: [scene.forensic_group()]}
    calls = [(c["step"], c["operation"]) for c in run["calls"]]
    assert calls[0] == (None, "DescribeInstances")
    (swap,) = [c for c in run["calls"] if c["operation"] == "ModifyNetworkInterfaceAttribute"]
    assert swap["step"] == "isolate-instance" and swap["result"] == "ok" and swap["request_id"]
    assert swap["parameters"]["Groups"] == [scene.forensic_group()]
    made = [c.operation for c in scene.cloud.call_log.by("custodian-ec2-isolate")]
    assert [operation for _, operation in calls] == made[: len(calls)], "every call, in order"
    assert made[len(calls) - 3 :][:4] == [
        *("ListObjectsV2", "DescribeInstances", "DescribeSnapshots"),
        "GetConsoleOutput",
    ]
    assert [o["step"] for o in run["outcomes"]][-1] == "seal-record"
    assert b"Linux version" in record.body("console-output.txt")
    assert record.body("screenshot.jpg").startswith(b"\xff\xd8")
    lock = record.s3.head_object(Bucket=bucket, Key=record.keys()[CASE])
    assert lock["ObjectLockMode"] == "GOVERNANCE" and lock["ContentType"] == "application/json"

    again = outcome(pack.isolate(event).result)
    assert (again["status"], again["manifest_sha256"]) == ("unchanged", hashed)
    assert len(record.versions()) == len(record.versions(MANIFEST)) == 1

    event["detail"] |= {"updatedAt": "2030-01-01T00:00:00Z", "severity": 8}
    pack.isolate(event)
    case = record.case
    assert case["findings"] == [event["detail"]] and len(case["runs"]) == 1, "nothing was done"
    assert case["previous"]["version_id"] in record.versions()

    deploy.release(scene.cloud, tmp_path, instance, ACCOUNT, REGION)
    last = record.case["runs"][-1]
    assert last["by_hand"] and ":assumed-role/OrganizationAccountAccessRole" in last["by"]
    assert sorted(last["groups"]["after"][interface]) == sorted(scene.groups)
    assert "release-instance" in [o["step"] for o in last["outcomes"]]
    assert record.hashes_on_snapshots() == {hashlib.sha256(record.body(MANIFEST)).hexdigest()}

    code, output = record.command("case")
    assert code == 0 and max(map(len, output.splitlines())) <= 80 and "\x1b" not in output
    assert (
        "isolate-instance" in output
        and "ec2-release" in output
        and last["by"] in "".join(output.split())
    )
    code, output = record.command("case", "--finding", event["detail"]["id"], "--json")
    assert code == 0 and json.loads(output) == [record.case]
    code, output = record.command("verify-case")
    assert code == 0 and "as it was written" in output and "3 versions" not in output, output

    copy = tmp_path / "copy"
    copy.mkdir()
    for name in sorted(record.keys()):
        (copy / name).write_bytes(record.body(name))
    assert record.command("verify-case", "--folder", copy)[0] == 0
    (copy / "screenshot.jpg").write_bytes(b"another")
    code, output = record.command("verify-case", "--folder", copy)
    assert code == 1 and "screenshot.jpg: not what was written" in output


def put(record, name, body=b"{}"):
    """Write over a file as whoever took over the role could; the version that this makes."""
    key = record.keys()[CASE].removesuffix(CASE) + name
    return record.s3.put_object(Bucket=record.bucket, Key=key, Body=body)["VersionId"]


def forge(record):
    """A case without a past and a manifest that go together."""
    body = json.dumps(record.case | {"runs": [], "previous": None}).encode()
    manifest = json.loads(record.body(MANIFEST))
    manifest["files"][0] |= {
        "sha256": hashlib.sha256(body).hexdigest(),
        "size": len(body),
        "version_id": put(record, CASE, body),
    }
    put(record, MANIFEST, json.dumps(manifest).encode())


def rewrite(record):
    """A run is altered, and the chain, the manifest and the tags are all in order."""
    before, document = record.body(CASE), record.case
    document["runs"][0]["by"] = "somebody else"
    document["previous"] = {
        "version_id": record.versions()[0],
        "sha256": hashlib.sha256(before).hexdigest(),
    }
    body = json.dumps(document).encode()
    manifest = json.loads(record.body(MANIFEST))
    manifest["files"][0] |= {
        "sha256": hashlib.sha256(body).hexdigest(),
        "size": len(body),
        "version_id": put(record, CASE, body),
    }
    put(record, MANIFEST, json.dumps(manifest).encode())
    tag = {
        "Key": "forensic:case-sha256",
        "Value": hashlib.sha256(record.body(MANIFEST)).hexdigest(),
    }
    record.scene.ec2.create_tags(Resources=[document["snapshots"][0]["id"]], Tags=[tag])


def hide(record):
    """The whole case, by delete markers."""
    for key in record.keys().values():
        record.s3.delete_object(Bucket=record.bucket, Key=key)


def destroy(record):
    """As who may bypass governance; and what needs no such right."""
    name = "screenshot.jpg"
    gone = {"Key": record.keys()[name], "VersionId": record.versions(name)[0]}
    record.s3.delete_object(Bucket=record.bucket, **gone, BypassGovernanceRetention=True)
    record.s3.delete_object(Bucket=record.bucket, Key=record.keys()["console-output.txt"])
    put(record, CASE)
    put(record, "more.txt")


@pytest.mark.parametrize(
    "tamper, said",
    [
        (rewrite, ["case.json: runs", "is not what a later one says"]),
        (hide, ["case.json: somebody has put a delete marker over it"]),
        (forge, ["no later version names version", "not the hash of the manifest"]),
        (
            destroy,
            [
                "screenshot.jpg: the version",
                "of the manifest is not there",
                "console-output.txt: somebody has put a delete marker over it",
                "was put over that of the manifest",
                "more.txt: no manifest names it",
            ],
        ),
    ],
)
def test_what_was_altered_is_named(scene, pack, bucket, tamper, said):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    record = Record(scene, bucket, instance)

    tamper(record)

    code, output = record.command("verify-case")
    assert code == 1 and "ALTERED" in output
    for words in said:
        assert words in output, output


def test_a_bucket_that_refuses_is_named_and_stops_nothing(scene, pack, bucket):
    instance = scene.instance()
    event = scene.finding(instance)
    scene.cloud.fail("PutObject", "AccessDenied")

    failed = pack.isolate(event)

    assert "write-case" in failed.error["errorMessage"] and scene.is_isolated(instance)
    (mail,) = pack.messages()
    (told,) = [o for o in mail["resources"][0]["c7n:response"] if o["step"] == "write-case"]
    assert told["status"] == "failed" and "AccessDenied" in told["error"]
    scene.cloud.call_log.clear()
    assert outcome(pack.isolate(event).result)["status"] == "done"
    assert Record(scene, bucket, instance).command("verify-case")[0] == 0


def test_of_two_that_write_at_once_none_is_lost(scene, pack, bucket):
    instance = scene.instance()
    first, second = (scene.finding(instance, id=f"{n:032x}") for n in (1, 2))
    pack.isolate(first)
    second["detail"]["severity"] = 7
    first["detail"] |= {"updatedAt": "2030-01-01T00:00:00Z"}
    others = []
    scene.cloud.before("PutObject", lambda call: others.append(pack.isolate(first)))

    ran = [pack.isolate(second), *others]

    assert [outcome(one.result)["status"] for one in ran] == ["done", "done"]
    record = Record(scene, bucket, instance)
    assert [f["id"] for f in record.case["findings"]] == [f"{n:032x}" for n in (1, 2)]
    assert len(record.case["runs"]) == 1 and record.command("verify-case")[0] == 0


@pytest.mark.parametrize("name", ["", "A", "arn:aws:s3:::evidence", 7, True])
def test_what_is_no_name_of_a_bucket_is_refused(name):
    data = {"mode": {"execution-options": {"evidence-bucket": name}}, "actions": []}
    with pytest.raises(PolicyValidationError, match="is neither the name of a bucket nor none"):
        provision.settle_evidence(SimpleNamespace(name="p", data=data), dict)


def test_without_a_bucket_nothing_is_asked_and_it_is_said(scene, pack, bucket, by_hand):
    """Nor by a person, unless he names one."""
    instance, tag = scene.instance(), "forensic:evidence-bucket"
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)
    tags = []
    for said in ({"autonomy": "contain"}, {"evidence_bucket": "none"}):
        deploy.deploy(scene.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION, **said)
        shown = functions.get_function(FunctionName="custodian-ec2-isolate")
        tags.append(shown["Tags"].get(tag))
    assert tags == [bucket, None], "a deploy that says nothing leaves it"
    ran = pack.isolate(scene.finding(instance))

    assert outcome(ran.result)["status"] == "skipped"
    called = {(c.service, c.operation) for c in scene.cloud.calls}
    assert "s3" not in {service for service, _ in called}
    assert ("ec2", "GetConsoleOutput") not in called
    said = {"instance": instance, "record": "", "groups": "", "archive": ""}
    said["evidence_bucket"] = ""
    succeeded, output = by_hand("policies/ec2-release.yml", **said)
    assert succeeded and "step:write-case status:skipped" in output
    assert Record(scene, bucket, instance).command("case")[0] == 2


def test_a_case_holds_so_many_runs_and_says_how_many_more_there_were():
    document = case.begun("c", ACCOUNT, REGION, "i-1", "now")
    for number in range(case.MOST_RUNS + 10):
        run = {"id": f"{number:032x}", "began": f"2026-01-01T00:00:{number:02}Z"}
        before, document = document, case.merged(document, run=run)
        assert case.merged(document, run=run) == document
        assert list(lost(before, document)) == []
    assert list(lost(before, document | {"runs": document["runs"][1:]})) == [f"runs {0:032x}"]
    assert list(lost(document, document | {"runs": []})), "what is not counted is missed"

    assert len(document["runs"]) == case.MOST_RUNS and document["runs_left_out"] == 10
    numbers = [int(run["id"], 16) for run in document["runs"]]
    assert numbers == [0, *range(11, case.MOST_RUNS + 10)]
    late = {"id": "late", "began": "2025"}
    assert late in case.merged(document, run=late)["runs"], "whatever the clock of another said"


def test_calls_for_which_there_is_no_room_are_counted(monkeypatch):
    monkeypatch.setattr(timeline, "CALLS", 2)
    timeline.begin()
    for _ in range(5):
        timeline.ended(timeline.begun("ec2", "x", {}), "ok")

    assert len(timeline.of(None)) == 2 and timeline.left_out() == 3
    timeline.begin()
    assert timeline.of(None) == [] and timeline.left_out() == 0
