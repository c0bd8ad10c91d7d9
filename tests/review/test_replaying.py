"""What `make replay` shows of findings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import botocore.session
import pytest
import yaml
from click.testing import CliRunner

from custom_actions.finding_file import read_finding
from review import replay
from review.decision import Unmatched
from review.shape import oddities

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "tests" / "findings"
SCENARIO = FINDINGS / "ec2-malicious-ip-caller.json"
PORT_PROBE = FINDINGS / "ec2-port-probe.json"


def pascal(value):
    """An event's finding in the spelling of GuardDuty's API, which `get-findings` prints."""
    shape = botocore.session.Session().get_service_model("guardduty").shape_for("Finding")

    def renamed(value, shape):
        if isinstance(value, list):
            return [renamed(item, shape.member) for item in value]
        if not isinstance(value, dict):
            return value
        names = {m.serialization.get("name"): (n, m) for n, m in shape.members.items()}
        return {
            name: renamed(item, member)
            for key, item in value.items()
            if key in names
            for name, member in [names[key]]
        }

    return renamed(value, shape)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What somebody exported, a target of brute force, and a file that is no finding."""
    folder = tmp_path_factory.mktemp("findings")
    exported = [pascal(read_finding(path)["detail"]) for path in (SCENARIO, PORT_PROBE)]
    (folder / "exported.json").write_text(json.dumps({"Findings": exported}))
    target = FINDINGS / "ec2-ssh-brute-force-target.json"
    (folder / "target.json").write_bytes(target.read_bytes())
    (folder / "list.json").write_text("[1]")
    gone = FINDINGS / "ec2-sequence-half-gone.json"
    (folder / "sequence.json").write_text(json.dumps([pascal(read_finding(gone)["detail"])]))
    return folder


@pytest.fixture(scope="module")
def played(folder):
    return {one.pop("finding"): one for one in replay.replayed(folder)}


def test_an_exported_finding_isolates_in_the_steps_of_the_policy(played):
    one = played["exported.json [1]"]

    assert one["isolated"] == one["regrouped"] == ["i-0abc1234def567890"]
    assert one["oddities"] == [] and one["problem"] is None
    isolate = one["policies"]["ec2-isolate"]
    assert isolate["unmatched"] == [] and isolate["stopped"] is None and isolate["error"] is None
    assert isolate["filters"] == [{"filter": "guard-duty-finding", "passed": True}]
    assert [step["step"] for step in isolate["steps"]][0] == "isolate-instance"
    # a play has no evidence bucket
    skipped = [step["step"] for step in isolate["steps"] if step["status"] == "skipped"]
    assert skipped == ["write-case"]
    assert {s["status"] for s in isolate["steps"]} == {"done", "unchanged", "skipped"}
    calls = [call["call"] for call in isolate["calls"]]
    swap = calls.index("ec2:ModifyNetworkInterfaceAttribute")
    assert calls.index("ec2:CreateTags") < swap < calls.index("ec2:CreateNetworkAclEntry")
    assert isolate["calls"][swap]["parameters"]["NetworkInterfaceId"].startswith("eni-")
    for policy, begins in (("finding-notify", "GuardDuty Finding"), ("ec2-isolate", "GuardDuty R")):
        (mail,) = one["policies"][policy]["mails"]
        assert mail["subject"].startswith(begins) and mail["to"] == ["security@example.com"]
        assert "i-0abc1234def567890" in mail["text"] and mail["problems"] == []


def test_an_attack_sequence_isolates_those_of_its_instances_that_are_there(played, capsys):
    one = played["sequence.json"]

    assert len(one["isolated"]) == 3 and one["isolated"] == one["regrouped"]
    assert one["problem"] is None and one["oddities"] == []
    isolate = one["policies"]["ec2-isolate"]
    fates = {s["resource"]: s["status"] for s in isolate["steps"] if "isolated" in s}
    assert [i for i, status in fates.items() if status == "done"] == one["isolated"]
    assert list(fates.values()) == ["done", "skipped"] * 3
    (mail,) = isolate["mails"]
    assert "3 of 6 instances isolated" in mail["subject"] and mail["problems"] == []
    replay.show([{"finding": "sequence.json"} | one], False)
    shown = capsys.readouterr().out
    assert all(instance in shown for instance in fates)
    assert shown.count("EC2 knows no such instance") < 10  # once each, not at every step


def test_who_decided_against_it_is_said(played):
    probe = played["exported.json [2]"]["policies"]
    (policy,) = yaml.safe_load((ROOT / "policies/ec2-isolate.yml").read_text())["policies"]
    types = policy["mode"]["pattern"]["detail"]["type"]
    assert probe["ec2-isolate"]["unmatched"] == [
        f"detail.type is 'Recon:EC2/PortProbeUnprotectedPort', none of the {len(types)} of the rule"
    ]
    assert (
        "detail.resource.accessKeyDetails.userType: the finding has none"
        in (probe["iam-role-revoke-sessions"]["unmatched"])
    )
    assert not any(of["mails"] or of["calls"] for of in probe.values())

    target = played["target.json"]
    assert target["isolated"] == [] and target["regrouped"] == []
    assert "is not the one that acts" in target["policies"]["ec2-isolate"]["stopped"]
    assert target["policies"]["ec2-isolate"]["filters"][0]["passed"] is False
    (why,) = target["policies"]["finding-notify"]["unmatched"]  # low: mailed by default no more
    assert why == "detail.severity is 2, none of the 2 of the rule"


def test_what_is_no_finding_is_said_and_stops_no_other(played):
    assert "a int, where an event or a finding is expected" in played["list.json"]["problem"]


def test_the_terminal_shows_it_and_obeys_no_finding(played, capsys):
    told = json.loads(json.dumps(played["exported.json [1]"])) | {"finding": "a.json"}
    told["policies"]["ec2-isolate"]["stopped"] = "[red]\x1b[2J"
    target = played["target.json"] | {"finding": "b.json"}

    replay.show([told, target, {"finding": "c.json", "problem": "no finding"}], calls=True)

    text = capsys.readouterr().out
    for words in (
        "Isolated: i-0abc1234def567890. 2 mails.",
        "Nothing isolated. 0 mails.",
        "isolate-instance: done",
        "ec2:ModifyNetworkInterfaceAttribute",
        "stopped: [red]?[2J",
        "no finding",
        "nothing was asked of AWS",
    ):
        assert words in text
    assert "\x1b" not in text


def test_a_finding_with_fields_missing_or_of_a_wrong_type_is_told_in_plain_words():
    event = read_finding(SCENARIO)
    assert oddities(event) == []
    finding = event["detail"]
    del finding["id"]
    finding["severity"] = "high"
    finding["resource"]["instanceDetails"]["networkInterfaces"] = {"a": 1}
    finding["service"]["action"] = ["x"]
    event["account"], event["region"], finding["region"] = "12", "us-wset-2", "us-wset-2"

    interfaces = "detail.resource.instanceDetails.networkInterfaces"
    assert sorted(oddities(event)) == [
        "'us-wset-2' is not a region that AWS has. Did you mean us-west-2?",
        "account '12' is none: it has no twelve digits",
        "detail.id is missing",
        f"{interfaces} is an object, where GuardDuty has a list",
        "detail.service.action is a list, where GuardDuty has an object",
        "detail.severity is a text, where GuardDuty has a number",
    ]


def test_a_rule_with_one_value_says_which():
    assert str(Unmatched("detail.a", ["x"], "y")) == "detail.a is 'y', the rule wants 'x'"


def test_without_any_finding_it_is_refused(tmp_path):
    ran = CliRunner().invoke(replay.replay, [str(tmp_path)])
    assert ran.exit_code == 2 and f"{tmp_path} has no file *.json." in ran.output

    ran = CliRunner().invoke(replay.replay, [str(tmp_path / "none.json")])
    assert ran.exit_code == 2 and "No such file" in ran.output


def test_whatever_credentials_lie_about_nothing_goes_to_aws(tmp_path):
    """A profile that is not there, a proxy and an endpoint where nobody listens: whoever used one
    of them would fail."""
    nobody = "http://127.0.0.1:9"
    environment = os.environ | {
        "AWS_PROFILE": "production",
        "AWS_ACCESS_KEY_ID": "AKIAREALLYREALLYREAL",
        "AWS_ENDPOINT_URL": nobody,
        "HTTPS_PROXY": nobody,
        "AWS_DEFAULT_REGION": "eu-central-1",
        "PYTHONPATH": str(ROOT),
    }

    ran = subprocess.run(
        [sys.executable, "-m", "review", "replay", str(SCENARIO), "--json", "--mode", "observe"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr
    (told,) = json.loads(ran.stdout)
    assert told["isolated"] == []
    assert {s["status"] for s in told["policies"]["ec2-isolate"]["steps"]} <= {
        "planned", "unchanged", "done", "skipped",
    }  # fmt: skip
    assert "OBSERVE ONLY" in told["policies"]["ec2-isolate"]["mails"][0]["subject"]
