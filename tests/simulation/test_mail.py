"""The mailer on the queue: from SNS to the sink, on messages as Custodian sends them."""

import base64
import json
import zlib

import pytest

from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, MAIL_ACCOUNT, REGION = "111122223333", "999988887777", "us-west-2"
CONFIG = """
queue_url: https://sqs.us-west-2.amazonaws.com/1/elsewhere
role: arn:aws:iam::1:role/mailer
from_address: from@example.com
smtp_server: mail.example.com
smtp_port: 587
smtp_username: somebody
smtp_password: env:SMTP_PASSWORD
account_emails:
  default: [security@example.com]
"""


@pytest.fixture
def sink():
    with MailSink() as sink:
        yield sink


@pytest.fixture
def queue(cloud):
    """The mail queue, in an account of its own; it takes messages from anybody."""
    allow = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    policy = json.dumps({"Statement": [allow]})
    sqs = cloud.client("sqs", MAIL_ACCOUNT, REGION)
    return sqs.create_queue(QueueName="mail", Attributes={"Policy": policy})["QueueUrl"]


@pytest.fixture
def topic(cloud, queue):
    sns = cloud.client("sns", ACCOUNT, REGION)
    topic = sns.create_topic(Name="topic")["TopicArn"]
    sns.add_permission(
        TopicArn=topic, Label="mail", AWSAccountId=[MAIL_ACCOUNT], ActionName=["Subscribe"]
    )
    arn = f"arn:aws:sqs:{REGION}:{MAIL_ACCOUNT}:mail"
    owner = cloud.client("sns", MAIL_ACCOUNT, REGION)
    owner.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return topic


@pytest.fixture
def mailer(cloud, sink, queue, tmp_path):
    config = tmp_path / "mailer.yml"
    config.write_text(CONFIG)
    (tmp_path / "good.html.j2").write_text("<p>{{ event.name }}</p>")
    (tmp_path / "bad.html.j2").write_text("{{ 1 / 0 }}")
    return Mailer(cloud, sink, MAIL_ACCOUNT, REGION, queue, config, tmp_path)


@pytest.fixture
def notify(cloud, topic):
    """Publishes what Custodian's `notify` would."""

    def publish(template="good.html", name="x"):
        message = {
            "account": "name",
            "account_id": ACCOUNT,
            "region": REGION,
            "event": {"name": name},
            "policy": {"name": "p", "resource": "account"},
            "resources": [{"account_id": ACCOUNT}],
            "action": {"to": ["account-emails"], "template": template, "subject": f"mail {name}"},
        }
        packed = base64.b64encode(zlib.compress(json.dumps(message).encode())).decode()
        cloud.client("sns", ACCOUNT, REGION).publish(
            TopicArn=topic,
            Message=packed,
            MessageAttributes={"mtype": {"DataType": "String", "StringValue": "maidmsg/1.0"}},
        )

    return publish


def test_all_that_is_on_the_queue_is_delivered(mailer, notify, sink):
    notify(name="one")
    notify(name="two")
    assert mailer.deliver_all() == 2
    assert [mail.subject for mail in sink.mails] == ["mail one", "mail two"]
    assert sink.mails[0].body.strip() == "<p>one</p>"
    assert sink.mails[0].recipients == ["security@example.com"]
    assert mailer.deliver_all() == 0


def test_following_delivers_as_soon_as_something_is_published(mailer, notify, sink):
    with mailer.following():
        notify(name="one")
        sink.wait_for(1)
        notify(name="two")
    assert len(sink.mails) == 2


def test_what_fails_is_raised_and_the_message_stays(mailer, notify, sink):
    sink.refusal = "451 later"
    notify(name="one")
    with pytest.raises(RuntimeError, match="policy=p .*451 later.* was kept on the queue"):
        mailer.deliver_all()
    assert sink.mails == []
    sink.refusal = None
    assert mailer.deliver_all() == 1


def test_following_raises_at_its_end_what_failed(mailer, notify, sink):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"), mailer.following():
        notify(template="bad.html")


def test_the_command_does_the_same(mailer, notify, sink):
    notify(name="one")
    finished = mailer.run_command()
    assert (finished.returncode, len(sink.mails)) == (0, 1), finished.stderr
