"""Who may publish to the topic and send to the queue: the policies of infra/, as IAM reads them.

The simulation enforces them (simulation/policies.py); here each is asked about many.
"""

import json
import re

import pytest
from pack import OPT_IN

from deployment.policies import opt_ins
from deployment.template import look
from infra.permissions import deployed
from simulation import deploy, policies

REGION = "us-west-2"
SSO = "sso.amazonaws.com/eu-west-1/AWSReservedSSO_Responder_0123456789abcdef"
RELEASER = "arn:aws:iam::{0}:role/release"
RESPONDERS = "arn:aws:iam::{0}:role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_Responder_*"


def decision(policy, principal=None, source=None):
    """Of this policy alone: an identity of the account comes with an allow of its own."""
    keys = {"aws:PrincipalArn": principal, "aws:SourceArn": source}
    statement = policy["Statement"][0]
    request = policies.Request(
        statement["Action"],
        statement["Resource"],
        principal or f"{source.split(':')[2]}.amazonaws.com",
        {key: value for key, value in keys.items() if value},
    )
    said = policies.effect(policy, request)
    return said.lower() if said else "by its own policy" if principal else "not allowed"


@pytest.fixture(scope="module", params=["111122223333", "444455556666"], ids=["alone", "people"])
def infra(request, cloud):
    """The policies of topic and queue in an account; in the second people are named."""
    account = request.param
    people = "" if account == "111122223333" else f"{RELEASER},{RESPONDERS}".format(account)
    others = "" if account == "111122223333" else "555566667777"
    parameters = {"SenderArns": people, "AccountIds": others}
    mailer = deploy.stack(cloud, "mailer.yml", account, REGION, **parameters)
    parameters = {"MailQueueArn": mailer["MailQueueArn"], "PublisherArns": people}
    parameters |= OPT_IN if people else {}
    topic = deploy.stack(cloud, "account.yml", account, REGION, **parameters)["TopicArn"]
    sns, sqs = cloud.client("sns", account, REGION), cloud.client("sqs", account, REGION)
    of_topic = sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
    of_queue = sqs.get_queue_attributes(QueueUrl=mailer["MailQueueUrl"], AttributeNames=["Policy"])
    return account, json.loads(of_topic), json.loads(of_queue["Attributes"]["Policy"])


def assert_decisions(policy, account, pack, person):
    """pack: the name of the role that may. person: what becomes of a responder."""
    role = f"arn:aws:iam::{account}:role"
    assert decision(policy, f"{role}/{pack}") == "by its own policy"
    for arn in (f"{role}/release", f"{role}/aws-reserved/{SSO}"):
        assert decision(policy, arn) == person
    for stranger in (
        f"{role}/application", f"{role}/{pack}-x", f"{role}/x/{pack}",
        f"arn:aws:iam::{account}:user/mallory", f"arn:aws:iam::{account}:root",
        f"arn:aws:iam::999999999999:role/{pack}",
    ):  # fmt: skip
        assert decision(policy, stranger) == "deny", stranger


def test_the_topic_takes_messages_of_the_pack_only(infra):
    account, policy, _ = infra
    person = "deny" if account == "111122223333" else "by its own policy"
    opt_in = opt_ins()
    assert "iam-user-deactivate-access-key" in opt_in
    for name in set(deployed()) - opt_in:
        assert_decisions(policy, account, f"guardduty-response-{name}", person)
    # a role of that name is made only where that policy is asked for: in the second account
    for name in opt_in:
        may = decision(policy, f"arn:aws:iam::{account}:role/guardduty-response-{name}")
        assert may == person, name
    assert decision(policy, source=f"arn:aws:cloudwatch:{REGION}:{account}:alarm:x") == "deny"


def test_the_queue_takes_messages_of_the_topic_and_of_the_mailer_only(infra):
    account, _, policy = infra
    person = "deny" if account == "111122223333" else "by its own policy"
    assert_decisions(policy, account, "guardduty-response-mailer", person)
    assert decision(policy, f"arn:aws:iam::{account}:role/guardduty-response-x") == "deny"
    topic = f"arn:aws:sns:eu-west-1:{account}:guardduty-response"
    assert decision(policy, source=topic) == "allow"
    for source in (topic + "-x", f"arn:aws:events:{REGION}:{account}:rule/guardduty-response"):
        assert decision(policy, source=source) == "deny"
    # a service has no policy of its own
    foreign = topic.replace(account, "999999999999")
    assert decision(policy, source=foreign) == "not allowed"


def test_the_key_of_the_queue_is_for_the_same_topics_and_outlives_its_stack(infra, cloud):
    account, other = infra[0], "555566667777"
    ours = f"arn:aws:sns:eu-west-1:{account}:guardduty-response"
    theirs, foreign = (ours.replace(account, id) for id in (other, "999999999999"))

    def key():
        kms = cloud.client("kms", account, REGION)
        found = kms.describe_key(KeyId="alias/guardduty-response-mail")["KeyMetadata"]["KeyId"]
        policy = kms.get_key_policy(KeyId=found, PolicyName="default")["Policy"]
        tags = kms.list_resource_tags(KeyId=found)["Tags"]
        return json.loads(policy), {tag["TagKey"]: tag["TagValue"] for tag in tags}

    def admits(source):
        context = {"aws:SourceArn": source}
        request = policies.Request("kms:GenerateDataKey", "*", "sns.amazonaws.com", context)
        return policies.effect(key()[0], request) == "Allow"

    named = account != "111122223333"
    assert [admits(source) for source in (ours, theirs, foreign)] == [True, named, False]
    # what the mailer's role and infra/operators.yml know it by
    assert key()[1] == {"guardduty-response:mail-key": "yes"}
    role = cloud.client("iam", account, REGION).get_role_policy(
        RoleName="guardduty-response-mailer", PolicyName="mail-queue"
    )["PolicyDocument"]
    (may,) = [s for s in role["Statement"] if "kms:Decrypt" in s["Action"]]
    wanted = may["Condition"]["StringEquals"]
    assert wanted["aws:ResourceTag/guardduty-response:mail-key"] == "yes"

    template = look("mailer.yml")
    found, parameters = template["Resources"]["MailKey"], template["Parameters"]
    assert found["DeletionPolicy"] == found["UpdateReplacePolicy"] == "Retain"
    # 8,192 bytes of a queue's policy
    pattern = re.compile(parameters["AccountIds"]["AllowedPattern"])
    assert pattern.fullmatch(",".join([other] * 100))
    assert not pattern.fullmatch(",".join([other] * 101))
