"""What the filters of a policy ask for, in words, as Markdown."""

from collections.abc import Iterator

from c7n.filters import Filter
from c7n.filters.core import And, Not, Or, ValueFilter

from custom_actions.finding import FindingFilter
from review.prose import markdown, sentence

GROUPS = {Or: "One of these", And: "All of these", Not: "Not"}


def conditions(element: Filter, *place: str | int) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What has to hold, and what that is made of: (place in the policy, words)."""
    if type(element) not in GROUPS:
        yield place, words(element)
        return
    yield place, f"**{GROUPS[type(element)]}:**"
    for number, inner in enumerate(element.filters):
        yield from conditions(inner, *place, type(element).__name__.lower(), number)


def words(element: Filter) -> str:
    """What one filter asks for."""
    if isinstance(element, ValueFilter):
        return _value(element.data)
    told = markdown(sentence(type(element)))
    named = element.data.get("functions", ())
    return " ".join([f"`{element.type}`: {told}", ", ".join(f"`{name}`" for name in named)]).strip()


def left_out(element: FindingFilter) -> Iterator[tuple[str, str]]:
    """The findings that the filter stops: (the argument that says so, words)."""
    data = element.data
    for argument, what in (("samples", "samples"), ("archived", "archived findings")):
        if not data.get(argument):
            yield argument, what
    if least := data.get("min-severity"):
        yield "min-severity", f"severity below {least}, where the finding has one"
    if types := data.get("left-out"):
        yield "left-out", f"of the types {', '.join(map(entry, types))}"
    for argument, unless in (
        ("actor-only", "unless the instance is the one that acts (`resourceRole` is `ACTOR`)"),
        ("not-inbound", "when the remote side began the connection, and the instance does not act"),
    ):
        if types := data.get(argument):
            yield argument, f"`{argument}`: {', '.join(map(entry, types))}, {unless}"


def entry(wanted: str | dict) -> str:
    """A type of findings, or the prefix of some, as in an event pattern."""
    return f"`{wanted}`" if isinstance(wanted, str) else f"`{wanted['prefix']}...`"


def _value(data: dict) -> str:
    if "key" in data:
        key, value, op = data["key"].removeprefix("detail."), data.get("value"), data.get("op")
    else:
        ((key, value),) = data.items()
        op = None
    if isinstance(value, str) and value.startswith("{"):
        return f"`{key}` is the one that the command names"
    if value in ("present", "absent"):
        return f"`{key}` is {'there' if value == 'present' else 'not there'}"
    if isinstance(value, list):
        return f"`{key}` is one of {', '.join(f'`{one}`' for one in value)}"
    return f"`{key}` {'is like' if op == 'glob' else 'is'} `{value}`"
