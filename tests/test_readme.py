"""The README's commands, as they stand there, in a fresh clone with an empty environment.

Without credentials what needs AWS says so in a line and ends, within seconds. What works offline is
played whole by `make hammer`.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What a reader puts in the place of what the README names
SAID = {"finding.json": "tests/findings/ec2-malicious-ip-caller.json", "<id>": "0" * 32}
# These are this suite itself, or play it again and again.
SUITE = {"test", "hammer", "mutate", "benchmark"}
OFFLINE = {"demo", "replay", "review", "coverage"}


def commands():
    """The commands of the README's blocks: {target: command}."""
    found = {}
    for line in re.findall(r"^    (make .*)", (ROOT / "README.md").read_text(), re.MULTILINE):
        command = re.sub(r"\s+#.*", "", line)
        for name, value in SAID.items():
            command = command.replace(name, value)
        found[command.split()[1]] = command
    return found


COMMANDS = commands()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone whose environment is the present one: installing it again is what CI does."""
    folder = tmp_path_factory.mktemp("clone") / "pack"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    subprocess.run(["git", "-C", folder, "checkout", "--quiet", "-B", "main"], check=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    os.utime(folder / "requirements.txt", (0, 0))

    def run(command):
        home = folder.parent / "home"
        home.mkdir(exist_ok=True)
        began = time.monotonic()
        done = subprocess.run(
            command.split(),
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout, time.monotonic() - began

    return run


def test_the_readme_has_the_commands_that_a_newcomer_needs():
    assert {"demo", "test", "infra", "deploy", "probe", "status", "isolate", "release"} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("command", [c for t, c in COMMANDS.items() if t not in SUITE | OFFLINE])
def test_without_credentials_it_is_a_line(clone, command):
    code, output, seconds = clone(command)

    assert_is_short(code, output, seconds)


def assert_is_short(code, output, seconds):
    """A line of what is missing; of mailer.yml a line for each value that is still the example."""
    said = [line for line in output.splitlines() if not line.startswith("make: ***")]
    assert code != 0 and "Traceback" not in output, output
    if "mailer.yml" in output:
        assert said[-1] == "Nothing was changed or sent.", output
    else:
        assert len(said) == 1 and "no AWS credentials" in said[0], output
    assert seconds < 30  # a net for what retries for minutes; the machine may be busy


OTHERS = """
infra-org
stackset ORGANIZATIONAL_UNITS=ou-abcd-12345678 REGIONS=us-west-2
accounts
dryrun REGION=us-west-2
plan REGION=us-west-2
undeploy REGION=us-west-2
deploy-org
plan-org
undeploy-org
status-org
isolated-org
dlq-org
probe-org
revoke-sessions REGION=us-west-2 FINDING=x.json
empty-forensic-group REGION=us-west-2 GROUP=sg-0abc1234
restore-sessions ROLE=web FINDING=x
deactivate-key REGION=us-west-2 FINDING=x.json
reactivate-key USER_NAME=web KEY=AKIAIOSFODNN7EXAMPLE FINDING=x
mail
mail-test TO=security@example.com
mail-dlq
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS.split("\n")[1:-1])
def test_so_it_is_of_every_other_target(clone, command):
    code, output, seconds = clone(f"make {command}")

    assert code != 0 and "Traceback" not in output and output.count("\n") < 25, output
    assert seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for t, c in COMMANDS.items() if t in OFFLINE])
def test_what_works_offline_works(clone, command):
    code, output, _ = clone(command)

    assert code == 0, output
