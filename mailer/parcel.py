"""What is sent in one piece."""

from collections.abc import Callable
from dataclasses import dataclass

from .errors import Failure


@dataclass(frozen=True)
class Parcel:
    """targets: the names of those who get it, fit for a log. send: takes those of them who do not
    have it yet, returns who did not get it; when it raises, none of them did."""

    targets: tuple[str, ...]
    send: Callable[[list[str]], list[Failure]]
