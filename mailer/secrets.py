"""Passwords and tokens: where they come from, and that they are never printed.

In mailer.yml stands a reference, one of
    env:NAME                     an environment variable (not for the function: its configuration
                                 can be read by whoever may look at it)
    secretsmanager:NAME_OR_ARN   the whole secret string of AWS Secrets Manager
    secretsmanager:NAME_OR_ARN#KEY   one key of a secret that is a JSON object
    kms:BASE64, or BASE64 alone  a KMS ciphertext, as c7n_mailer reads it
and never the secret itself.

Permissions: secretsmanager:GetSecretValue on the secret, kms:Decrypt on the key, where used.
"""

import base64
import binascii
import json
import logging
import os
import re
import time

from c7n_mailer.utils import kms_decrypt

from .errors import Temporary
from .stock import SILENT

HIDDEN = "(hidden)"
MAX_AGE = 300.0  # seconds; after that a rotated secret is read again
ENVIRONMENT, MANAGER, KMS = "env:", "secretsmanager:", "kms:"
NO_REFERENCE = (
    "must be env:NAME, secretsmanager:NAME, or kms:BASE64, never the secret itself "
    "(see mailer/secrets.py)"
)


class Secrets:
    """Reveals references, each read once in MAX_AGE, and hides what it has ever revealed.

    session: boto3's, for Secrets Manager and KMS.
    """

    def __init__(self, session):
        self._session = session
        self._read_before: dict[str, tuple[float, str]] = {}
        self._known: set[str] = set()

    def reveal(self, key: str, reference: str) -> str:
        """The secret behind a reference; `key` of mailer.yml names it in errors."""
        read_at, secret = self._read_before.get(reference, (-MAX_AGE, ""))
        if time.monotonic() - read_at >= MAX_AGE:
            secret = self._read(key, reference)
            self._known.add(secret)
            self._read_before[reference] = time.monotonic(), secret
        return secret

    def hide(self, text: str) -> str:
        """The text without any secret revealed so far, in clear or in base64, whatever stands
        before it there: SMTP's AUTH PLAIN sends user and password as one."""
        for secret in filter(None, self._known):
            text = text.replace(secret, HIDDEN)
            for form in _in_base64(secret):
                if form in text:
                    # The letters beside it hold bits of the secret too.
                    text = re.sub(f"[A-Za-z0-9+/]*{re.escape(form)}[A-Za-z0-9+/=]*", HIDDEN, text)
        return text

    def _read(self, key: str, reference: str) -> str:
        if reference.startswith(ENVIRONMENT):
            name = reference.removeprefix(ENVIRONMENT)
            if not os.environ.get(name):
                raise Temporary(f"{key}: the environment variable {name} is not set")
            return os.environ[name]
        if reference.startswith(MANAGER):
            name, _, field = reference.removeprefix(MANAGER).partition("#")
            client = self._session.client("secretsmanager")
            text = client.get_secret_value(SecretId=name)["SecretString"]
            return _field(key, text, field) if field else text
        ciphertext = reference.removeprefix(KMS)
        plain = kms_decrypt({key: ciphertext}, SILENT, self._session, key)
        # c7n_mailer takes what KMS does not know for a clear password.
        if plain == ciphertext:
            raise Temporary(f"{key}: KMS does not know this ciphertext")
        return plain


def is_reference(value: str) -> bool:
    """Whether a value has one of the forms above; a clear secret nearly never does."""
    if value.startswith((ENVIRONMENT, MANAGER)):
        return bool(value.partition(":")[2])
    try:
        # A KMS ciphertext is never shorter; many a password is valid base64.
        return len(base64.b64decode(value.removeprefix(KMS), validate=True)) >= 64
    except (binascii.Error, ValueError):
        return False


def _in_base64(secret: str) -> list[str]:
    """The letters of base64 that stand for this secret alone, for each place that it can have in
    the groups of three bytes."""
    forms = []
    for before in range(3):
        text = b"\0" * before + secret.encode()
        encoded = base64.b64encode(text).decode()
        forms.append(encoded[-(-before * 8 // 6) : len(text) * 8 // 6])
    return [form for form in forms if form]


def _field(key: str, text: str, field: str) -> str:
    try:
        return str(json.loads(text)[field])
    except (ValueError, KeyError, TypeError):
        raise Temporary(f"{key}: the secret is no JSON object with a key {field}") from None


class HidingFormatter(logging.Formatter):
    """Formats as another formatter does and hides secrets in the result, tracebacks too."""

    def __init__(self, inner: logging.Formatter | None, secrets: Secrets):
        super().__init__()
        self._inner = inner or logging.Formatter()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return self._secrets.hide(self._inner.format(record))
