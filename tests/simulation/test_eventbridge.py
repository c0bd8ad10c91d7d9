"""EventBridge rules that invoke functions."""

import json

import pytest

from simulation.eventbridge import scheduled

ACCOUNT, REGION = "111122223333", "us-west-2"
ECHO = {"main.py": "def run(event, context):\n    return event\n"}
PATTERN = json.dumps({"source": ["aws.guardduty"], "detail": {"severity": [{"numeric": [">", 4]}]}})


def event(**detail):
    return {
        "source": "aws.guardduty",
        "detail-type": "GuardDuty Finding",
        "account": ACCOUNT,
        "region": REGION,
        "time": "2026-11-23T09:02:11Z",
        "resources": [],
        "detail": {"severity": 5} | detail,
    }


@pytest.fixture
def received(cloud, make_function, make_rule):
    """Puts an event and returns what the function `probe` got of it."""
    make_rule("rule", PATTERN, make_function("probe", ECHO))

    def put(given):
        cloud.put_event(given)
        cloud.wait_idle()
        return [invocation.event for invocation in cloud.invocations]

    return put


def test_event_arrives_as_eventbridge_delivers_it(received):
    (got,) = received(event(name="<ä>"))
    assert len(got.pop("id")) == 36
    assert got == {"version": "0"} | event(name="<ä>")


@pytest.mark.parametrize(
    "other", [event(severity=4), event() | {"source": "aws.ec2"}, event() | {"region": "us-east-1"}]
)
def test_only_a_matching_event_of_that_region_arrives(received, other):
    assert received(other) == []


def test_a_disabled_rule_gets_nothing(cloud, received):
    cloud.client("events", ACCOUNT, REGION).disable_rule(Name="rule")
    assert received(event()) == []


def test_a_rule_with_a_schedule_gets_its_own_events_alone(cloud, received, make_function):
    """moto gives a rule without a pattern every event, and makes none for a schedule."""
    arns, events = {}, cloud.client("events", ACCOUNT, REGION)
    for name in ("daily", "hourly"):
        function = make_function(name, ECHO)
        rule = events.put_rule(Name=name, ScheduleExpression="rate(1 day)")["RuleArn"]
        events.put_targets(Rule=name, Targets=[{"Id": name, "Arn": function}])
        cloud.client("lambda", ACCOUNT, REGION).add_permission(
            FunctionName=name,
            StatementId=name,
            Action="lambda:InvokeFunction",
            Principal="events.amazonaws.com",
            SourceArn=rule,
        )
        arns[name] = rule

    received(event())
    received(scheduled(arns["daily"], "2026-11-23T06:00:00Z"))

    assert [one.function_name for one in cloud.invocations] == ["probe", "daily"]
    got = cloud.invocations[-1].event
    assert (got["time"], got["detail"]) == ("2026-11-23T06:00:00Z", {})


def test_each_of_several_matching_rules_invokes(cloud, received, make_function, make_rule):
    make_rule("other", PATTERN, make_function("other-function", ECHO))
    received(event())
    assert {one.function_name for one in cloud.invocations} == {"probe", "other-function"}


def test_another_account_has_its_own_bus(cloud, received):
    assert received(event() | {"account": "444455556666"}) == []


def test_a_function_that_eventbridge_may_not_invoke_is_noted(cloud, make_function, make_rule):
    make_rule("rule", PATTERN, make_function("probe", ECHO), permitted=False)
    cloud.put_event(event())
    cloud.wait_idle()
    assert cloud.invocations == []
    (undelivered,) = cloud.undelivered
    assert (undelivered.rule, undelivered.function_name) == ("rule", "probe")
    assert (undelivered.error_code, undelivered.dead_letter) == ("NO_PERMISSIONS", None)


def test_what_cannot_be_delivered_goes_to_the_queue_of_the_target(cloud, received):
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    events = cloud.client("events", ACCOUNT, REGION)
    (target,) = events.list_targets_by_rule(Rule="rule")["Targets"]
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:undelivered"
    target["DeadLetterConfig"] = {"Arn": queue}
    events.put_targets(Rule="rule", Targets=[target])
    cloud.client("lambda", ACCOUNT, REGION).delete_function(FunctionName="probe")

    assert received(event()) == []
    url = sqs.create_queue(QueueName="undelivered")["QueueUrl"]
    received(event())
    allow(sqs, url, queue, "rule/another-*")
    received(event())
    allow(sqs, url, queue, "rule/ru*")
    received(event())

    reasons = [(one.error_code, one.refused, one.dead_letter) for one in cloud.undelivered]
    assert reasons == [
        ("NO_RESOURCE", "the queue does not exist", None),
        ("NO_RESOURCE", "the queue's policy does not allow it", None),
        ("NO_RESOURCE", "the queue's policy does not allow it", None),
        ("NO_RESOURCE", None, queue),
    ]
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert json.loads(message["Body"])["detail"] == event()["detail"]
    attributes = {key: one["StringValue"] for key, one in message["MessageAttributes"].items()}
    assert attributes["RULE_ARN"].endswith(":rule/rule")
    assert attributes["TARGET_ARN"] == target["Arn"]
    assert attributes["ERROR_CODE"] == "NO_RESOURCE"


def allow(sqs, url, queue, source):
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:events:{REGION}:{ACCOUNT}:{source}"}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})


def test_other_targets_go_on_working(cloud, received):
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    queue = sqs.create_queue(QueueName="events")["QueueUrl"]
    cloud.client("events", ACCOUNT, REGION).put_targets(
        Rule="rule", Targets=[{"Id": "2", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:events"}]
    )
    assert len(received(event())) == 1
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(message["Body"])["detail"] == {"severity": 5}
