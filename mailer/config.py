"""mailer.yml: read, checked, and turned into what delivers.

The keys are c7n_mailer's own, checked by its schema; what it does not know, and what is peculiar to
one way out, is checked by that transport. `account_emails` has one more entry, `default`, which the
stock tool reads as an account that never occurs; `recipients` and `sample_emails` (known.py),
`runbook_url` (render.py), `accounts` and `describe_accounts` (accounts.py), `topics` and
`administrator_accounts` (senders.py) are this mailer's own. Where a check fails, the error names
the key.
"""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from c7n_mailer.utils import setup_defaults

from . import accounts, known, senders, transports
from .accounts import Accounts, problems_of_emails
from .delivery import Courier
from .known import ADDRESS, Known
from .render import URL, Templates
from .secrets import ENVIRONMENT, Secrets
from .senders import Senders
from .stock import DEFAULT, Addresses
from .transport import Means, Transport

HERE = Path(__file__).parent
# Seconds. Lambda refuses a queue as event source whose visibility timeout is shorter.
TIMEOUT = 120
RUNTIME = "python3.13"  # c7n_mailer's own default ends sooner
# Transports of c7n_mailer that would deliver nothing here, so they are refused, not ignored.
NOT_USED = (
    "sendgrid_api_key", "graph_token_endpoint", "graph_sendmail_endpoint", "graph_client_id",
    "graph_client_secret", "datadog_api_key", "datadog_application_key", "lambda_schedule",
    "function_properties", "email_base_url", "http_proxy", "https_proxy",
)  # fmt: skip

# What the shipped file has where it says CHANGE: accounts of AWS's documentation, and domains that
# nobody can have (https://www.rfc-editor.org/rfc/rfc2606). `region` is checked by queue_url.
EXAMPLE = re.compile(
    r"(?<![0-9])(111122223333|444455556666)(?![0-9])"
    r"|(^|[@.])(example\.(com|net|org)|[\w-]+\.example)>?$"
)
CHANGE = ("queue_url", "role", "from_address", "account_emails", "smtp_server")


class ConfigError(Exception):
    """mailer.yml is not usable; the message has a line for each wrong key."""


def load(path: Path) -> dict:
    """The checked configuration, with c7n_mailer's defaults, and what is used of accounts.yml
    instead of its path. OSError when there is no such file."""
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: no mapping of keys")
    problems = check(config)
    if not problems and accounts.KEY in config:
        listed, emails, problems = accounts.read(path.parent / config[accounts.KEY])
        config[accounts.KEY] = listed
        for account, more in emails.items():
            all_ = [*config["account_emails"].get(account, []), *more]
            config["account_emails"][account] = list(dict.fromkeys(all_))
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    config.setdefault("timeout", TIMEOUT)
    config.setdefault("runtime", RUNTIME)
    setup_defaults(config)
    return config


def check(config: dict) -> list[str]:
    """What is wrong, one line for each key; c7n_mailer's schema first."""
    # Not at the top: the function, whose configuration was checked when it was deployed, has no
    # jsonschema.
    import jsonschema
    from c7n_mailer.cli import CONFIG_SCHEMA

    own = {URL, known.KEY, known.SAMPLES, *accounts.OWN_KEYS, *senders.OWN_KEYS} | {
        key for transport in transports.TRANSPORTS for key in transport.own_keys
    }
    stock = {key: value for key, value in config.items() if key not in own}
    errors = jsonschema.Draft7Validator(CONFIG_SCHEMA).iter_errors(stock)
    problems = [
        f"{'.'.join(map(str, error.absolute_path)) or 'the file'}: {_without_value(error)}"
        for error in errors
    ]
    return problems or [*_own_checks(config)]


def _without_value(error) -> str:
    """The schema's message, but never the value: it may be a password."""
    if error.validator in ("required", "additionalProperties"):
        return error.message
    if error.validator == "type":
        return f"must be of type {error.validator_value}"
    return "not in a form that c7n_mailer understands"


def _own_checks(config: dict):
    region = re.match(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com", config["queue_url"])
    if not config["queue_url"].startswith(("https://", "http://")):
        yield "queue_url: must be the URL of an SQS queue"
    if region and config.get("region") != region[1]:
        yield f"region: must be {region[1]}, where the queue of queue_url is"
    if not ADDRESS.search(config.get("from_address", "")):
        yield "from_address: must be an e-mail address"
    yield from _check_account_emails(config.get("account_emails", {}))
    if URL in config and not re.fullmatch(r"https://[^\s#\"'<>]+", str(config[URL])):
        yield f"{URL}: must be the https:// address of docs/runbook.md, without a section"
    if known.SAMPLES in config:
        yield from problems_of_emails(known.SAMPLES, config[known.SAMPLES])
    yield from known.check(config)
    yield from accounts.check(config)
    yield from senders.check(config)
    for key in NOT_USED:
        if key in config:
            yield f"{key}: this mailer does not use it; remove it"
    for transport in transports.TRANSPORTS:
        yield from transport.check(config)


def unchanged(config: dict, keys: tuple[str, ...]) -> list[str]:
    """What still is the shipped example, a line for each value of these keys.

    Nothing where `endpoint_url` is this machine: that is a simulation.
    """
    if _is_local(config["endpoint_url"] or ""):
        return []
    return [
        f"{key}: {value!r} is the example that was shipped; see CHANGE in mailer.yml"
        for key in keys
        for value in _values(config.get(key))
        if EXAMPLE.search(value)
    ]


def _values(value: object) -> list[str]:
    """All texts in a value of mailer.yml, the keys of account_emails too."""
    if isinstance(value, dict):
        return [text for item in value.items() for text in _values(list(item))]
    if isinstance(value, list):
        return [text for item in value for text in _values(item)]
    return [value] if isinstance(value, str) else []


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_account_emails(listed: dict):
    if DEFAULT not in listed:
        yield (
            f"account_emails.{DEFAULT}: missing; the findings of an account that is not listed "
            "would be mailed to nobody"
        )
    for account, emails in listed.items():
        key = f"account_emails.{account}"
        if account != DEFAULT and not (
            isinstance(account, str) and re.fullmatch(r"[0-9]{12}", account)
        ):
            yield f'{key}: must be "{DEFAULT}" or an account id of 12 digits, in quotes'
        yield from problems_of_emails(key, emails)


def environment_references(config: dict) -> list[str]:
    """The keys whose secret is in the environment, which a function does not have."""
    return [
        key
        for transport in transports.TRANSPORTS
        for key, value in transport.references(config)
        if str(value).startswith(ENVIRONMENT)
    ]


def courier(
    config: dict,
    session,
    secrets: Secrets,
    templates: Path | None = None,
    ways: Sequence[type[Transport]] | None = None,
) -> Courier:
    """What delivers by a configuration. session: boto3's. templates: a folder; by default the one
    of this package. ways: the transports; by default those of this package."""
    allowed = Known(config)
    named = Accounts(config, session)
    means = Means(
        config,
        session,
        secrets,
        allowed,
        Addresses(config, session, allowed),
        Templates(templates or HERE / "templates", named, config),
    )
    made = [transport(means) for transport in ways or transports.TRANSPORTS]
    return Courier(made, Senders(config, named, session))
