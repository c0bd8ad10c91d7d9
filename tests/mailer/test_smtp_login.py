"""TLS and login, and that the password is nowhere in what the mailer says."""

import base64
import itertools
import json
import logging
import re

import pytest

from mailer.secrets import HidingFormatter
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
USER, PASSWORD = "guardduty-response", "s3cret-of-the-mail-server"
LOGIN = {"smtp_username": USER, "smtp_password": "env:MAIL_PASSWORD"}


@pytest.fixture
def password(monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)


def kept(loop):
    return "".join(loop.kept.values())


def test_starttls_and_login(post, certificate, trusted, password):
    with MailSink(certificate, (USER, PASSWORD)) as sink:
        post.send()
        loop = post.loop(sink, smtp_ssl=True, **LOGIN)
        loop.once()
        assert kept(loop) == ""
        assert sink.encrypted == [True]


def test_a_certificate_that_nobody_vouches_for_gets_no_password(post, certificate, password):
    asked = []
    with MailSink(certificate, (USER, PASSWORD)) as sink:
        sink.fail = lambda what: asked.append(what)
        post.send()
        loop = post.loop(sink, smtp_ssl=True, **LOGIN)
        loop.once(passes=1)
        assert "certificate verify failed" in kept(loop)
        assert (sink.mails, post.count()) == ([], (1, 0))
        assert "AUTH" not in asked


@pytest.mark.parametrize("refusal", [None, "454 TLS not available"])
def test_no_starttls_no_mail(post, certificate, trusted, password, refusal):
    with MailSink(certificate if refusal else None) as sink:
        sink.fail = lambda what: refusal if what == "STARTTLS" else None
        post.send()
        loop = post.loop(sink, smtp_ssl=True)
        loop.once(passes=1)
        assert (refusal or "STARTTLS extension not supported") in kept(loop)
        assert (sink.mails, post.count()) == ([], (1, 0))


def test_login_without_starttls_on_this_machine(post, password):
    with MailSink(login=(USER, PASSWORD)) as sink:
        post.send()
        post.loop(sink, **LOGIN).once()
        assert len(sink.mails) == 1


def test_a_refused_login_keeps_the_mail_and_the_secret(post, monkeypatch, caplog, capfd):
    """Even a server that says the password back does not get it into the log."""
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
    with MailSink(login=(USER, "another")) as sink:
        sink.fail = lambda what: f"535 {PASSWORD} is wrong" if what == "AUTH" else None
        post.send()
        mailer = post.command(sink, "--once", "--tries", "1", **LOGIN,
                              variables={"MAIL_PASSWORD": PASSWORD})  # fmt: skip
        output = mailer.communicate()[0]
        assert mailer.returncode == 1
        assert "535 (hidden) is wrong" in output and "kept on the queue" in output
        assert PASSWORD not in output
        assert post.count() == (1, 0)


@pytest.mark.parametrize("user", [USER, USER + "x", USER + "xy"])
@pytest.mark.parametrize("before", ["", "x" * 175])
def test_what_auth_plain_sent_is_not_in_the_log(post, user, before):
    """A server that says the whole line back, and a line that is cut in the middle of it."""
    plain = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
    with MailSink(login=(user, "another")) as sink:
        answer = f"535 AUTH {before} PLAIN {plain} is wrong"
        sink.fail = lambda what: answer if what == "AUTH" else None
        post.send()
        login = LOGIN | {"smtp_username": user}
        mailer = post.command(sink, "--once", "--tries", "1", **login,
                              variables={"MAIL_PASSWORD": PASSWORD})  # fmt: skip
        output = mailer.communicate()[0]
    assert "535 AUTH" in output and "(hidden)" in output
    runs = re.findall(r"[A-Za-z0-9+/]{4,}", output)
    decoded = b" ".join(base64.b64decode(run[: len(run) // 4 * 4]) for run in runs)
    assert not [part for part in range(len(PASSWORD) - 3)
                if PASSWORD[part : part + 4].encode() in decoded]  # fmt: skip


@pytest.mark.parametrize("secret", ["pa5", "pa55", "pa55w0rd", "pässwörd 日本", PASSWORD])
def test_a_secret_inside_something_in_base64(post, sink, monkeypatch, secret):
    post.loop(sink)
    monkeypatch.setenv("MAIL_PASSWORD", secret)
    post.secrets.reveal("smtp_password", "env:MAIL_PASSWORD")
    for before, after in itertools.product(range(6), range(3)):
        text = base64.b64encode(b"\0" * before + secret.encode() + b"\0" * after).decode()
        assert post.secrets.hide(f"so: {text}.") == "so: (hidden)."


def test_a_bug_does_not_print_the_password(post, sink, password):
    """What goes through the mailer's log is cleaned, tracebacks too."""
    post.loop(sink, **LOGIN)
    post.secrets.reveal("smtp_password", "env:MAIL_PASSWORD")
    try:
        raise ValueError(f"config: {PASSWORD}")
    except ValueError as error:
        record = logging.makeLogRecord(
            {"msg": "oh %s", "args": (PASSWORD,), "exc_info": (type(error), error, None)}
        )
    text = HidingFormatter(logging.Formatter(), post.secrets).format(record)
    assert "oh (hidden)" in text and "ValueError: config: (hidden)" in text
    assert PASSWORD not in text


@pytest.mark.parametrize("key", ["", "#password"])
def test_a_password_of_secrets_manager(post, cloud, key):
    client = cloud.client("secretsmanager", ACCOUNT, REGION)
    text = json.dumps({"password": PASSWORD}) if key else PASSWORD
    name = f"mail{len(key)}"
    client.create_secret(Name=name, SecretString=text)
    with MailSink(login=(USER, PASSWORD)) as sink:
        post.send()
        reference = f"secretsmanager:{name}{key}"
        loop = post.loop(sink, smtp_username=USER, smtp_password=reference)
        loop.once()
        assert (kept(loop), len(sink.mails)) == ("", 1)


def test_a_password_of_kms(post, cloud):
    kms = cloud.client("kms", ACCOUNT, REGION)
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=PASSWORD.encode())["CiphertextBlob"]
    reference = "kms:" + base64.b64encode(blob).decode()
    with MailSink(login=(USER, PASSWORD)) as sink:
        post.send()
        loop = post.loop(sink, smtp_username=USER, smtp_password=reference)
        loop.once()
        assert (kept(loop), len(sink.mails)) == ("", 1)


def test_a_secret_that_cannot_be_read_keeps_the_mail(post, sink):
    post.send()
    loop = post.loop(sink, smtp_username=USER, smtp_password="secretsmanager:none")
    loop.once(passes=1)
    assert "ResourceNotFoundException" in kept(loop)
    assert post.count() == (1, 0)
