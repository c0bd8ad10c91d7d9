"""What a change of many functions in many places came to: a table, and a second one of what failed.

An answer is `{function: (what was changed, error)}`: words, and one line where it failed.
"""

import click

from deployment.policies import short
from deployment.table import show


def report(title, results):
    """Show the results of `everywhere`; exit code 1 when one failed."""
    rows = [row(result) for result in results if result.answer]
    if rows:
        show(title, ("account", "region", "what changed"), rows)
    failed = [result for result in results if errors_of(result)]
    if failed:
        rows = [
            (*where(result.target), policy, error)
            for result in failed
            for policy, error in errors_of(result)
        ]
        show("Failed", ("account", "region", "policy", "why"), rows)
        click.echo(f"{len(failed)} of {len(results)} failed.", err=True)
        raise SystemExit(1)


def row(result):
    done, alike = result.answer, {}
    for name, (words, _) in done.items():
        if words:
            alike.setdefault(", ".join(words), []).append(short(name))
    changes = [f"{', '.join(names)}: {words}" for words, names in alike.items()]
    unchanged = sum(not words and not error for words, error in done.values())
    failed = sum(bool(error) for _, error in done.values())
    counts = [f"{unchanged} unchanged"] * bool(unchanged) + [f"{failed} FAILED"] * bool(failed)
    return (*where(result.target), "\n".join([*changes, ", ".join(counts)]).strip())


def errors_of(result):
    """(policy, reason) of what failed in a target; a reason that all of them share once."""
    if result.error:
        return [("all", result.error)]
    errors = [(short(name), error) for name, (_, error) in result.answer.items() if error]
    if len(errors) == len(result.answer) > 1 and len({error for _, error in errors}) == 1:
        return [("all", errors[0][1])]
    return errors


def where(target):
    name = f" {target.name}" if target.name != target.account_id else ""
    return target.account_id + name, target.region
