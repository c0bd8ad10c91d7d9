"""What the roles and managed policies of the templates here allow, and which step needs it.

    python -m infra.permissions     (make permissions) writes docs/permissions.md; --check compares

Allowed is what the templates say; needed is what the actions and filters of the policies declare,
and what Custodian and Lambda do themselves. tests/test_least_privilege.py holds both against each
other and against the calls that are made. For review and tests; no function holds this module.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import click
import yaml
from c7n.config import Config
from c7n.loader import PolicyLoader

import custom_actions  # noqa: F401 - registers the actions
from custom_actions.steps.write_case import WriteCase
from deployment.errors import Refused
from infra import generated

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "permissions.md"
POLICIES = sorted((ROOT / "policies").rglob("*.yml"))
ACCOUNT = "111122223333"

LAMBDA = {
    "Lambda, to log": {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"},
    "Lambda, to keep what failed": {"sqs:SendMessage"},
}
# How the pack, or Custodian, finds the resource (custom_actions/modes.py)
RESOLVING = {
    "ec2": {"ec2:DescribeInstances"},
    "security-group": {"ec2:DescribeSecurityGroups"},
    "iam-user": {"iam:GetUser"},
    "account": set(),
}
INTERFACES = {"ec2:DescribeNetworkInterfaces"}  # a guard's event may name one
# What people do besides the policies: look, and deal with what was not dealt with
BESIDES = {
    "`make dlq REPLAY=1`": {
        "guardduty:GetFindings",
        "guardduty:ListDetectors",
        "lambda:InvokeFunction",
        "sns:Publish",
    },
    "`make probe`": {
        "guardduty:CreateSampleFindings",
        "guardduty:GetFindings",
        "guardduty:ListDetectors",
        "guardduty:ListFindings",
        "logs:FilterLogEvents",
    },
    "`make isolated`": {
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeTags",
    },
    "dead letters, `make dlq`, `make mail-dlq`": {
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
    },
    "`make dlq`": {"logs:FilterLogEvents"},
}
# `make verify-case`, besides what the step reads
VERIFIED = {
    "ec2:DescribeSnapshots",
    "kms:Decrypt",
    "s3:GetObjectRetention",
    "s3:GetObjectVersion",
    "s3:ListBucketVersions",
}
CASES = ["`write-case`"]
NOTIFY = {"iam:ListAccountAliases"}  # which Custodian's own action does not declare


class Ref(str):
    """The name in `!Ref NAME`."""


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms as the plain value; `!Sub` with the names of one account."""


def _sub(loader, node):
    if isinstance(node, yaml.SequenceNode):
        return _plain(loader, "Sub", node)
    return node.value.replace("${AWS::Partition}", "aws").replace("${AWS::AccountId}", ACCOUNT)


def _plain(loader, suffix, node):
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return Ref(node.value)


Loader.add_constructor("!Sub", _sub)
Loader.add_multi_constructor("!", _plain)


class Statement(NamedTuple):
    sid: str
    effect: str
    actions: list
    resources: list
    condition: dict


def _listed(value):
    return value if isinstance(value, list) else [value]


def statements(document):
    """Those of a policy document."""
    return [
        Statement(
            s.get("Sid"),
            s["Effect"],
            _listed(s["Action"]),
            _listed(s.get("Resource", [])),
            s.get("Condition", {}),
        )
        for s in document["Statement"]
    ]


@functools.cache
def resources(template):
    """The resources of a template of this folder: {logical id: resource}."""
    return yaml.load((ROOT / "infra" / template).read_text(), Loader)["Resources"]  # noqa: S506


def managed(template, name):
    """The statements of a managed policy."""
    return statements(resources(template)[name]["Properties"]["PolicyDocument"])


@functools.cache
def roles():
    """What the role of each function may do: {policy: statements}, without what is chosen."""
    stack = resources("account.yml")
    found = {}
    for role in stack.values():
        if role["Type"] == "AWS::IAM::Role":
            of = role["Properties"]
            own = [s for p in of.get("Policies", ()) for s in statements(p["PolicyDocument"])]
            shared = [s for n in of["ManagedPolicyArns"] for s in managed("account.yml", n)]
            found[of["RoleName"].removeprefix("guardduty-response-")] = [*shared, *own]
    return found


def role(policy):
    """What the role of a policy's function may do. Raises Refused when the policy has none."""
    if policy not in roles():
        raise Refused(f"policy {policy}: no role guardduty-response-{policy} in infra/account.yml.")
    return roles()[policy]


def allowed(of):
    """The actions that statements allow."""
    return {action for s in of if s.effect == "Allow" for action in s.actions}


@functools.cache
def load():
    """The policies of the pack, as Custodian loads them: {name: policy}."""
    loader = PolicyLoader(Config.empty(account_id=ACCOUNT, region="us-west-2"))
    return {
        policy.name: policy
        for path in POLICIES
        for policy in loader.load_data(yaml.safe_load(path.read_text()), "memory://")
    }


def deployed():
    """The names of the policies that become functions."""
    return [name for name, policy in load().items() if "mode" in policy.data]


def by_hand():
    """The names of those that a person runs."""
    return [name for name, policy in load().items() if "mode" not in policy.data]


def why(name):
    """What a policy of the pack needs, by who needs it: {words: actions}."""
    return needs(load()[name])


def needs(policy):
    """The same, of a policy as Custodian loads it."""
    mode = policy.data.get("mode", {}).get("type")
    finding = RESOLVING.get(policy.resource_type, set())
    if mode == "cloudtrail" and policy.resource_type == "ec2":
        finding = finding | INTERFACES
    if mode is None and policy.resource_type == "iam-user":
        finding = finding | {"iam:ListUsers"}  # Custodian's query on the command line
    found = {"Custodian, to find the resource": finding}
    manager = policy.resource_manager
    for element in [*manager.filters, *manager.actions]:
        of_element = set(element.get_permissions())
        if element.type.startswith("notify"):
            of_element |= NOTIFY
        found[f"`{element.type}`"] = of_element
    return found | (LAMBDA if mode else {})


def reasons(needed):
    """{action: who needs it}; needed: as `why` gives it."""
    found = {}
    for who, actions in needed.items():
        for action in actions:
            found.setdefault(action, []).append(who)
    return found


# The page

HEAD = """# What each role may do, and why

Generated by `make permissions` from `infra/`, `policies/` and what each step declares; do not edit.

**What permissions does the Lambda function need to perform the remediation?** To isolate an
instance, read that back and mail it (`isolate-instance` and `notify-once` of `ec2-isolate`):

{isolating}

Everything else that `ec2-isolate` may do is for its other steps; one that is left out of the policy
can be left out of the role. Each function has a role of its own.

Each role is tried in the simulation: with it the function does all of its work, and without any one
of these actions it fails and says so (`tests/test_shipped_roles.py`). The simulation enforces the
names of actions; resources and conditions are compared with IAM's own data and evaluated
(`tests/test_iam_language.py`). Nothing of it was run against AWS.
"""


def page():
    """docs/permissions.md. Raises Refused when a function has no role."""
    steps = why("ec2-isolate")
    isolating = steps["`isolate-instance`"] | steps["`notify-once`"]
    isolating |= steps["Custodian, to find the resource"]
    parts = [HEAD.format(isolating=", ".join(f"`{action}`" for action in sorted(isolating)))]
    for name in deployed():
        text = f"## {name}\n\nRole `guardduty-response-{name}`, function `custodian-{name}`.\n"
        parts.append(text + "\n" + _table(role(name), reasons(why(name))))
    parts.append(
        "### In member accounts\n\nA function in GuardDuty's administrator account, deployed "
        "with `MEMBER_ROLE=guardduty-response-member` acts in a member by the role "
        "`guardduty-response-member-<policy>` of `infra/member-role.yml`, which trusts the role of "
        "that function alone. It may there what the table above says, but for mail, log and dead "
        "letters; with MemberRole the function's own role may take it (`sts:AssumeRole`, in the "
        "organisation, by the function itself).\n"
    )
    cut = resources("account.yml")["TransitionGroup"]["Properties"]["PolicyDocument"]
    transition = dict.fromkeys(allowed(statements(cut)), ["`cut-tracked-connections`"])
    evidence = resources("account.yml")["WriteCase"]["Properties"]["PolicyDocument"]
    parts.append(
        "### With EvidenceBucket\n\nBesides, for `write-case` (docs/evidence.md). A member's role "
        "has the same.\n\n"
        + _table(statements(evidence), dict.fromkeys(allowed(statements(evidence)), CASES))
    )
    parts.append(
        "### With CutTrackedConnections\n\nBesides, for `cut-tracked-connections: true`. It may "
        "then put an interface into any group.\n\n" + _table(statements(cut), transition)
    )
    memory = statements(resources("account.yml")["Memory"]["Properties"]["PolicyDocument"])
    parts.append(
        "### With MemoryDocument\n\nBesides, for `capture-memory`. It may then run that document, "
        "as root, on every instance that Systems Manager manages.\n\n"
        + _table(memory, dict.fromkeys(allowed(memory), ["`capture-memory`"]))
    )
    declared = {}
    for name in by_hand():
        for who, actions in why(name).items():
            declared[who] = declared.get(who, set()) | actions
    needed_by_hand = reasons(declared | BESIDES)
    deploy = dict.fromkeys(allowed(managed("operators.yml", "Deploy")), ["`custodian run`"])
    look = dict.fromkeys(allowed(managed("operators.yml", "Status")), ["`make status`"])
    written = WriteCase.permissions
    verified = VERIFIED | {"lambda:ListTags", "s3:GetObject", "s3:ListBucket"}
    cases = reasons({"`write-case`": written, "`make case`, `make verify-case`": verified})
    for policy, words, needed in (
        ("Deploy", "to deploy the functions", deploy),
        ("Status", "to see what is deployed", look),
        (
            "Respond",
            "to isolate, release and look by hand, and for dead letters",
            needed_by_hand,
        ),
        ("Evidence", "besides, for snapshots, their locks and malware scans", needed_by_hand),
        ("Credentials", "besides, for sessions of roles and for access keys", needed_by_hand),
        ("Nodes", "besides, for nodes of ECS and EKS", needed_by_hand),
        ("Cases", "besides, where there is an evidence bucket", cases),
    ):
        parts.append(
            f"## People: {policy}\n\nManaged policy `guardduty-response-{policy.lower()}` of "
            f"`infra/operators.yml`, {words}.\n\n"
            + _table(managed("operators.yml", policy), needed)
        )
    return "\n".join(parts)


def _table(of, needed):
    rows = [
        f"| `{action}` | {_places(s)} | {_conditions(s)} | {_words(s, needed.get(action, []))} |"
        for s in of
        for action in s.actions
    ]
    head = ["| action | on | only if | needed by |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _words(statement, who):
    if statement.effect == "Deny":
        return "**denied**, whatever allows it"
    return ", ".join(dict.fromkeys(who)) or "nothing"


def _places(statement):
    # a parameter of the stack holds an ARN
    whole = [r if r == "*" or isinstance(r, Ref) else r.split(":", 5) for r in statement.resources]
    names = [r if isinstance(r, str) else r[5] for r in whole]
    others = [" of any account" if r[4:5] == ["*"] else "" for r in whole]
    shown = (f"`{name}`{other}" for name, other in zip(names, others, strict=True))
    return ", ".join(dict.fromkeys(shown))


def _conditions(statement):
    found = []
    for operator, keys in statement.condition.items():
        for key, values in keys.items():
            words = " or ".join(f"`{value.split(':function:')[-1]}`" for value in _listed(values))
            if operator == "Null":
                found.append(f"`{key}` is there")
            else:
                found.append(f"`{key}` is {words}")
    return ", ".join(found)


@click.command()
@generated.option
def main(check):
    """Write docs/permissions.md: what each role may do, and which step needs it."""
    generated.write(PAGE, page(), "permissions", check)


if __name__ == "__main__":
    main()
