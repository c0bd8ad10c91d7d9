"""A queue as event source of a function."""

import json
import re
import threading

import pytest
from moto.sqs.models import sqs_backends

ACCOUNT, REGION = "111122223333", "us-west-2"
# Fails the messages whose body says so, or the whole batch, or answers what Lambda cannot read.
SOURCE = """
def run(event, context):
    bodies = [record["body"] for record in event["Records"]]
    if "raise" in bodies:
        raise ValueError("no")
    if "nonsense" in bodies:
        return {"batchItemFailures": [{"itemIdentifier": "another"}]}
    return {"batchItemFailures": [
        {"itemIdentifier": r["messageId"]} for r in event["Records"] if r["body"] == "fail"
    ]}
"""


@pytest.fixture
def sqs(cloud):
    return cloud.client("sqs", ACCOUNT, REGION)


@pytest.fixture
def queue(sqs):
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    url = sqs.create_queue(
        QueueName="queue", Attributes={"VisibilityTimeout": "300", "RedrivePolicy": policy}
    )["QueueUrl"]
    return url, dead


@pytest.fixture
def ran(cloud):
    """Wakes after each invocation: `ran.wait(seconds)`."""
    event = threading.Event()
    cloud.functions.subscribe(lambda invocation: event.set())
    return event


@pytest.fixture
def mapping(cloud, make_function, queue):
    def make(**options):
        return cloud.client("lambda", ACCOUNT, REGION).create_event_source_mapping(
            FunctionName=make_function("fed", {"main.py": SOURCE}),
            EventSourceArn=f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue",
            **options,
        )

    return make


def left(sqs, queue):
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    got = sqs.get_queue_attributes(QueueUrl=queue[0], AttributeNames=names)["Attributes"]
    return sum(int(got[name]) for name in names)


def settled(cloud, sqs, queue, count):
    """Wait until so many messages are left, and that no batch is on its way."""
    for _ in range(100):
        if left(sqs, queue) == count:
            return True
        threading.Event().wait(0.05)
    return False


PARTIAL = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}


def test_the_event_is_lambdas(cloud, sqs, queue, mapping, ran):
    mapping()
    sqs.send_message(
        QueueUrl=queue[0],
        MessageBody="hello",
        MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}},
    )
    assert ran.wait(10)
    (record,) = cloud.invocations[0].event["Records"]
    assert record["body"] == "hello"
    assert record["messageAttributes"]["a"]["stringValue"] == "b"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert (record["eventSource"], record["awsRegion"]) == ("aws:sqs", REGION)
    assert settled(cloud, sqs, queue, 0)


@pytest.mark.parametrize(
    ("body", "options", "kept"),
    [
        ("fail", PARTIAL, 1),
        ("fail", {}, 0),  # without the response type the answer means nothing
        ("raise", PARTIAL, 1),
        ("nonsense", PARTIAL, 1),
    ],
)
def test_what_failed_stays(cloud, sqs, queue, mapping, ran, body, options, kept):
    mapping(**options)
    sqs.send_message(QueueUrl=queue[0], MessageBody=body)
    assert ran.wait(10)
    sqs.send_message(QueueUrl=queue[0], MessageBody="fine")
    assert settled(cloud, sqs, queue, kept)


def test_what_keeps_failing_becomes_a_dead_letter(cloud, sqs, queue, mapping):
    sqs.set_queue_attributes(QueueUrl=queue[0], Attributes={"VisibilityTimeout": "0"})
    mapping(**PARTIAL)
    sqs.send_message(QueueUrl=queue[0], MessageBody="fail")
    assert settled(cloud, sqs, queue, 0)
    assert left(sqs, (queue[1],)) == 1
    assert len(cloud.invocations) == 2


def test_the_functions_role_takes_the_messages(cloud, sqs, queue, mapping, ran):
    mapping()
    sqs.send_message(QueueUrl=queue[0], MessageBody="hello")
    assert ran.wait(10)
    assert "ReceiveMessage" in [call.operation for call in cloud.call_log.by("function-role")]


def test_a_message_says_which_role_has_sent_it(sqs, queue):
    """moto has one SenderId for all."""
    sqs.send_message(QueueUrl=queue[0], MessageBody="hello")
    asked = {"QueueUrl": queue[0], "AttributeNames": ["SenderId"]}
    (message,) = sqs.receive_message(**asked)["Messages"]
    assert re.fullmatch("AROA[A-Z0-9]+:simulation", message["Attributes"]["SenderId"])


def test_a_mapping_that_is_deleted_or_disabled_takes_nothing(cloud, sqs, queue, mapping, ran):
    uuid = mapping(Enabled=False)["UUID"]
    sqs.send_message(QueueUrl=queue[0], MessageBody="hello")
    assert not ran.wait(0.3)
    cloud.client("lambda", ACCOUNT, REGION).delete_event_source_mapping(UUID=uuid)
    assert left(sqs, queue) == 1


def test_a_message_that_was_sent_days_ago_can_be_put_back(sqs, queue):
    url, _ = queue
    sqs.send_message(QueueUrl=url, MessageBody="old")
    (kept,) = sqs_backends[ACCOUNT][REGION].queues["queue"]._messages
    kept.sent_timestamp -= 2 * 86_400_000
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    held = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    sqs.change_message_visibility(**held, VisibilityTimeout=900)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    sqs.change_message_visibility(**held, VisibilityTimeout=0)
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1
