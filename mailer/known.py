"""Who may get what a message says. The sender of a message chooses among them, and nobody else.

Whoever may publish to the topic writes `to`, and whoever may tag an instance writes its owner: both
are only suggestions. `mailer.yml` has the last word.
"""

import re
from collections.abc import Iterator
from email.utils import parseaddr

KEY = "recipients"
SAMPLES = "sample_emails"
# One plain address: without `?`, which an encoded word in a header needs, and without `*`, which
# somebody may take for "all".
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'+/=^_`{|}~-]{1,64}@([A-Za-z0-9-]+\.)+[A-Za-z0-9-]{2,63}")
DOMAIN = re.compile(r"@([A-Za-z0-9-]+\.)+[A-Za-z0-9-]{2,63}")
TARGET = re.compile(r"([a-z]+://|arn:)\S+")


class Known:
    """The addresses of `account_emails` and `sample_emails`, and what `recipients` of mailer.yml
    lists: addresses, all addresses of a domain (`@example.com`, not of those below it), other
    targets as they stand in a policy's `to`. Without `recipients`: the domain of `from_address`,
    since that one is ours."""

    def __init__(self, config: dict):
        sender = parseaddr(config.get("from_address", ""))[1]
        self._listed = set(config.get(KEY, ["@" + sender.rpartition("@")[2]]))
        emails = [email for all_ in config.get("account_emails", {}).values() for email in all_]
        emails += config.get(SAMPLES, [])
        self._emails = {name.lower() for name in (*self._listed, *emails)}

    def address(self, address: str) -> bool:
        """Whether a mail may go there."""
        if not ADDRESS.fullmatch(address):
            return False
        address = address.lower()
        return not self._emails.isdisjoint((address, "@" + address.rpartition("@")[2]))

    def target(self, target: str) -> bool:
        """Whether a target that is no address of a mail is listed, letter by letter."""
        return target in self._listed


def check(config: dict) -> Iterator[str]:
    """What is wrong with `recipients`, `key: why`."""
    listed = config.get(KEY, [])
    if not isinstance(listed, list):
        yield f"{KEY}: must be a list"
        return
    for number, one in enumerate(listed):
        if not isinstance(one, str) or not any(
            form.fullmatch(one) for form in (ADDRESS, DOMAIN, TARGET)
        ):
            yield (
                f"{KEY}.{number}: must be an address, a domain (@example.com), or a target as in a "
                "policy's `to` (slack://#channel)"
            )
