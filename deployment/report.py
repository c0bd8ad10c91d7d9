"""What a change of many functions in many places came to.

In one account a heading for each region, and a row for each policy; in several a row for each
account and region, and a second table of what failed. An answer is `{function: Done}`.
"""

from typing import NamedTuple

import click

from deployment.policies import short
from deployment.table import show

UNCHANGED = "unchanged"


class Done(NamedTuple):
    """what: "made", "changed: ...", "unchanged", "removed...". error: one line, where it failed.
    mode: the one that it has now, where that is known."""

    what: str = UNCHANGED
    error: str | None = None
    mode: str = ""


def report(title, results, closing=""):
    """Show the results of `everywhere` and a closing line; exit code 1 when one failed."""
    if len({result.target.account_id for result in results}) == 1:
        for result in results:
            one_by_one(title, result)
    else:
        together(title, results)
    if closing:
        click.echo(closing)
    failed = [result for result in results if errors_of(result)]
    if len(results) > 1 and failed:
        click.echo(f"{len(failed)} of {len(results)} failed.", err=True)
    if failed:
        raise SystemExit(1)


def one_by_one(title, result):
    """A heading, and a row for each policy; the mode in the rows only where they differ."""
    heading = f"{title}: {', '.join(where(result.target))}"
    modes = modes_of(result)
    if len(modes) == 1:
        heading += f", mode {next(iter(modes))}"
    changed = grouped(result, lambda done: done.what if done.what != UNCHANGED else "")
    match errors_of(result):
        case [("all", error)] if not changed:
            rows = [("all", f"FAILED: {error}")]
        case _:
            rows = [
                (short(name), *[done.mode] * (len(modes) > 1), full(done))
                for name, done in result.answer.items()
            ]
    show(heading, (), rows)


def together(title, results):
    """A row for each account and region, in which policies that are alike are one line."""
    rows = [row(result) for result in results if result.answer]
    if rows:
        show(title, ("account", "region", "mode", "policies"), rows)
    rows = [
        (*where(result.target), policy, error)
        for result in results
        for policy, error in errors_of(result)
    ]
    if rows:
        show("Failed", ("account", "region", "policy", "why"), rows)


def row(result):
    most, *others = sorted(modes_of(result).items(), key=lambda one: -len(one[1])) or [("", ())]
    mode = "\n".join([most[0], *(f"{word}: {', '.join(names)}" for word, names in others)])
    every = len(result.answer)
    alike = grouped(result, lambda done: "" if done.error and done.what == UNCHANGED else done.what)
    unchanged = alike.pop(UNCHANGED, ()) if len(alike.get(UNCHANGED, ())) < every else ()
    lines = [
        f"{f'all {every}' if len(names) == every > 1 else ', '.join(names)} {what}"
        for what, names in alike.items()
    ]
    failed = sum(bool(done.error) for done in result.answer.values())
    counts = [f"{len(unchanged)} unchanged"] * bool(unchanged) + [f"{failed} FAILED"] * bool(failed)
    lines += [", ".join(counts)] * bool(counts)
    return (*where(result.target), mode, "\n".join(lines))


def full(done):
    """What became of one policy, in one line."""
    if not done.error:
        return done.what
    before = "" if done.what == UNCHANGED else f"{done.what}; "
    return f"{before}FAILED: {done.error}"


def grouped(result, key):
    """{key: policies} of those that have one."""
    alike = {}
    for name, done in (result.answer or {}).items():
        if word := key(done):
            alike.setdefault(word, []).append(short(name))
    return alike


def modes_of(result):
    """{mode: policies} of those whose mode is known."""
    return grouped(result, lambda done: done.mode)


def errors_of(result):
    """(policy, reason) of what failed in a target; a reason that all of them share once."""
    if result.error:
        return [("all", result.error)]
    errors = [(short(name), done.error) for name, done in result.answer.items() if done.error]
    if len(errors) == len(result.answer) > 1 and len({error for _, error in errors}) == 1:
        return [("all", errors[0][1])]
    return errors


def where(target):
    return target.label, target.region
