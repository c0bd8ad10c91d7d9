"""Changes to policies as a pull request brings them, and what `make review` says of each."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from review.compare import compared
from review.record import recorded
from review.report import fenced, markdown, words
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
    return found, markdown(found | {"reach": reach(base, head), "unjudged": []})


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
        policy["actions"].insert(0, policy["actions"].pop(3))

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
        "other words in 5 mails",
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


def test_what_a_stranger_writes_is_no_markup():
    evil = "@everyone <img src=x> [a](http://b) `c` | **d** \x1b[2J\n# e"

    # what a renderer makes of it: test_report.py
    for part in ("@e", " <img", " [", " `", " |", "**", "\x1b", "\n"):
        assert part not in words(evil)
    block = fenced("a\n````\n# out")
    assert block.startswith("`````diff\n") and block.endswith("\n`````")


def test_what_a_play_of_findings_cannot_judge_is_said():
    said = "\n".join(unjudged(["infra/account.yml", "policies/isolation-guard.yml", "README.md"]))

    assert "infra/ changed" in said and "policies/isolation-guard.yml: not for findings" in said
    assert unjudged(["policies/ec2-isolate.yml", "docs/runbook.md"]) == []
