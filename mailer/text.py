"""The plain-text part of a mail, made from its HTML.

Small on purpose: it reads the HTML of mailer/templates, where every block is a paragraph, a
heading, a table row or a div, and a link's text is its address.
"""

import textwrap
from html.parser import HTMLParser

BLOCKS = {"p", "h1", "h2", "h3", "div", "tr", "table", "ul", "ol", "li", "body", "br"}
HEADINGS = {"h1", "h2", "h3"}
SILENT = {"head", "style", "script", "title"}
WIDTH = 78  # characters; the line length that mail has had for ever


class _Text(HTMLParser):
    """Collects lines. The cells of a row stand on one line: `label: value`."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []
        self.line = ""
        self.silent = 0
        self.cells = 0

    def handle_starttag(self, tag, attrs):
        self.silent += tag in SILENT
        if tag in BLOCKS:
            self.end_line()
        if tag == "tr":
            self.cells = 0
        if tag == "td":
            if self.cells and self.line.strip():
                self.line = self.line.rstrip() + ": "
            self.cells += 1
        if tag in HEADINGS:
            self.lines.append("")

    def handle_endtag(self, tag):
        self.silent -= tag in SILENT
        if tag in HEADINGS and self.line.strip():
            title = " ".join(self.line.split())
            self.line = ""
            self.lines += [title, "-" * len(title)]
        if tag in BLOCKS:
            self.end_line()

    def handle_data(self, data):
        if not self.silent:
            self.line += data

    def end_line(self):
        line = " ".join(self.line.split())
        self.line = ""
        if line:
            self.lines.append(line)


def as_text(html: str) -> str:
    """The text of an HTML mail, wrapped, its first line first. Addresses are not broken."""
    reader = _Text()
    reader.feed(html)
    reader.close()
    reader.end_line()
    # The headline stays in one piece: it is the subject too, and people search for it.
    headline, *rest = reader.lines or [""]
    lines = [headline, ""]
    for line in rest:
        lines += textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines).strip() + "\n"
