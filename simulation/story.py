"""What the demo prints: a column of seconds or labels, and sentences beside it.

Lines are 80 columns wide, on a wider terminal up to 100. Nothing is broken inside a word, so an id
stays whole; a single word that is longer, an address in S3, stands on a line of its own.
"""

import contextlib
import textwrap

from rich.console import Console
from rich.text import Text

from custom_actions.words import one_line

BESIDE = 11  # columns of the seconds or the label
WIDTH, WIDEST = 80, 100
LONGEST = 2000  # characters of one sentence
SHOWN = 4  # of several things alike


class Story:
    """verbose: whether every call, every start of a function and all details are told."""

    def __init__(self, verbose=False):
        self.console, self.verbose = Console(highlight=False), verbose
        is_seen = self.console.is_terminal
        self.width = min(max(self.console.width, WIDTH // 2), WIDEST) if is_seen else WIDTH

    def tell(self, text, label="", style="", first=""):
        """A sentence, of whomever: an attacker may have written it. first: a column of it."""
        label = f"{label:<{BESIDE}}"
        lines = textwrap.wrap(
            one_line(text, LONGEST),
            self.width - len(label + first),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines:
            self.line(Text.assemble((label, "bold"), (first + line, style)))
            label, first = " " * len(label), " " * len(first)

    def line(self, text=""):
        """A line as it is."""
        self.console.print(text, soft_wrap=True)

    def working(self, what):
        """A context that shows on a terminal that something takes a while."""
        if self.console.is_terminal:
            return self.console.status(what, refresh_per_second=4)
        return contextlib.nullcontext()


def sentence(text):
    """The first sentence of a text."""
    first, point, _ = text.partition(". ")
    return first + point.strip()


def some(names):
    """The first of some names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def seconds(since):
    return f"{since:7.2f} s"
