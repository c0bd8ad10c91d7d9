"""CloudWatch, as far as the alarms of infra/ need it: which of them would ring.

moto keeps alarms and evaluates none, and its services send no metrics. Here what happened in the
cloud (invocations, events that could not be delivered, calls, messages on queues) is read as the
metrics that Lambda, EventBridge and SQS document, and each alarm is evaluated over them. Where this
differs from CloudWatch: periods end at the moment of the question, not at the full minute; nothing
comes late; and no more than the periods of the alarm is looked at. Whether Lambda counts Throttles
for asynchronous events of a function without concurrency AWS does not say: here it does not.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
"""

import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moto.sqs.models import sqs_backends

from .cloud import Cloud

# Values of a metric between two times, in seconds since 1970; [] where CloudWatch has no data.
Metric = Callable[[float, float], list[float]]

STATISTICS = {"Sum": sum, "Maximum": max, "Minimum": min}
OPERATORS = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


def ringing(cloud: Cloud, account_id: str, region: str, later: float = 0) -> list[str]:
    """The names of the alarms in ALARM, sorted; `later`: so many seconds from now, in which nothing
    happens. NotImplementedError for what is not simulated, a metric for example."""
    alarms = cloud.client("cloudwatch", account_id, region).describe_alarms()["MetricAlarms"]
    where, now = Where(cloud, account_id, region), time.time() + later
    return sorted(alarm["AlarmName"] for alarm in alarms if _rings(alarm, where, now))


def _rings(alarm: dict, where: "Where", now: float) -> bool:
    if "MetricName" not in alarm:
        raise NotImplementedError(f"{alarm['AlarmName']}: metric math")
    (dimension,) = alarm["Dimensions"]
    metric = where.metric(alarm["Namespace"], alarm["MetricName"], dimension)
    period, periods = alarm["Period"], alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm") or periods
    ends = [now - number * period for number in range(periods)]
    breaching = sum(_breaches(alarm, metric(end - period, end)) for end in ends)
    return breaching >= needed


def _breaches(alarm: dict, values: list[float]) -> bool:
    if not values:
        missing = alarm.get("TreatMissingData")
        if missing not in ("breaching", "notBreaching"):
            raise NotImplementedError(f"{alarm['AlarmName']}: TreatMissingData {missing}")
        return missing == "breaching"
    value = STATISTICS[alarm["Statistic"]](values)
    return OPERATORS[alarm["ComparisonOperator"]](value, alarm["Threshold"])


@dataclass
class Where:
    """The metrics of an account and region."""

    cloud: Cloud
    account_id: str
    region: str

    def metric(self, namespace: str, name: str, dimension: dict) -> Metric:
        dimensions = {
            "AWS/Lambda": ("FunctionName", self._of_function),
            "AWS/Events": ("RuleName", self._of_rule),
            "AWS/SQS": ("QueueName", self._of_queue),
        }
        known, find = dimensions.get(namespace, (None, None))
        found = find(name, dimension["Value"]) if known == dimension["Name"] else None
        if found is None:
            raise NotImplementedError(f"{namespace} {name} {dimension}")
        return found

    def _of_function(self, name: str, function: str) -> Metric | None:
        ran = [one for one in self._here(self.cloud.invocations) if one.function_name == function]
        not_run = [
            one
            for one in self._here(self.cloud.functions.throttled)
            if one.function_name == function
        ]
        last = [one for one in ran if one.dead_letter]
        lost = [one for one in not_run if one.asynchronous]
        counted = {
            "Invocations": ran,
            "Errors": [one for one in ran if one.error],
            "Throttles": [one for one in not_run if not one.asynchronous],
            "AsyncEventsDropped": [*last, *lost],
            # the queue's ARN when it took the event, and when it did not, that and the reason
            "DeadLetterErrors": [
                one
                for one in (*last, *lost)
                if one.dead_letter.startswith("arn:") and " " in one.dead_letter
            ],
        }
        return _counting(one.at.timestamp() for one in counted[name]) if name in counted else None

    def _of_rule(self, name: str, rule: str) -> Metric | None:
        failed = [one for one in self._here(self.cloud.undelivered) if one.rule == rule]
        counted = {
            "FailedInvocations": failed,
            "InvocationsSentToDlq": [one for one in failed if one.dead_letter],
            "InvocationsFailedToBeSentToDlq": [one for one in failed if one.refused],
        }
        return _counting(one.at.timestamp() for one in counted[name]) if name in counted else None

    def _of_queue(self, name: str, queue: str) -> Metric | None:
        if name == "NumberOfMessagesDeleted":
            return _counting(
                call.at.timestamp()
                for call in self._here(self.cloud.calls)
                if (call.service, call.operation) == ("sqs", "DeleteMessage")
                and call.error_code is None
                and call.parameters["QueueUrl"].endswith(f"/{queue}")
            )
        found = sqs_backends[self.account_id][self.region].queues.get(queue)
        messages = list(found._messages) if found else []

        def visible(start: float, end: float) -> list[float]:
            times = [(one.sent_timestamp, one.visible_at, one.delayed_until) for one in messages]
            return [sum(max(one) / 1000 <= end for one in times)] if found else []

        def age(start: float, end: float) -> list[float]:
            # what was received three times and is still there does not count
            sent = [
                one.sent_timestamp / 1000 for one in messages if one.approximate_receive_count < 3
            ]
            return [end - min(sent)] if sent and min(sent) <= end else []

        metrics = {
            "ApproximateNumberOfMessagesVisible": visible,
            "ApproximateAgeOfOldestMessage": age,
        }
        return metrics.get(name)

    def _here(self, happened: Iterable) -> list:
        return [
            one
            for one in happened
            if (one.account_id, one.region) == (self.account_id, self.region)
        ]


def _counting(times: Iterable[float]) -> Metric:
    times = list(times)
    return lambda start, end: [1.0 for at in times if start < at <= end]
