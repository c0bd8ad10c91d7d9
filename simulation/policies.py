"""The part of IAM's language that the policies of queues, topics and keys are written in.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition


@dataclass(frozen=True)
class Request:
    """What a policy is asked about.

    principal: the ARN of an identity (a role, not its session), or the name of a service.
    context: condition key -> value, or a list of values; whatever case the key is in.
    """

    action: str
    resource: str
    principal: str
    context: Mapping[str, str | list[str]] = field(default_factory=dict)


def listed(value):
    return value if isinstance(value, list) else [value]


def like(pattern: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def arn_like(pattern: str, text: str) -> bool:
    """The six parts of an ARN, each by itself."""
    parts = pattern.split(":", 5), text.split(":", 5)
    return {len(p) for p in parts} == {6} and all(map(like, *parts))


COMPARE = {
    "StringEquals": str.__eq__,
    "StringEqualsIgnoreCase": lambda pattern, text: pattern.lower() == text.lower(),
    "StringLike": like,
    "Bool": lambda pattern, text: pattern.lower() == text.lower(),
    "ArnEquals": arn_like,
    "ArnLike": arn_like,
}


def applies(operator: str, wanted: str | list[str], found: str | list[str] | None) -> bool:
    """One condition. found: the value of its key in the request, a list of several, or None."""
    quantifier, _, operator = operator.rpartition(":")
    if operator.endswith("IfExists") and found is None:
        return True
    operator = operator.removesuffix("IfExists")
    if operator == "Null":
        return (found is None) is (listed(wanted) == ["true"])
    negated = "Not" in operator
    compare = COMPARE[operator.replace("Not", "")]

    def holds(text):
        return any(compare(one, text) for one in listed(wanted)) is not negated

    if quantifier == "ForAllValues":  # and of none
        return all(map(holds, listed(found or [])))
    if found is None:
        return negated  # a key that is not there is like nothing
    return any(map(holds, listed(found)))


def filled(wanted: str | list[str], context: Mapping) -> list[str]:
    """The values of a condition, with those of the request for `${aws:...}`."""

    def value(variable):
        return str(context.get(variable[1].lower(), ""))

    return [re.sub(r"\$\{(aws:[^}]+)\}", value, one) for one in listed(wanted)]


def is_of(principal: str, named: object) -> bool:
    """Whether the element Principal of a statement names a principal, or everybody."""
    if named == "*":
        return True
    if "Service" in named and principal in listed(named["Service"]):
        return True
    identities = listed(named.get("AWS", []))
    if "*" in identities:
        return True
    if not principal.startswith("arn:"):
        return False
    account = principal.split(":")[4]
    root = principal.rpartition("::")[0] + f"::{account}:root"
    return not {principal, account, root}.isdisjoint(identities)


def is_about(statement: dict, resource: str, context: Mapping) -> bool:
    """Whether a statement is about a resource: one that `Resource` names, or `NotResource` not."""
    without = "NotResource" in statement
    named = filled(statement["NotResource" if without else "Resource"], context)
    return any(like(one, resource) for one in named) is not without


def effect(policy: str | dict, request: Request) -> str | None:
    """What a policy says: "Deny", "Allow", or None when it says nothing."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    context = {key.lower(): value for key, value in request.context.items()}
    effects = {
        statement["Effect"]
        for statement in listed(document["Statement"])
        if is_of(request.principal, statement["Principal"])
        and any(like(one.lower(), request.action.lower()) for one in listed(statement["Action"]))
        and is_about(statement, request.resource, context)
        and all(
            applies(operator, filled(wanted, context), context.get(key.lower()))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    }
    return "Deny" if "Deny" in effects else "Allow" if "Allow" in effects else None


def admits(policy: str | dict | None, request: Request, account_id: str) -> bool:
    """Whether the policy of a resource of an account lets a request through.

    An identity of that account comes with an allow of its own policy: then only a deny counts.
    """
    said = effect(policy, request) if policy else None
    own = request.principal.startswith("arn:") and request.principal.split(":")[4] == account_id
    return said == "Allow" or (own and said is None)


def caller(response) -> str:
    """The ARN of the role that makes a call; of the account's root when moto knows no role."""
    partition = get_partition(response.region)
    issued = sts_backends[response.current_account][partition]
    role = issued.get_assumed_role_from_access_key(response.access_key)
    return role.role_arn if role else f"arn:{partition}:iam::{response.current_account}:root"


def user_id(response) -> str | None:
    """aws:userid of the role that makes a call, with its session; None when moto knows no role."""
    issued = sts_backends[response.current_account][get_partition(response.region)]
    role = issued.get_assumed_role_from_access_key(response.access_key)
    return role.user_id if role else None


def called(response, action: str, resource: str) -> Request:
    """The request that a call is, as moto's response class of the service has it."""
    arn = caller(response)
    account = arn.split(":")[4]
    return Request(
        action, resource, arn, {"aws:PrincipalArn": arn, "aws:PrincipalAccount": account}
    )
