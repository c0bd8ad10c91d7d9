"""What a finding lacks, or has of another type than GuardDuty, in words.

By the model of GuardDuty's API that botocore carries, which names the fields of events as well.
Fields that the model does not know are nobody's business: GuardDuty is ahead of it.
https://docs.aws.amazon.com/guardduty/latest/APIReference/API_Finding.html
"""

from collections.abc import Iterator

from botocore.model import Shape

from custom_actions.finding import ACCOUNT_ID
from custom_actions.finding_file import finding_shape
from deployment.errors import Refused
from deployment.targets import known

NEEDED = ("id", "type", "accountId", "region", "severity", "resource", "service")
NUMBER = ("a number", (int, float))
KINDS = {
    "structure": ("an object", dict),
    "map": ("an object", dict),
    "list": ("a list", list),
    "string": ("a text", str),
    "timestamp": ("a text", str),
    "boolean": ("true or false", (bool, str)),  # as a word they have been seen
    "integer": NUMBER,
    "long": NUMBER,
    "double": NUMBER,
    "float": NUMBER,
}


def oddities(event: dict) -> list[str]:
    """A sentence for each field of an event's finding that is missing or of another type."""
    detail = event["detail"]
    missing = [f"detail.{key} is missing" for key in NEEDED if detail.get(key) is None]
    return [*_place(event), *missing, *_wrong(detail, finding_shape(), "detail")]


def _place(event: dict) -> Iterator[str]:
    if not ACCOUNT_ID.fullmatch(str(event["account"])):
        yield f"account {event['account']!r} is none: it has no twelve digits"
    for region in {str(event["region"]), str(event["detail"].get("region") or event["region"])}:
        try:
            known(region)
        except Refused as error:
            yield error.message


def _wrong(value: object, shape: Shape, path: str) -> Iterator[str]:
    expected, kind = KINDS.get(shape.type_name, ("", object))
    if value is None:
        return
    if not isinstance(value, kind) or (expected == NUMBER[0] and isinstance(value, bool)):
        yield f"{path} is {_kind(value)}, where GuardDuty has {expected}"
    elif shape.type_name == "structure":
        for name, member in shape.members.items():
            key = member.serialization.get("name", name)
            yield from _wrong(value.get(key), member, f"{path}.{key}")
    elif shape.type_name == "list":
        for number, item in enumerate(value):
            yield from _wrong(item, shape.member, f"{path}[{number}]")


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "a number")
