"""SNS and SQS with policies: who may call them, what is pending, what reaches a queue."""

import json

import pytest
from botocore.exceptions import ClientError

from simulation.organizations import organization, organization_of
from simulation.policies import Request, applies, effect
from simulation.sns import principal

ACCOUNT, OTHER, REGION, ELSEWHERE = "111122223333", "444455556666", "us-west-2", "eu-west-1"
TOPIC = f"arn:aws:sns:{ELSEWHERE}:{ACCOUNT}:topic"
QUEUE = f"arn:aws:sqs:{REGION}:{OTHER}:queue"


def policy(effect="Allow", principal="*", action="*", **condition):
    statement = {"Effect": effect, "Principal": principal, "Action": action, "Resource": "*"}
    return json.dumps({"Statement": [statement | ({"Condition": condition} if condition else {})]})


@pytest.fixture
def sns(cloud):
    """A client of an account and region, by default where the topic is."""
    client = cloud.client("sns", ACCOUNT, ELSEWHERE)
    client.create_topic(Name="topic")
    return lambda account=ACCOUNT, role="x": cloud.client("sns", account, ELSEWHERE, role)


@pytest.fixture
def queue(cloud):
    """The client and URL of a queue in another account and region that SNS may send to."""
    sqs = cloud.client("sqs", OTHER, REGION)
    allow = policy(principal={"Service": "sns.amazonaws.com"}, ArnLike={"aws:SourceArn": TOPIC})
    made = sqs.create_queue(QueueName="queue", Attributes={"Policy": allow})
    return sqs, made["QueueUrl"]


def received(queue):
    sqs, url = queue
    got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(one["Body"]) for one in got]


def refused(code, call, **parameters):
    with pytest.raises(ClientError) as error:
        call(**parameters)
    assert error.value.response["Error"]["Code"] == code


def test_the_topics_policy_decides_who_publishes_and_subscribes(sns):
    message = {"TopicArn": TOPIC, "Message": "x"}
    subscription = {"TopicArn": TOPIC, "Protocol": "sqs", "Endpoint": QUEUE}
    sns().publish(**message)
    # moto lets everybody
    refused("AuthorizationError", sns(OTHER).publish, **message)
    refused("AuthorizationError", sns(OTHER).subscribe, **subscription)
    one = {"ArnNotLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/x"}}
    deny = policy("Deny", action="sns:Publish", **one)
    sns().set_topic_attributes(TopicArn=TOPIC, AttributeName="Policy", AttributeValue=deny)
    sns().publish(**message)
    refused("AuthorizationError", sns(role="y").publish, **message)
    entries = [{"Id": "1", "Message": "x"}]
    call = sns(role="y").publish_batch
    refused("AuthorizationError", call, TopicArn=TOPIC, PublishBatchRequestEntries=entries)


def test_who_owns_the_queue_subscribes_at_once_and_others_wait(sns, queue):
    subscription = {"TopicArn": TOPIC, "Protocol": "sqs", "Endpoint": QUEUE}
    assert sns().subscribe(**subscription)["SubscriptionArn"] == "pending confirmation"
    sns().publish(TopicArn=TOPIC, Message="early")
    (asked,) = received(queue)
    assert (asked["Type"], asked["TopicArn"]) == ("SubscriptionConfirmation", TOPIC)
    (one,) = sns().list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"]
    assert one["SubscriptionArn"] == "PendingConfirmation"
    refused("InvalidParameter", sns(OTHER).confirm_subscription, TopicArn=TOPIC, Token="x")
    answer = sns(OTHER).confirm_subscription(TopicArn=TOPIC, Token=asked["Token"])
    assert answer["SubscriptionArn"].startswith(TOPIC)
    sns().publish(TopicArn=TOPIC, Message="m")
    assert [one["Message"] for one in received(queue)] == ["m"]

    sns().unsubscribe(SubscriptionArn=answer["SubscriptionArn"])
    sns().add_permission(TopicArn=TOPIC, Label="x", AWSAccountId=[OTHER], ActionName=["Subscribe"])
    assert sns(OTHER).subscribe(**subscription)["SubscriptionArn"].startswith(TOPIC)
    sns().publish(TopicArn=TOPIC, Message="m")
    assert [one["Message"] for one in received(queue)] == ["m"]
    # moto: of its own account alone
    (one,) = sns().list_subscriptions_by_topic(TopicArn=TOPIC)["Subscriptions"]
    assert one["Owner"] == OTHER


def test_a_queue_takes_what_its_policy_admits_the_rest_is_buried(sns, queue, cloud):
    sqs, url = queue
    here = cloud.client("sqs", ACCOUNT, ELSEWHERE)
    to_bury = {"Policy": policy(principal={"Service": "sns.amazonaws.com"})}
    dead = here.create_queue(QueueName="dead", Attributes=to_bury)["QueueUrl"]
    sns().subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=QUEUE, ReturnSubscriptionArn=True)
    (asked,) = received(queue)
    arn = sns().confirm_subscription(TopicArn=TOPIC, Token=asked["Token"])["SubscriptionArn"]
    redrive = json.dumps({"deadLetterTargetArn": f"arn:aws:sqs:{ELSEWHERE}:{ACCOUNT}:dead"})
    sns().set_subscription_attributes(
        SubscriptionArn=arn, AttributeName="RedrivePolicy", AttributeValue=redrive
    )
    ours = organization(cloud, "000011112222", {ACCOUNT: "x"})
    assert organization_of(ACCOUNT) == ours == organization_of("000011112222")
    assert organization_of(OTHER) is None
    service = {"Service": "sns.amazonaws.com"}
    for said, admitted in (
        (policy(principal=service), True),
        ("", False),
        (policy(principal={"Service": "events.amazonaws.com"}), False),
        (policy(principal={"AWS": "*"}, ArnEquals={"aws:SourceArn": TOPIC}), True),
        (policy(principal=service, ArnLike={"aws:SourceArn": TOPIC + "x"}), False),
        (policy(principal=service, StringEquals={"aws:SourceOrgID": ours}), True),
        (policy(principal=service, StringEquals={"aws:SourceOrgID": "o-x"}), False),
        (policy(principal=service, StringEquals={"aws:SourceAccount": ACCOUNT}), True),
        (policy(principal=service, StringEquals={"aws:SourceAccount": OTHER}), False),
    ):
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": said})
        sns().publish(TopicArn=TOPIC, Message=said or "none")
        found = len(received(queue)), len(received((here, dead)))
        assert found == ((1, 0) if admitted else (0, 1)), said
    # a key that has no word for SNS, and AWS's own, which never has one
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy()})
    key = cloud.client("kms", OTHER, REGION).create_key()["KeyMetadata"]["Arn"]
    for name in (key, "alias/aws/sqs"):
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"KmsMasterKeyId": name})
        sns().publish(TopicArn=TOPIC, Message="x")
        assert (len(received(queue)), len(received((here, dead)))) == (0, 1)


def test_a_queue_of_another_account_is_its_own_and_has_a_policy(cloud, queue):
    sqs, url = queue
    stranger = cloud.client("sqs", ACCOUNT, REGION)
    stranger.create_queue(QueueName="queue")
    refused("AccessDenied", stranger.send_message, QueueUrl=url, MessageBody='"x"')
    refused("AccessDenied", stranger.receive_message, QueueUrl=url)
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    allow = policy(principal=principal, action="sqs:SendMessage")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": allow})
    stranger.send_message(QueueUrl=url, MessageBody='"x"')
    assert received(queue) == ["x"], "moto takes the caller's queue of that name"
    deny = policy("Deny", action="sqs:SendMessage")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": deny})
    refused("AccessDenied", sqs.send_message, QueueUrl=url, MessageBody='"x"')


def test_what_sns_is_called_between_regions():
    """https://docs.aws.amazon.com/sns/latest/dg/sns-cross-region-delivery.html"""
    assert principal(REGION, ELSEWHERE) == principal(REGION, REGION) == "sns.amazonaws.com"
    assert principal("ap-east-1", "ap-east-1") == "sns.amazonaws.com"
    assert principal("ap-east-1", REGION) == "sns.ap-east-1.amazonaws.com"
    assert principal(REGION, "ap-east-1") == "sns.ap-east-1.amazonaws.com"


def test_sns_does_not_deliver_from_one_opt_in_region_to_another(cloud):
    topic = cloud.client("sns", ACCOUNT, "me-south-1")
    arn = topic.create_topic(Name="topic")["TopicArn"]
    for region, found in (("ap-east-1", 0), ("me-south-1", 1), (REGION, 1)):
        sqs = cloud.client("sqs", ACCOUNT, region)
        url = sqs.create_queue(QueueName="q", Attributes={"Policy": policy()})["QueueUrl"]
        queue = f"arn:aws:sqs:{region}:{ACCOUNT}:q"
        topic.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue)
        topic.publish(TopicArn=arn, Message="x")
        assert len(received((sqs, url))) == found, region


@pytest.mark.parametrize(
    "operator, wanted, found, holds",
    [
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", "a", None, False),
        ("StringNotEquals", "a", None, True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("ArnLike", "arn:*:sns:*:1:x", "arn:aws:sns:r:1:x", True),
        ("ArnLike", "arn:*:x", "arn:aws:sns:r:1:x", False),
        ("ArnNotLike", "arn:*:sns:*:1:x", "arn:aws:sns:r:2:x", True),
        ("ForAllValues:StringLike", "a*", None, True),
        ("ForAllValues:StringLike", "a*", ["ab", "b"], False),
        ("ForAnyValue:StringLike", "a*", ["b", "ab"], True),
        ("ForAnyValue:StringLike", "a*", None, False),
        ("Null", "true", None, True),
    ],
)
def test_conditions(operator, wanted, found, holds):
    assert applies(operator, wanted, found) is holds


def test_a_deny_goes_before_an_allow_and_actions_and_keys_have_no_case():
    both = {"Statement": []}
    for effect_, condition in (("Allow", {}), ("Deny", {"StringEquals": {"AWS:sourcearn": "x"}})):
        both["Statement"] += json.loads(policy(effect_, action="SQS:Send*", **condition))[
            "Statement"
        ]
    asked = "sqs:SendMessage", QUEUE, f"arn:aws:iam::{ACCOUNT}:role/x"
    assert effect(both, Request(*asked)) == "Allow"
    assert effect(both, Request(*asked, {"aws:SourceArn": "x"})) == "Deny"
    assert effect(both, Request("sqs:ReceiveMessage", *asked[1:])) is None
