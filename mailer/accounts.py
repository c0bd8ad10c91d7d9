"""What an account is called, whose it is, and who gets its mails: c7n-org's accounts.yml, which the
key `accounts` of mailer.yml names, else AWS Organizations.

`name` of an account is its name; `regions` are those whose topics may speak of it (senders.py).
`environment` and `owner` are vars of the account, of all (vars at the top of the file), or tags of
it (`environment:production`), in this order and in any case. `emails` in vars is a list of
addresses: they get the mails of that account besides those whom account_emails names for it.

Permissions, with `describe_accounts: true` alone: organizations:DescribeAccount and
organizations:ListTagsForResource, which Organizations grants to its management account, and to
members that it has delegated that to.
https://cloudcustodian.io/docs/tools/c7n-org.html
https://docs.aws.amazon.com/organizations/latest/APIReference/API_DescribeAccount.html
"""

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from botocore.config import Config

from .errors import AWS_ERRORS, describe, one_line
from .known import ADDRESS

log = logging.getLogger("mailer")

KEY = "accounts"
DESCRIBE = "describe_accounts"
OWN_KEYS = (KEY, DESCRIBE)
ID = re.compile(r"[0-9]{12}")
TOLD = ("environment", "owner")
LONGEST = 100  # characters of a name
REMEMBERED = 3600.0  # seconds for which an answer of Organizations holds, a refusal too
# The mail waits for it, and goes out with the number alone when it does not come.
PATIENCE = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})


class Accounts:
    """config: `accounts`, as `read` makes it, and `describe_accounts`. session: boto3's."""

    def __init__(self, config: dict, session):
        self._listed = config.get(KEY, {})
        self._describes = config.get(DESCRIBE, False)
        self._session = session
        self._client = None
        self._asked: dict[str, tuple[float, dict[str, str]]] = {}

    def regions(self, account_id: str) -> list[str]:
        """Where the pack is in an account; [] where accounts.yml does not say."""
        return self._listed.get(account_id, {}).get("regions", [])

    def about(self, account_id: object) -> dict[str, str]:
        """What is known of name, environment and owner; nothing is raised, the mail goes first."""
        if not isinstance(account_id, str) or not ID.fullmatch(account_id):
            return {}
        if account_id in self._listed or not self._describes:
            known = self._listed.get(account_id, {})
            return {key: value for key, value in known.items() if key != "regions"}
        at, known = self._asked.get(account_id, (None, {}))
        if at is None or time.monotonic() - at > REMEMBERED:
            known = self._ask(account_id)
            self._asked[account_id] = time.monotonic(), known
        return known

    def _ask(self, account_id: str) -> dict[str, str]:
        known = {}
        try:
            if self._client is None:
                self._client = self._session.client("organizations", config=PATIENCE)
            account = self._client.describe_account(AccountId=account_id)["Account"]
            known = _told(account.get("Name"), {}, ())
            tags = self._client.list_tags_for_resource(ResourceId=account_id)["Tags"]
            known = _told(account.get("Name"), {tag["Key"]: tag["Value"] for tag in tags}, ())
        except AWS_ERRORS as error:
            log.warning("Organizations does not tell about %s: %s", account_id, describe(error))
        return known


def read(path: Path) -> tuple[dict[str, dict], dict[str, list[str]], list[str]]:
    """An accounts.yml: what is known of each account, the `emails` of those that have some, and
    what is wrong with it, `accounts: why`."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        return {}, {}, [f"{KEY}: {path}: {one_line(error)}"]
    problems = [f"{KEY}: {path}: {problem}" for problem in _problems(content)]
    if problems:
        return {}, {}, problems
    told, emails = {}, {}
    for account in content["accounts"]:
        chosen = (content.get("vars") or {}) | (account.get("vars") or {})
        told[account["account_id"]] = _told(account.get("name"), chosen, account.get("tags") or ())
        if account.get("regions"):
            named = ",".join(account["regions"]).split(",")
            told[account["account_id"]]["regions"] = [name.strip() for name in named]
        if "emails" in chosen:
            emails[account["account_id"]] = chosen["emails"]
    return told, emails, []


def _told(name: object, chosen: dict, tags) -> dict[str, str]:
    """Name, environment and owner, those that there are."""
    words = {}
    for tag in tags:
        key, colon, value = tag.partition(":")
        if colon:
            words[key.lower()] = value
    words |= {str(key).lower(): value for key, value in chosen.items()}
    found = {"name": name} | {key: words.get(key) for key in TOLD}
    return {
        key: one_line(value, LONGEST)
        for key, value in found.items()
        if value and isinstance(value, (str, int))
    }


def _problems(content: object) -> Iterator[str]:
    """Of what is read here; c7n-org checks the rest when it deploys."""
    if not isinstance(content, dict) or not isinstance(content.get("accounts"), list):
        yield "no list of accounts, as c7n-org has it"
        return
    yield from _problems_of_vars("vars", content.get("vars"))
    for number, account in enumerate(content["accounts"]):
        where = f"accounts.{number}"
        if not isinstance(account, dict):
            yield f"{where}: not an account"
            continue
        account_id = account.get("account_id")
        if not isinstance(account_id, str) or not ID.fullmatch(account_id):
            yield f"{where}.account_id: must be 12 digits, in quotes"
        for key in ("tags", "regions"):
            texts = account.get(key) or []
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                yield f"{where}.{key}: must be a list of texts"
        yield from _problems_of_vars(f"{where}.vars", account.get("vars"))


def _problems_of_vars(where: str, chosen: object) -> Iterator[str]:
    if chosen is not None and not isinstance(chosen, dict):
        yield f"{where}: must be a mapping"
        return
    if "emails" in (chosen or {}):
        yield from problems_of_emails(f"{where}.emails", chosen["emails"])


def problems_of_emails(key: str, emails: object) -> Iterator[str]:
    """What is wrong with a list of addresses, `key: why`."""
    if not isinstance(emails, list) or not emails:
        yield f"{key}: must be a list of at least one address"
        return
    for email in emails:
        if not isinstance(email, str) or not ADDRESS.fullmatch(email):
            yield f"{key}: {email!r} is not an e-mail address (user@domain.example)"


def check(config: dict) -> Iterator[str]:
    """What is wrong with the keys of mailer.yml themselves, `key: why`."""
    if not isinstance(config.get(KEY, ""), str):
        yield f"{KEY}: must be the path of an accounts.yml, from where mailer.yml is"
    if not isinstance(config.get(DESCRIBE, False), bool):
        yield f"{DESCRIBE}: must be true or false"
