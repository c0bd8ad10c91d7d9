"""What the finding mail says happens next is what the policies that act decide."""

import copy
from pathlib import Path

import pytest
import yaml
from c7n.config import Config
from c7n.exceptions import PolicyValidationError
from c7n.loader import PolicyLoader

from custom_actions.headline import NOTICE
from deployment import policies
from review.coverage import functions_of, of_folder
from review.decision import decide
from review.findings import disagreements, findings

TESTS = Path(__file__).parents[1]
POLICIES = of_folder(policies.FOLDER)
FOLLOWS = POLICIES["finding-notify"]["actions"][0]["followed-by"]
LOADER = PolicyLoader(Config.empty(account_id="111122223333", region="us-west-2"))


def loaded(**changes):
    """finding-notify, with another finding-headline."""
    data = copy.deepcopy(POLICIES["finding-notify"])
    data["actions"][0] |= changes
    (policy,) = LOADER.load_data({"policies": [data]}, "memory://")
    policy.validate()
    return policy


def said(event, **changes):
    """What follows by the notice: {policy: why not, or None}."""
    event = copy.deepcopy(event)
    loaded(**changes).resource_manager.actions[0].process([], event)
    return {one["policy"]: one["refusal"] for one in event[NOTICE]["next"]}


def test_it_is_said_of_every_finding_what_each_policy_decides():
    """By their own rules and filters; the account, which a rule asks too, is that of the bus."""
    notify, decided = loaded().resource_manager.actions[0], set()
    for path, event in findings(TESTS).items():
        event = copy.deepcopy(event)
        event["account"] = event["detail"]["accountId"]
        notify.process([], event)
        acting = {one["policy"] for one in event[NOTICE]["next"] if one["refusal"] is None}
        for name in FOLLOWS:
            decision = decide(functions_of(POLICIES[name])(event), event)
            named = bool(event[NOTICE]["instances"]) or POLICIES[name]["resource"] != "ec2"
            assert (name in acting) is (decision.acts and named), f"{path.stem}: {name}"
            decided.add((name, decision.acts))
    assert decided == {(name, acts) for name in FOLLOWS for acts in (True, False)}


def test_why_a_policy_for_such_findings_does_not_act():
    event = next(e for p, e in findings(TESTS).items() if p.stem == "ec2-malicious-ip-caller")
    assert said(event) == {"ec2-isolate": None}

    def changed(**resource):
        other = copy.deepcopy(event)
        other["detail"]["resource"] |= resource
        return said(other)["ec2-isolate"]

    assert changed(resourceType="Other").startswith(
        "the resource is of type 'Other', not Instance or "
    )
    assert changed(resourceType=["x"]).startswith("the resource is of type ['x'], not Instance")
    for nobody in (None, {}, {"instanceId": "i-x"}, {"instanceId": 7}, "text"):
        assert changed(instanceDetails=nobody) == "the finding names no instance"
    role = next(e for p, e in findings(TESTS).items() if p.stem == "iam-role-malicious-ip-caller")
    assert said(role) == {
        "iam-user-deactivate-access-key": "resource.accessKeyDetails.userType is not IAMUser"
    }


def test_a_policy_for_instances_follows_an_attack_sequence_that_names_some():
    entry = copy.deepcopy(FOLLOWS["ec2-isolate"])
    entry["resource-types"].append("AttackSequence")
    entry["filters"][0]["types"].append({"prefix": "AttackSequence:EC2/"})
    resources = [{"uid": "i-0abc1234def567890", "resourceType": "EC2_INSTANCE"}]
    for named, why in ((resources, None), ([], "the finding names no instance")):
        event = {"detail": {"type": "AttackSequence:EC2/CompromisedInstanceGroup"}}
        event["detail"]["resource"] = {"resourceType": "AttackSequence"}
        event["detail"]["service"] = {"detection": {"sequence": {"resources": named}}}
        assert said(event, **{"followed-by": {"some": entry}}) == {"some": why}


@pytest.mark.parametrize(
    "entry, sentence",
    [
        (
            {"filters": [{"type": "value", "key": "account_id", "value": "x"}]},
            "policy:finding-notify action:finding-headline followed-by some: the filter value does",
        ),
        (
            {"filters": [{"type": "guard-duty-finding", "actor-only": ["x"], "types": ["y"]}]},
            "actor-only names .'x'., which types does not",
        ),
        ({"filters": []}, "should be non-empty|too short"),
        ({"resource": "s3"}, "'s3' is not one of"),
    ],
)
def test_what_follows_is_asked_of_the_finding_alone(entry, sentence):
    with pytest.raises(PolicyValidationError, match=sentence):
        loaded(**{"followed-by": {"some": FOLLOWS["ec2-isolate"] | entry}})


def test_types_are_left_out_as_the_comments_of_the_policy_say():
    text = (policies.FOLDER / "finding-notify.yml").read_text()
    for line in ("type: [{anything-but: ", "left-out: *left-out"):
        assert text.count(f"# {line}") == 1
        text = text.replace(f"# {line}", line)
    (data,) = yaml.safe_load(text)["policies"]
    (left_out,) = data["filters"][0]["left-out"]
    event = copy.deepcopy(
        next(e for p, e in findings(TESTS).items() if p.stem == "s3-bucket-anonymous-access")
    )
    assert decide(functions_of(data)(event), event).acts
    event["detail"]["type"] = left_out
    (unmatched,) = decide(functions_of(data)(event), event).unmatched
    assert str(unmatched) == (
        f"detail.type is '{left_out}', the rule wants anything-but ['{left_out}']"
    )
    events = findings(TESTS) | {Path("left-out"): event}
    assert not list(disagreements("finding-notify", events, functions_of(data)))
