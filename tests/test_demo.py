"""`make demo`: what a reader sees, and that its exit code tells whether all went well."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from custom_actions.finding_file import read_finding
from simulation import demo
from simulation.cloud import Cloud

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "tests" / "findings"


def as_a_process(tmp_path, *arguments):
    """As `make demo`, with real cold starts and real time."""
    return subprocess.run(
        [sys.executable, "-m", "simulation.demo", *arguments, "--output", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def quick(monkeypatch):
    """The demo in this process, where neither cold starts nor waiting are the point."""
    monkeypatch.setattr(demo, "Cloud", functools.partial(Cloud, warm=True, wound=True))


@pytest.fixture
def run(quick, monkeypatch, capsys):
    def run(tmp_path, *arguments):
        arguments = [*map(str, arguments), "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["simulation.demo", *arguments])
        code = demo.main()
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def test_the_story_of_the_scenario(tmp_path):
    played = as_a_process(tmp_path)

    assert played.returncode == 0, played.stdout + played.stderr
    finding, remediation = (
        played.stdout.index("GuardDuty Finding | ID: 1ab2c3d4e5f60718293a4b5c6d7e8f90: The EC2"),
        played.stdout.index("All security groups have been removed and it has been isolated."),
    )
    swap = played.stdout.index("ec2:ModifyNetworkInterfaceAttribute eni-0000000000000000a")
    assert swap < remediation and finding != remediation
    assert played.stdout.count("GuardDuty-Example:") >= 6  # three instances, before and after
    assert "Read back by the function" in played.stdout
    assert "Everything is as it was before" in played.stdout
    assert "\x1b" not in played.stdout
    saved = {path.name for path in tmp_path.iterdir()}
    assert {"before.json", "after.json", "lambda.log"} <= saved
    for number, mail in enumerate(("finding", "remediation", "release"), 1):
        assert {f"{number}-guardduty-{mail}.eml", f"{number}-guardduty-{mail}.html"} <= saved
    before, after = (
        json.loads((tmp_path / name).read_text()) for name in ("before.json", "after.json")
    )
    assert len(before) == 3 and sum(before[i] != after[i] for i in before) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, isolated",
    [
        ("bare-ec2-malicious-ip-caller", True),
        ("iam-user-malicious-ip-caller", False),
    ],
)
def test_any_other_finding(run, tmp_path, name, isolated):
    played = run(tmp_path, FINDINGS / f"{name}.json")

    assert played.returncode == 0, played.stdout + played.stderr
    assert ("it has been isolated" in played.stdout) is isolated
    assert "GuardDuty Finding | ID:" in played.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mode, isolated", [("contain", 3), ("ask", 1)])
def test_an_attack_sequence(run, tmp_path, mode, isolated):
    event = read_finding(FINDINGS / "ec2-sequence-half-gone.json")
    (tmp_path / "sequence.json").write_text(json.dumps(event))

    played = run(tmp_path / "output", tmp_path / "sequence.json", "--mode", mode)

    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.count("make release INSTANCE=i-") == isolated
    assert "not done here: EC2 knows" in " ".join(played.stdout.split())
    assert "* the 3 instances of the finding" in played.stdout
    assert "Everything is as it was before" in played.stdout


def test_a_file_that_is_no_finding(tmp_path):
    (tmp_path / "no.json").write_text('{"hello": "world"}')

    played = as_a_process(tmp_path, tmp_path / "no.json")

    assert played.returncode == 2 and "no.json" in played.stderr
    assert "Traceback" not in played.stderr


@pytest.mark.slow
def test_it_is_red_when_the_release_leaves_something(quick, tmp_path, monkeypatch, capsys):
    """The same story with a release that forgets the network ACL."""
    policy = yaml.safe_load((ROOT / "policies/ec2-release.yml").read_text())
    for action in ("unblock-remote-address", "close-record"):  # the latter would notice
        policy["policies"][0]["actions"].remove(action)
    (tmp_path / "ec2-release.yml").write_text(yaml.safe_dump(policy))
    custodian = demo.deploy.custodian
    monkeypatch.setattr(
        demo.deploy,
        "custodian",
        lambda cloud, arguments, *where: custodian(
            cloud,
            [
                tmp_path / "ec2-release.yml" if a == "policies/ec2-release.yml" else a
                for a in arguments
            ],
            *where,
        ),
    )

    problems = demo.play(read_finding(demo.SCENARIO), tmp_path / "output")

    assert any("network ACLs" in problem for problem in problems)


@pytest.mark.slow
def test_it_is_red_when_the_instance_is_not_isolated(quick, tmp_path, monkeypatch, capsys):
    """The same story with a policy that takes every instance for exempt."""
    policy = yaml.safe_load((ROOT / "policies/ec2-isolate.yml").read_text())
    policy["policies"][0]["actions"][0]["exempt-tag"] = "Name"
    (tmp_path / "ec2-isolate.yml").write_text(yaml.safe_dump(policy))
    deploy = demo.deploy.deploy
    monkeypatch.setattr(
        demo.deploy,
        "deploy",
        lambda cloud, policies, *where: deploy(
            cloud, [policies[0], tmp_path / "ec2-isolate.yml", *policies[2:]], *where
        ),
    )

    problems = demo.play(read_finding(demo.SCENARIO), tmp_path / "output")

    assert any("is not isolated" in problem for problem in problems)
    assert "NOT as it should be" in capsys.readouterr().out
