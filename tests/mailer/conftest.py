"""A mail queue as infra/mailer.yml makes it, messages as `notify` sends them, a mail server."""

import base64
import datetime
import ipaddress
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.sqs.models import sqs_backends

from mailer import config as configuration
from mailer.loop import Loop
from mailer.queue import Queue
from mailer.secrets import Secrets
from simulation import deploy
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stack(cloud):
    return deploy.mailer_stack(cloud, ACCOUNT, REGION)


@pytest.fixture
def sink():
    with MailSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself: two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail server")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def trusted(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


@pytest.fixture
def post(cloud, stack, tmp_path):
    """A queue, empty at first, and what a test does with it."""
    office = PostOffice(cloud, stack["MailQueueUrl"], tmp_path)
    office.empty()
    yield office
    cloud.call_log.clear()
    office.empty()


class PostOffice:
    def __init__(self, cloud, url, folder):
        self.cloud = cloud
        self.url = url
        self.folder = folder
        self.sqs = cloud.client("sqs", ACCOUNT, REGION)
        self.dead_url = url + "-dlq"
        self.templates = folder / "templates"
        self.templates.mkdir()
        (self.templates / "plain.html.j2").write_text(
            "<p>{{ event['c7n:notice'].headline }}</p><p>resources: {{ resources | length }}</p>"
        )
        (self.templates / "slack.j2").write_text('{"text": "{{ event.detail.id }}"}')
        (self.templates / "broken.html.j2").write_text("{{ 1 / 0 }}")
        (self.templates / "empty.html.j2").write_text("{# nothing #}\n")

    def empty(self):
        for queue in sqs_backends[ACCOUNT][REGION].queues.values():
            queue._messages.clear()

    def time_out(self):
        """Have the visibility time-out of all messages end now."""
        for queue in sqs_backends[ACCOUNT][REGION].queues.values():
            for message in queue._messages:
                message.change_visibility(0)

    def send(self, body=None, **changes):
        """A message about a finding; `changes` as in `message`."""
        text = self.pack(self.message(**changes)) if body is None else body
        self.sqs.send_message(QueueUrl=self.url, MessageBody=text)

    def send_many(self, messages):
        """Ten messages a call: dictionaries of changes, as in `message`."""
        entries = [
            {"Id": str(n), "MessageBody": self.pack(self.message(**changes))}
            for n, changes in enumerate(messages)
        ]
        for n in range(0, len(entries), 10):
            self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries[n : n + 10])

    def count(self, url=None):
        """Messages that are visible, and that somebody holds."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        return tuple(int(got["Attributes"][name]) for name in names)

    def waiting(self):
        """Messages that somebody holds, or that are delayed."""
        queue = sqs_backends[ACCOUNT][REGION].queues["guardduty-response-mail"]
        return sum(not message.visible or message.delayed for message in queue._messages)

    @property
    def dead(self):
        return sum(self.count(self.dead_url))

    def config(self, sink, **changes):
        """A mailer.yml that sends to the sink; a change to None leaves a key out."""
        config = {
            "queue_url": self.url,
            "endpoint_url": self.cloud.endpoint,
            "region": REGION,
            "role": f"arn:aws:iam::{ACCOUNT}:role/guardduty-response-mailer",
            "from_address": "guardduty-response@example.com",
            "contact_tags": ["OwnerEmail"],
            "account_emails": {"default": ["security@example.com"]},
            "smtp_server": "127.0.0.1",
            "smtp_port": sink.port,
            "smtp_ssl": False,
        } | changes
        path = self.folder / "mailer.yml"
        path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}))
        return path

    def loop(self, sink, **changes):
        """A mailer in this process, as `python -m mailer` makes it, impatient."""
        config = configuration.load(self.config(sink, **changes))
        session = self.cloud.session(ACCOUNT, REGION)
        self.secrets = Secrets(session)
        courier = configuration.courier(config, session, self.secrets, self.templates)
        smtp = courier.transports[0]
        smtp.first_wait = smtp.wait = 0.0
        smtp.patience = 2.0
        return Loop(Queue(self.sqs, self.url), courier)

    def command(self, sink, *arguments, variables=None, **changes):
        """A mailer in a process of its own, started."""
        config = self.config(sink, **changes)
        return subprocess.Popen(
            [sys.executable, "-m", "mailer", "--config", str(config),
             "--templates", str(self.templates), *arguments],
            cwd=ROOT,
            env=self.cloud.environment(ACCOUNT, REGION) | (variables or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    @staticmethod
    def message(
        finding="f-1",
        to=("security@example.com",),
        headline=None,
        tags=None,
        updated="08:55",
        incident=None,
        **action,
    ):
        """What `notify` sends, for one instance. action: keys of the action."""
        detail = {
            "id": finding,
            "accountId": ACCOUNT,
            "region": REGION,
            "updatedAt": f"2026-11-23T{updated}:00.000Z",
            "resource": {"instanceDetails": {"instanceId": "i-0abc1234def567890"}},
        }
        notice = {"headline": headline or f"GuardDuty Finding | ID: {finding}"}
        if incident:
            notice["incident"] = incident
        return {
            "account": "an-account",
            "account_id": ACCOUNT,
            "region": REGION,
            "event": {"detail": detail, "c7n:notice": notice},
            "policy": {"name": "a-policy", "resource": "ec2"},
            "resources": [
                {
                    "InstanceId": "i-0abc1234def567890",
                    "Tags": [{"Key": k, "Value": v} for k, v in (tags or {}).items()],
                }
            ],
            "action": {
                "to": list(to),
                "template": "plain.html",
                "subject": '{{ event["c7n:notice"].headline }}',
            }
            | action,
        }

    @staticmethod
    def pack(data):
        return base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()

    @staticmethod
    def arrived(sink):
        """Finding id and recipient of everything that arrived, sorted."""
        return sorted((m.subject.split()[-1], who) for m in sink.mails for who in m.recipients)
