"""The SMTP sink."""

import smtplib
import threading
from email.message import EmailMessage

import pytest

from simulation.smtp import MailSink


@pytest.fixture
def sink():
    with MailSink() as sink:
        yield sink


def send(sink, subject="GuardDuty Finding | ID: 1: Ünusual", html="<p>Grüße</p>"):
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "a@example.com", "b@example.com"
    message.set_content(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        client.send_message(message)


def test_a_mail_is_parsed_and_saved(sink, tmp_path):
    send(sink)
    (mail,) = sink.wait_for(1)
    assert mail.subject == "GuardDuty Finding | ID: 1: Ünusual"
    assert mail.recipients == ["b@example.com"]
    assert mail.body == "<p>Grüße</p>\n"
    names = [path.name for path in sink.save(tmp_path / "mails")]
    assert names == ["1-guardduty-finding.eml", "1-guardduty-finding.html"]
    assert (tmp_path / "mails" / names[0]).read_bytes() == mail.content
    assert (tmp_path / "mails" / names[1]).read_text() == mail.body


def test_wait_for_wakes_when_the_mail_arrives(sink):
    got = []
    waiting = threading.Thread(target=lambda: got.append(sink.wait_for(2)))
    waiting.start()
    send(sink)
    send(sink)
    waiting.join(5)
    assert len(got[0]) == 2


def test_wait_for_says_what_did_arrive(sink):
    send(sink, subject="one")
    sink.wait_for(1)
    with pytest.raises(TimeoutError, match=r"1 of 2 mails after 0.1 s: \['one'\]"):
        sink.wait_for(2, timeout=0.1)


def test_subscribers_hear_of_mails(sink):
    heard = []
    sink.subscribe(lambda mail: heard.append(mail.subject))
    send(sink, subject="one")
    assert heard == ["one"]


def test_a_sink_that_refuses_keeps_nothing(sink):
    sink.refusal = "451 later"
    with pytest.raises(smtplib.SMTPDataError, match="later"):
        send(sink)
    assert sink.mails == []


def test_two_sinks_at_once(sink):
    with MailSink() as other:
        assert other.port != sink.port
