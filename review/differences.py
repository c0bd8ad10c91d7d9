"""What differs between two forms of a policy, in words."""

import difflib
import json
from collections.abc import Iterator

from .decision import fields, words


def differences(before: dict, after: dict) -> list[str]:
    """A line for each difference between the data of two policies: rule, filters, actions, then
    the rest. Empty when both say the same, however it is written."""
    sides = (before, after)
    patterns = [one.get("mode", {}).get("pattern", {}) for one in sides]
    lines = list(_rule(*map(dict, map(_fields, patterns))))
    for key, kind in LISTS.items():
        lines += _elements(kind, *(one.get(key, []) for one in sides))
    lines += _values(*map(dict, map(_flat, map(_rest, sides))))
    return list(_said_once(lines))


# The list of types stands in both, by a YAML anchor.
RULE, FILTER = "rule: detail.type ", "filter guard-duty-finding: types "


def _said_once(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith(RULE) and line.replace(RULE, FILTER) in lines:
            yield f"rule and filter: types {line.removeprefix(RULE)}"
        elif not (line.startswith(FILTER) and line.replace(FILTER, RULE) in lines):
            yield line


LISTS = {"filters": "filter", "actions": "action"}


def _rest(policy: dict) -> dict:
    """A policy without what is told apart."""
    rest = {key: value for key, value in policy.items() if key not in LISTS}
    mode = policy.get("mode", {})
    return rest | {"mode": {key: value for key, value in mode.items() if key != "pattern"}}


def _fields(pattern: dict) -> Iterator[tuple[str, list]]:
    return ((".".join(path), values) for path, values in fields(pattern))


def _rule(before: dict, after: dict) -> Iterator[str]:
    for field in before | after:
        if field not in after:
            yield f"rule: no longer asks for {field}: every finding matches there"
        elif field not in before:
            yield f"rule: asks for {field} as well: {_listed(after[field])}"
        else:
            gone, new = _gone_and_new(before[field], after[field])
            if gone:
                yield f"rule: {field} without {_listed(gone)}"
            if new:
                yield f"rule: {field} also {_listed(new)}"


def _gone_and_new(before: list, after: list) -> tuple[list, list]:
    return [v for v in before if v not in after], [v for v in after if v not in before]


def _listed(values: list) -> str:
    return ", ".join(map(words, values))


def _elements(kind: str, before: list, after: list) -> Iterator[str]:
    """Filters or actions: gone, new, with other options, in another order."""
    if before == after:
        return
    old, new = ([_named(element) for element in some] for some in (before, after))
    left = list(new)
    for name, options in old:
        others = [more for other, more in left if other == name]
        if not others:
            yield f"{kind} {name}: removed"
            continue
        # of several of one name the same one, else the first that is left
        other = options if options in others else others[0]
        left.remove((name, other))
        for line in _values(dict(_flat(options)), dict(_flat(other))):
            yield f"{kind} {name}: {line}"
    for name, _ in left:
        place = [other for other, _ in new].index(name)
        behind = f"behind {new[place - 1][0]}" if place else "as the first"
        yield f"{kind} {name}: added {behind}"
    yield from _moved(kind, [n for n, _ in old if n in dict(new)], [n for n, _ in new])


def _moved(kind: str, before: list[str], after: list[str]) -> Iterator[str]:
    after = [name for name in after if name in before]
    match = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, _, _, start, end in match.get_opcodes():
        if tag in ("insert", "replace"):
            for place in range(start, end):
                behind = f"behind {after[place - 1]}" if place else "to the beginning"
                yield f"{kind} {after[place]}: moved {behind}"


def _named(element: object) -> tuple[str, dict]:
    """The type of a filter or action, and its options. A block (`or`) is its own name."""
    if isinstance(element, str):
        return element, {}
    if "type" in element:
        return element["type"], {key: value for key, value in element.items() if key != "type"}
    name = next(iter(element))
    if len(element) == 1 and name not in BLOCKS:
        return name, {"value": element[name]}
    return json.dumps(element), {}


BLOCKS = ("and", "or", "not")


def _flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The values of a mapping by their paths; lists are values."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, value


def _values(before: dict, after: dict) -> Iterator[str]:
    for path in before | after:
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            gone, more = _gone_and_new(old, new)
            yield from (f"{path} without {_listed(gone)}" for _ in gone[:1])
            yield from (f"{path} also {_listed(more)}" for _ in more[:1])
            if not gone and not more:
                yield f"{path} in another order"
        elif path not in after:
            yield f"{path} removed (was {_short(old)})"
        elif path not in before:
            yield f"{path} is now {_short(new)}"
        else:
            yield f"{path} is now {_short(new)}, was {_short(old)}"


def _short(value: object) -> str:
    said = json.dumps(value, default=str)
    return said if len(said) <= 80 else f"{said[:80]} ..."
