"""Changes to policies as a pull request brings them, and what `make review` says of each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deployment.errors import Refused
from review import revisions
from review.compare import compared
from review.differences import differences
from review.record import recorded
from review.report import markdown
from review.review import reach, unjudged

ROOT = Path(__file__).parents[2]
SCENARIO, TARGET, MINER = (
    "ec2-malicious-ip-caller.json",
    "ec2-ssh-brute-force-target.json",
    "ec2-dns-crypto.json",
)


@pytest.fixture
def revision(tmp_path):
    """A copy of what a revision has for people to edit, and a folder of findings."""

    def make(*findings):
        root = tmp_path / "revision"
        shutil.copytree(ROOT / "policies", root / "policies")
        (root / "mailer").mkdir()
        for file in ("mailer/mailer.yml", "accounts.yml"):
            shutil.copyfile(ROOT / file, root / file)
        return root, folder(tmp_path / "findings", findings)

    return make


def folder(path, findings):
    path.mkdir()
    for name in findings:
        shutil.copyfile(ROOT / "tests" / "findings" / name, path / name)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The pack as it is."""
    findings = folder(tmp_path_factory.mktemp("base") / "findings", [SCENARIO, TARGET, MINER])
    return recorded(findings, ROOT)


@pytest.fixture
def edit(revision):
    """Edit the policy ec2-isolate: `edit(change, *findings)` gives the record of that revision.

    change: gets the policy's data.
    """

    def edited(change, *findings):
        root, found = revision(*findings)
        file = root / "policies" / "ec2-isolate.yml"
        document = yaml.safe_load(file.read_text())
        change(document["policies"][0])
        file.write_text(yaml.safe_dump(document, sort_keys=False, width=60))
        return recorded(found, root)

    return edited


def judged(base, head):
    found = compared(base, head)
    more = {"reach": reach(found["policies"], head, []), "unjudged": []}
    return found, markdown(found | more)


def test_the_role_condition_dropped(base, edit):
    def drop(policy):
        del policy["filters"][0]["actor-only"]

    found, text = judged(base, edit(drop, SCENARIO, TARGET))

    assert found["verdict"][0] == "newly isolating: 1 finding"
    (finding,) = found["findings"]
    assert finding["finding"] == TARGET and finding["isolates"] == 1
    (of,) = finding["policies"]
    assert "is not the one that acts" in of["before"]
    assert "isolate-instance done" in of["after"] and "security@example.com" in of["after"]
    (policy,) = found["policies"]
    (line,) = policy["words"]
    assert line.startswith("filter guard-duty-finding: actor-only removed")
    assert found["mails"] == [] and found["permissions"] == []
    assert text.startswith("**newly isolating: 1 finding")
    assert "**newly isolates**" in text
    # everywhere, since a deploy takes it along; in the mode that accounts.yml has
    assert "| `sandbox (111122223333)` | `us-west-2` | observe | `ec2-isolate` |" in text


def test_a_pattern_narrowed(base, edit):
    def narrow(policy):
        policy["mode"]["pattern"]["detail"]["type"].remove({"prefix": "CryptoCurrency:EC2/"})

    found, text = judged(base, edit(narrow, MINER))

    assert found["verdict"][0] == "no longer isolating: 1 finding"
    (finding,) = found["findings"]
    assert finding["finding"] == MINER
    (of,) = finding["policies"]
    assert of["after"].startswith("the rule does not match: detail.type is 'CryptoCurrency:EC2/")
    # the filter has the same list, by an anchor
    assert found["policies"][0]["words"] == [
        "rule and filter: types without prefix 'CryptoCurrency:EC2/'"
    ]
    assert found["calls"] == []
    assert "**no longer isolates**" in text


def test_an_action_whose_permission_the_role_lacks(base, edit):
    def add(policy):
        policy["actions"].insert(1, "stop")

    found, text = judged(base, edit(add, SCENARIO))

    assert "ec2-isolate needs ec2:StopInstances, which its role lacks" in found["verdict"]
    (finding,) = found["findings"]
    assert finding["policies"] == [
        {"policy": "ec2-isolate", "before": "", "after": "stop done", "acts": 0}  # no role enforced
    ]
    assert found["policies"][0]["words"] == ["action stop: added behind isolate-instance"]
    assert {"policy": "ec2-isolate", "call": "ec2:StopInstances", "before": 0, "after": 1} in (
        found["calls"]
    )
    assert "which its role lacks" in text.splitlines()[0]


def test_a_step_before_the_swap(base, edit):
    def move(policy):
        (preserve,) = (a for a in policy["actions"] if "preserve-evidence" in str(a))
        policy["actions"].remove(preserve)
        policy["actions"].insert(0, preserve)

    found, text = judged(base, edit(move, SCENARIO))

    (swap,) = [line for line in found["verdict"] if "takes the groups off" in line]
    before, after = found["swap"]["before"], found["swap"]["after"]
    assert after > before
    assert swap.endswith(f"with call {after} instead of {before}, behind preserve-evidence")
    assert "action preserve-evidence: moved to the beginning" in found["policies"][0]["words"]
    assert "behind preserve-evidence" in text.splitlines()[0]


def test_only_written_differently(base, edit):
    found, text = judged(base, edit(lambda policy: None, TARGET))

    assert found["verdict"] == [] and found["policies"] == []
    assert text == "**Nothing changes:** the finding ends as before, in the same calls and mails."


def test_other_words_of_a_mail_and_other_parameters_are_shown_before_and_after(base):
    head = json.loads(json.dumps(base))
    for finding in head["findings"].values():
        for mail in finding["policies"]["finding-notify"]["mails"]:
            mail["text"] = mail["text"].replace("Instance", "Machine")
        for mail in finding["policies"]["ec2-isolate"]["mails"]:
            mail["html"] = mail["html"].replace("#1b1b1b", "#ffffff")
    (made,) = [
        call
        for call in head["findings"][SCENARIO]["policies"]["ec2-isolate"]["calls"]
        if call["call"] == "ec2:CreateSecurityGroup"
    ]
    made["parameters"]["GroupName"] = "Quarantine"

    found, text = judged(base, head)

    assert found["verdict"] == [
        "other parameters in ec2:CreateSecurityGroup",
        "other words in 4 mails",
    ]
    assert "-Instance" in text or "- Instance" in text
    assert "(the same words, other HTML)" in text
    assert '"GroupName": "Quarantine"' in text and "```diff" in text


def test_a_policy_more_one_less_and_a_function_that_fails(base):
    head = json.loads(json.dumps(base))
    head["policies"]["renamed"] = head["policies"].pop("finding-notify") | {"lacks": None}
    finding = head["findings"][SCENARIO]
    finding["policies"]["renamed"] = finding["policies"].pop("finding-notify")
    finding["policies"]["ec2-isolate"] |= {"error": "PolicyExecutionError: no", "mails": []}
    finding["regrouped"] = ["i-0123456789abcdef0"]

    found, text = judged(base, head)

    said = "; ".join(found["verdict"])
    for words_ in (
        "changing another instance: 1 finding",
        "ec2-isolate fails on 1 finding",
        "renamed has no role in infra/account.yml",
        "added: renamed",
        "removed: finding-notify",
    ):
        assert words_ in said
    assert "FAILS: PolicyExecutionError: no" in text


def test_what_a_play_of_findings_cannot_judge_is_said(base):
    guard = {"policy": "isolation-guard", "played": False, "what": "changed"}

    said = "\n".join(unjudged([guard], ["infra/account.yml", "README.md"]))

    assert "infra/ changed" in said and "isolation-guard: not for findings" in said
    assert unjudged([], ["policies/ec2-isolate.yml", "docs/runbook.md"]) == []
    # new code reaches every function
    (sandbox, _) = reach([], base, ["custom_actions/seal.py"])
    assert "ec2-isolate" in sandbox["policies"] and "ec2-release" not in sandbox["policies"]
    assert "iam-user-deactivate-access-key" not in sandbox["policies"]


def test_a_function_that_fails_still_shows_its_steps(base, edit):
    def hurry(policy):
        policy["mode"]["timeout"] = 30

    found, _ = judged(base, edit(hurry, SCENARIO))

    assert "ec2-isolate fails on 1 finding" in found["verdict"]
    (of,) = found["findings"][0]["policies"]
    assert "isolate-instance failed" in of["after"] and "OutOfTime" in of["after"]
    assert found["policies"][0]["words"] == ["mode.timeout is now 30, was 900"]


def test_what_no_finding_shows_is_compared_too(base):
    """Modes of accounts.yml, what roles may, what a deploy takes, the order of calls."""
    head = json.loads(json.dumps(base))
    head["targets"][0]["mode"] = "contain"
    head["policies"]["finding-notify"] |= {
        "opt_in": True,
        "file": "policies/opt-in/finding-notify.yml",
    }
    head["policies"]["ec2-isolate"]["allowed"].append("Allow iam:PutUserPolicy on *")
    calls = head["findings"][SCENARIO]["policies"]["ec2-isolate"]["calls"]
    calls[-2:] = reversed(calls[-2:])

    found, text = judged(base, head)

    assert found["verdict"] == [
        "sandbox (111122223333) us-west-2 is contain, was observe",
        "finding-notify: only deployed by its name now",
        "the role of ec2-isolate may more",
        "calls in another order: ec2-isolate",
    ]
    assert found["allowed"][0]["more"] == ["Allow iam:PutUserPolicy on *"]
    assert found["policies"][0]["words"] == [
        "was policies/finding-notify.yml",
        "only deployed by its name now",
    ]
    assert "Nothing changes" not in text
    assert "- may: `Allow iam:PutUserPolicy on *`" in text


def test_differences_of_filters_and_actions_of_one_name():
    a, b = {"type": "value", "key": "A", "value": 1}, {"type": "value", "key": "B", "value": 2}
    policy = {"filters": [{"tag:Env": "prod"}, a, b], "actions": ["stop", "stop"]}
    other = {"filters": [{"tag:Env": "dev"}, a, b | {"value": 3}], "actions": ["stop", "stop"]}

    assert differences(policy, policy) == []
    assert differences(policy, other) == [
        'filter tag:Env: value is now "dev", was "prod"',
        "filter value: value is now 3, was 2",
    ]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small one, with a finding, a link to it, and JSON that is no finding."""
    root = tmp_path / "repository"
    (root / "tests" / "findings").mkdir(parents=True)
    (root / "tests" / "p" / "positive").mkdir(parents=True)
    (root / "tests" / "other").mkdir()
    (root / "tests" / "findings" / "a.json").write_text("{}")
    (root / "tests" / "p" / "positive" / "a.json").symlink_to("../../findings/a.json")
    (root / "tests" / "p" / "positive" / "b.json").write_text("{}")
    (root / "tests" / "other" / "c.json").write_text("{}")
    monkeypatch.setattr(revisions, "ROOT", root)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        assert revisions.git(*who, *command).returncode == 0
    return root


def test_a_checkout_of_a_revision_and_what_differs_here(repository, tmp_path):
    (repository / "policies.yml").write_text("new")

    with (
        revisions.checkout("HEAD", tmp_path / "one") as one,
        revisions.checkout(None, None) as here,
    ):
        assert (one / "tests" / "findings" / "a.json").exists() and here == repository
        assert revisions.changed_files(one, here) == ["policies.yml"]
        revisions.collect(tmp_path / "found", [one, here])

    assert not (tmp_path / "one").exists()
    assert "one" not in revisions.git("worktree", "list").stdout
    collected = sorted(path.relative_to(tmp_path) for path in (tmp_path / "found").rglob("*.json"))
    assert [str(path) for path in collected] == ["found/findings/a.json", "found/p/positive/b.json"]


@pytest.mark.parametrize("name", ["nosuch", "--help", "HEAD..HEAD", "", "HEAD:tests"])
def test_what_is_no_revision_is_refused(repository, tmp_path, name):
    with (
        pytest.raises(Refused, match="git knows no revision"),
        revisions.checkout(name, tmp_path / "one"),
    ):
        pass


def test_without_a_finding_nothing_is_judged(repository, tmp_path):
    with pytest.raises(Refused, match="There is no finding in"):
        revisions.collect(tmp_path / "found", [tmp_path / "one"])


@pytest.mark.slow
def test_the_command_judges_a_change_of_the_files_here(tmp_path):
    """Two processes, each with the code of its checkout; nothing is left behind."""
    found = folder(tmp_path / "findings", [TARGET])
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    policy = clone / "policies" / "ec2-isolate.yml"
    text = policy.read_text()
    policy.write_text(text.replace("- leave-service", "- leave-servise", 1))
    command = [sys.executable, "-m", "review", "review", "--base", "HEAD", "--findings", found]
    environment = os.environ | {"PYTHONPATH": str(clone), "TMPDIR": str(tmp_path)}

    ran = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)

    assert ran.returncode == 2 and "'leave-servise' is not valid" in ran.stderr
    assert ran.stderr.startswith("the working tree could not be played:")
    assert len(ran.stderr) < 500
    start, end = text.index("        actor-only:"), text.index("        # By what the finding")
    policy.write_text(text[:start] + text[end:])

    ran = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("**newly isolating: 1 finding")
    assert not list(tmp_path.glob("review-*"))
    listed = ["git", "-C", clone, "worktree", "list"]
    assert len(subprocess.check_output(listed).splitlines()) == 1
