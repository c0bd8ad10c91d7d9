"""What a person does by hand: how it went is a line a step, and what is wrong is one line."""

import json

import pytest
from click.testing import CliRunner

from deployment import by_hand as commands
from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"
POLICIES = {
    "isolate": "policies/ec2-isolate-by-hand.yml",
    "release": "policies/ec2-release.yml",
    "empty-forensic-group": "policies/forensic-group-empty-by-hand.yml",
}


@pytest.fixture
def by_hand(scene):
    def run(command, *arguments):
        arguments = [command, POLICIES[command], "--region", REGION, *arguments]
        done = deploy.deployment(scene.cloud, arguments, ACCOUNT, REGION)
        return done.returncode, done.stdout

    return run


def test_release_of_one_that_is_not_isolated_is_a_line_and_no_mail(scene, by_hand, pack):
    instance = scene.instance()

    code, output = by_hand("release", "--instance", instance)

    assert (code, output.count("\n")) == (1, 1), output
    assert output.startswith(f"{instance} is not isolated, and nothing is on record of it")
    assert pack.messages() == []


def test_all_instances_of_a_finding_are_released(scene, by_hand, pack):
    """Shown first: a dry run puts nothing back and mails nobody."""
    instances, other = [scene.instance(), scene.instance(scene.groups)], scene.instance()
    before = {one: scene.interfaces(one) for one in instances}
    finding = "0" * 31 + "1"
    for one in instances:
        pack.isolate(scene.finding(one, id=finding))
    pack.isolate(scene.finding(other))
    isolated = {one: (scene.interfaces(one), scene.tags(one)) for one in instances}
    pack.messages()

    code, output = by_hand("release", "--finding", finding, "--dryrun")

    assert code == 0 and "Nothing was changed" in output, output
    assert "would      release-instance: " in output
    assert all(f"{one} " in output for one in instances) and other not in output
    assert {one: (scene.interfaces(one), scene.tags(one)) for one in instances} == isolated
    assert pack.messages() == []

    code, output = by_hand("release", "--finding", finding)

    assert code == 0 and "done       release-instance: " in output, output
    assert {one: scene.interfaces(one) for one in instances} == before
    assert scene.is_isolated(other) and len(pack.messages()) == 2

    code, output = by_hand("release", "--finding", finding)
    assert code == 2 and f"no instance in {ACCOUNT} {REGION} is isolated by finding" in output


def test_what_fails_is_named_and_told_in_a_line(scene, by_hand, pack):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    (interface,) = scene.interfaces(instance)
    tags = [{"Key": f"forensic:original-groups:{interface}", "Value": scene.groups[1]}]
    scene.ec2.create_tags(Resources=[interface], Tags=tags)

    code, output = by_hand("release", "--instance", instance)

    assert code == 1 and "FAILED     verify-record: the record: " in output, output
    assert "Traceback" not in output and "NOT complete" in output
    assert scene.is_isolated(instance)


def test_isolate_and_its_dry_run(scene, by_hand, tmp_path):
    instance, event = scene.instance(), tmp_path / "finding.json"
    event.write_text(json.dumps(scene.finding(instance)))

    code, output = by_hand("isolate", "--instance", instance, "--dryrun")
    assert code == 0 and "would      isolate-instance: " in output, output
    assert not scene.is_isolated(instance)

    code, output = by_hand("isolate", "--instance", instance, "--finding", str(event))
    assert code == 0 and "done       isolate-instance: " in output, output
    assert scene.is_isolated(instance)

    scene.ec2.terminate_instances(InstanceIds=[other := scene.instance()])
    code, output = by_hand("isolate", "--instance", other)
    assert code == 1 and output.endswith("NOT isolated: the reason stands above.\n"), output

    for command, about in (
        ("isolate", ["--instance", "i-0abc1234def567899"]),
        ("release", ["--instance", "i-0abc1234def567899"]),
        ("empty-forensic-group", ["--group", "sg-0abc1234"]),
    ):
        code, output = by_hand(command, *about)
        assert (code, output.count("\n")) == (1, 1), output
        assert f" in {ACCOUNT} {REGION}. Nothing was changed." in output
        assert output.startswith(f"There is no {about[0][2:]} {about[1]}")


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"AWS_ACCESS_KEY_ID": None, "AWS_EC2_METADATA_DISABLED": "true"}, "no AWS credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
    ],
)
def test_what_is_wrong_around_it_is_one_line(scene, monkeypatch, by_hand, changed, said):
    environment = scene.cloud.environment
    replaced = lambda *place: {  # noqa: E731
        key: value for key, value in (environment(*place) | changed).items() if value is not None
    }
    monkeypatch.setattr(scene.cloud, "environment", replaced)

    code, output = by_hand("isolate", "--instance", "i-0abc1234def567890")

    assert code == 1 and output.startswith("error: ") and said in output, output
    assert output.count("\n") == 1 and "VERBOSE=1" in output


INSTANCE = ["--instance", "i-0abc1234def567890"]


@pytest.mark.parametrize(
    "command, policy, arguments, said",
    [
        ("isolate", "ec2-isolate-by-hand", ["--instance", "web-1"], "INSTANCE=web-1 is not the id"),
        ("isolate", "ec2-isolate-by-hand", [*INSTANCE, "--finding", "x'y"], "FINDING=x'y is not"),
        (
            "isolate",
            "ec2-isolate-by-hand",
            [*INSTANCE, "--evidence-bucket", "x'y"],
            "EVIDENCE_BUCKET=x'y is not the name",
        ),
        ("release", "ec2-release", [], "say INSTANCE=... or FINDING=..."),
        ("release", "ec2-release", [*INSTANCE, "--record", ";"], "RECORD=; is not the word"),
        ("release", "ec2-release", [*INSTANCE, "--groups", "x'y"], "GROUPS=x'y is not eni-"),
        (
            "release",
            "ec2-release",
            ["--finding", "f1", "--record", "abc"],
            "RECORD and GROUPS are of one instance",
        ),
        (
            "empty_forensic_group",
            "forensic-group-empty-by-hand",
            ["--group", "web"],
            "GROUP=web is",
        ),
    ],
)
def test_what_is_misspelt_is_refused_before_anything_is_asked(command, policy, arguments, said):
    place = [f"policies/{policy}.yml", "--region", REGION]

    done = CliRunner().invoke(getattr(commands, command), [*place, *arguments])

    assert done.exit_code == 2 and said in done.output
    assert "Nothing was changed." in done.output
