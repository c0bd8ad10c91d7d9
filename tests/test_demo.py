"""`make demo`: what a reader sees, and that its exit code tells whether all went well."""

import functools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from custom_actions.finding_file import read_finding
from simulation import demo, playing
from simulation.cloud import Cloud
from simulation.story import Story

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "tests" / "findings"
ID = re.compile(r"\b(?:i|eni|sg|snap|vol|acl|vpc)-(?=[0-9a-f]*\d)[0-9a-f]*")


def as_a_process(*arguments):
    """As `make demo`, with real cold starts and real time."""
    return subprocess.run(
        [sys.executable, "-m", "simulation.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def quick(monkeypatch):
    """The demo in this process, where neither cold starts nor waiting are the point."""
    monkeypatch.setattr(playing, "Cloud", functools.partial(Cloud, warm=True, wound=True))


@pytest.fixture
def run(quick, monkeypatch, capsys):
    def run(tmp_path, *arguments):
        arguments = [*map(str, arguments), "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["simulation.demo", *arguments])
        code = demo.main()
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture
def other_policies(tmp_path, monkeypatch):
    """`change(name, old, new)` has the demo deploy, and people run, another policy."""
    folder = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", folder)
    deployment = playing.deploy.deployment

    def with_them(cloud, arguments, *where):
        here = [str(a).replace("policies/ec2-", f"{folder}/ec2-") for a in arguments]
        return deployment(cloud, here + ["--folder", folder] * (arguments[0] == "deploy"), *where)

    monkeypatch.setattr(playing.deploy, "deployment", with_them)

    def change(name, old, new):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def can_be_read(said):
    """Whatever the finding is: 80 columns, whole ids, nothing empty, and a mail that is there."""
    lines = said.splitlines()
    for line in lines:
        assert len(line) <= 80 or len(line[11:].split()) == 1, line
    assert "None" not in said and "\x1b" not in said
    assert all(len(each.partition("-")[2]) in (8, 17) for each in ID.findall(said))
    assert Path(lines[-1]).suffix == ".html" and Path(lines[-1]).is_file()
    return " ".join(said.split())


def test_the_story_of_the_scenario(tmp_path):
    played = as_a_process("--output", tmp_path)

    assert played.returncode == 0, played.stdout + played.stderr
    said, lines = can_be_read(played.stdout), played.stdout.splitlines()
    assert len(lines) <= 60
    assert len([line for line in lines if line[:10].strip()]) <= 30  # begin with a label
    assert "Nothing goes to AWS" in lines[0] and "7 policies by make deploy" in said
    seen = [
        said.index(words)
        for words in (
            "the finding is on the event bus",
            "AWS call 10 of ec2-isolate swaps the groups of eni-0000000000000000a",
            "isolate-instance done: swaps every group",
            "cordon-node nothing to do: ECS has no container instance of it",
            "All security groups have been removed and it has been isolated. Please follow up",
            "i-0abc1234def567890 TargetSecurityGroup -> ForensicSecurityGroup",
            "Read back 1 of 1 interfaces hold only ForensicSecurityGroup",
            "make release INSTANCE=i-0abc1234def567890 REGION=us-west-2",
            "everything as before: ",
            "as it was written",
            "Verdict As it should be: isolated, 2 neighbours untouched; released",
        )
    ]
    assert seen == sorted(seen)
    assert "to app-owner@example.com, security@example.com GuardDuty Remediation | ID: " in said
    assert "GuardDuty Finding | ID: 1ab2c3d4e5f60718293a4b5c6d7e8f90: The EC2" in said
    assert "s3://evidence-bucket-" in said and "ec2:DescribeInstances" not in said
    assert lines[-1] == str(tmp_path / "2-guardduty-remediation.html")
    saved = {path.name for path in tmp_path.iterdir()}
    assert {"before.json", "after.json", "lambda.log"} <= saved
    for number, mail in enumerate(("finding", "remediation", "release"), 1):
        assert {f"{number}-guardduty-{mail}.eml", f"{number}-guardduty-{mail}.html"} <= saved
    before, after = (
        json.loads((tmp_path / name).read_text()) for name in ("before.json", "after.json")
    )
    assert len(before) == 3 and sum(before[i] != after[i] for i in before) == 1


def test_each_file_that_is_no_finding_is_named_and_nothing_is_played(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "README.md").write_text("no finding, and not asked for")
    (tmp_path / "folder" / "no.json").write_text('{"hello": "world"}')
    shutil.copy(FINDINGS / "ec2-port-probe.json", tmp_path / "a finding.json")

    good, folder = tmp_path / "a finding.json", tmp_path / "folder"
    played = as_a_process(good, folder, f"{tmp_path}/x.json {tmp_path}/y.json")

    assert played.returncode == 2 and not played.stdout
    lines = played.stderr.splitlines()
    assert [line.partition(".json: ")[0][-2:] for line in lines] == ["no", "/x", "/y"], lines
    assert [name for name, _ in demo.read([str(good), f"{FINDINGS}/ec2-port-probe.json"])] == [
        "a finding",
        "ec2-port-probe",
    ]


@pytest.mark.slow
def test_who_interrupts_it_reads_a_line_and_no_trace(tmp_path):
    command = [sys.executable, "-u", "-m", "simulation.demo", "--output", tmp_path]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **piped) as played:
        assert any(line.startswith("Finding") for line in played.stdout)
        played.send_signal(signal.SIGINT)
        _, said = played.communicate(timeout=30)
    assert played.returncode == 130
    assert said == "\nInterrupted. Nothing of it goes on running.\n"


@pytest.mark.slow
def test_several_findings_that_change_nothing_each_say_why(run, tmp_path):
    names = (
        *("ec2-port-probe", "s3-bucket-anonymous-access", "iam-user-malicious-ip-caller"),
        *("ec2-malicious-ip-caller-inbound", "ec2-malicious-ip-caller-sample"),
        *("ec2-malicious-ip-caller-archived", "unknown-severity"),
    )
    folder = tmp_path / "findings"
    folder.mkdir()
    for name in names:
        shutil.copy(FINDINGS / f"{name}.json", folder)

    played = run(tmp_path / "output", folder)

    assert played.returncode == 0, played.stdout + played.stderr
    said = can_be_read(played.stdout)
    together = said.partition("7 findings")[2]
    for name, why in {
        "ec2-port-probe": "no rule matches this finding: nothing happens, on purpose: "
        "finding-notify: its severity is 2, the policy's least is 4",
        "s3-bucket-anonymous-access": "mailed, nothing changed, on purpose: no policy acts on",
        "iam-user-malicious-ip-caller": "mailed, nothing changed, on purpose: "
        "iam-user-deactivate-access-key would act, but is opt-in and not deployed",
        "ec2-malicious-ip-caller-inbound": "mailed, nothing changed, on purpose: ec2-isolate: the "
        "remote side",
        "ec2-malicious-ip-caller-sample": "mailed, nothing changed, on purpose: ec2-isolate: it is "
        "a sample",
        "ec2-malicious-ip-caller-archived": "mailed, nothing changed, on purpose: ec2-isolate: it "
        "is archived",
        "unknown-severity": "mailed, nothing changed, on purpose: no policy acts on",
    }.items():
        assert f"{name}: {why}" in together
    assert "As it should be, of all of them." in together
    assert said.count("the finding names no instance") == 3
    assert (tmp_path / "output" / "1-ec2-malicious-ip-caller-archived" / "before.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("mode, isolated", [("contain", 3), ("ask", 1)])
def test_an_attack_sequence(run, tmp_path, mode, isolated):
    played = run(tmp_path, FINDINGS / "ec2-sequence-half-gone.json", "--mode", mode)

    assert played.returncode == 0, played.stdout + played.stderr
    said = can_be_read(played.stdout)
    assert said.count("make release INSTANCE=i-") == isolated
    assert "3 neighbours" not in said and "EC2 does not know i-" in said
    assert "everything as before: instances" in said
    assert ("3 of 6 isolated, 2 neighbours untouched" in said) is (mode == "contain")


@pytest.mark.slow
def test_verbose_tells_every_call_and_all_details(run, tmp_path):
    played = run(tmp_path, "--verbose", "--mode", "contain")

    assert played.returncode == 0, played.stdout + played.stderr
    said = can_be_read(played.stdout)
    assert "10. ec2:ModifyNetworkInterfaceAttribute eni-0000000000000000a -> sg-" in said
    assert "Lambda custodian-ec2-isolate ended after" in said
    assert "203.0.113.7/32 is denied on acl-" in said and "The recorded groups are back" in said


@pytest.mark.slow
def test_observe_changes_nothing_on_purpose(run, tmp_path):
    played = run(tmp_path, "--mode", "observe")

    assert played.returncode == 0, played.stdout + played.stderr
    said = can_be_read(played.stdout)
    assert "isolate-instance not done: Would put 1 of 1 interfaces" in said
    assert "Mailed, nothing changed, on purpose: the mode is observe." in said
    assert "make release" not in said


@pytest.mark.slow
def test_it_is_red_when_the_release_leaves_something(quick, other_policies, tmp_path):
    """The same story with a release that forgets the network ACL."""
    for action in ("unblock-remote-address", "close-record"):  # the latter would notice
        other_policies("ec2-release.yml", f"      - {action}\n", "")

    ended = playing.play(Story(), read_finding(demo.SCENARIO), tmp_path / "output")

    assert any("network ACLs" in problem for problem in ended.problems)


@pytest.mark.slow
def test_it_is_red_when_a_rule_does_not_match(quick, other_policies, tmp_path):
    """The same story with a slip of the pen in the rule: nothing happens, and not on purpose."""
    other_policies("ec2-isolate.yml", "MaliciousIPCaller.Custom", "MaliciousIPCallr.Custom")

    ended = playing.play(Story(), read_finding(demo.SCENARIO), tmp_path / "output")

    assert ended.problems == [
        "ec2-isolate is to act on this finding by its filters, and its rule did not match"
    ]


@pytest.mark.slow
def test_it_is_red_when_the_instance_is_not_isolated(quick, other_policies, tmp_path, capsys):
    """The same story with a policy that takes another group."""
    other_policies("ec2-isolate.yml", "group: ForensicSecurityGroup", "group: Another")

    code = playing.play_all([("x", read_finding(demo.SCENARIO))], tmp_path / "output")

    said = can_be_read(capsys.readouterr().out)
    assert code == 1 and "i-0abc1234def567890 is not isolated" in said
    assert "Verdict NOT as it should be" in said
