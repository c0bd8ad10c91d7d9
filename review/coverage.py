"""`make coverage`: is each part of the policies' rules and filters shown by a finding of tests/?

A part is exercised when the policy acts otherwise on some finding without it; or, of what rule and
filters both hold, when one of the two lets in what only the other stops then (a function can be
invoked by hand). Beside that it says where the findings in the folders of a policy are not decided
as their folder promises.
Nothing is played: see `make mutate` for the steps and the modes.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import click
from moto.events.models import EventPattern

from deployment import policies, table
from deployment.errors import Refused
from deployment.expected import Expected
from deployment.targets import ROOT
from review.ablation import Ablation, ablations
from review.decision import decide
from review.findings import Findings, disagreements, findings, strangers, surprises
from review.functions import function


@click.command()
@click.option("-p", "--policy", "named", multiple=True, help="Only this policy; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="For a machine: {policy: sentences}.")
def coverage(named: tuple[str, ...], as_json: bool):
    """Say which types, prefixes, fields and filter branches no finding of tests/ exercises."""
    tests = ROOT / "tests"
    for_findings = of_folder(policies.FOLDER)
    if unknown := set(named) - set(for_findings):
        raise Refused(
            f"{', '.join(sorted(unknown))} is no policy for findings. Those are: "
            f"{', '.join(for_findings)}."
        )
    uncovered, wrong, parts = {}, [], {}
    for name in named or for_findings:
        policy = for_findings[name]
        static = [one for one in ablations(policy) if one.wanted]
        parts[name] = len(static)
        uncovered[name] = unexercised(policy, findings(tests))
        wrong += surprises(tests, name, functions_of(policy))
        wrong += disagreements(name, findings(tests), functions_of(policy))
    if not named:
        wrong += strangers(tests, for_findings)
    if as_json:
        missing = {
            name: [{"broken": one.what, "wanted": one.wanted} for one in found]
            for name, found in uncovered.items()
        }
        click.echo(json.dumps({"not exercised": missing, "not as promised": wrong}, indent=1))
    else:
        table.show(
            f"What {len(findings(tests))} findings of tests/ exercise",
            ("policy", "parts of rule and filters", "not exercised"),
            [(name, str(parts[name]), str(len(uncovered[name]))) for name in uncovered],
        )
        for found in uncovered.values():
            for one in found:
                click.echo(f"{one}: no finding of tests/ tells. Wanted: {one.wanted}.")
        for sentence in wrong:
            click.echo(sentence)
    if wrong or any(uncovered.values()):
        raise SystemExit(1)


def of_folder(folder: Path) -> dict[str, dict]:
    """The policies of a folder that are for findings, those of opt-in/ too: {name: data}."""
    return policies.policies(folder, "guard-duty")


def unexercised(policy: dict, events: Findings) -> list[Ablation]:
    """The ways to break the rule and the filters of a policy that no finding tells."""
    whole = functions_of(policy)
    decided = {path: halves(whole(event), event) for path, event in events.items()}
    return [
        one
        for one in ablations(policy)
        if one.wanted and not tells(functions_of(one.broken), decided, events)
    ]


def tells(broken: Callable[[dict], Expected], decided: dict, events: Findings) -> bool:
    """Whether a policy that was broken acts otherwise on a finding, or has only one of its two
    locks left."""
    for path, event in events.items():
        before, after = decided[path], halves(broken(event), event)
        if all(after) is not all(before) or any(
            now and not then for now, then in zip(after, before, strict=True)
        ):
            return True
    return False


def halves(made: Expected, event: dict) -> tuple[bool, bool]:
    """Whether the rule takes an event, and whether the filters let it through by themselves."""
    taken = rule(json.dumps(made.pattern)).matches_event(event)
    return taken, decide(dataclasses.replace(made, pattern={}), event).acts


@cache
def rule(pattern: str) -> EventPattern:
    """EventBridge's reading of a pattern, its JSON text."""
    return EventPattern.load(pattern)


def functions_of(policy: dict) -> Callable[[dict], Expected]:
    """The function that a policy would be where an event is: on the bus of its `account`, which for
    a finding of a member is GuardDuty's administrator's too."""
    made = cache(partial(function, policy))
    return lambda event: made(event["account"], event["region"])
