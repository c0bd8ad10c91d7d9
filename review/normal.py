"""What of a text may differ between two plays of the same: made-up ids, times, codes of records."""

import re
from collections.abc import Collection

ID = re.compile(r"\b[a-z]{1,9}-(?:[0-9a-f]{17}|[0-9a-f]{8})\b")
# a mail may have a line's end in the middle of it
TIME = re.compile(r"\d{4}-\d\d-\d\d(T|\s+)\d\d:\d\d(:\d\d(\.\d+)?)?(\s*(Z|UTC|\+00:00))?")
# between two of them, as mails tell it
SPAN = re.compile(r"\d+(\.\d)?\s+(s|min|h|days)\s+later\b")
SCAN = re.compile(r"(malware\s+scan\s+)[0-9a-f]{32}\b")
OF_AN_ARN = re.compile(r"(?<=/)[0-9a-f]{16}\b")
RECORD = re.compile(r"RECORD=\w+")
# of made-up ids and times: what a seal says of records, and what a mail said
DIGEST = re.compile(r"(?<==)[\w-]{12}(?=[ \"])|\b[0-9a-f]{10}:[0-9a-f]{16}\b")


def ids(text: str) -> set[str]:
    """The ids of AWS in a text."""
    return set(ID.findall(text))


def normal(text: str, own: Collection[str]) -> str:
    """A text with names in the place of what was made up. own: the ids that the finding has."""
    names: dict[str, str] = {}

    def name(found: re.Match) -> str:
        if found[0] in own:
            return found[0]
        kind = found[0].partition("-")[0]
        of_kind = sum(known.startswith(f"{kind}-") for known in names)
        return names.setdefault(found[0], f"{kind}-({of_kind + 1})")

    for pattern, instead in (
        (ID, name),
        (OF_AN_ARN, "(id)"),
        (SCAN, r"\1(id)"),
        (TIME, "(time)"),
        (SPAN, "(span) later"),
        (RECORD, "RECORD=(record)"),
        (DIGEST, "(digest)"),
    ):
        text = pattern.sub(instead, text)
    return text
