"""Alarms over what happened in the simulated cloud, and the loops of a template."""

import json
import time

import pytest

from simulation.alarms import ringing
from simulation.cloudformation import expanded

ACCOUNT, REGION = "111122223333", "us-west-2"
FAIL = {"main.py": "def run(event, context):\n    raise ValueError('no luck')\n"}


@pytest.fixture
def alarm(cloud):
    """Makes an alarm on Errors of the function `probe`; the arguments change it."""

    def make(name, **changes):
        cloud.client("cloudwatch", ACCOUNT, REGION).put_metric_alarm(
            **{
                "AlarmName": name,
                "Namespace": "AWS/Lambda",
                "MetricName": "Errors",
                "Dimensions": [{"Name": "FunctionName", "Value": "probe"}],
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 3,
                "Threshold": 0,
                "ComparisonOperator": "GreaterThanThreshold",
                "TreatMissingData": "notBreaching",
            }
            | changes
        )

    return make


def test_how_many_periods_breach_and_what_no_data_means(cloud, alarm, make_function):
    alarm("one-of-three", DatapointsToAlarm=1)
    alarm("three-of-three")
    alarm("more-than-one", DatapointsToAlarm=1, Threshold=1)
    alarm("nothing", ComparisonOperator="LessThanThreshold", TreatMissingData="breaching")
    assert ringing(cloud, ACCOUNT, REGION) == ["nothing"]
    make_function("probe", FAIL)
    cloud.invoke("probe", {}, ACCOUNT, REGION)
    assert ringing(cloud, ACCOUNT, REGION) == ["one-of-three"]
    assert ringing(cloud, ACCOUNT, REGION, later=150) == ["one-of-three"]
    assert ringing(cloud, ACCOUNT, REGION, later=200) == ["nothing"]
    cloud.invoke("probe", {}, ACCOUNT, REGION)
    assert ringing(cloud, ACCOUNT, REGION) == ["more-than-one", "one-of-three"]


def test_queues_show_how_many_messages_and_how_old(cloud, alarm):
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    url = sqs.create_queue(QueueName="post")["QueueUrl"]
    queue = {
        "Namespace": "AWS/SQS",
        "Dimensions": [{"Name": "QueueName", "Value": "post"}],
        "Statistic": "Maximum",
        "EvaluationPeriods": 1,
    }
    alarm("depth", MetricName="ApproximateNumberOfMessagesVisible", **queue)
    alarm("age", MetricName="ApproximateAgeOfOldestMessage", Threshold=600, **queue)
    alarm("deleted", MetricName="NumberOfMessagesDeleted", **queue)
    assert ringing(cloud, ACCOUNT, REGION) == []
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert ringing(cloud, ACCOUNT, REGION, later=1) == ["depth"]
    (message,) = sqs.receive_message(QueueUrl=url, VisibilityTimeout=900)["Messages"]
    assert ringing(cloud, ACCOUNT, REGION, later=1) == []
    assert ringing(cloud, ACCOUNT, REGION, later=700) == ["age"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert ringing(cloud, ACCOUNT, REGION) == ["deleted"]
    assert ringing(cloud, ACCOUNT, REGION, later=700) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"MetricName": "Duration"},
        {"Namespace": "AWS/EC2"},
        {"Dimensions": [{"Name": "Resource", "Value": "probe"}]},
        {"TreatMissingData": "ignore"},
    ],
)
def test_what_is_not_simulated_is_said(cloud, alarm, changes):
    alarm("odd", **changes)
    with pytest.raises(NotImplementedError):
        ringing(cloud, ACCOUNT, REGION, later=time.time())


@pytest.mark.slow
def test_loops_of_a_template_are_written_out():
    template = """
        Transform: AWS::LanguageExtensions
        Parameters: {Names: {Type: CommaDelimitedList, Default: "a-b,c"}}
        Resources:
          Fn::ForEach::Queues:
            - Name
            - !Ref Names
            - "Queue&{Name}": {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub "q-${Name}"}}
    """
    resources = json.loads(expanded(template))["Resources"]
    names = {name: one["Properties"]["QueueName"] for name, one in resources.items()}
    assert names == {"Queueab": "q-a-b", "Queuec": "q-c"}
    assert expanded("Resources: {}") == "Resources: {}"
