"""The findings of tests/ and what the folders of each policy promise about them.

A folder of tests/ has a policy's name; in it `positive` findings are acted on, `negative` and
`sample` ones are not. A policy of MAILED mails samples too, marked as such. It goes both ways: what
a folder promises has to be so, and what a policy does has to be promised.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from c7n.filters import EventFilter

from custom_actions.finding import FindingFilter
from custom_actions.finding_file import NotAFinding, read_finding
from deployment.errors import Refused
from deployment.expected import Expected
from review.decision import Decision, decide

KINDS = ("positive", "negative", "sample")
# These change nothing and let samples in; of every other policy a sample may start nothing.
MAILED = ("finding-notify",)

# What Custodian or a deploy adds to a rule, and each step checks by itself.
PLACE = ("detail.accountId", "detail.resource.resourceType")

# {path, with no link in it: event}
Findings = dict[Path, dict]


@cache
def findings(tests: Path) -> Findings:
    """The findings of tests/findings and of the folders of policies, each once.

    Raises Refused when a file holds something else.
    """
    files = [tests.glob("findings/*.json"), *(tests.glob(f"*/{kind}/*.json") for kind in KINDS)]
    try:
        return {
            path: read_finding(path)
            for path in sorted({file.resolve() for found in files for file in found})
        }
    except (NotAFinding, OSError) as error:
        raise Refused(f"{error}: a file of tests/ with a finding holds exactly one.") from error


def promised(tests: Path, policy: str) -> dict[Path, str]:
    """What the folders of a policy say: {path of a finding, with no link in it: kind}."""
    return {
        file.resolve(): kind
        for kind in KINDS
        for file in sorted((tests / policy / kind).glob("*.json"))
    }


def acts_on(policy: str, kind: str) -> bool:
    """Whether a policy acts on findings of a kind."""
    return kind == "positive" or (kind == "sample" and policy in MAILED)


def surprises(tests: Path, policy: str, of: Callable[[dict], Expected]) -> Iterator[str]:
    """Where a policy and its folders differ, a sentence each that says what to do.

    of: the function that a policy would be in the account and region of an event's bus.
    """
    kinds = promised(tests, policy)
    for path, event in findings(tests).items():
        kind, decision = kinds.get(path), decide(of(event), event)
        if kind is None and decision.acts:
            yield (
                f"{policy} acts on {path.stem}, which nobody expects: no folder of tests/{policy} "
                "has it. Link it into positive/ (sample/, where a sample is mailed) if that is "
                "right, else narrow the policy."
            )
        elif kind is not None and decision.acts is not acts_on(policy, kind):
            yield (
                f"{policy} {outcome(decision)} {path.stem}, but it is in tests/{policy}/{kind}: a "
                f"person expects that it {'acts' if acts_on(policy, kind) else 'does nothing'}. "
                "Put the policy right, or the finding into another folder."
            )


def disagreements(policy: str, events: Findings, of: Callable[[dict], Expected]) -> Iterator[str]:
    """Where the rule and the filters of a policy differ about what both hold, a sentence each.

    A rule can be changed by hand and a function be invoked by hand, so the filters ask again what
    the rule asks, but for PLACE. The other way round, a function that starts only to stop costs.
    """
    for path, event in events.items():
        rule = [one for one in decide(of(event), event).unmatched if one.field not in PLACE]
        filters = decide(dataclasses.replace(of(event), pattern={}), event)
        if rule and filters.acts:
            yield (
                f"{policy}: only the rule keeps {path.stem} out ({'; '.join(map(str, rule))}), and "
                "the function can be invoked by hand: add a filter that asks the same."
            )
        elif not rule and not filters.acts and is_asked_of_an_event(of(event), filters, event):
            yield (
                f"{policy}: its function would be started by {path.stem} only to stop at filter "
                f"{filters.stopped_by + 1} ({filters.reason}): have the rule ask the same."
            )


def is_asked_of_an_event(made: Expected, stopped: Decision, event: dict) -> bool:
    """Whether the filter that stops an event asks what a rule can ask."""
    element = made.func.policy.resource_manager.filters[stopped.stopped_by]
    if isinstance(element, FindingFilter):
        return element.unlisted(event) is not None
    return isinstance(element, EventFilter)


def strangers(tests: Path, policies: Iterable[str]) -> Iterator[str]:
    """The findings of tests/findings that no policy says anything about, a sentence each."""
    known = set().union(*(promised(tests, policy) for policy in policies))
    for path in findings(tests):
        if path not in known:
            yield (
                f"{path.stem} is in no folder of a policy, so nobody says what is expected of it: "
                "link it into positive/, negative/ or sample/ of one."
            )


def outcome(decision: Decision) -> str:
    """What a policy does with a finding, as words before the finding's name."""
    if decision.acts:
        return "acts on"
    if decision.unmatched:
        return f"does not get (rule: {'; '.join(map(str, decision.unmatched))})"
    return f"stops (filter {decision.stopped_by + 1}: {decision.reason})"
