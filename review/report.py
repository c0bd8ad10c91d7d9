"""The Markdown of a review.

What comes from findings, mails and policies is code, or without any markup: a pull request can come
from anybody.
"""

import re
from pathlib import Path

import jinja2

from deployment.errors import printable

TEMPLATE = Path(__file__).parent / "templates" / "review.md.j2"
MOST = 40  # rows of findings, and mails
LARGEST = 60_000  # characters; GitHub takes 65,536 in a comment


def markdown(found: dict) -> str:
    """found: what `compare.compared` returns, with `reach`, `missing` and `unjudged`."""
    environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters |= {"cell": code, "cells": codes, "words": words, "fenced": fenced}
    template = environment.from_string(TEMPLATE.read_text())
    text = template.render(found, most=MOST, marks=marks).strip()
    if len(text) > LARGEST:
        text = (
            text[:LARGEST].rpartition("\n")[0] + "\n\nCut here: it is longer than a comment may be."
        )
    return text


def marks(one: dict) -> str:
    if one["isolates"]:
        return "**newly isolates**" if one["isolates"] > 0 else "**no longer isolates**"
    if one["mails"]:
        return "newly mailed" if one["mails"] > 0 else "no longer mailed"
    return "**changes another instance**" if one["regrouped"] else ""


def code(text: object) -> str:
    """A span of code in a cell of a table."""
    plain = " ".join(printable(text).replace("`", "'").replace("|", "\\|").split())
    return f"`{plain}`" if plain else ""


def codes(texts: list) -> str:
    return ", ".join(map(code, texts))


def words(text: object) -> str:
    """Words in a cell: no markup, no HTML, no mention of anybody."""
    plain = " ".join(printable(text).split())
    return re.sub(r"[\\`*_\[\]#|<>~&@]", lambda found: f"&#{ord(found[0])};", plain)


def fenced(text: str) -> str:
    """A block of code that its content cannot end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}diff\n{printable(text)}\n{fence}"
