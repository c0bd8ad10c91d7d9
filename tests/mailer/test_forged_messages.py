"""Messages as somebody would write them who may publish to the topic or send to the queue.

Each ends as a harmless mail to somebody whom mailer.yml knows, or in the dead-letter queue: no
code runs, no stranger gets anything, no header is the forger's, and the honest message behind it
arrives.
"""

import base64
import email
import email.policy
import json
import re
import zlib
from email.header import decode_header
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mailer.__main__ import main
from mailer.accounts import Accounts
from mailer.errors import Permanent
from mailer.render import Templates

ROOT = Path(__file__).parents[2]
PACK = ROOT / "mailer" / "templates"
FINDING = json.loads((ROOT / "tests/findings/ec2-malicious-ip-caller.json").read_text())
HONEST = "GuardDuty Finding | ID: honest"
ACCOUNTS = {"default": ["security@example.com"], "444455556666": ["team-b@partner.example"]}
KNOWN = {"security@example.com", "team-b@partner.example", "owner@example.com"}
HEADERS = {
    "subject", "from", "to", "date", "message-id", "auto-submitted", "mime-version",
    "content-type", "x-team",
}  # fmt: skip
# The consoles, and a runbook that a policy names.
HOSTS = {
    "console.aws.amazon.com", "console.amazonaws.cn", "console.amazonaws-us-gov.com",
    "wiki.example",
}  # fmt: skip
TAGS = {
    "html", "head", "meta", "body", "table", "tr", "td", "p", "h2", "b", "br", "a", "div", "span",
}  # fmt: skip
ENCODED = "=?utf-8?q?=0ABcc=3A_victim=40evil.example=0A=0A?="
ENCODED_BASE64 = "=?utf-8?b?eApCY2M6IHZpY3RpbUBldmlsLmV4YW1wbGU=?="
STRANGER = {"OwnerEmail": "v@e.example"}
MAIL, REFUSED, BOTH = "a mail", "refused", "a mail and refused"


def code(proof):
    """A template that makes the file `proof` when it is rendered outside of the sandbox."""
    return "{{cycler.__init__.__globals__.os.popen('touch PROOF')}}".replace("PROOF", str(proof))


def poisoned(value, text):
    """Every text in it replaced, but ids that decide which template rows are shown."""
    if isinstance(value, dict):
        return {key: poisoned(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [poisoned(one, text) for one in value]
    return text if isinstance(value, str) else value


def finding(text=None):
    return {"detail": poisoned(FINDING["detail"], text) if text else FINDING["detail"]}


def deep(levels, inner="1"):
    return "[" * levels + inner + "]" * levels


def raw(text):
    """A body of JSON as it stands."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


def with_(message, **changes):
    """A body with other keys at the top of the message."""
    return raw(json.dumps(message | changes))


def notes(**attributes):
    return {name.replace("_", "-"): {"DataType": "String", "StringValue": value}
            for name, value in attributes.items()}  # fmt: skip


HTML = "<img src=x onerror=alert(1)><script>alert(1)</script><a href='https://evil.example'>x</a>"
ACTIONS = {  # name: (keys of the action, what becomes of it)
    "a template of another folder": ({"template": "../../tests/x"}, REFUSED),
    "a template by its path": ({"template": "/etc/passwd"}, REFUSED),
    "a template by a path that is in the folder": ({"template": "./finding.html"}, REFUSED),
    "the stock mailer's template": ({"template": "default.html"}, REFUSED),
    "a part of a template": ({"template": "_parts.html"}, REFUSED),
    "a template that is a list": ({"template": ["finding.html"]}, REFUSED),
    "a template that is a mapping": ({"template": {"finding.html": 1}}, REFUSED),
    "a template that is null": ({"template": None}, REFUSED),
    "a stranger": ({"to": ["victim@evil.example"]}, REFUSED),
    "a stranger and somebody known": (
        {"to": ["victim@evil.example", "security@example.com"]}, BOTH),
    "somebody known in other letters": ({"to": ["Security@Example.COM"]}, MAIL),
    "a subdomain of ours": ({"to": ["x@evil.example.com"]}, REFUSED),
    "our domain as the beginning": ({"to": ["x@example.com.evil.example"]}, REFUSED),
    "two addresses in one": ({"to": ["security@example.com,victim@evil.example"]}, REFUSED),
    "an encoded word as address": ({"to": [f"{ENCODED}@example.com"]}, REFUSED),
    "a recipient with a line break": ({"to": ["security@example.com\r\nBcc: v@e.x"]}, REFUSED),
    "100,000 recipients": ({"to": [f"v{n}@evil.example" for n in range(100_000)]}, REFUSED),
    "cc": ({"cc": ["victim@evil.example"]}, REFUSED),
    "cc of somebody known": ({"cc": ["security@example.com"]}, REFUSED),
    "cc that is a text": ({"cc": "victim@evil.example"}, REFUSED),
    "from": ({"from": "the-ceo@example.com"}, REFUSED),
    "from with a header": ({"from": "x@example.com\r\nBcc: victim@evil.example"}, REFUSED),
    "owner_absent_contact": (
        {"to": ["resource-owner"], "owner_absent_contact": ["victim@evil.example"]}, REFUSED),
    "owner_absent_contact of somebody known": (
        {"to": ["resource-owner"], "owner_absent_contact": ["owner@example.com"]}, MAIL),
    "owner_absent_contact of numbers": ({"owner_absent_contact": [5]}, REFUSED),
    "to that is a text": ({"to": "security@example.com"}, REFUSED),
    "any channel of Slack": ({"to": ["slack://#general"]}, REFUSED),
    "anybody in Slack": ({"to": ["slack://victim@evil.example"]}, REFUSED),
    "Slack by a tag": ({"to": ["slack://tag/Channel"], "tags": {"Channel": "#general"}}, REFUSED),
    "Slack's owners": ({"to": ["slack://owners"], "tags": STRANGER}, REFUSED),
    "a webhook": ({"to": ["https://hooks.slack.com/services/T0/B0/x"]}, REFUSED),
    "a web server": ({"to": ["https://evil.example/collect"]}, REFUSED),
    "any index of Splunk": ({"to": ["splunkhec://main"]}, REFUSED),
    "any topic": ({"to": ["arn:aws:sns:us-west-2:999999999999:theirs"]}, REFUSED),
    "a domain": ({"to": ["@example.com"]}, REFUSED),
    "an owner outside": ({"to": ["resource-owner"], "tags": STRANGER}, REFUSED),
    "an owner outside, and the account": (
        {"to": ["resource-owner", "account-emails"], "tags": STRANGER}, MAIL),
    "an owner that is an encoded word": (
        {"to": ["resource-owner"], "tags": {"OwnerEmail": f"{ENCODED}@example.com"}}, REFUSED),
    "an owner of ours": (
        {"to": ["resource-owner"], "tags": {"OwnerEmail": "owner@example.com"}}, MAIL),
    "headers by the priority": ({"priority_header": "1\r\nBcc: victim@evil.example"}, MAIL),
    "a priority that is a list": ({"priority_header": [1]}, REFUSED),
    "another format": ({"template_format": "x\r\nBcc: victim@evil.example"}, MAIL),
    "a subject that is a list": ({"subject": ["x", {"y": 1}]}, MAIL),
}  # fmt: skip
HEADLINES = {
    "a line break": ("x\r\nBcc: victim@evil.example", REFUSED),
    "a line feed": ("x\nBcc: victim@evil.example", REFUSED),
    "a carriage return": ("x\rBcc: victim@evil.example", REFUSED),
    "a line separator": ("x\u2028Bcc: victim@evil.example", REFUSED),
    "a next line": ("x\x85Bcc: victim@evil.example", REFUSED),
    "a vertical tab": ("x\x0bBcc: victim@evil.example", REFUSED),
    "an encoded word": (f"GuardDuty Finding | {ENCODED}", MAIL),
    "an encoded word of base64": (f"GuardDuty Finding | {ENCODED_BASE64}", MAIL),
    "encoded words inside each other": (f"==??{ENCODED.replace('=?', '==??')}", MAIL),
    "an encoded word with letters that are encoded": (f"Ünusual {ENCODED}", MAIL),
    "an encoded word with a zero in it": (ENCODED.replace("=?", "=\x00?"), MAIL),
    "an encoded word with a soft hyphen in it": (ENCODED.replace("=?", "=\xad?"), MAIL),
    "control characters": ("\x00\x1b[31m\x7f\u202e\ufeff", MAIL),
    "a lone surrogate": ("x \ud800", MAIL),
    "five million letters": ("x" * 5_000_000, MAIL),
    "HTML": (HTML, MAIL),
    "a mapping": ({"x": [HTML]}, MAIL),
    "a number": (5, MAIL),
}
EVENTS = {
    "HTML in every field": (finding(HTML), MAIL),
    "a script's address in every field": (finding("javascript:alert(1)//www.evil.example"), MAIL),
    "an encoded word in every field": (finding(ENCODED), MAIL),
    "a surrogate in every field": (finding("\ud800"), MAIL),
    "a list": ([1, 2], REFUSED),
    "a text": ("x", REFUSED),
    "a finding that is a list": ({"detail": [1]}, REFUSED),
    "a notice that is a text": ({"detail": {}, "c7n:notice": "x"}, MAIL),
    "a finding whose fields are lists": (
        {"detail": {key: [[{}]] for key in FINDING["detail"]}}, MAIL),
    "a finding whose fields are numbers": (
        {"detail": dict.fromkeys(FINDING["detail"], 1e308)}, MAIL),
    "a caller as its owner": (
        {"detail": {"userIdentity": {"type": "IAMUser", "userName": "victim@evil.example"}}}, MAIL),
}  # fmt: skip
TOPS = {  # keys of the message
    "a policy whose name is a list": ({"policy": {"name": [HTML], "resource": ["ec2"]}}, MAIL),
    "a policy without a name": ({"policy": {}}, MAIL),
    "a policy that is a list": ({"policy": ["x"]}, REFUSED),
    "an account that is a mapping": ({"account_id": {"x": 1}, "account": [HTML]}, REFUSED),
    "an account of the partner": ({"account_id": "444455556666"}, MAIL),
    "a region that is a list": ({"region": [HTML]}, MAIL),
    "a start that is a text": ({"execution_start": "x"}, REFUSED),
    "a start in the year 10^10": ({"execution_start": 1e17}, REFUSED),
    "a start in the year 10^12": ({"execution_start": 1e20}, REFUSED),
    "resources that are texts": ({"resources": ["x"]}, REFUSED),
    "no resources": ({"resources": []}, REFUSED),
    "resources of odd types": (
        {"resources": [{"InstanceId": [HTML], "Tags": None, "c7n:response": {"x": [1]}}]}, MAIL),
    "tags without a key": ({"resources": [{"Tags": [{"Value": "x"}]}]}, REFUSED),
    "tags that are a mapping": ({"resources": [{"Tags": {"OwnerEmail": "v@e.example"}}]}, REFUSED),
    "tags of numbers": ({"resources": [{"Tags": [{"Key": "OwnerEmail", "Value": 5}]}]}, REFUSED),
    "labels": ({"resources": [{"labels": {"OwnerEmail": "victim@evil.example"}}]}, MAIL),
    "5,000 resources": ({"resources": [{"InstanceId": HTML}] * 5_000}, MAIL),
    "a runbook that is a script": (
        {"policy": {"name": "p", "metadata": {"runbook": "javascript:alert(1)"}}}, MAIL),
    "a runbook with HTML": (
        {"policy": {"metadata": {"runbook": f"https://wiki.example/'\"{HTML}"}}}, MAIL),
}  # fmt: skip
BODIES = {
    "no base64": ("neither base64 nor JSON", REFUSED),
    "no zlib": (base64.b64encode(b"x" * 100).decode(), REFUSED),
    "no JSON": (raw("{'x': 1}"), REFUSED),
    "code of pickle": (base64.b64encode(b"cos\nsystem\n(S'touch x'\ntR.").decode(), REFUSED),
    "null": (raw("null"), REFUSED),
    "a bomb": (raw(json.dumps({"policy": {}, "padding": "0" * (17 * 2**20)})), REFUSED),
    "an envelope in an envelope": (json.dumps({"Message": {"Message": "x"}}), REFUSED),
    "deep JSON": (raw(deep(100_000)), REFUSED),
    "deep JSON that Python can read": (raw(deep(900)), REFUSED),
    "deep JSON in a policy's name": (
        raw('{"policy": {"name": ' + deep(900) + '}, "action": {"to": []}, "resources": []}'),
        REFUSED),
    "deep JSON in the event": (
        raw('{"policy": {}, "action": {"to": ["account-emails"], "template": "finding.html"}, '
            '"resources": [{}], "event": {"detail": {"id": ' + deep(800) + "}}}"), REFUSED),
    "a number of 5,000 digits": (raw('{"policy": ' + "9" * 5_000 + "}"), REFUSED),
}  # fmt: skip
NOTES = {
    "tries that are no number": notes(mailer_attempts="x"),
    "tries below zero": notes(mailer_attempts="-7"),
    "a time that is no number": notes(mailer_first_sent="yesterday"),
    "a time that no calendar has": notes(mailer_first_sent="9" * 30),
    "a time long ago": notes(mailer_first_sent="1"),
    "somebody else's message": notes(mailer_origin="x"),
    "a note of nobody": notes(mailer_delivered="x y z"),
}


class Reader(HTMLParser):
    """Collects the tags and the links of a mail."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.attributes = set(), [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name == "href"]


def decoded(value):
    """A header as a mail program shows it, encoded words decoded wherever they stand."""
    parts = decode_header(re.sub(r"\r?\n", "", value))
    return "".join(p.decode(c or "latin-1") if isinstance(p, bytes) else p for p, c in parts)


def assert_harmless(mail):
    """Only people whom we know, only headers that are ours, only HTML of the templates."""
    assert set(map(str.lower, mail.recipients)) <= KNOWN
    plain = email.message_from_bytes(mail.content, policy=email.policy.compat32)
    assert {name.lower() for name in plain} <= HEADERS
    assert len(plain) == len(set(plain))
    assert plain["From"] == "guardduty-response@example.com"
    for name, value in plain.items():
        # once as it arrives, and once more for programs that decode what they have decoded
        assert not re.search(r"[\r\n]", decoded(decoded(value))), name
        assert "victim" not in str(value) or name == "Subject"
    reader = Reader(mail.body)
    assert reader.tags <= TAGS
    assert not {name for name in reader.attributes if name.startswith("on")}
    assert {urlsplit(link).netloc for link in reader.links} <= HOSTS


@pytest.fixture
def forge(post, sink, cloud, tmp_path):
    """Sends a forged message and an honest one behind it, has both delivered, and looks."""
    post.templates = PACK

    def forge(body, outcome, attributes=None):
        cloud.call_log.clear()
        post.sqs.send_message(
            QueueUrl=post.url, MessageBody=body, MessageAttributes=attributes or {}
        )
        post.send(finding="honest", template="finding.html")
        loop = post.loop(sink, account_emails=ACCOUNTS, additional_email_headers={"X-Team": "blue"})
        loop.once(pause=0)
        honest = [mail for mail in sink.mails if mail.subject == HONEST]
        assert [mail.recipients for mail in honest] == [["security@example.com"]]
        mails = [mail for mail in sink.mails if mail not in honest]
        for mail in mails:
            assert_harmless(mail)
        assert (bool(mails), post.dead) == {MAIL: (True, 0), REFUSED: (False, 1), BOTH: (True, 1)}[
            outcome
        ], loop.kept
        assert post.count() == (0, 0)
        assert not {c.operation for c in cloud.calls} & {"Publish", "AssumeRole"}
        assert all(len(line) < 10_000 for line in loop.kept.values())
        return mails

    return forge


def message(post, event=None, headline="GuardDuty Finding | ID: forged", **changes):
    made = post.message(**{"finding": "forged", "template": "finding.html"} | changes)
    made["event"]["c7n:notice"]["headline"] = headline
    if isinstance(event, dict):
        made["event"] |= event
    elif event is not None:
        made["event"] = event
    return made


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action(post, forge, name):
    changes, outcome = ACTIONS[name]
    forge(post.pack(message(post, **changes)), outcome)


@pytest.mark.parametrize("name", HEADLINES)
def test_a_headline(post, forge, name):
    headline, outcome = HEADLINES[name]
    for mail in forge(post.pack(message(post, headline=headline)), outcome):
        assert "=?" not in mail.subject and mail.message["Bcc"] is None


@pytest.mark.parametrize("name", EVENTS)
def test_an_event(post, forge, name):
    event, outcome = EVENTS[name]
    forge(post.pack(message(post, event, to=["event-owner", "account-emails"])), outcome)


@pytest.mark.parametrize("name", TOPS)
def test_a_message(post, forge, name):
    changes, outcome = TOPS[name]
    to = ["resource-owner", "account-emails"]
    forge(with_(message(post, finding(), to=to), **changes), outcome)


@pytest.mark.parametrize("template", sorted(p.name[:-3] for p in PACK.glob("[!_]*.html.j2")))
@pytest.mark.parametrize("text", ["code", "html", "odd"])
def test_every_template_with_every_field_forged(post, forge, tmp_path, template, text):
    proof = tmp_path / "proof"
    value = {"code": code(proof), "html": HTML, "odd": [{"x": [None]}]}[text]
    response = {"step": value, "status": value, "detail": value, "error": value, "isolated": True,
                "interfaces": [{"id": value, "removed": [value], "now": value}]}  # fmt: skip
    made = message(post, finding(value), template=template, to=["account-emails"])
    made |= {"account": value, "region": value, "policy": {"name": value, "metadata": value}}
    made["resources"][0] |= {"InstanceId": value, "c7n:response": [response, value]}
    made["event"]["c7n:notice"] |= {"isolated": value, "who": value, "revoked": True}
    made["resources"] *= 1_000
    (mail,) = forge(post.pack(made), MAIL)
    assert not proof.exists(), "a text of the message was run"
    assert len(mail.content) < 2**20, "a message with many resources makes a mail of many megabytes"


@pytest.mark.parametrize("name", BODIES)
def test_a_body(forge, name):
    forge(*BODIES[name])


@pytest.mark.parametrize("name", NOTES)
def test_the_mailers_own_notes(post, forge, name):
    (mail,) = forge(post.pack(message(post)), MAIL, NOTES[name])
    assert mail.message["Date"].datetime.year < 9999


@pytest.mark.parametrize("name", NOTES)
def test_notes_of_a_message_that_stays(post, sink, forge, name, monkeypatch, capsys):
    """What counts tries, and what lists the dead letters, lives with them too."""
    sink.fail = lambda what: "450 busy" if what == "team-b@partner.example" else None
    monkeypatch.setitem(ACCOUNTS, "default", ["security@example.com"])
    body = post.pack(message(post, to=["team-b@partner.example"]))
    post.sqs.send_message(QueueUrl=post.url, MessageBody=body, MessageAttributes=NOTES[name])
    loop = post.loop(sink, account_emails=ACCOUNTS)
    loop.once(passes=1)
    assert "450 busy" in "".join(loop.kept.values())
    message_ = loop.queue.receive()
    if message_:
        loop.queue.put_back(message_, [])
    post.sqs.send_message(QueueUrl=post.dead_url, MessageBody=body, MessageAttributes=NOTES[name])
    for key, value in post.cloud.environment("111122223333", "us-west-2").items():
        monkeypatch.setenv(key, value)
    config = post.config(sink, account_emails=ACCOUNTS)
    assert main(["dead-letters", "list", "--config", str(config)]) == 0
    assert "forged" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["subject", "headline", "both"])
def test_a_subject_is_never_a_template(post, forge, tmp_path, where):
    proof = tmp_path / "proof"
    text = code(proof)
    made = message(post, finding(), headline=text if where != "subject" else None)
    if where != "headline":
        made["action"]["subject"] = text
    (mail,) = forge(post.pack(made), MAIL)
    assert mail.subject == text
    assert not proof.exists()


def test_what_a_template_evaluates_stays_in_the_sandbox(tmp_path):
    """Should a template take a name or a format from a message: it finds nothing behind it."""
    proof = tmp_path / "proof"
    ways_out = {
        "attribute": "{{ cycler | attr(event.a) | attr(event.b) }}",
        "item": "{{ cycler[event.a][event.b]['os'] }}",
        "format": "{{ event.c.format(cycler) }}",
        "function": "{{ search.__globals__ }}",
        "literal": code(proof),
        "change": "{{ resources.append(1) }}",
    }
    for name, text in ways_out.items():
        (tmp_path / f"{name}.html.j2").write_text(text)
    templates = Templates(tmp_path, Accounts({}, None), {})
    data = {"event": {"a": "__init__", "b": "__globals__", "c": "{0.__init__.__globals__}"}}
    for name in ways_out:
        with pytest.raises(Exception, match="unsafe|undefined|renders to nothing") as error:
            templates.render(f"{name}.html", data, [], "x")
        assert isinstance(error.value, Permanent) or "unsafe" in str(error.value) or name == "item"
    assert not proof.exists()
