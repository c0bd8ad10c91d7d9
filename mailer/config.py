"""mailer.yml: read, checked, and turned into what delivers.

The keys are c7n_mailer's own, checked by its schema, and one of this package: `response_records`.
`account_emails` has one more entry, `default`, which the stock tool reads as an account that never
occurs. Where a check fails, the error names the key.
"""

import re
from pathlib import Path

import yaml
from c7n_mailer.utils import setup_defaults

from .delivery import Courier
from .mail import ADDRESS, DEFAULT, SILENT, Addresses, Mail
from .record import Records
from .secrets import ENVIRONMENT, KEYS, Secrets, is_reference
from .ses import Ses
from .slack import Slack
from .smtp import Smtp
from .splunk import Splunk
from .topic import ARN, Topics

HERE = Path(__file__).parent
RECORDS = "response_records"
LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]")
# Seconds. Lambda refuses a queue as event source whose visibility timeout is shorter.
TIMEOUT = 120
# Transports of c7n_mailer that would deliver nothing here, so they are refused, not ignored.
NOT_USED = (
    "sendgrid_api_key", "graph_token_endpoint", "graph_sendmail_endpoint", "graph_client_id",
    "graph_client_secret", "datadog_api_key", "datadog_application_key", "lambda_schedule",
    "function_properties", "email_base_url", "http_proxy", "https_proxy",
)  # fmt: skip


class ConfigError(Exception):
    """mailer.yml is not usable; the message has a line for each wrong key."""


def load(path: Path) -> dict:
    """The checked configuration, with c7n_mailer's defaults. OSError when there is no such file."""
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: no mapping of keys")
    problems = check(config)
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    config.setdefault("timeout", TIMEOUT)
    setup_defaults(config)
    return config


def check(config: dict) -> list[str]:
    """What is wrong, one line for each key; c7n_mailer's schema first."""
    # Not at the top: the function, whose configuration was checked when it was deployed, has no
    # jsonschema.
    import jsonschema
    from c7n_mailer.cli import CONFIG_SCHEMA

    stock = {key: value for key, value in config.items() if key != RECORDS}
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
    return (
        f"must be of type {error.validator_value}"
        if error.validator == "type"
        else ("not in a form that c7n_mailer understands")
    )


def _own_checks(config: dict):
    region = re.match(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com", config["queue_url"])
    if not config["queue_url"].startswith(("https://", "http://")):
        yield "queue_url: must be the URL of an SQS queue"
    if region and config.get("region") != region[1]:
        yield f"region: must be {region[1]}, where the queue of queue_url is"
    if not ADDRESS.search(config.get("from_address", "")):
        yield "from_address: must be an e-mail address"
    yield from _check_account_emails(config.get("account_emails", {}))
    for key in NOT_USED:
        if key in config:
            yield f"{key}: this mailer does not use it; remove it"
    if "smtp_password" in config and "smtp_username" not in config:
        yield "smtp_username: missing beside smtp_password"
    if "smtp_username" in config and "smtp_password" not in config:
        yield "smtp_password: missing beside smtp_username"
    if "smtp_username" in config and config.get("smtp_ssl") is False and not _is_local(config):
        yield "smtp_ssl: must not be false with smtp_username: the password would travel in clear"
    for key in KEYS:
        if key in config and not is_reference(str(config[key])):
            yield f"{key}: {NO_REFERENCE}"
    if "splunk_hec_token" in config and not _is_https(config.get("splunk_hec_url", "")):
        yield "splunk_hec_url: must be an https address"
    yield from _check_records(config.get(RECORDS, []))


NO_REFERENCE = (
    "must be env:NAME, secretsmanager:NAME, or kms:BASE64, never the secret itself "
    "(see mailer/secrets.py)"
)


def _check_account_emails(accounts: dict):
    if DEFAULT not in accounts:
        yield (
            f"account_emails.{DEFAULT}: missing; the findings of an account that is not listed "
            "would be mailed to nobody"
        )
    for account, emails in accounts.items():
        key = f"account_emails.{account}"
        if account != DEFAULT and not (
            isinstance(account, str) and re.fullmatch(r"[0-9]{12}", account)
        ):
            yield f'{key}: must be "{DEFAULT}" or an account id of 12 digits, in quotes'
        if not isinstance(emails, list) or not emails:
            yield f"{key}: must be a list of at least one address"
            continue
        for email in emails:
            if not isinstance(email, str) or not ADDRESS.fullmatch(email):
                yield f"{key}: {email!r} is not an e-mail address (user@domain.example)"


def _check_records(places: object):
    if not isinstance(places, list):
        yield f"{RECORDS}: must be a list"
        return
    for number, place in enumerate(places):
        key = f"{RECORDS}.{number}"
        if not isinstance(place, dict) or len({"topic", "webhook"} & set(place)) != 1:
            yield f"{key}: must have either topic or webhook"
            continue
        unknown = set(place) - {"topic", "webhook", "authorization"}
        if unknown:
            yield f"{key}: does not know {', '.join(sorted(unknown))}"
        if "topic" in place and not ARN.fullmatch(str(place["topic"])):
            yield f"{key}.topic: must be the ARN of an SNS topic"
        if "webhook" in place and not (
            _is_https(str(place["webhook"])) or is_reference(str(place["webhook"]))
        ):
            yield f"{key}.webhook: must be an https address or the reference to a secret"
        if "authorization" in place and not is_reference(str(place["authorization"])):
            yield f"{key}.authorization: {NO_REFERENCE}"


def _is_https(url: str) -> bool:
    return url.startswith("https://") or url.startswith(tuple(f"{one}:" for one in LOOPBACK))


def _is_local(config: dict) -> bool:
    return config.get("smtp_server") in ("127.0.0.1", "localhost", "::1")


def environment_references(config: dict) -> list[str]:
    """The keys whose secret is in the environment, which a function does not have."""
    values = [(key, config.get(key)) for key in KEYS]
    for number, place in enumerate(config.get(RECORDS, [])):
        values += [(f"{RECORDS}.{number}.{key}", value) for key, value in place.items()]
    return [key for key, value in values if str(value).startswith(ENVIRONMENT)]


def courier(config: dict, session, secrets: Secrets, templates: Path | None = None) -> Courier:
    """What delivers by a configuration. session: boto3's. templates: a folder; by default the one
    of this package."""
    import c7n_mailer

    stock = {key: value for key, value in config.items() if key != RECORDS} | {
        "templates_folders": [
            str(templates or HERE / "templates"),
            str(Path(c7n_mailer.__file__).parent / "msg-templates"),
        ]
    }
    addresses = Addresses(stock, session, SILENT)
    topics = Topics(stock, session)
    return Courier(
        [
            Mail(addresses, _sender(stock, addresses, secrets)),
            Slack(stock, addresses, secrets),
            Splunk(stock, secrets),
            topics,
            Records(config.get(RECORDS, []), topics, secrets),
        ]
    )


def _sender(config: dict, addresses: Addresses, secrets: Secrets):
    if "smtp_server" not in config:
        return Ses(addresses.aws_ses)
    return Smtp(config, lambda: secrets.reveal("smtp_password", config["smtp_password"]))
