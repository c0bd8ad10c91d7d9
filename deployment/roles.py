"""The roles of a stack of infra/account.yml as IAM has them, beside what its template says.

The template is the one that the stack was made of: what differs was changed by hand. Of
CloudFormation's functions it knows those that the template uses.
IAM: iam:GetRole, iam:ListAttachedRolePolicies, iam:ListRolePolicies, iam:GetRolePolicy,
iam:GetPolicy, iam:GetPolicyVersion. Three calls a role, one more for each inline policy, two for
each policy that they share.
"""

import json

import yaml
from c7n.utils import get_partition

from deployment.checks import there, unless

ABSENT = ("NoSuchEntity",)
NO_VALUE = object()


class Loader(yaml.SafeLoader):
    """Of templates: `!Sub text` is {"Fn::Sub": text}."""


def _function(loader, suffix, node):
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    if isinstance(node, yaml.MappingNode):
        return {name: loader.construct_mapping(node, deep=True)}
    return {name: node.value}


Loader.add_multi_constructor("!", _function)


class Template:
    """A template with its parameters given; `resolved` is what CloudFormation makes of a value."""

    def __init__(self, body, target, given):
        self.source = yaml.load(body, Loader)  # noqa: S506 - it makes plain values only
        default = {k: v.get("Default", "") for k, v in self.source.get("Parameters", {}).items()}
        partition = get_partition(target.region)
        self.names = {**default, **given} | {
            "AWS::Partition": partition,
            "AWS::AccountId": target.account_id,
            "AWS::Region": target.region,
            "AWS::NoValue": NO_VALUE,
        }
        iam = f"arn:{partition}:iam::{target.account_id}"
        for logical, made in self.source["Resources"].items():
            properties = made["Properties"]
            if made["Type"] == "AWS::IAM::ManagedPolicy":
                self.names[logical] = f"{iam}:policy/{properties['ManagedPolicyName']}"
            elif made["Type"] == "AWS::IAM::Role":
                self.names[logical] = properties["RoleName"]

    def resources(self, kind):
        """The resolved properties of each resource of a type whose condition holds."""
        for logical, made in self.source["Resources"].items():
            if made["Type"] == kind and self.holds(made.get("Condition")):
                yield logical, self.resolved(made["Properties"])

    def holds(self, condition):
        return condition is None or self.resolved(self.source["Conditions"][condition])

    def resolved(self, value):
        if isinstance(value, list):
            found = [self.resolved(one) for one in value]
            return [one for one in found if one is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, of),) = value.items()
            if name == "Ref":
                return self.names[of]
            if name == "Condition" and isinstance(of, str):
                return self.holds(of)
            if name.startswith("Fn::"):
                return self.call(name.removeprefix("Fn::"), of)
        return {key: self.resolved(one) for key, one in value.items()}

    def call(self, function, of):
        if function == "If":
            return self.resolved(of[1 if self.holds(of[0]) else 2])
        of = self.resolved(of)
        if function == "Sub":
            for name, value in self.names.items():
                of = of.replace(f"${{{name}}}", value) if isinstance(value, str) else of
            return of
        known = {
            "Equals": lambda: of[0] == of[1],
            "Not": lambda: not of[0],
            "And": lambda: all(of),
            "Or": lambda: any(of),
            "Join": lambda: of[0].join(of[1]),
            "Split": lambda: of[1].split(of[0]),
        }
        if function not in known:
            raise ValueError(f"{function} is not understood here")
        return known[function]()


def compare(checks, target, iam, stack, body, given):
    """Each role of the template is there, for Lambda alone, with the policies of the template."""
    template = Template(body, target, given)
    # a parameter that is not said gets its default
    kept = " ".join(f"ParameterKey={name},UsePreviousValue=true" for name in given)
    mend = (
        f"aws cloudformation create-change-set --region {target.region} --stack-name {stack} "
        "--change-set-name mend --use-previous-template --deployment-mode REVERT_DRIFT "
        f"--capabilities CAPABILITY_NAMED_IAM --parameters {kept}, then look at it and execute it"
        + there(target)
    )
    inline = {}
    for _, policy in template.resources("AWS::IAM::Policy"):
        for role in policy["Roles"]:
            inline.setdefault(role, []).append(policy)
    differs = []
    for _, role in template.resources("AWS::IAM::Role"):
        of = role["RoleName"]
        policies = [*role.get("Policies", ()), *inline.get(of, ())]
        differs += [f"{of}: {what}" for what in differing(iam, role, policies)]
    for logical, policy in template.resources("AWS::IAM::ManagedPolicy"):
        differs += shared(iam, template.names[logical], policy["PolicyDocument"])
    for what in differs:
        checks.say("roles", False, f"changed by hand: {what}", mend)
    if not differs:
        checks.say("roles", True, "as the stack made them")


def differing(iam, role, policies):
    """In what a role differs from the template, in words."""
    name = role["RoleName"]
    shown = unless(ABSENT, iam.get_role, RoleName=name)
    if shown is None:
        return ["is not there"]
    shown = shown["Role"]
    found = []
    if normal(shown["AssumeRolePolicyDocument"]) != normal(role["AssumeRolePolicyDocument"]):
        found.append("others may assume it")
    if boundary := shown.get("PermissionsBoundary"):
        found.append(f"has the boundary {boundary['PermissionsBoundaryArn']}")
    attached = {
        one["PolicyArn"]
        for one in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    }
    wanted = set(role.get("ManagedPolicyArns", ()))
    found += [f"without {one}" for one in sorted(wanted - attached)]
    found += [f"with {one}" for one in sorted(attached - wanted)]
    own = {one["PolicyName"]: one["PolicyDocument"] for one in policies}
    there = set(iam.list_role_policies(RoleName=name)["PolicyNames"])
    found += [f"without inline policy {one}" for one in sorted(set(own) - there)]
    found += [f"with inline policy {one}" for one in sorted(there - set(own))]
    for one in sorted(there & set(own)):
        is_now = iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"]
        found += [f"inline policy {one}, {what}" for what in statements(is_now, own[one])]
    return found


def shared(iam, arn, document):
    """In what the default version of a managed policy differs from the template."""
    found = unless(ABSENT, iam.get_policy, PolicyArn=arn)
    if found is None:
        return [f"{arn} is not there"]
    version = found["Policy"]["DefaultVersionId"]
    is_now = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    return [f"{arn} {version}, {what}" for what in statements(is_now, document)]


def statements(is_now, wanted):
    """The Sids of the statements in which two documents differ, as words."""
    one, other = (
        {s.get("Sid", f"number {n}"): normal(s) for n, s in enumerate(listed(document), 1)}
        for document in (is_now, wanted)
    )
    return [f"statement {sid}" for sid in sorted({*one, *other}) if one.get(sid) != other.get(sid)]


def listed(document):
    """The statements of a policy document; IAM takes one alone without a list."""
    found = document["Statement"]
    return found if isinstance(found, list) else [found]


def normal(value):
    """A policy document in which neither order nor a list of one counts."""
    if isinstance(value, dict):
        return {key: normal(one) for key, one in value.items()}
    if isinstance(value, list):
        if len(value) == 1:
            return normal(value[0])
        return sorted(json.dumps(normal(one), sort_keys=True) for one in value)
    return value
