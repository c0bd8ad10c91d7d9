"""make new-policy and make new-step: what they make works, and what is refused leaves nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from deployment import policies
from infra.permissions import Loader
from review import __main__ as review

ROOT = Path(__file__).parents[2]
EDITED = [
    "infra/account.yml",
    "infra/member-role.yml",
    "infra/operators.yml",
    "policies/finding-notify.yml",
    "policies/forensic-group-guard.yml",
    "policies/isolation-guard.yml",
    "policies/response-guard.yml",
    "docs/runbook.md",
    "custom_actions/record.py",
    "tests/conformance/stages.py",
]


def run(root, command, *options):
    policies.policies.cache_clear()  # each is a process of its own
    result = CliRunner().invoke(review.main, [command, *options, "--root", str(root)])
    return result.exit_code, result.output


@pytest.fixture
def checkout(tmp_path):
    """The files that are edited, the policies, and the findings that others are made of."""
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    for path in EDITED:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    shutil.copytree(ROOT / "tests" / "findings", tmp_path / "tests" / "findings")
    return tmp_path


def files(root):
    return {path: path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_policy_is_named_wherever_a_function_is_and_a_step_is_registered(checkout):
    longest = "ec2-" + "x" * 26
    for options in (
        ["--name", longest, "--type", "Execution:EC2/SuspiciousFile"],
        ["--name", "iam-x", "--resource", "iam-user"],
        [
            "--name",
            "role-x",
            "--resource",
            "account",
            "--type",
            "Discovery:IAMUser/AnomalousBehavior",
        ],
    ):
        assert run(checkout, "new-policy", *options)[0] == 0, options
    for path in EDITED[:7]:
        text = (checkout / path).read_text()
        assert yaml.load(text, Loader) and max(map(len, text.splitlines())) < 140  # noqa: S506
        assert longest in text or "response-guard" in path, path
    roles = yaml.load((checkout / EDITED[0]).read_text(), Loader)["Resources"]  # noqa: S506
    assert roles["RoleX"]["Properties"]["RoleName"] == "guardduty-response-role-x"
    for template, condition in ((EDITED[0], "MakeRoleX"), (EDITED[1], "WithRoleX")):
        stack = yaml.load((checkout / template).read_text(), Loader)  # noqa: S506
        assert stack["Parameters"]["WithRoleX"]["Default"] == "no", "opt-in: in no account unasked"
        assert stack["Resources"]["RoleX"]["Condition"] == condition in stack["Conditions"]
    (notify,) = yaml.safe_load((checkout / "policies/finding-notify.yml").read_text())["policies"]
    follows = notify["actions"][0]["followed-by"]
    assert follows[longest] | {"title": ""} == {
        "title": "",
        "resource": "ec2",
        "resource-types": ["Instance"],
        "opt-in": True,
        "filters": [{"type": "guard-duty-finding", "types": ["Execution:EC2/SuspiciousFile"]}],
    }
    assert {"iam-x", "role-x", "ec2-isolate"} < {*follows}
    for policy, kind, ending in (
        (longest, "positive", ""),
        (longest, "sample", "-sample"),
        (longest, "negative", "-archived"),
        (longest, "negative", "-of-a-member"),
        ("finding-notify", "positive", "-archived"),
        ("finding-notify", "sample", "-sample"),
        ("finding-notify", "positive", "-of-another-type"),
    ):
        link = checkout / f"tests/{policy}/{kind}/{longest}{ending}.json"
        assert link.is_symlink() and link.resolve().parent == checkout / "tests/findings", link
    (policy,) = yaml.safe_load((checkout / "policies/opt-in/iam-x.yml").read_text())["policies"]
    assert policy["actions"][0] == "deactivate-access-key"
    assert "max-per-hour" not in policy["mode"]["execution-options"]
    (policy,) = yaml.safe_load((checkout / f"policies/opt-in/{longest}.yml").read_text())[
        "policies"
    ]
    assert policy["mode"]["execution-options"]["max-per-hour"] == "{max-per-hour}"

    assert run(checkout, "new-step", "--name", "mark-it")[0] == 0
    step = (checkout / "custom_actions/steps/mark_it.py").read_text()
    assert 'register("undo-mark-it", UndoMarkIt, "ec2")' in step
    for path in checkout.rglob("*.py"):
        compile(path.read_text(), path, "exec")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["new-policy", "--name", "Ec2"], "NAME=Ec2 is not two or more words in small letters"),
        (["new-policy", "--name", "../x-y"], "NAME=../x-y is not two or more words"),
        (["new-policy", "--name", "ec2-" + "x" * 27], "of at most 30 characters"),
        (["new-policy", "--name", "a-b", "--type", "Nonsense"], "TYPE=Nonsense is no finding type"),
        (
            ["new-policy", "--name", "a-b", "--type", "Policy:S3/BucketPublicAccessGranted"],
            "is no finding type of ec2, <purpose>:EC2/<what> or <purpose>:Runtime/<what>",
        ),
        (
            ["new-policy", "--name", "a-b", "--type", "CryptoCurrency:EC2/BitcoinTool.B"],
            "policy ec2-isolate acts on TYPE=CryptoCurrency:EC2/BitcoinTool.B already",
        ),
        (["new-policy", "--name", "there-already"], "policies/opt-in/there-already.yml is there"),
        (["new-policy", "--name", "ec2-isolate"], "policies/ec2-isolate.yml is there already"),
        (["new-policy", "--name", "cut-it"], "tests/cut-it is there already"),
        (
            ["new-policy", "--name", "dead-letters"],
            "NAME=dead-letters: infra/account.yml has DeadLetters in its Resources already",
        ),
        (
            ["new-policy", "--name", "forensic-group"],
            "NAME=forensic-group: infra/account.yml has ForensicGroup in its Resources already",
        ),
        (
            ["new-step", "--name", "fail-unless-complete"],
            "NAME=fail-unless-complete: custom_actions.response.FailUnlessComplete is "
            "fail-unless-complete of ec2 already",
        ),
        (["new-step", "--name", "modify-security-groups"], "is modify-security-groups of ec2 alre"),
        (["new-step", "--name", "isolate"], "NAME=isolate is not two or more words"),
    ],
)
def test_what_is_refused_is_said_and_changes_nothing(checkout, arguments, sentence):
    there = checkout / "policies/opt-in/there-already.yml"
    there.write_text("policies: []\n")
    (checkout / "tests/cut-it").mkdir()
    before = files(checkout)

    code, output = run(checkout, *arguments)

    assert code == 2 and sentence in output and "Traceback" not in output
    assert files(checkout) == before


@pytest.mark.slow
def test_by_contributing_alone_a_new_policy_and_a_new_step_pass_the_suite(tmp_path):
    """The three moves of CONTRIBUTING.md, as they stand there, without the second."""
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    for path in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True).stdout.split("\n"):
        if path and (ROOT / path).is_file():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path, follow_symlinks=False)

    def python(*arguments):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
        return done.stdout

    new = ["--name", "ec2-miners", "--type", "Execution:EC2/SuspiciousFile"]
    python("-m", "review", "new-policy", *new)
    python("-m", "review", "new-step", "--name", "mark-for-imaging")
    python("-m", "infra.permissions")
    python("-m", "review", "catalogue")
    python("-m", "review", "finding-types")
    python("-m", "ruff", "check", ".")
    python("-m", "ruff", "format", "--check", ".")
    python("-m", "yamllint", "--strict", ".")
    policies = sorted(map(str, (tmp_path / "policies").rglob("*.yml")))
    python("-m", "custom_actions", "custodian", "validate", "--strict", *policies)
    quick = ["-n", "0", "-q", "-p", "no:cacheprovider"]
    contributing = re.split(r'[\s"`,]+', (ROOT / "CONTRIBUTING.md").read_text())
    for named, of in (
        ("tests/ec2-miners tests/test_contract.py tests/test_least_privilege.py "
         "tests/test_shipped_roles.py tests/test_central_mode.py",
         "ec2-miners or ec2_miners or Ec2Miners"),
        ("tests/test_findings.py tests/review/test_coverage.py tests/review/test_catalogue.py", ""),
        ("tests/conformance tests/test_contract.py tests/test_record.py",
         "mark-for-imaging or mark_for_imaging"),
    ):  # fmt: skip
        assert {*named.split(), *of.split()} <= {*contributing}
        python("-m", "pytest", *quick, *named.split(), *(["-k", of] if of else []))
