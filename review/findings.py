"""The findings of tests/ and what the folders of each policy promise about them.

A folder of tests/ has a policy's name; in it `positive` findings are acted on, `negative` and
`sample` ones are not. A policy of MAILED mails samples too, marked as such. It goes both ways: what
a folder promises has to be so, and what a policy does has to be promised.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from custom_actions.finding_file import NotAFinding, read_finding
from deployment.errors import Refused
from deployment.expected import Expected
from review.decision import Decision, decide

KINDS = ("positive", "negative", "sample")
# These change nothing and let samples in; of every other policy a sample may start nothing.
MAILED = ("finding-notify",)

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


def strangers(tests: Path, policies: Iterator[str]) -> Iterator[str]:
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
