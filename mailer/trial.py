"""One test mail by the configured way, and in plain words why it was not taken.

It is sent from here, with the credentials and the network of the person who asks; the function has
its own. What it proves is the mail server, or SES, of mailer.yml: host, certificate, login, sender,
recipient. That a finding gets as far as a mail is for `make probe` to prove.

Permissions: for the login's password as mailer/secrets.py says; with SES ses:SendRawEmail.
"""

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

from botocore.exceptions import ClientError

from .delivery import STRANGER, Courier
from .errors import Permanent, describe
from .mail import Mail, sender
from .secrets import Secrets

SUBJECT = "GuardDuty response: test mail"
TEXT = """This is a test of the way by which the GuardDuty response sends its mails.

Somebody ran `make mail-test`. There is no finding, and nothing was changed.
"""
MAY_NOT = "these credentials may not send by SES, see ses:SendRawEmail"
# https://docs.aws.amazon.com/ses/latest/APIReference/API_SendRawEmail.html
SES = {
    "MessageRejected": "SES refuses it: verify from_address, in its sandbox the recipient too",
    "MailFromDomainNotVerifiedException": "the MAIL FROM domain of the sender is not verified",
    "AccessDenied": MAY_NOT,
    "AccessDeniedException": MAY_NOT,
}


def run(config: dict, courier: Courier, secrets: Secrets, to: str) -> int:
    """Send it to one address. Prints; exit code 0 when it was taken, else 1. Permanent when
    mailer.yml lets that address have nothing."""
    (transport,) = (
        one for one in courier.transports if isinstance(one, Mail) and one.accepts("account-emails")
    )
    if not transport.means.known.address(to):
        raise Permanent(f"--to: {STRANGER}. Nothing was sent.")
    way = f"SES in {config.get('ses_region') or config['region']}"
    if "smtp_server" in config:
        way = f"the mail server {config['smtp_server']}:{config.get('smtp_port', 25)}"
    try:
        refused = transport.send(composed(config["from_address"], to), [to])
        why = "; ".join(failure.reason for failure in refused)
    except Exception as error:  # noqa: BLE001  whatever a transport may raise
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else None
        why = f"{SES[code]}: {describe(error)}" if code in SES else describe(error)
    finally:
        courier.close()
    if why:
        print(secrets.hide(f"NOT SENT to {to} by {way}: {why}"))
        return 1
    print(f"Taken by {way}: {SUBJECT!r} to {to}. Look whether it comes, among spam too.")
    return 0


def composed(from_address: str, to: str) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"], mail["Subject"] = from_address, to, SUBJECT
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain=sender(mail).rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(TEXT)
    return mail
