"""One central queue: topics of other accounts and regions, from the subscription to the mail."""

import json
import logging

import pytest
import yaml

from mailer import dead_letters
from mailer.queue import Queue
from simulation import deploy
from simulation.organizations import organization

ACCOUNT, REGION = "111122223333", "us-west-2"  # where the queue is
MEMBER, OTHER, STRANGER = "444455556666", "555566667777", "999999999999"
THERE, OPT_IN, FAR = "eu-west-1", "ap-east-1", "me-south-1"
REGIONS = [THERE, "eu-central-1", OPT_IN, FAR]
ACCOUNTS = {
    "accounts": [
        {"account_id": MEMBER, "name": "production", "role": "r", "regions": REGIONS},
        {"account_id": OTHER, "name": "elsewhere", "role": "r", "regions": ["us-east-1"]},
    ]
}


@pytest.fixture(scope="module")
def stack(cloud):
    here = organization(cloud, "000011112222", dict.fromkeys((ACCOUNT, MEMBER, OTHER), "x"))
    organization(cloud, "333344445555", {STRANGER: "x"})
    parameters = {"OrganizationId": here, "OptInRegions": OPT_IN}
    return deploy.mailer_stack(cloud, ACCOUNT, REGION, **parameters)


@pytest.fixture
def office(post, sink, stack):
    """The post office, with a mailer that knows the member by its accounts.yml."""

    def mailer(regions=REGIONS, **changes):
        ACCOUNTS["accounts"][0]["regions"] = regions
        (post.folder / "accounts.yml").write_text(yaml.safe_dump(ACCOUNTS))
        post.templates = deploy.ROOT / "mailer" / "templates"
        return post.loop(sink, accounts="accounts.yml", **changes)

    post.mailer = mailer
    return post


class Topic:
    """The topic of an account and region, as infra/account.yml makes it."""

    def __init__(self, office, stack, account, region, role="us-west-2"):
        self.account, self.office = account, office
        self.sns = office.cloud.client("sns", account, region, "guardduty-response-finding-notify")
        self.sqs = office.cloud.client("sqs", account, region)
        self.arn = f"arn:aws:sns:{region}:{account}:guardduty-response"
        if not [t for t in self.sns.list_topics()["Topics"] if t["TopicArn"] == self.arn]:
            queue = stack["MailQueueArn"]
            deploy.account_stack(office.cloud, account, region, queue, RoleRegion=role)

    @property
    def subscription(self):
        (one,) = self.sns.list_subscriptions_by_topic(TopicArn=self.arn)["Subscriptions"]
        return one["SubscriptionArn"]

    def publish(self, finding, about=None, title=None, **options):
        message = self.office.message(finding=finding, template="finding.html")
        message["event"]["detail"]["title"] = title
        message["account_id"] = message["event"]["detail"]["accountId"] = about or self.account
        self.sns.publish(TopicArn=self.arn, Message=self.office.pack(message), **options)

    def buried(self):
        """How much SNS could not deliver and has not been received here."""
        url = self.sqs.get_queue_url(QueueName="guardduty-response-dlq")["QueueUrl"]
        return len(self.sqs.receive_message(QueueUrl=url).get("Messages", []))


def test_a_subscription_waits_for_the_mailer_then_mails_arrive_with_the_accounts_name(
    office, sink, stack, caplog
):
    caplog.set_level(logging.INFO)
    topic = Topic(office, stack, MEMBER, THERE, "")
    assert topic.subscription == "PendingConfirmation"
    topic.publish("too-early")
    assert office.count() == (1, 0), "of a pending subscription the queue gets the question alone"
    (asked,) = office.sqs.receive_message(QueueUrl=office.url, VisibilityTimeout=0)["Messages"]
    assert json.loads(asked["Body"])["Type"] == "SubscriptionConfirmation"

    loop = office.mailer()
    loop.once()
    assert (loop.kept, sink.mails, office.count()) == ({}, [], (0, 0))
    assert f"confirmed: SubscriptionConfirmation of {topic.arn}" in caplog.text
    attributes = topic.sns.get_subscription_attributes(SubscriptionArn=topic.subscription)
    assert attributes["Attributes"]["ConfirmationWasAuthenticated"] == "true"
    (call,) = [call for call in office.cloud.calls if call.operation == "ConfirmSubscription"]
    assert (call.account_id, call.region) == (ACCOUNT, THERE)

    topic.publish("f-1")
    loop.once()
    (mail,) = sink.mails
    assert f"Account: {MEMBER} (production)" in " ".join(mail.text.split())
    assert mail.subject == "GuardDuty Finding | ID: f-1"


def test_a_topic_speaks_of_its_own_account_alone(office, sink, stack):
    topic = Topic(office, stack, MEMBER, THERE, "")
    office.mailer().once()
    topic.publish("f-2", about=OTHER)
    loop = office.mailer()
    loop.once()
    (line,) = loop.kept.values()
    assert f"{topic.arn} about {OTHER}" in line and "administrator_accounts" in line
    assert sink.mails == [] and office.dead == 1

    topic.publish("f-3", about=OTHER)
    office.mailer(administrator_accounts=[MEMBER]).once()
    assert [mail.subject.split()[-1] for mail in sink.mails] == ["f-3"]


def test_a_topic_is_not_believed_where_no_stack_is_nor_without_its_name(office, sink, stack):
    topic = Topic(office, stack, MEMBER, THERE, "")
    office.mailer().once()
    topic.publish("elsewhere")
    loop = office.mailer(regions=["us-east-1"])
    loop.once()
    (line,) = loop.kept.values()
    assert f"has us-east-1 of account {MEMBER}, and not the region of {topic.arn}" in line
    topic.publish("named")
    office.mailer(regions=["us-east-1"], topics=["arn:aws:sns:*:*:guardduty-response"]).once()
    topic.publish("unsaid")
    office.mailer(regions=[]).once()  # it was confirmed once
    assert [mail.subject.split()[-1] for mail in sink.mails] == ["named", "unsaid"]

    # raw, a topic's name is missing; nor may a role that sends it back lend its own, nor a note
    office.empty()
    sink.mails.clear()
    raw = {"SubscriptionArn": topic.subscription, "AttributeName": "RawMessageDelivery"}
    topic.sns.set_subscription_attributes(**raw, AttributeValue="true")
    note = {"mailer-sender": {"DataType": "String", "StringValue": "AROA0:x"}}
    topic.publish("raw", MessageAttributes=note)
    loop = office.mailer()
    loop.once()
    (line,) = loop.kept.values()
    assert "names no topic" in line and "RawMessageDelivery" in line and office.dead == 1
    dead_letters.run("send-back", Queue(office.sqs, office.url), loop.courier)
    loop.once()
    assert sink.mails == [] and office.dead == 1
    topic.sns.set_subscription_attributes(**raw, AttributeValue="false")
    office.send(finding="by-hand", template="finding.html")  # by a role that may
    loop.once()
    assert [mail.subject.split()[-1] for mail in sink.mails] == ["by-hand"]


def test_what_a_member_says_first_does_not_take_the_administrators_mail(office, sink, stack):
    member = Topic(office, stack, MEMBER, THERE, "")
    administrator = Topic(office, stack, ACCOUNT, REGION, "")
    loop = office.mailer(administrator_accounts=[ACCOUNT])
    for topic, mails in (
        (member, 1), (member, 1), (administrator, 2), (member, 2), (administrator, 2),
    ):  # fmt: skip
        topic.publish("f-7", about=MEMBER, title="harmless" if topic is member else "serious")
        loop.once()
        assert len(sink.mails) == mails, topic.arn
    # mail programs show one of several with the same id
    assert len({mail.message["Message-ID"] for mail in sink.mails}) == 2
    # the administrator's stands for both, and the member's where it reads the same
    administrator.publish("f-8", about=MEMBER, title="serious")
    loop.once()
    member.publish("f-8", about=MEMBER, title="harmless")
    member.publish("f-9", about=MEMBER, title="serious")
    loop.once()
    administrator.publish("f-9", about=MEMBER, title="serious")
    loop.once()
    assert [mail.subject.split()[-1] for mail in sink.mails[2:]] == ["f-8", "f-9"]


def test_what_is_not_known_is_refused_by_name_and_confirmed_when_it_is(office, sink, stack, capsys):
    topic = Topic(office, stack, OTHER, THERE, "")
    loop = office.mailer()
    loop.once()
    (line,) = loop.kept.values()
    assert f"not confirmed, since mailer.yml does not know {topic.arn}: add its account" in line
    assert "dead-letter queue" in line and topic.subscription == "PendingConfirmation"
    assert not [call for call in office.cloud.calls if call.operation == "ConfirmSubscription"]

    # in plain words in the list; sent back after mailer.yml was repaired
    queue = Queue(office.sqs, office.url)
    dead_letters.run("list", queue, loop.courier)
    assert f"SubscriptionConfirmation of {topic.arn}" in capsys.readouterr().out
    knows = office.mailer(topics=["arn:aws:sns:*:*:guardduty-response"])
    dead_letters.run("send-back", queue, knows.courier)
    # what has no ARN of that form is not even asked for
    pattern = office.mailer(topics=["arn:aws:sns:us-*:*:guardduty-response"])
    pattern.once()
    assert topic.subscription == "PendingConfirmation"
    dead_letters.run("send-back", queue, knows.courier)
    knows.once()
    assert knows.kept == {} and topic.subscription.startswith(topic.arn)

    forged = {"Type": "SubscriptionConfirmation", "Token": "x", "Message": "x"}
    forged |= {"TopicArn": "arn:aws:sns:evil.example/?:444455556666:guardduty-response"}
    ended = {"Type": "UnsubscribeConfirmation", "TopicArn": topic.arn, "Token": "x"}
    wrong = forged | {"TopicArn": topic.arn}
    for body in (forged, ended, wrong):
        office.send(json.dumps(body))
    knows.once()
    said = "\n".join(knows.kept.values())
    assert "does not know a topic without an ARN" in said and "InvalidParameter" in said
    assert f"the subscription of {topic.arn} was ended" in said and len(knows.kept) == 3
    assert office.dead == 3 and "…" not in said


def test_a_signed_call_that_is_refused_is_made_unsigned(office, stack):
    topic = Topic(office, stack, MEMBER, "eu-central-1")
    office.cloud.fail("ConfirmSubscription", "AuthorizationError", times=1)
    loop = office.mailer()
    loop.once()
    assert loop.kept == {} and topic.subscription.startswith(topic.arn)
    attributes = topic.sns.get_subscription_attributes(SubscriptionArn=topic.subscription)
    assert attributes["Attributes"]["ConfirmationWasAuthenticated"] == "false"


def test_opt_in_regions_have_an_sns_of_their_own_and_others_stay_outside(office, sink, stack):
    near, far = (Topic(office, stack, MEMBER, region) for region in (OPT_IN, FAR))
    stranger = Topic(office, stack, STRANGER, REGION, "")
    office.mailer().once()
    assert near.subscription.startswith(near.arn)
    # no question has reached the queue: of a region that is not named, of another organisation
    assert far.subscription == stranger.subscription == "PendingConfirmation"
    assert office.count() == (0, 0) and office.dead == 0
    near.publish("f-4")
    office.mailer().once()
    assert [mail.subject.split()[-1] for mail in sink.mails] == ["f-4"]


@pytest.mark.parametrize("wrong", ["queue", "key"])
def test_what_a_wrong_policy_keeps_out_is_in_the_dead_letter_queue_of_its_account(
    office, sink, stack, wrong
):
    topic = Topic(office, stack, MEMBER, THERE, "")
    office.mailer().once()
    kms = office.cloud.client("kms", ACCOUNT, REGION)
    key = kms.describe_key(KeyId="alias/guardduty-response-mail")["KeyMetadata"]["KeyId"]
    asked = {"QueueUrl": office.url, "AttributeNames": ["Policy"]}
    policy = office.sqs.get_queue_attributes(**asked)["Attributes"]
    of_key = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    if wrong == "queue":
        other = policy["Policy"].replace('"aws:SourceOrgID": "o-', '"aws:SourceOrgID": "o-x')
        office.sqs.set_queue_attributes(QueueUrl=office.url, Attributes={"Policy": other})
    else:
        other = of_key.replace('"sns.amazonaws.com"', '"events.amazonaws.com"')
        kms.put_key_policy(KeyId=key, PolicyName="default", Policy=other)
    topic.publish("f-5")
    office.mailer().once()
    assert (topic.buried(), sink.mails, office.count()) == (1, [], (0, 0))
    office.sqs.set_queue_attributes(QueueUrl=office.url, Attributes=policy)
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=of_key)
