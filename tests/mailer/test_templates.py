"""The two mails, rendered by the mailer's own code and read as a person would read them.

Every mail is made as the mailer makes it and read back from its MIME form, so that what is checked
is what would be sent. The findings are those of tests/findings (made by hand); what the actions
leave for the remediation mail is built here.
"""

import base64
import copy
import email
import email.policy
import json
import re
import zlib
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
    remediation_headline,
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
    Means(MAILER, None, None, KNOWN, Addresses(MAILER, None, KNOWN), Templates(TEMPLATES, ACCOUNTS))
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
    "{{7*7}}{% raw %}{{ config }}",
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


def mail(template, subject, event, resources, policy=POLICY):
    """Render one mail; returns (subject, Reader) as decoded from the message that would be sent."""
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
    (parcel,) = TRANSPORT.parcels(Message("1", "1", "", body, 1, 0), ["account-emails"])
    assert parcel.targets == ("security@example.com",)
    (made,) = parcel.send.args
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
    assert reader.lines[0] == subject
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
    assert f"GuardDuty Finding | ID: {event['detail']['id']}: The " in subject
    assert "may be compromised and should be investigated" in subject
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
    assert "within 15 minutes, isolate the instance by hand" in reader.text
    command = f"make isolate INSTANCE=i-0abc1234def567890 REGION=us-west-2 FINDING={FINDING_ID}"
    assert command in reader.lines
    assert reader.links == [
        [
            "https://console.aws.amazon.com/guardduty/home?region=us-west-2"
            f"#/findings?macros=current&fId={FINDING_ID}"
        ]
        * 2
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
            "says which sessions were denied and whom else that hits",
        ),
        (
            "iam-role-malicious-ip-caller",
            "The IAM role GuardDuty-Example-EC2-Compromised may",
            "Nothing was changed automatically. Decide whether the credentials",
        ),
        (
            "iam-user-malicious-ip-caller",
            "The IAM user GuardDuty-Example-Compromised-Simulated may",
            "Nothing was changed automatically, unless the opt-in policy",
        ),
        (
            "iam-role-credential-exfiltration-archived",
            "The IAM role GuardDuty-Example-EC2-Compromised may",
            "Nothing was changed automatically. The finding is archived",
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


def pattern_types(policy):
    """The exact types of a policy's event pattern, and an example type for each prefix."""
    document = yaml.safe_load((ROOT / "policies" / f"{policy}.yml").read_text())
    types = document["policies"][0]["mode"]["pattern"]["detail"]["type"]
    return {t if isinstance(t, str) else t["prefix"] + "Example.B" for t in types}


def test_what_happens_next_is_true_for_the_type():
    isolating, mailed = pattern_types("ec2-isolate"), pattern_types("finding-notify")
    assert isolating < mailed
    event = load("ec2-ssh-brute-force-actor")
    for finding_type in mailed:
        event["detail"]["type"] = finding_type
        text = finding_mail(event)[1].text
        isolates = finding_type in isolating
        assert ("GuardDuty Remediation, says whether" in text) is isolates, finding_type
        assert ("Nothing was changed automatically." in text) is not isolates, finding_type
    text = finding_mail(load("ec2-ssh-brute-force-target"))[1].text
    assert "Nothing was changed automatically." in text
    assert "GuardDuty Remediation" not in text
    event = load("ec2-ssh-brute-force-actor")
    event["detail"]["service"]["archived"] = "true"
    assert "The finding is archived" in finding_mail(event)[1].text


def test_what_is_said_to_revoke_is_what_the_policies_take():
    event = load("iam-role-credential-exfiltration")
    said = set()
    for finding_type in pattern_types("finding-notify"):
        event["detail"]["type"] = finding_type
        if "revokes the role's stolen sessions" in finding_mail(event)[1].text:
            said.add(finding_type)
    assert said == pattern_types("iam-role-revoke-sessions")
    command = f"make revoke-sessions REGION=us-west-2 FINDING={DENY_ID}"
    assert command in finding_mail(event)[1].lines
    event = load("iam-user-malicious-ip-caller")
    assert pattern_types("opt-in/iam-user-deactivate-access-key") == {event["detail"]["type"]}


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
    ((href, _),) = finding_mail(event)[1].links
    assert href.startswith(f"https://{host}/guardduty/home?region={region}#/findings?")


def test_finding_id_is_percent_encoded_in_the_link():
    event = load("ec2-malicious-ip-caller")
    event["detail"]["id"] = 'a/b&c="d" <e>\'?x=ü'
    ((href, _),) = finding_mail(event)[1].links
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
        assert "may be compromised and should be investigated" in subject


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
    assert "but this one names none" in reader.text
    assert "GuardDuty Remediation" not in reader.text


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: ascii(t[:20]))
@pytest.mark.parametrize(
    "name",
    [
        "ec2-malicious-ip-caller-multi-eni",
        "iam-user-malicious-ip-caller",
        "ec2-dns-crypto",
        "ec2-port-probe",
    ],
)
def test_hostile_fields_stay_text(name, text):
    event = load(name)
    event["detail"] = poison(event["detail"], text)
    subject, reader = finding_mail(event)
    assert len(subject) < 400
    assert subject.isprintable()
    for word in ("49", "https://www.evil", "\u202e", "\x1b"):
        # 49 = 7*7; a bare web address would be made clickable by the mail program
        assert word not in reader.text.split("Look closer")[0]
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
    assert "GuardDuty discovered" not in reader.text and not reader.links
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
    event["c7n:notice"] = {"headline": SENTENCE, "sample": False, "autonomy": mode}
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
    assert "The sessions were NOT revoked." in subject and "LimitExceeded" in subject
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
