"""Deploying with CloudFormation and Custodian, and a first finding all the way to a mail."""

from pathlib import Path

import pytest
from pack import OPT_IN

from custom_actions.finding_file import read_finding
from simulation import deploy
from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, MAIL_ACCOUNT, REGION = "111122223333", "999988887777", "us-west-2"
SCENARIO = Path(deploy.__file__).with_name("scenario.json")
POLICY = """
policies:
  - name: probe
    resource: account
    mode: {type: guard-duty, role: guardduty-response-ec2-isolate}
    actions:
      - type: notify
        to: [somebody@example.com]
        subject: a subject
        template: finding.html
        transport: {type: sns, topic: guardduty-response}
"""


def test_from_a_policy_file_to_a_mail(cloud, tmp_path):
    policy = tmp_path / "probe.yml"
    policy.write_text(POLICY)
    mail = deploy.mailer_stack(cloud, MAIL_ACCOUNT, REGION, AccountIds=ACCOUNT)
    deploy.account_stack(cloud, ACCOUNT, REGION, mail["MailQueueArn"])
    output = deploy.deploy(cloud, [policy], ACCOUNT, REGION).stdout
    assert "Publishing custodian policy lambda function custodian-probe" in output

    event = read_finding(SCENARIO)
    with MailSink() as sink:
        mailer = Mailer(cloud, sink, MAIL_ACCOUNT, REGION, mail["MailQueueUrl"])
        mailer.deliver_all()  # which confirms the subscription
        with mailer.following():
            cloud.put_event(event)
            cloud.wait_idle()
        (received,) = sink.wait_for(1)
    assert (received.subject, received.recipients) == ("a subject", ["somebody@example.com"])
    (invocation,) = cloud.invocations
    assert invocation.error is None
    assert invocation.event["detail"] == event["detail"]
    assert "Publish" in [call.operation for call in cloud.call_log.by("custodian-probe")]


def test_a_tool_that_fails_raises_with_its_output(cloud, tmp_path):
    policy = tmp_path / "bad.yml"
    policy.write_text("policies: [{name: bad, resource: nothing}]")
    with pytest.raises(RuntimeError, match=r"(?s)custodian validate .*bad.yml: exit 1\n.*nothing"):
        deploy.custodian(cloud, ["validate", policy], ACCOUNT, REGION)


def test_a_stack_that_fails_raises(cloud):
    with pytest.raises(Exception, match="MailQueueArn"):
        deploy.stack(cloud, "account.yml", ACCOUNT, REGION)


def test_stacks_have_the_subscription_and_the_policies_of_topic_and_queue(cloud):
    mail = deploy.mailer_stack(cloud, MAIL_ACCOUNT, REGION)
    deploy.account_stack(cloud, ACCOUNT, REGION, mail["MailQueueArn"])
    sns = cloud.client("sns", ACCOUNT, REGION)
    (subscription,) = sns.list_subscriptions()["Subscriptions"]
    assert subscription["Endpoint"] == mail["MailQueueArn"]
    topic = sns.get_topic_attributes(TopicArn=subscription["TopicArn"])["Attributes"]
    assert "OnlyThePackPublishes" in topic["Policy"], "moto alone leaves SNS's default policy"
    sqs = cloud.client("sqs", MAIL_ACCOUNT, REGION)
    attributes = sqs.get_queue_attributes(QueueUrl=mail["MailQueueUrl"], AttributeNames=["Policy"])
    assert "sns.amazonaws.com" in attributes["Attributes"]["Policy"]


def test_a_second_region_makes_no_role_and_its_topic_names_them_all(cloud):
    mail = deploy.mailer_stack(cloud, ACCOUNT, REGION)
    chosen = {**OPT_IN, "CutTrackedConnections": "yes", "MemoryDocument": "Memory"}
    deploy.account_stack(cloud, ACCOUNT, REGION, mail["MailQueueArn"], **chosen)
    iam = cloud.client("iam", ACCOUNT, REGION)
    roles = iam.list_roles()["Roles"]
    policies = iam.list_policies(Scope="Local")["Policies"]

    queue = mail["MailQueueArn"]
    deploy.account_stack(cloud, ACCOUNT, "eu-west-1", queue, RoleRegion=REGION, **chosen)

    assert iam.list_roles()["Roles"] == roles
    assert iam.list_policies(Scope="Local")["Policies"] == policies
    sns = cloud.client("sns", ACCOUNT, "eu-west-1")
    (topic,) = sns.list_topics()["Topics"]
    policy = sns.get_topic_attributes(TopicArn=topic["TopicArn"])["Attributes"]["Policy"]
    functions = [role["Arn"] for role in roles if not role["RoleName"].endswith("-mailer")]
    assert len(functions) > 5 and all(arn in policy for arn in functions)


def test_an_archive_that_was_kept_is_the_one_that_is_built(cloud, monkeypatch):
    """Warm clouds keep archives; what is uploaded is the same to the byte."""
    mail = deploy.mailer_stack(cloud, ACCOUNT, REGION)
    deploy.account_stack(cloud, ACCOUNT, REGION, mail["MailQueueArn"])
    functions = cloud.client("lambda", ACCOUNT, REGION)
    hashes = []
    for warm in (False, True, True):
        monkeypatch.setattr(cloud, "warm", warm)
        deploy.deploy(cloud, ["policies/finding-notify.yml"], ACCOUNT, REGION)
        (function,) = functions.list_functions()["Functions"]
        hashes.append(function["CodeSha256"])
        functions.delete_function(FunctionName=function["FunctionName"])
    assert len(set(hashes)) == 1
