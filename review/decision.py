"""What a policy decides about a finding before it acts: its rule, then its filters.

EventBridge's part is moto's, field by field; the filters are those of the policy. A filter that
asks the resource sees it as the finding describes it, not as AWS does: `review.play` has that.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass

from moto.events.models import EventPattern

from custom_actions.finding import FindingFilter, mapping, text
from deployment.expected import Expected
from review.ablation import fields


@dataclass(frozen=True)
class Unmatched:
    """A field of a rule that an event does not match.

    field: its path, such as `detail.type`. wanted: what the rule has there. found: what the event
    has, None where it has nothing.
    """

    field: str
    wanted: list
    found: object

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.field}: the finding has none"
        if len(self.wanted) == 1:
            return f"{self.field} is {self.found!r}, the rule wants {words(self.wanted[0])}"
        return f"{self.field} is {self.found!r}, none of the {len(self.wanted)} of the rule"


@dataclass(frozen=True)
class Decision:
    """unmatched: why the rule does not match; empty when it does. stopped_by: the number of the
    filter that stops the finding, from 0; None when none does or the rule did. reason: that
    filter's."""

    unmatched: tuple[Unmatched, ...] = ()
    stopped_by: int | None = None
    reason: str | None = None

    @property
    def acts(self) -> bool:
        return not self.unmatched and self.stopped_by is None


def decide(function: Expected, event: dict) -> Decision:
    """What the rule and the filters of a function decide about an event of EventBridge."""
    unmatched = tuple(mismatches(function.pattern, event))
    if unmatched:
        return Decision(unmatched)
    manager = function.func.policy.resource_manager
    for number, element in enumerate(manager.filters):
        if not element.process([described(manager.type, event)], event):
            return Decision((), number, why(element, event))
    return Decision()


def mismatches(pattern: dict, event: dict) -> Iterator[Unmatched]:
    """The fields of a rule's pattern that an event does not match, each by itself."""
    for path, wanted in fields(pattern):
        alone = functools.reduce(lambda inner, key: {key: inner}, reversed(path), wanted)
        if not EventPattern.load(json.dumps(alone)).matches_event(event):
            yield Unmatched(".".join(path), wanted, at(event, path))


def at(event: dict, path: tuple[str, ...]) -> object:
    """What an event has at a path; None where there is nothing."""
    return mapping(event, *path[:-1]).get(path[-1])


def why(element, event: dict) -> str:
    """Why a filter of a policy stops an event."""
    if isinstance(element, FindingFilter) and (reason := element.refusal(event)):
        return reason
    return f"the resource is not what the filter asks for: {json.dumps(element.data, default=str)}"


def words(value: object) -> str:
    """A value of a pattern as it is read: `prefix 'Backdoor:EC2/'`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {content!r}" for key, content in value.items())
    return repr(value)


def described(kind: str, event: dict) -> dict:
    """The resource that a finding describes, as far as a filter may ask for it."""
    resource = mapping(event, "detail", "resource")
    if kind == "ec2":
        instance = mapping(resource, "instanceDetails")
        tags = [tag for tag in instance.get("tags") or [] if isinstance(tag, dict)]
        return {
            "InstanceId": instance.get("instanceId"),
            "InstanceType": instance.get("instanceType"),
            "ImageId": instance.get("imageId"),
            "State": {"Name": instance.get("instanceState")},
            "Tags": [{"Key": tag.get("key"), "Value": tag.get("value")} for tag in tags],
        }
    if kind == "iam-user":
        return {"UserName": text(mapping(resource, "accessKeyDetails"), "userName"), "Tags": []}
    return {"account_id": text(mapping(event, "detail"), "accountId"), "account_name": ""}
