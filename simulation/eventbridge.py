"""EventBridge to Lambda: a matching rule with a `lambda` target invokes the function.

moto matches events and rules but delivers to SQS, log groups and other buses only; at a Lambda
target it raises. Its events carry `time` as a number and an `ingestion-time`, and a disabled rule
gets them too, and one with a schedule and no pattern gets all. A Lambda target here gets the event
as EventBridge delivers it, one with a schedule its own alone (`scheduled`). Unlike EventBridge,
`PutEvents` takes events whose source begins with `aws.`: only AWS itself may send those for real.

An event that cannot be delivered goes to the dead-letter queue of the target, if that has one and
the queue's policy lets the rule send. What keeps it from being delivered here, a function that is
gone or may not be invoked, EventBridge does not try again either; its retries of throttled and
failing calls to Lambda are not simulated, since Lambda takes asynchronous invocations always.
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
"""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from moto.awslambda.models import LambdaFunction, lambda_backends
from moto.events.models import Rule
from moto.sqs.models import sqs_backends

SCHEDULED = "Scheduled Event"


@dataclass
class Undelivered:
    """An event that EventBridge could not give to a function.

    error_code: EventBridge's. dead_letter: the ARN of the queue that took the event, or None.
    refused: why the target's queue did not take it, or None.
    """

    rule: str
    function_name: str
    account_id: str
    region: str
    event: dict
    error_code: str
    dead_letter: str | None = None
    refused: str | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def as_delivered(event: dict) -> dict:
    """moto's event message in EventBridge's shape, `time` in ISO 8601 UTC without fractions."""
    event = copy.deepcopy(event)
    event.pop("ingestion-time", None)
    if not isinstance(event["time"], str):
        moment = datetime.fromtimestamp(float(event["time"]), UTC)
        event["time"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return event


def why_not(rule: Rule, function_name: str) -> str | None:
    """EventBridge's error code when it cannot invoke the function for this rule, else None."""
    for function in lambda_backends[rule.account_id][rule.region_name].list_functions():
        if function.function_name == function_name:
            return None if _may_invoke(rule, function) else "NO_PERMISSIONS"
    return "NO_RESOURCE"


def _may_invoke(rule: Rule, function: LambdaFunction) -> bool:
    return any(_allows(statement, rule) for statement in function.policy.statements)


def _allows(statement: dict, rule: Rule) -> bool:
    """Whether a statement of a resource's policy lets EventBridge in for this rule."""
    principal = statement.get("Principal", {})
    return (
        statement.get("Effect", "Allow") == "Allow"
        and isinstance(principal, dict)
        and principal.get("Service") == "events.amazonaws.com"
        and fnmatchcase(rule.arn, _source_arn(statement) or "*")
    )


def _source_arn(statement: dict) -> str | None:
    for test in statement.get("Condition", {}).values():
        for key, value in test.items():
            if key.lower() == "aws:sourcearn":
                return value
    return None


def bury(rule: Rule, target: dict, undelivered: Undelivered) -> None:
    """Send an event to the dead-letter queue of a target, as EventBridge does, and note what came
    of it."""
    arn = target.get("DeadLetterConfig", {}).get("Arn")
    if not arn:
        return
    _, _, _, region, account_id, name = arn.split(":")
    queue = sqs_backends[account_id][region].queues.get(name)
    if queue is None:
        undelivered.refused = "the queue does not exist"
        return
    policy = json.loads(queue.policy or "{}")
    if not any(_allows(statement, rule) for statement in policy.get("Statement", [])):
        undelivered.refused = "the queue's policy does not allow it"
        return
    attributes = {
        "RULE_ARN": rule.arn,
        "TARGET_ARN": target["Arn"],
        "ERROR_CODE": undelivered.error_code,
        "RETRY_ATTEMPTS": "0",
    }
    sqs_backends[account_id][region].send_message(
        name,
        json.dumps(undelivered.event),
        message_attributes={
            key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()
        },
    )
    undelivered.dead_letter = arn


def _is_for(rule: Rule, event: dict) -> bool:
    """Whether an event is for a rule. One that has a schedule and no pattern gets its own alone."""
    if not rule.event_pattern.get_pattern():
        return event["detail-type"] == SCHEDULED and event["resources"] == [rule.arn]
    return rule.event_pattern.matches_event(event)


def scheduled(rule_arn: str, at: str) -> dict:
    """The event that EventBridge makes for a rule whose schedule is due; at: its time.

    moto never makes one. Put it on the bus, which gives it to the rule that it names.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html
    """
    _, _, _, region, account_id, _ = rule_arn.split(":")
    return {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": SCHEDULED,
        "source": "aws.events",
        "account": account_id,
        "time": at,
        "region": region,
        "resources": [rule_arn],
        "detail": {},
    }


@contextlib.contextmanager
def delivering_to_lambda(
    invoke_later: Callable, failed: Callable[[Undelivered], object]
) -> Iterator[None]:
    """Give the events of matching rules to `invoke_later(function_name, event, account, region)`.

    What EventBridge cannot deliver is given to `failed(undelivered)`.
    """
    send = Rule.send_to_targets

    def send_to_targets(rule: Rule, original_event: dict, transform_input: bool = True) -> None:
        if rule.state != "ENABLED" or not _is_for(rule, original_event):
            return
        for target in rule.targets:
            service, _, account_and_name = target["Arn"].partition(":lambda:")
            if not account_and_name:
                continue
            if {"Input", "InputPath", "InputTransformer"} & set(target):
                raise NotImplementedError(f"{rule.name}: the input of a Lambda target is changed")
            name, where = target["Arn"].split(":")[6], (rule.account_id, rule.region_name)
            event = as_delivered(original_event)
            if code := why_not(rule, name):
                undelivered = Undelivered(rule.name, name, *where, event, code)
                bury(rule, target, undelivered)
                failed(undelivered)
            else:
                invoke_later(name, event, *where)
        others = copy.copy(rule)
        others.targets = [target for target in rule.targets if ":lambda:" not in target["Arn"]]
        send(others, original_event, transform_input)

    Rule.send_to_targets = send_to_targets
    try:
        yield
    finally:
        Rule.send_to_targets = send
