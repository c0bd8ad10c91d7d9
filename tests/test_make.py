"""The make targets that work on an account, run as the README says, in the simulated cloud."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ACCOUNT, REGION = "111122223333", "us-west-2"
RELEASE = ["release", f"REGION={REGION}", "INSTANCE=i-0abc1234def567890"]

ISOLATE = ["isolate", f"REGION={REGION}", "INSTANCE=i-0abc1234def567890"]


@pytest.fixture
def make(scene):
    def run(*arguments):
        environment = scene.cloud.environment(ACCOUNT, REGION) | {"PATH": os.environ["PATH"]}
        finished = subprocess.run(
            ["make", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return finished.returncode, finished.stdout

    return run


def test_deploy_deploys_what_has_a_mode_and_runs_nothing(make, scene, pack):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)
    functions.delete_function(FunctionName="custodian-ec2-isolate")

    code, output = make("deploy", f"REGION={REGION}", "MODE=contain")

    assert code == 0, output
    names = {f["FunctionName"] for f in functions.list_functions()["Functions"]}
    assert {"custodian-ec2-isolate", "custodian-finding-notify"} <= names
    assert "custodian-ec2-release" not in names
    assert scene.is_isolated(instance)


def test_install_takes_the_newest_python_that_starts(tmp_path):
    """A name that is found need not start: pyenv has one for each version that it knows."""

    def python(version, does):
        path = tmp_path / f"python{version}"
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def chosen(*arguments):
        plan = subprocess.run(
            ["make", "-n", "install", "VENV=/nowhere", *arguments],
            cwd=ROOT,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        ).stdout
        return plan.split(" -m venv ")[0]

    for version, does in (("3.13", "exit 127"), ("3.12", "echo here"), ("3.11", "echo here")):
        python(version, does)
    assert chosen() == "python3.12"
    python("3.13", "echo here")
    assert chosen() == "python3.13"
    assert chosen("PYTHON=python3.11") == "python3.11"


def test_dryrun_changes_nothing(make, scene):
    instance = scene.instance()
    before = scene.interfaces(instance), scene.tags(instance)
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)
    deployed = functions.list_functions()["Functions"]

    code, output = make("dryrun", f"REGION={REGION}")

    assert code == 0 and re.search(r"ec2-isolate +. \d ec2", output), output
    assert (scene.interfaces(instance), scene.tags(instance)) == before
    assert functions.list_functions()["Functions"] == deployed


def test_release_releases_the_named_instance(make, scene, pack):
    instance = scene.instance(scene.groups)
    before = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))

    code, output = make("release", f"INSTANCE={instance}", f"REGION={REGION}")

    assert code == 0, output
    assert scene.interfaces(instance) == before


def test_isolate_isolates_the_named_instance(make, scene):
    instance, neighbour = scene.instance(), scene.instance()

    code, output = make("isolate", f"INSTANCE={instance}", f"REGION={REGION}")

    assert code == 0, output
    assert scene.is_isolated(instance) and not scene.is_isolated(neighbour)


def test_one_policy_alone_can_be_deployed(make):
    code, output = make("deploy", "REGION=us-east-1", "MODE=ask", "POLICY=response-guard")

    assert code == 2 and "role" not in output, output
    assert "topic guardduty-response, queue guardduty-response-dlq: not there" in output


def test_the_status_of_an_organisation_takes_accounts_and_tags(make):
    plan = make("-n", "status-org", "ACCOUNTS=a,b", "TAGS=x:1", "WHO=1", "JSON=1")[1]

    said = "status -c accounts.yml -a a,b -t x:1 --who --json"
    assert said in " ".join(plan.replace('"', "").split())


def test_groups_are_said_on_the_command_line_and_are_not_those_of_bash(make):
    said = "eni-0123456789abcdef0=sg-0123456789abcdef0,sg-0fedcba9876543210"

    plans = [make("-n", *RELEASE, *more)[1] for more in ([f"GROUPS={said}"], [])]

    assert f'--groups "{said}"' in plans[0] and '--groups ""' in plans[1]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([*RELEASE, "ARCHIVE=yes"], "ARCHIVE is 1"),
        ([*RELEASE, "RECORD=;"], "RECORD=;"),
        ([*ISOLATE, "FINDNG=x"], "FINDNG: not a variable of any target"),
        (["case", "INSTANCE=i-0abc1234def567890"], "say REGION=..."),
        (["release", "INSTANCE=i-0abc1234def567890"], "say REGION=..."),
        (["revoke-sessions", f"REGION={REGION}"], "say FINDING=..."),
        (["deploy"], "say REGION=..."),
        (["status"], "say REGION=..."),
        (["infra"], "say REGION=..."),
        (["stackset", f"REGIONS={REGION}"], "say ORGANIZATIONAL_UNITS=..."),
        (["status", "REGION=us-wst-2"], "Did you mean us-west-2?"),
        (["infra", f"REGION={REGION}", "PARAMETERS=PublisherArn=x"], "Did you mean PublisherArns?"),
        (["deploy", f"REGION={REGION}", "MODE=maybe"], "'maybe' is not one of"),
    ],
)
def test_what_is_missing_or_wrong_is_said(make, arguments, reason):
    code, output = make(*arguments)

    assert code != 0 and reason in output


def test_what_people_look_at(make, scene, pack):
    """What the commands do is tried in tests/deployment/test_responding.py."""
    instance = scene.instance()
    pack.isolate(scene.finding(instance))

    code, output = make("isolated", f"REGION={REGION}")

    assert code == 0 and f"make release INSTANCE={instance} REGION={REGION}" in output
    for wrong in (
        ["isolated"],
        ["dlq"],
        ["dlq", f"REGION={REGION}", "REPLAY=0"],
        ["dlq", f"REGION={REGION}", "FINDING=a b"],
        ["probe"],
        ["probe", f"REGION={REGION}"],  # with mailer.yml as it was shipped
        ["mail-test"],
        ["mail-test", "TO=security@example.com"],
        ["deploy-mailer"],
    ):
        assert make(*wrong)[0] == 2, wrong
    assert not [c for c in scene.cloud.calls if c.operation == "CreateSampleFindings"]
