"""Where a command works: the current account in one region, or the accounts of accounts.yml."""

import difflib
import functools
from dataclasses import dataclass
from pathlib import Path

import boto3
import click
import jsonschema
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from c7n.credentials import assumed_session
from c7n.utils import generate_arn, get_account_alias_from_sts, get_partition
from c7n_org import cli as c7n_org

from deployment.errors import Refused, printable
from deployment.models import share_models

# Whoever waits at the first call, because there is no network, shall not wait long.
FIRST = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Target:
    """One account and region. account: as c7n-org has it (account_id, name, role, vars, tags)."""

    account: dict
    region: str

    @property
    def account_id(self):
        return self.account["account_id"]

    @property
    def name(self):
        return self.account["name"]

    @property
    def listed(self):
        """Whether it is of accounts.yml, and not the caller's own."""
        return "role" in self.account or "profile" in self.account

    @property
    def label(self):
        """Its number and, in parentheses, what people call it: the name that accounts.yml has, or
        of the caller's own the alias.

        IAM: iam:ListAccountAliases, for the caller's own alone, once for each region.
        """
        name = self.name if self.listed else alias(self.account_id, self.region)
        name = f" ({name})" if name not in ("", self.account_id) else ""
        return printable(self.account_id + name)

    def __str__(self):
        name = f" ({self.name})" if self.name != self.account_id else ""
        return f"{self.account_id}{name} {self.region}"

    def arn(self, service, resource):
        """Of something in this account and region."""
        return generate_arn(service, resource, region=self.region, account_id=self.account_id)

    def session(self):
        """boto3's, as the account's role or profile, else as the caller; it makes a client of each
        service once. Raises ClientError when the role cannot be assumed.

        What `c7n_org.cli.get_session` does, with the models shared (deployment/models.py), and STS
        asked in the region itself: what it gives elsewhere is not valid in an opt-in region. So the
        caller's account must have enabled it as well.
        https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
        IAM: sts:AssumeRole of the role.
        """
        session = share_models(
            boto3.Session(region_name=self.region, profile_name=self.account.get("profile"))
        )
        roles = self.account.get("role") or []
        for role in [roles] if isinstance(roles, str) else roles:
            session = share_models(
                assumed_session(
                    role, "guardduty-response", session=session, region=self.region,
                    external_id=self.account.get("external_id"),
                )
            )  # fmt: skip
        session.client = functools.cache(session.client)
        if self.listed:
            self.check(session)
        return session

    def check(self, session):
        """Raises Refused where the account is another than the file says.

        IAM: sts:GetCallerIdentity, which needs none.
        """
        found = session.client("sts").get_caller_identity()["Account"]
        if found != self.account_id:
            raise Refused(f"The role or profile of {self} is of account {found}.")


def current(region):
    """The caller's own account in one region. IAM: sts:GetCallerIdentity, which needs none."""
    known(region)
    session = share_models(boto3.Session(region_name=region))
    account_id = session.client("sts", config=FIRST).get_caller_identity()["Account"]
    account = {"account_id": account_id, "name": account_id, "provider": "aws"}
    return Target(account, region)


@functools.cache
def alias(account_id, region):
    """`alias ...` of the caller's own account; "" where it has none, or IAM does not tell it: it is
    for the eye, and nothing that is done depends on it."""
    session = share_models(boto3.Session(region_name=region))
    session.client = functools.partial(session.client, config=FIRST)
    try:
        found = get_account_alias_from_sts(session)
    except (BotoCoreError, ClientError):
        return ""
    return f"alias {found}" if found else ""


def listed(file, accounts=(), tags=(), regions=(), role=""):
    """The accounts and regions of a file like accounts.yml, those with a name or id among
    `accounts` and with all `tags`. regions: instead of the accounts' own. role: the name of one,
    instead of theirs. Raises Refused when there is none, or the file is wrong."""
    try:
        config = yaml.safe_load(Path(file).read_text())
        jsonschema.validate(config, c7n_org.CONFIG_SCHEMA)
    except (OSError, yaml.YAMLError, jsonschema.ValidationError) as error:
        said = getattr(error, "message", error)
        raise Refused(f"{file} is not c7n-org's list of accounts: {said}.") from error
    config["accounts"] = list(c7n_org.accounts_iterator(config))
    for account in config["accounts"]:
        account.setdefault("name", account["account_id"])
    every = sorted(account["name"] for account in config["accounts"])
    c7n_org.filter_accounts(config, c7n_org.comma_expand(tags), list(accounts))
    found = {a[key] for a in config["accounts"] for key in ("name", "account_id")}
    missing = [name for name in c7n_org.comma_expand(accounts) if name not in found]
    if missing or not config["accounts"]:
        wanted = ", ".join([*missing, *(f"tag {tag}" for tag in tags)])
        raise Refused(f"{file} has no account {wanted}. It has: {', '.join(every)}.")
    for account in config["accounts"]:
        named = regions or account.get("regions")
        if not named or "all" in named:
            # c7n-org asks the account itself, and leaves it out where it is refused
            raise Refused(f"{file}: account {account['name']} needs its `regions`, by name.")
    return [
        Target(account | ({"role": role_arn(account, region, role)} if role else {}), region)
        for account in config["accounts"]
        for region in map(known, c7n_org.comma_expand(regions or account["regions"]))
    ]


def role_arn(account, region, name):
    partition = get_partition(region)
    return generate_arn("iam", f"role/{name}", partition, account_id=account["account_id"])


@functools.cache
def known(region):
    """The region, when botocore knows it. Raises Refused."""
    session = boto3.Session()
    every = [
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("ec2", partition)
    ]
    if region not in every:
        close = difflib.get_close_matches(region, every, 1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise Refused(f"{region!r} is not a region that AWS has.{meant}")
    return region


def targeted(command):
    """Options of a command that works in one region of the current account (`--region`) or in the
    accounts of a file (`-c`); it is called with `targets`, a list of Target."""

    @click.option("--region", multiple=True, help="of the current account; with -c, instead of its")
    @click.option("-c", "--config", help="accounts.yml: work in its accounts")
    @click.option("-a", "--accounts", multiple=True, help="names or ids, with -c")
    @click.option("-t", "--tags", multiple=True, help="tags that an account must have, with -c")
    @click.option(
        "--role", default="", help="with -c: the name of one instead of those in the file"
    )
    @functools.wraps(command)
    def chosen(region, config, accounts, tags, role, **more):
        if config:
            targets = listed(config, accounts, tags, region, role)
        elif accounts or tags or role:
            raise click.UsageError("-a, -t and --role choose among the accounts of -c accounts.yml")
        elif region:
            targets = [current(one) for one in c7n_org.comma_expand(region)]
        else:
            raise click.UsageError("say --region, or -c accounts.yml")
        return command(targets=targets, **more)

    return chosen
