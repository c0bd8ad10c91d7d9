"""The times of a message, for the reader who asks what took how long, and whether the mail is late.

GuardDuty wrote the finding, and wrote it anew, the function received it, the isolation (or what was
done to credentials) was read back, the mail went out: as far as the message has them. A time is
shown and nothing else is done with it, whoever wrote it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import jmespath

RUN = "c7n:run"  # of an event: when the function received it, and the log that it writes
# What was read back by which step, and the word of its outcome that says that it holds.
READ_BACK = {
    "isolate-instance": ("isolated", "Isolated"),
    "revoke-role-sessions": ("revoked", "Revoked"),
    "deactivate-access-key": ("revoked", "Deactivated"),
}
# Spans below so many seconds are told in units of so many, with this name.
UNITS = ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h"), (float("inf"), 86400, "days"))


def times(data: dict, resources: list, mailed: datetime) -> list[dict[str, str]]:
    """`what` happened, `at` which time, and `after` which span since the one before, "" where that
    would be negative: clocks differ. mailed: now, with a time zone."""
    updated = _time(jmespath.search("event.detail.updatedAt", data))
    detected = _time(jmespath.search("event.detail.createdAt", data)) or updated
    found = [
        ("Detected", detected),
        ("Updated", updated if updated != detected else None),
        ("Received", _time(jmespath.search(f'event."{RUN}".received', data))),
        *_read_back(resources, jmespath.search('event."c7n:notice"', data)),
        ("Mailed", mailed),
    ]
    known = [(what, at) for what, at in found if at]
    before = [None, *(at for _, at in known)]
    return [
        {"what": what, "at": f"{at:%Y-%m-%d %H:%M:%S} UTC", "after": _span(earlier, at)}
        for (what, at), earlier in zip(known, before, strict=False)
    ]


def _read_back(resources: list, notice: object) -> Iterator[tuple[str, datetime | None]]:
    """The last time of each kind: of several instances the mail comes after all of them. What was
    so before this run is told as found: when it was done, the message does not know. As in the rest
    of the mail an isolation counts only where the notice knows of one too."""
    outcomes = jmespath.search('[]."c7n:response"[]', resources) or []
    outcomes = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    known = jmespath.search("isolated", notice) is True
    known = known or bool(jmespath.search("isolated_instances", notice))
    for step, (holds, what) in READ_BACK.items():
        if holds == "isolated" and not known:
            continue
        held = [o for o in outcomes if o.get("step") == step and o.get(holds) is True]
        for told, by_this_run in ((f"Found {what.lower()}", False), (what, True)):
            verified = (
                _time(o.get("verified_at"))
                for o in held
                if (o.get("status") == "done") is by_this_run
            )
            yield told, max(filter(None, verified), default=None)


def _time(text: object) -> datetime | None:
    """A time of ISO 8601 with its zone, as UTC; None for anything else."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _span(earlier: datetime | None, later: datetime) -> str:
    seconds = (later - earlier).total_seconds() if earlier else -1
    if seconds < 0:
        return ""
    unit, name = next((unit, name) for end, unit, name in UNITS if seconds < end)
    return f"{seconds:.1f} s" if unit == 1 else f"{seconds // unit:.0f} {name}"
