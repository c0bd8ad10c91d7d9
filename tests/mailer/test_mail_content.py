"""What arrives: both parts, headers that nobody can add to, the right people."""

import json
from pathlib import Path

import pytest

from mailer.text import as_text

ROOT = Path(__file__).parents[2]
FINDING = json.loads((ROOT / "tests/findings/ec2-malicious-ip-caller.json").read_text())


def only(sink):
    (mail,) = sink.mails
    return mail


def test_a_mail_of_the_pack_has_two_parts_and_both_begin_with_the_headline(post, sink):
    headline = f"GuardDuty Finding | ID: {FINDING['detail']['id']}: The EC2 instance " + "i-0" * 9
    message = post.message(template="finding.html", headline=headline)
    message["event"] |= FINDING
    post.send(post.pack(message))
    post.templates = ROOT / "mailer" / "templates"
    post.loop(sink).once()
    mail = only(sink)
    assert mail.message.get_content_type() == "multipart/alternative"
    assert [p.get_content_type() for p in mail.message.iter_parts()] == ["text/plain", "text/html"]
    assert mail.subject == headline
    lines = mail.text.splitlines()
    assert lines[0] == headline
    assert lines[1] == ""
    assert "Type: UnauthorizedAccess:EC2/MaliciousIPCaller.Custom" in lines
    assert "198.51.100.0" in mail.text or "Remote address: " in mail.text
    assert "https://us-west-2.console" in mail.text or "https://console.aws" in mail.text
    assert "<" not in mail.text.replace("<1", "") and "&amp;" not in mail.text
    assert max(len(line) for line in lines[1:]) <= 200


def test_headers(post, sink):
    post.send(headline="Ünusual | ID: 1")
    post.loop(sink, additional_email_headers={"X-Team": "blue"}).once()
    message = only(sink).message
    assert message["From"] == "guardduty-response@example.com"
    assert message["To"] == "security@example.com"
    assert message["Subject"] == "Ünusual | ID: 1"
    assert message["X-Team"] == "blue"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.com>")
    assert message["Date"].datetime is not None


def test_nine_hundred_characters_of_subject_arrive_whole(post, sink):
    headline = "GuardDuty | " + "word ä " * 126
    post.send(headline=headline.strip())
    post.loop(sink).once()
    assert only(sink).subject == headline.strip()
    assert all(len(line) <= 998 for line in only(sink).content.splitlines())


@pytest.mark.parametrize(
    "tag",
    [
        "owner@example.com\r\nBcc: victim@example.com",
        "owner@example.com, victim@example.com",
        "<owner@example.com> victim@example.com",
        "Owner <owner@example.com>",
        "owner@example.com:victim",
        "@example.com",
    ],
)
def test_a_hostile_owner_tag_adds_no_recipient_and_no_header(post, sink, tag):
    post.send(to=["resource-owner", "account-emails"], tags={"OwnerEmail": tag})
    post.loop(sink).once()
    mail = only(sink)
    assert mail.recipients == ["security@example.com"]
    assert mail.message["Bcc"] is None
    assert b"victim" not in mail.content


@pytest.mark.parametrize(
    ("recipients", "owner", "reached"),
    [
        # without the key: those with the sender's domain
        (None, "owner@example.com", True),
        (None, "Owner@EXAMPLE.com", True),
        (None, "owner@team.example.com", False),
        (None, "owner@partner.example", False),
        (["@partner.example"], "owner@partner.example", True),
        (["owner@partner.example"], "owner@partner.example", True),
        (["owner@partner.example"], "other@partner.example", False),
        (["@partner.example"], "owner@example.com", False),
        ([], "owner@example.com", False),
        # whoever stands in account_emails is known
        ([], "security@example.com", True),
    ],
)
def test_an_owner_is_somebody_whom_mailer_yml_knows(post, sink, caplog, recipients, owner, reached):
    post.send(to=["resource-owner"], tags={"OwnerEmail": owner})
    loop = post.loop(sink, recipients=recipients)
    loop.once()
    if reached:
        assert (only(sink).recipients, post.dead) == ([owner], 0)
        return
    assert (sink.mails, post.dead) == ([], 1)
    assert "no valid recipient among resource-owner" in "".join(loop.kept.values())
    assert f"mailer.yml does not know {owner}, who gets nothing" in caplog.text


@pytest.mark.parametrize("tag", ["x\r\nBcc: victim", "x@evil.example,", "=?utf-8?q?=0ABcc=3Ax?="])
def test_no_address_is_made_of_a_hostile_name(post, sink, tag):
    """With `org_domain` c7n_mailer appends that to what is no address."""
    post.send(to=["resource-owner", "account-emails"], tags={"OwnerEmail": tag})
    post.loop(sink, org_domain="example.com").once()
    assert only(sink).recipients == ["security@example.com"]


def test_who_is_not_known_costs_the_others_nothing(post, sink, caplog):
    post.send(to=["resource-owner", "account-emails"], tags={"OwnerEmail": "v@evil.example"})
    loop = post.loop(sink)
    loop.once()
    assert (only(sink).recipients, loop.kept) == (["security@example.com"], {})
    assert "mailer.yml does not know v@evil.example" in caplog.text


def test_an_encoded_word_in_a_headline_stays_text(post, sink):
    """Who reads a mail decodes `=?...?=`, here to a line feed and a header."""
    post.send(headline="GuardDuty | =?utf-8?q?=0ABcc=3A_victim=40evil.example?= Ünusual")
    post.loop(sink).once()
    mail = only(sink)
    words = mail.subject.split()
    assert words == ["GuardDuty", "|", "=", "?utf-8?q?=0ABcc=3A_victim=40evil.example?=", "Ünusual"]
    assert mail.message["Bcc"] is None


def test_owner_account_and_default(post, sink):
    accounts = {"default": ["default@example.com"], "999988887777": ["theirs@example.com"]}
    post.send(to=["resource-owner", "account-emails"], tags={"OwnerEmail": "owner@example.com"})
    post.loop(sink, account_emails=accounts).once()
    assert only(sink).recipients == ["default@example.com", "owner@example.com"]

    sink.mails.clear()
    message = post.message(finding="f-2", to=["account-emails"])
    message["account_id"] = "999988887777"
    post.send(post.pack(message))
    post.loop(sink, account_emails=accounts).once()
    assert only(sink).recipients == ["theirs@example.com"]


def test_a_surrogate_in_the_subject_is_poison_not_a_crash(post, sink):
    post.send(headline="broken \ud800")
    post.send(finding="f-2")
    loop = post.loop(sink)
    loop.once()
    assert len(sink.mails) == 1 and post.dead == 1


def test_a_message_from_sns_is_understood(post, sink):
    post.send(json.dumps({"Type": "Notification", "Message": post.pack(post.message())}))
    post.loop(sink).once()
    assert only(sink).subject == "GuardDuty Finding | ID: f-1"


def test_a_decompression_bomb_is_refused(post, sink):
    post.send(post.pack({"policy": {}, "padding": "0" * (17 * 2**20)}))
    loop = post.loop(sink)
    loop.once()
    assert "not a message of Custodian's notify" in "".join(loop.kept.values())
    assert post.dead == 1


def test_ses(post, sink, cloud):
    ses = cloud.client("ses", "111122223333", "us-west-2")
    ses.verify_email_identity(EmailAddress="guardduty-response@example.com")
    post.send(to=["a@example.com", "b@example.com"])
    loop = post.loop(sink, smtp_server=None, smtp_port=None, smtp_ssl=None)
    loop.once()
    (call,) = [c for c in cloud.calls if c.operation == "SendRawEmail"]
    assert set(call.parameters["Destinations"]) == {"a@example.com", "b@example.com"}
    assert post.count() == (0, 0)

    cloud.fail("SendRawEmail", "MessageRejected", times=None)
    post.send(finding="f-2")
    loop.once(passes=1)
    assert "MessageRejected" in "".join(loop.kept.values())
    assert post.dead == 1


HTML = """<html><head><title>no</title><style>p {}</style></head><body>
<table><tr><td><p>First &amp; line</p>
<h2>Heading</h2>
<table><tr><td>Label</td><td>a<br>b</td></tr><tr><td>Link</td>
<td><a href="https://example.com/x">https://example.com/x</a></td></tr></table>
<p>&bull;&nbsp; item</p><div>aws ec2   describe</div>
</td></tr></table></body></html>"""


def test_html_as_text():
    assert as_text(HTML) == (
        "First & line\n\n\nHeading\n-------\nLabel: a\nb\nLink: https://example.com/x\n"
        "• item\naws ec2 describe\n"
    )


@pytest.mark.parametrize("html", ["", "<p>", "plain", "</td></tr><td>x", "<script>x</script>"])
def test_html_that_is_not_well_formed(html):
    assert as_text(html).strip() in ("", "plain", "x")


@pytest.mark.parametrize("samples", [None, ["heartbeat@partner.example"]])
def test_samples_have_an_address_of_their_own(post, sink, samples):
    """Whoever else would get it, by account, tag or `to`; what only looks like a sample does not
    go there."""
    tags = {"OwnerEmail": "owner@example.com"}
    to = ["resource-owner", "account-emails", "on-call@example.com"]
    usual = ["on-call@example.com", "owner@example.com", "security@example.com"]
    for name, sample in (("sample", True), ("real", False), ("odd", "true"), ("none", None)):
        message = post.message(finding=name, to=to, tags=tags, headline=f"[SAMPLE] {name}")
        if sample is not None:
            message["event"]["c7n:notice"]["sample"] = sample
        post.send(post.pack(message))
    post.loop(sink, sample_emails=samples).once()
    got = {mail.subject.split()[-1]: sorted(mail.recipients) for mail in sink.wait_for(4)}
    assert got == {
        "sample": samples or usual,
        "real": usual,
        "odd": usual,
        "none": usual,
    }
