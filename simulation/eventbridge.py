"""EventBridge to Lambda: a matching rule with a `lambda` target invokes the function.

moto matches events and rules but delivers to SQS, log groups and other buses only; at a Lambda
target it raises. Its events carry `time` as a number and an `ingestion-time`, and a disabled rule
gets them too. A Lambda target here gets the event as EventBridge delivers it. Unlike EventBridge,
`PutEvents` takes events whose source begins with `aws.`: only AWS itself may send those for real.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from moto.awslambda.models import lambda_backends
from moto.events.models import Rule


def as_delivered(event: dict) -> dict:
    """moto's event message in EventBridge's shape, `time` in ISO 8601 UTC without fractions."""
    event = copy.deepcopy(event)
    event.pop("ingestion-time", None)
    if not isinstance(event["time"], str):
        moment = datetime.fromtimestamp(float(event["time"]), UTC)
        event["time"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return event


def may_invoke(rule: Rule, function_name: str) -> bool:
    """Whether the function's resource policy lets EventBridge invoke it for this rule."""
    for function in lambda_backends[rule.account_id][rule.region_name].list_functions():
        if function.function_name == function_name:
            return any(
                statement.get("Principal", {}).get("Service") == "events.amazonaws.com"
                and _source_arn(statement) in (None, rule.arn)
                for statement in function.policy.statements
            )
    return False


def _source_arn(statement: dict) -> str | None:
    for test in statement.get("Condition", {}).values():
        for key, value in test.items():
            if key.lower() == "aws:sourcearn":
                return value
    return None


@contextlib.contextmanager
def delivering_to_lambda(
    invoke_later: Callable, failed: Callable[[Rule, str], object]
) -> Iterator[None]:
    """Give the events of matching rules to `invoke_later(function_name, event, account, region)`.

    A target that EventBridge may not invoke, or that does not exist, is given to `failed(rule,
    function_name)`; EventBridge counts it as FailedInvocations and tells nobody.
    """
    send = Rule.send_to_targets

    def send_to_targets(rule: Rule, original_event: dict, transform_input: bool = True) -> None:
        if rule.state != "ENABLED" or not rule.event_pattern.matches_event(original_event):
            return
        for target in rule.targets:
            service, _, account_and_name = target["Arn"].partition(":lambda:")
            if not account_and_name:
                continue
            if {"Input", "InputPath", "InputTransformer"} & set(target):
                raise NotImplementedError(f"{rule.name}: the input of a Lambda target is changed")
            function_name = target["Arn"].split(":")[6]
            if may_invoke(rule, function_name):
                event = as_delivered(original_event)
                invoke_later(function_name, event, rule.account_id, rule.region_name)
            else:
                failed(rule, function_name)
        others = copy.copy(rule)
        others.targets = [target for target in rule.targets if ":lambda:" not in target["Arn"]]
        send(others, original_event, transform_input)

    Rule.send_to_targets = send_to_targets
    try:
        yield
    finally:
        Rule.send_to_targets = send
