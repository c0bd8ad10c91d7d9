"""tests/test_contract.py, held against what is not right: it says in a sentence what to add."""

import copy
from types import SimpleNamespace

import pytest
import test_contract as contract
import test_least_privilege as privilege
import yaml

from infra import permissions

PATH = contract.ROOT / "policies" / "opt-in" / "ec2-new.yml"


def new(path=PATH, source="ec2-isolate", **mode):
    """A policy ec2-new, like one that is there."""
    policy = copy.deepcopy(contract.BY_NAME[source]) | {"name": "ec2-new"}
    policy["mode"] |= {"role": "guardduty-response-ec2-new", **mode}
    return policy


def without(policy, *keys):
    inner = policy
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return policy


@pytest.mark.parametrize(
    "check, policy, sentence",
    [
        (
            contract.test_policy_says_what_it_is,
            new() | {"metadata": new()["metadata"] | {"runbook": "docs/runbook.md#ec2-new"}},
            "policy ec2-new: add to docs/runbook.md the section `ec2-new`",
        ),
        (
            contract.test_policy_says_what_it_is,
            without(new(), "metadata"),
            "policy ec2-new: add to its metadata a title",
        ),
        (
            contract.test_policy_has_a_folder_of_findings,
            new(),
            "policy ec2-new: add a finding that it acts on to tests/ec2-new/positive",
        ),
        (
            contract.test_policy_has_a_folder_of_findings,
            without(new(), "mode"),
            "policy ec2-new: add a test that plays it, tests/ec2-new/test_ec2_new.py",
        ),
        (
            contract.test_policy_that_runs_in_lambda_brings_the_pack_along,
            without(new(), "mode", "packages"),
            r"policy ec2-new: make `packages` of its mode \['custom_actions'\]",
        ),
        (
            contract.test_a_policy_for_findings_acts_on_no_sample_archived_or_foreign_one,
            new(pattern={"detail": {"type": ["x"]}}),
            r'policy ec2-new: add `accountId: \["{account_id}"\]` to pattern.detail',
        ),
        (
            contract.test_a_policy_for_findings_acts_on_no_sample_archived_or_foreign_one,
            new() | {"filters": []},
            "policy ec2-new: add `- {type: guard-duty-finding, types: ",
        ),
        (
            contract.test_what_becomes_a_function_is_named_wherever_each_is,
            new(),
            "policy ec2-new: add `RoleName: guardduty-response-ec2-new` to infra/account.yml: the",
        ),
    ],
)
def test_a_policy_that_lacks_something(check, policy, sentence):
    with pytest.raises(AssertionError, match=f"^{sentence}"):
        check(PATH, policy)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a policy and have the contract know it."""

    def write(policy):
        path = tmp_path / "ec2-new.yml"
        path.write_text(yaml.safe_dump({"policies": [policy]}))
        monkeypatch.setitem(contract.BY_NAME, "ec2-new", policy)
        contract.changing.cache_clear()
        return path

    return write


def test_a_policy_that_would_act_on_samples_or_on_what_nobody_is_told_of(written, monkeypatch):
    policy = new()
    policy["filters"][0] |= {"samples": True}
    check = contract.test_a_policy_for_findings_acts_on_no_sample_archived_or_foreign_one
    with pytest.raises(
        AssertionError, match="^policy ec2-new: take `samples: true` off its filter"
    ):
        check(written(policy), policy)

    policy = without(new(), "mode", "execution-options", "max-per-hour")
    check = contract.test_how_far_and_where_a_policy_may_go_is_said_at_the_deploy
    with pytest.raises(
        AssertionError, match="^policy ec2-new: make `execution-options` .*max-per-hour"
    ):
        check(written(policy), policy)

    policy, notify = new(), copy.deepcopy(contract.BY_NAME["finding-notify"])
    notify["filters"][0]["left-out"] = [{"prefix": "Backdoor:EC2/"}]
    monkeypatch.setitem(contract.BY_NAME, "finding-notify", notify)
    with pytest.raises(AssertionError, match="^policy ec2-new: take {'prefix': 'Backdoor:EC2/'} o"):
        contract.test_what_is_acted_on_is_also_mailed_as_a_finding(written(policy), policy)


def test_a_finding_mail_that_would_say_something_else_than_the_policies(tmp_path, monkeypatch):
    stale = contract.FINDING_NOTIFY.read_text().replace("- prefix: Trojan:EC2/\n", "", 1)
    monkeypatch.setattr(contract, "FINDING_NOTIFY", tmp_path / "finding-notify.yml")
    contract.FINDING_NOTIFY.write_text(stale)
    with pytest.raises(AssertionError, match="^policies/finding-notify.yml: .* `make catalogue` "):
        contract.test_the_finding_mail_says_what_follows()


def test_what_a_person_would_expect_of_two_that_differ(written, monkeypatch):
    by_hand = copy.deepcopy(contract.BY_NAME["ec2-isolate-by-hand"])
    by_hand["actions"].remove("leave-service")
    monkeypatch.setitem(contract.BY_NAME, by_hand["name"], by_hand)
    with pytest.raises(
        AssertionError, match=r"^policy ec2-isolate-by-hand does \[.* does \[.*same"
    ):
        contract.test_what_is_done_by_hand_is_what_the_function_does(by_hand["name"])

    policy = new()
    policy["filters"] = [{"type": "guard-duty-finding", "types": ["Recon:EC2/Portscan"]}]
    with pytest.raises(AssertionError, match="^policy ec2-new: its rule starts it for Unauthor"):
        contract.test_event_filter_and_pattern_name_the_same_types(written(policy), policy)


def test_a_role_that_allows_something_else_than_its_policy_needs(monkeypatch):
    needed = permissions.roles()["guardduty-guard"]
    check = privilege.test_a_role_allows_what_its_policy_declares_and_no_more
    monkeypatch.setitem(permissions.roles(), "guardduty-guard", needed[1:])
    with pytest.raises(AssertionError, match="^policy guardduty-guard declares sns:Publish: add"):
        check("guardduty-guard")
    more = needed[0]._replace(actions=["ec2:StopInstances"])
    monkeypatch.setitem(permissions.roles(), "guardduty-guard", [*needed, more])
    with pytest.raises(AssertionError, match="^policy guardduty-guard declares no ec2:StopInst"):
        check("guardduty-guard")


def test_a_step_that_lacks_something(monkeypatch):
    key, check = ("ec2", "lacking-step"), contract.test_a_step_is_tried_and_can_be_undone
    step = type("New", (contract.Step,), {"__doc__": "Does something."})
    monkeypatch.setitem(contract.ACTIONS, key, step)
    with pytest.raises(AssertionError, match="^step lacking-step: add a stage, what it acts on"):
        check(*key)

    stages = {"text": 'step = "lacking-step"'}
    root = SimpleNamespace(read_text=lambda: stages["text"])
    monkeypatch.setattr(contract, "STAGES", root)
    with pytest.raises(
        AssertionError, match="^step lacking-step: add a test of what it alone does"
    ):
        check(*key)

    monkeypatch.setattr(contract, "TESTS", [contract.ROOT / "tests/test_contract_says.py"])
    with pytest.raises(AssertionError, match="^step lacking-step: add its revert beside it"):
        check(*key)
    step.__doc__ = "Does something. There is no revert: nobody wants it back."
    check(*key)
