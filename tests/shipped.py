"""The roles of infra/account.yml as they are written there."""

import functools
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
POLICIES = [*(ROOT / "policies").glob("*.yml"), *(ROOT / "policies" / "opt-in").glob("*.yml")]


class Ref(str):
    """The name in `!Ref NAME`."""


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms as the plain value; `!Sub` with the names of this account."""


def sub(loader, node):
    text = node.value.replace("${AWS::Partition}", "aws")
    return text.replace("${AWS::AccountId}", "111122223333")


def plain(loader, suffix, node):
    construct = loader.construct_sequence if isinstance(node, yaml.SequenceNode) else None
    return construct(node, deep=True) if construct else Ref(node.value)


Loader.add_constructor("!Sub", sub)
Loader.add_multi_constructor("!", plain)


class Statement(NamedTuple):
    sid: str
    effect: str
    actions: list
    resources: list
    condition: dict


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(document):
    return [
        Statement(
            s.get("Sid"),
            s["Effect"],
            listed(s["Action"]),
            listed(s.get("Resource", [])),
            s.get("Condition", {}),
        )
        for s in document["Statement"]
    ]


@functools.cache
def resources(template):
    return yaml.load((ROOT / "infra" / template).read_text(), Loader)["Resources"]


@functools.cache
def roles():
    """The statements of each role of the functions: {name: statements}, without what is chosen."""
    stack = resources("account.yml")
    found = {}
    for role in stack.values():
        if role["Type"] == "AWS::IAM::Role":
            of_role = role["Properties"]
            documents = [p["PolicyDocument"] for p in of_role.get("Policies", ())]
            managed = of_role.get("ManagedPolicyArns", ())
            documents += [stack[name]["Properties"]["PolicyDocument"] for name in managed]
            found[of_role["RoleName"]] = [s for d in documents for s in statements(d)]
    return found


def actions(role):
    """The actions that a role allows."""
    return {a for s in roles()[role] if s.effect == "Allow" for a in s.actions}


def role_of(policy):
    return f"guardduty-response-{policy}"


def deployed():
    """The policies that become functions, as they are written: {name: policy}."""
    loaded = (yaml.safe_load(path.read_text())["policies"] for path in POLICIES)
    return {p["name"]: p for (p,) in loaded if "mode" in p}
