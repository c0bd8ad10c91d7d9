"""The SMTP sink."""

import smtplib
import threading
from email.message import EmailMessage

import pytest

from simulation.smtp import DROP, MailSink


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


@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "b@example.com", "DATA"])
def test_a_connection_can_be_cut_at_each_step(sink, step):
    sink.fail = lambda what: DROP if what == step else None
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send(sink)
    assert sink.mails == []
    sink.fail = lambda what: None
    send(sink)
    assert len(sink.mails) == 1


def test_an_answer_for_one_recipient(sink):
    sink.fail = lambda what: "550 nobody" if what == "b@example.com" else None
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="nobody"):
        send(sink)


def test_it_can_be_slow(sink):
    sink.fail = lambda what: 60 if what == "DATA" else None
    client = smtplib.SMTP("127.0.0.1", sink.port, timeout=0.2)
    with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
        client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\ny")
    client.close()
    assert sink.mails == []


def test_down_and_up_again_on_the_same_port(sink):
    port = sink.port
    sink.down()
    with pytest.raises(ConnectionRefusedError):
        send(sink)
    sink.up()
    send(sink)
    assert (sink.port, len(sink.mails), sink.connections) == (port, 1, 1)


def test_down_cuts_what_is_open(sink):
    client = smtplib.SMTP("127.0.0.1", sink.port, timeout=5)
    sink.down()
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        client.noop()
        client.noop()
    client.close()


def test_a_login():
    with MailSink(login=("user", "pass")) as sink:
        with smtplib.SMTP("127.0.0.1", sink.port) as client:
            assert client.sendmail
            with pytest.raises(smtplib.SMTPSenderRefused):
                client.sendmail("a@example.com", ["b@example.com"], "x")
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", "wrong")
            client.login("user", "pass")
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\ny")
        sink.wait_for(1)
