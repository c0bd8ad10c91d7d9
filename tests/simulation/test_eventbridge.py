"""EventBridge rules that invoke functions."""

import json

import pytest

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
    assert cloud.undelivered == [("rule", "probe")]


def test_other_targets_go_on_working(cloud, received):
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    queue = sqs.create_queue(QueueName="events")["QueueUrl"]
    cloud.client("events", ACCOUNT, REGION).put_targets(
        Rule="rule", Targets=[{"Id": "2", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:events"}]
    )
    assert len(received(event())) == 1
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(message["Body"])["detail"] == {"severity": 5}
