"""The ways in which people break a policy, each made from its data with a sentence about it.

An edit is a person's: a list that stands in two places by a YAML anchor changes in both, and what a
removal leaves empty goes too.
"""

import copy
import functools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Path = tuple[str | int, ...]

# Of these a filter of Custodian's is made: without one of them it is another filter, or none.
WHOLE = ("type", "key", "op", "value", "value_type", "default")
# The findings that a field of a rule leaves out.
FIELDS = {
    "detail.accountId": "a finding of a member on the bus of GuardDuty's administrator account, "
    "that the policy would act on otherwise"
}
# Changing these changes no behaviour, or is another policy.
NO_BEHAVIOUR = ("name", "description", "metadata", "resource", "mode", "filters", "actions")


@dataclass(frozen=True)
class Ablation:
    """what: what was done to the policy. broken: its data then. wanted: of the rule and the
    filters of a policy for findings, the finding that shows it; None of everything else."""

    policy: str
    what: str
    broken: dict
    wanted: str | None = None

    def __str__(self) -> str:
        return f"{self.policy}: {self.what}"


def ablations(policy: dict) -> Iterator[Ablation]:
    """Every way to break a policy (its data), from the rule to the mode."""
    seen = set()
    for edits in (rule, filters, steps, the_rest):
        for what, broken, *wanted in edits(policy, seen):
            yield Ablation(policy["name"], what, broken, *wanted)


def rule(policy: dict, seen: set) -> Iterator[tuple]:
    """Of the pattern of the rule, and of the types that a filter has by an anchor."""
    pattern = policy.get("mode", {}).get("pattern")
    if pattern is None:
        return
    for path, values in fields(pattern, ("mode", "pattern")):
        name = ".".join(path[2:])
        yield (
            f"the field {name} of the rule dropped",
            without(policy, path),
            FIELDS.get(name, f"a finding that the rule leaves out for its {name}"),
        )
        if name == "detail.type":
            yield from entries(policy, path, "types", seen)
            yield from widened(policy, path)
        elif len(values) > 1:
            yield from entries(policy, path, name, seen)


def filters(policy: dict, seen: set, path: Path = ("filters",)) -> Iterator[tuple]:
    """Of the filters, each branch of `or`, `and` and `not` by itself."""
    for number, element in enumerate(at(policy, path) if "filters" in policy else ()):
        here = (*path, number)
        about = named(element)
        yield (
            f"without the filter {about}",
            without(policy, here),
            f"a finding about which only the filter {about} decides",
        )
        for block in ("or", "and", "not"):
            if isinstance(element, dict) and block in element:
                yield from filters(policy, seen, (*here, block))
                break
        else:
            yield from options_of_a_filter(policy, here, seen)


def options_of_a_filter(policy: dict, path: Path, seen: set) -> Iterator[tuple]:
    element = at(policy, path)
    if not isinstance(element, dict) or "type" not in element:
        return
    for option, value in element.items():
        if isinstance(value, list):
            yield from entries(policy, (*path, option), option, seen)
        elif option == "min-severity":
            yield (
                f"without {option} of the filter {named(element)}",
                without(policy, (*path, option)),
                f"a finding of a severity below {value}",
            )
            yield (
                f"{option} of the filter {named(element)} raised by one",
                changed(policy, (*path, option), lambda d, k, v=value: d.update({k: v + 1})),
                f"a finding of the severity {value}",
            )
        elif option not in WHOLE:
            yield (
                f"without {option} of the filter {named(element)}",
                without(policy, (*path, option)),
                f"a finding that passes {named(element)} by its {option} alone",
            )
    if element["type"] == "guard-duty-finding":
        for option, kind in (("samples", "a sample"), ("archived", "an archived finding")):
            if option not in element:
                let_in = changed(
                    policy, path, lambda holder, key, o=option: holder[key].update({o: True})
                )
                yield f"{option} let in", let_in, f"{kind} that the policy would act on otherwise"


def steps(policy: dict, seen: set) -> Iterator[tuple]:
    """Of the actions: each left out, each with the next, the first one last, their options."""
    names = [named(action) for action in policy["actions"]]
    for number, (name, action) in enumerate(zip(names, policy["actions"], strict=True)):
        yield f"without the step {name}", without(policy, ("actions", number))
        if number:
            former = names[number - 1]
            yield f"the steps {former} and {name} swapped", moved(policy, number - 1, number)
        if isinstance(action, dict):
            yield from options(policy, ("actions", number), f"of the step {name}", seen)
    if len(names) > 2:
        yield f"{names[0]} last", moved(policy, 0, len(names) - 1)


def the_rest(policy: dict, seen: set) -> Iterator[tuple]:
    """Of the mode, and of what the policy asks AWS for."""
    if "mode" in policy:
        yield from options(policy, ("mode",), "of the mode", seen)
    for key in policy:
        if key not in NO_BEHAVIOUR:
            yield f"without {key}", without(policy, (key,))


def options(policy: dict, path: Path, where: str, seen: set) -> Iterator[tuple]:
    """Each option of a mapping left out, and each entry of an option that has several."""
    for option, value in at(policy, path).items():
        if option in ("type", "pattern"):
            continue
        here = (*path, option)
        yield f"without {option} {where}", without(policy, here)
        if isinstance(value, dict) and len(value) > 1:
            for key in value:
                yield f"without {key} of {option} {where}", without(policy, (*here, key))
        elif isinstance(value, list) and len(value) > 1:
            for what, broken, _ in entries(policy, here, f"{option} {where}", seen):
                yield what, broken


def entries(policy: dict, path: Path, name: str, seen: set) -> Iterator[tuple]:
    """A list without each of its entries. seen: the lists that are done, by their identity."""
    values = at(policy, path)
    if id(values) in seen:
        return
    seen.add(id(values))
    for number, entry in enumerate(values):
        wanted = {
            "types": f"a finding of {kind(entry)} that the policy acts on",
            "actor-only": f"a finding of {kind(entry)} whose resource is the target, not the actor",
            "not-inbound": f"an INBOUND finding of {kind(entry)}",
            "left-out": f"a finding of {kind(entry)} that the policy would act on otherwise",
        }.get(name, f"a finding that has {called(entry)} as {name}")
        listed = "" if name == "types" else f"{name} "
        yield f"{listed}without {called(entry)}", without(policy, (*path, number)), wanted


def widened(policy: dict, path: Path) -> Iterator[tuple]:
    """The types widened: each prefix by a part, and by a prefix what types have in common."""
    types = at(policy, path)
    prefixes = [entry["prefix"] for entry in types if isinstance(entry, dict) and "prefix" in entry]
    for number, entry in enumerate(types):
        if isinstance(entry, dict) and "prefix" in entry:
            prefix = entry["prefix"]
            wider = prefix[: prefix.rstrip("/:").rfind(":") + 1] or prefix[:1]
            yield (
                f"the prefix {prefix!r} widened to {wider!r}",
                changed(
                    policy,
                    (*path, number),
                    lambda types, n, w=wider: operator.setitem(types, n, {"prefix": w}),
                ),
                f"a finding of a type {wider}... that does not begin with {prefix}",
            )
    families = {entry[: entry.find("/") + 1] for entry in types if isinstance(entry, str)}
    for family in sorted(families - {"", *prefixes}):
        yield (
            f"widened by the prefix {family!r}",
            changed(policy, path, lambda d, k, f=family: d[k].append({"prefix": f})),
            f"a finding of a type {family}... that the policy does not name",
        )


# Edits. Each works on a copy, in which what was one list by an anchor still is one.


def changed(policy: dict, path: Path, change: Callable) -> dict:
    """A copy of a policy after `change(holder, key)` of what stands at a path."""
    made = copy.deepcopy(policy)
    change(at(made, path[:-1]), path[-1])
    return made


def without(policy: dict, path: Path) -> dict:
    """A copy of a policy without what stands at a path, and without what holds nothing then."""
    made = copy.deepcopy(policy)
    while path:
        holder = at(made, path[:-1])
        del holder[path[-1]]
        if holder:
            break
        path = path[:-1]
    return made


def moved(policy: dict, number: int, to: int) -> dict:
    """A copy of a policy with one of its actions at another place."""
    made = copy.deepcopy(policy)
    made["actions"].insert(to, made["actions"].pop(number))
    return made


# Reading


def at(data: object, path: Path) -> object:
    return functools.reduce(operator.getitem, path, data)


def fields(pattern: dict, path: Path = ()) -> Iterator[tuple[Path, list]]:
    """The fields of a pattern: the keys that lead to each, behind a path, and the values that it
    may have. Alternatives (`$or`) are one field.
    """
    for key, value in pattern.items():
        if isinstance(value, dict):
            yield from fields(value, (*path, key))
        else:
            yield (*path, key), value


def named(element: str | dict) -> str:
    """A filter or an action as a person calls it."""
    if isinstance(element, str):
        return element
    if "type" not in element:
        (key, value), *_ = element.items()
        return f"{key} {value}" if isinstance(value, str) else key
    return " ".join(
        [
            element["type"],
            *(str(element[k]) for k in ("key", "value") if isinstance(element.get(k), str)),
        ]
    )


def kind(entry: str | dict) -> str:
    if isinstance(entry, dict) and "prefix" in entry:
        return f"a type {entry['prefix']}..."
    return f"the type {called(entry)}"


def called(entry: object) -> str:
    """An entry of a list as a person calls it: a value, a prefix, a call of CloudTrail."""
    if isinstance(entry, dict):
        return str(entry.get("event") or " ".join(f"{k} {v!r}" for k, v in entry.items()))
    return str(entry)
