"""`make mail-test`: one mail by the configured way, and in clear words why it was not taken; and
that no command of the mailer works with what mailer.yml was shipped with."""

import re
from pathlib import Path

import pytest
import yaml

from mailer.__main__ import main
from simulation.smtp import DROP, MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]
TO = "security@example.com"
USER, PASSWORD = "guardduty-response", "s3cret-of-the-mail-server"
LOGIN = {"smtp_username": USER, "smtp_password": "env:MAIL_PASSWORD"}


@pytest.fixture
def password(monkeypatch):
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)


@pytest.fixture
def trial(post, capsys, monkeypatch):
    for name, value in post.cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)

    def run(sink, to=TO, **changes):
        code = main(["test", "--to", to, "--config", str(post.config(sink, **changes))])
        captured = capsys.readouterr()
        assert PASSWORD not in captured.out + captured.err
        return code, captured.out

    return run


def test_a_mail_by_starttls_and_login(trial, certificate, trusted, password):
    with MailSink(certificate, (USER, PASSWORD)) as sink:
        code, said = trial(sink, smtp_ssl=True, **LOGIN)
        (mail,) = sink.mails
        assert (code, mail.recipients, sink.encrypted) == (0, [TO], [True])
        assert "test mail" in mail.subject and "There is no finding" in mail.text
        assert f"Taken by the mail server 127.0.0.1:{sink.port}" in said


@pytest.mark.parametrize(
    ("step", "answer", "says"),
    [
        ("AUTH", f"535 {PASSWORD} is wrong", "login refused, see smtp_username and smtp_password: "
         "535 (hidden) is wrong"),
        ("MAIL", "550 not yours", "sender refused, see from_address: 550 not yours"),
        (TO, "550 no such user", "recipient refused: 550 no such user"),
        ("DATA", "554 spam", "mail refused: 554 spam"),
        ("EHLO", DROP, "SMTPServerDisconnected"),
    ],
)  # fmt: skip
def test_what_the_server_refuses(trial, password, step, answer, says):
    with MailSink(login=(USER, PASSWORD)) as sink:
        sink.fail = lambda what: answer if what == step else None
        code, said = trial(sink, **LOGIN)
        assert (code, sink.mails) == (1, [])
        assert f"NOT SENT to {TO} by the mail server 127.0.0.1:{sink.port}: " in said
        assert says in said


def test_what_keeps_it_from_the_server(trial, certificate, sink):
    with MailSink(certificate) as other:
        code, said = trial(other, smtp_ssl=True)
        assert code == 1 and "its certificate cannot be trusted: SSLCertVerificationError" in said
        other.down()
        code, said = trial(other)
        assert code == 1 and "refuses connections: is smtp_port right?" in said
    code, said = trial(sink, smtp_server="mail.invalid")
    assert code == 1 and "no such host, see smtp_server" in said
    code, said = trial(sink, smtp_ssl=True)
    assert code == 1 and "STARTTLS" in said
    assert sink.mails == []


def test_by_ses(trial, sink, cloud):
    code, said = trial(sink, smtp_server=None, smtp_port=None, smtp_ssl=None)
    assert code == 1
    assert f"by SES in {REGION}: SES refuses it: verify from_address" in said
    cloud.client("ses", ACCOUNT, REGION).verify_domain_identity(Domain="example.com")
    code, said = trial(sink, smtp_server=None, smtp_port=None, smtp_ssl=None)
    assert (code, f"Taken by SES in {REGION}" in said) == (0, True)


def test_only_whom_mailer_yml_knows(trial, sink, caplog):
    for stranger in ("somebody@elsewhere.org", "account-emails", f"{TO}, x@elsewhere.org", "-"):
        caplog.clear()
        code, _ = trial(sink, to=stranger)
        assert (code, sink.mails) == (2, []), stranger
        assert "neither account_emails nor `recipients` of mailer.yml has it" in caplog.text


SHIPPED = (ROOT / "mailer" / "mailer.yml").read_text()
SHIPPED = SHIPPED.replace("../accounts.yml", str(ROOT / "accounts.yml"))


@pytest.mark.parametrize("command", [["deploy"], ["--once"], ["test", "--to", TO]])
def test_no_command_works_with_the_examples_of_the_shipped_file(
    cloud, tmp_path, capsys, monkeypatch, command
):
    for name, value in cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "mailer.yml"
    path.write_text(SHIPPED)
    cloud.call_log.clear()
    assert main([*command, "--config", str(path)]) == 2
    named = set(re.findall(r"^(\w+): ", capsys.readouterr().err, re.MULTILINE))
    marked = set(re.findall(r"^# CHANGE.*\n(?:#.*\n)*(\w+):", SHIPPED, re.MULTILINE))
    assert len(marked) == 6 and "region" in marked
    unused = {"deploy": set(), "--once": {"role"}, "test": {"role", "queue_url", "account_emails"}}
    assert named == marked - {"region"} - unused[command[0]]
    assert cloud.calls == []


def test_each_example_that_is_left_is_named(tmp_path, capsys):
    own = {
        "queue_url": "https://sqs.us-west-2.amazonaws.com/210987654321/guardduty-response-mail",
        "region": "us-west-2",
        "role": "arn:aws:iam::210987654321:role/guardduty-response-mailer",
        "from_address": "guardduty-response@corp.test",
        "account_emails": {"default": ["a@corp.test"], "444455556666": ["b@corp.test"]},
        "smtp_server": "mail.corp.test",
    }
    path = tmp_path / "mailer.yml"
    path.write_text(yaml.safe_dump(own))
    assert main(["deploy", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert said == (
        "account_emails: '444455556666' is the example that was shipped; see CHANGE in mailer.yml\n"
        "Nothing was changed or sent.\n"
    )
