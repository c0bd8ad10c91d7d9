"""What a transport is: one way out of the mailer. Each is one file in transports/."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import Failure, one_line
from .known import Known
from .message import Message, digest
from .render import Templates
from .secrets import NO_REFERENCE, Secrets, is_reference
from .stock import Addresses


@dataclass(frozen=True)
class Means:
    """What transports are made of. config: mailer.yml, checked. session: boto3's. known: who may
    get something. addresses: finds the recipients of mails. templates: what renders."""

    config: dict
    session: object
    secrets: Secrets
    known: Known
    addresses: Addresses
    templates: Templates


@dataclass(frozen=True)
class Parcel:
    """What is sent in one piece. targets: the names of those who get it, fit for a log. send: takes
    those of them who do not have it yet, returns who did not get it; when it raises, none of them
    did. says: makes a digest of what they read, "" where that is not known."""

    targets: tuple[str, ...]
    send: Callable[[list[str]], list[Failure]]
    says: Callable[[], str] = str

    @classmethod
    def to_one(cls, target: str, send: Callable[..., object], *arguments) -> "Parcel":
        """For one target: `send` of the arguments raises when it did not get it."""

        def deliver(targets: list[str]) -> list[Failure]:
            send(*arguments)
            return []

        return cls((target,), deliver)


class Transport(ABC):
    """One way out. Made once and kept: it may hold connections between messages.

    name: in the errors of a message that it cannot pack. every_message: whether it gets messages
    too that have no target of it. own_keys: of mailer.yml, those that c7n_mailer does not know.
    secret_keys: of mailer.yml, those that hold a reference to a secret.
    """

    name: str
    every_message = False
    own_keys: tuple[str, ...] = ()
    secret_keys: tuple[str, ...] = ()

    def __init__(self, means: Means):
        self.means = means

    @abstractmethod
    def accepts(self, target: str) -> bool:
        """Whether a target in a policy's `to` is one of this transport. No two accept the same."""

    def knows(self, target: str) -> bool:
        """Whether mailer.yml lets an accepted target have something: one that it does not list is
        refused, and never reaches `parcels`."""
        return self.means.known.target(target)

    @abstractmethod
    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """What is to be sent to these targets, all accepted and known. Nothing is sent yet.
        Permanent when that cannot be made, because of the message or of mailer.yml."""

    def close(self) -> None:  # noqa: B027  most hold nothing
        """End what is held open. The next parcel may open it again."""

    @classmethod
    def check(cls, config: dict) -> Iterator[str]:
        """What is wrong with its keys in mailer.yml, `key: why`, and not the value: it may be a
        secret."""
        for key, value in cls.references(config):
            if not is_reference(str(value)):
                yield f"{key}: {NO_REFERENCE}"

    @classmethod
    def references(cls, config: dict) -> Iterator[tuple[str, object]]:
        """The secrets that its keys in mailer.yml refer to: key and reference."""
        yield from ((key, config[key]) for key in cls.secret_keys if key in config)


def label(target: str) -> str:
    """A target for a log: the path of a webhook is its secret."""
    if target.startswith(("https://", "http://")):
        return f"webhook {digest(target)[:8]}"
    return one_line(target, 80)
