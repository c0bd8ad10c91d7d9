"""The Markdown of a review.

What comes from findings, mails, policies and accounts.yml is code, or without any markup: a pull
request can come from anybody. The text has no HTML, no entity and no link: .github/post.py lets
none of them work.
"""

import re
from pathlib import Path

import jinja2

from deployment.errors import printable

from .compare import number

TEMPLATE = Path(__file__).parent / "templates" / "review.md.j2"
MOST = 40  # rows of a table, and mails
LINES = 60  # of one difference
LARGEST = 60_000  # characters; GitHub takes 65,536 in a comment


def markdown(found: dict) -> str:
    """found: what `compare.compared` returns, with `reach`, `missing` and `unjudged`."""
    environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    filters = (code, cell, cells, words, fenced)
    environment.filters |= {function.__name__: function for function in filters}
    template = environment.from_string(TEMPLATE.read_text())
    text = template.render(found, most=MOST, marks=marks, more=more).strip()
    if len(text) > LARGEST:
        # between two blocks, of which none has an empty line, or a fence would stay open
        whole = text[:LARGEST].rpartition("\n\n")[0]
        text = f"{whole}\n\nCut here: it is longer than a comment may be."
    return text


def marks(one: dict) -> str:
    if one["isolates"]:
        return "**newly isolates**" if one["isolates"] > 0 else "**no longer isolates**"
    if one["mails"]:
        return "newly mailed" if one["mails"] > 0 else "no longer mailed"
    return "**changes another instance**" if one["regrouped"] else ""


def more(things: list) -> str:
    """What stands below the first ones."""
    return f"\nAnd {len(things) - MOST} more.\n" if len(things) > MOST else ""


def code(text: object) -> str:
    """A span of code."""
    plain = " ".join(printable(text).replace("`", "'").split())
    return f"`{plain}`" if plain else ""


def cell(text: object) -> str:
    """A span of code in a cell of a table, which a bar would end even there."""
    return code(text).replace("|", "\\|")


def cells(texts: list) -> str:
    return ", ".join(map(cell, texts))


def words(text: object) -> str:
    """Words in a cell or a list: no markup, no HTML, no link, no mention of anybody.

    Markdown's own characters get a backslash, what GitHub links by itself gets a space of no width.
    """
    plain = " ".join(printable(text).split())
    plain = LINKED.sub("\\g<0>\u200b", plain)
    return re.sub(r"[\\`*_\[\]|~<>&]|^[#+-]", r"\\\g<0>", plain)


LINKED = re.compile(r"@|#(?=\d)|GH(?=-\d)|:(?=//)|www(?=\.)", re.IGNORECASE)


def fenced(text: str) -> str:
    """A block of code that its content cannot end, of its first lines."""
    lines = printable(text).split("\n")
    if others := lines[LINES:]:
        lines[LINES:] = [f"... and {number(others, 'line')} more"]
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}diff", *lines, fence])
