"""What docstrings and comments say, as Markdown."""

import inspect
import re

CODE = re.compile(r"(`[^`]*`)")
# a file of the repository that a text names
FILE = re.compile(r"\b(?:custom_actions|docs|infra|policies|tests)/[\w/-]+\.(?:md|py|yml)\b")


def sentence(element: type) -> str:
    """The first sentence of a docstring, or nothing."""
    return re.split(r"(?<=\.)\s", next(iter(lead(element)), ""))[0]


def lead(element: type) -> list[str]:
    """The paragraphs of a docstring before its example."""
    text = (inspect.getdoc(element) or "").partition(":example:")[0]
    return [_line(one) for one in text.split("\n\n") if one.strip()]


def paragraph(element: type, label: str) -> str:
    """What follows `label:` at the beginning of a paragraph of a docstring, or nothing."""
    for text in (inspect.getdoc(element) or "").split("\n\n"):
        if text.startswith(f"{label}:"):
            return _line(text.removeprefix(f"{label}:"))
    return ""


def after(element: type, words: str) -> str:
    """The rest of the sentence of a docstring that begins with words, or nothing."""
    said = re.search(
        rf"{re.escape(words)}(.*?\.)(?:\s|$)", inspect.getdoc(element) or "", re.DOTALL
    )
    return _line(said[1]) if said else ""


def markdown(text: str) -> str:
    """Plain text with `code` in it as Markdown: nothing else is markup but **bold**; files of the
    repository are links, as from docs/."""
    return "".join(part if part[:1] == "`" else _plain(part) for part in CODE.split(_line(text)))


def cell(text: str) -> str:
    """Markdown as one cell of a table."""
    return _line(text).replace("|", "\\|")


def anchor(heading: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _plain(text: str) -> str:
    text = re.sub(r"(?<!\*)\*(?!\*)", r"\\*", text.replace("<", "&lt;"))
    return FILE.sub(lambda found: f"[{found[0]}](../{found[0]})", text)


def _line(text: str) -> str:
    return " ".join(text.split())
