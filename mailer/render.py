"""The templates, rendered in Jinja's sandbox.

A message names a template of the folder and fills it. It never is one: no text of a message is
ever rendered, subjects neither. The sandbox is the second wall: should a template evaluate what a
message chose, it gets no further than the message itself.
https://jinja.palletsprojects.com/en/stable/sandbox/
"""

import functools
import time
from datetime import UTC, datetime
from pathlib import Path

from c7n_mailer.utils import get_jinja_env
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .accounts import Accounts
from .errors import Permanent, describe
from .times import RUN, times

URL = "runbook_url"
HANDED_ON = ("account", "account_id", "partition", "region", "event", "action", "policy")


@functools.cache  # with it what is compiled, which takes longer than all else about a mail
def sandbox(folder: Path) -> ImmutableSandboxedEnvironment:
    """c7n_mailer's environment for the templates of a folder, but a sandbox."""
    stock = get_jinja_env([str(folder)])
    made = ImmutableSandboxedEnvironment(trim_blocks=True, autoescape=False, loader=stock.loader)
    # The sandbox's own go first: its `range` is the one with a limit.
    made.filters = stock.filters | made.filters
    made.globals = stock.globals | made.globals
    return made


class Templates:
    """The files NAME.j2 of one folder; those that begin with `_` are parts of others.

    They have c7n_mailer's filters and functions, the variables that c7n_mailer hands on, and
    `known_account`: what `accounts` knows of the account that the message is about; `times`
    (times.py); of mailer.yml, `config`, the `contact_tags` and the `runbook_url`, None without.
    """

    def __init__(self, folder: Path, accounts: Accounts, config: dict):
        self._environment = sandbox(folder)
        self._accounts = accounts
        self._own = {URL: config.get(URL), "contact_tags": config.get("contact_tags", [])}

    @property
    def names(self) -> list[str]:
        """What a message may name."""
        files = self._environment.list_templates(extensions=["j2"])
        return [file.removesuffix(".j2") for file in files if file[0] != "_" and "/" not in file]

    def render(
        self,
        name: object,
        data: dict,
        resources: list,
        recipient: object,
        mailed: datetime | None = None,
    ) -> str:
        """A template, filled with what `notify` sent. resources: those that concern the recipient.
        mailed: now, for `times`; without it there are none, nor the log of the run, so that two
        that say the same are the same.
        Permanent when there is no such template, or when it renders to nothing, which is no message
        to anybody; and whatever Jinja raises."""
        if name not in self.names:
            raise Permanent(f"there is no template {name!r}")
        handed_on = {key: data.get(key, "") for key in HANDED_ON}
        if not mailed:
            handed_on["event"] = {k: v for k, v in data["event"].items() if k != RUN}
        text = self._environment.get_template(f"{name}.j2").render(
            handed_on,
            recipient=recipient,
            resources=resources,
            execution_start=_started(data),
            known_account=self._accounts.about(_account_id(data)),
            times=times(data, resources, mailed) if mailed else [],
            **self._own,
        )
        if not text.strip():
            raise Permanent(f"the template {name!r} renders to nothing")
        return text


def _account_id(data: dict) -> object:
    detail = data["event"].get("detail")
    return (isinstance(detail, dict) and detail.get("accountId")) or data.get("account_id")


def _started(data: dict) -> str:
    """When the policy was run, as c7n_mailer writes it."""
    try:
        started = datetime.fromtimestamp(data.get("execution_start") or time.time(), UTC)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # an OSError is tried again
        raise Permanent(f"execution_start: {describe(error)}") from None
    return started.replace(tzinfo=None).isoformat()
