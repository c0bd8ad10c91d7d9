"""Two records of the pack (review/record.py), and what a reviewer has to know of the difference."""

import difflib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sized

from .differences import differences
from .normal import normal

SWAP = "ec2:ModifyNetworkInterfaceAttribute"
ISOLATING = "isolate-instance"


def compared(base: dict, head: dict) -> dict:
    """verdict: sentences, the gravest first; empty when nothing differs. findings, policies, calls,
    order, allowed, modes, permissions, mails, swap: see the functions. played: the number of
    findings that could be played."""
    both = {
        name: (base["findings"].get(name), told)
        for name, told in head["findings"].items()
        if name in base["findings"]
    }
    found = {
        "findings": changed_findings(both),
        "policies": changed_policies(base["policies"], head["policies"]),
        "calls": changed_calls(both),
        "parameters": changed_parameters(both),
        "order": changed_order(both),
        "allowed": changed_roles(base["policies"], head["policies"]),
        "modes": changed_modes(base["targets"], head["targets"]),
        "permissions": changed_permissions(base["policies"], head["policies"]),
        "mails": changed_mails(both),
        "swap": changed_swap(both),
        "played": sum(told["problem"] is None for told in head["findings"].values()),
    }
    return found | {"verdict": list(verdict(found, head["policies"]))}


# Findings


def changed_findings(both: dict) -> list[dict]:
    """[{finding, type, isolates, mails, policies: [{policy, before, after}]}] of those that end in
    another way, newly isolating ones first.

    isolates, mails: 1 for newly, -1 for no longer, else 0. before, after: words.
    """
    found = []
    for finding, (before, after) in both.items():
        policies = [
            {"policy": name, "before": was, "after": now, "acts": acting(new) - acting(old)}
            for name, old, new in _policies(before, after)
            if outcome(old) != outcome(new)
            for was, now in [endings(old, new)]
        ]
        isolates = bool(after.get("isolated")) - bool(before.get("isolated"))
        problem = after["problem"] != before["problem"]
        others = sorted(strangers(after) - strangers(before))
        if policies or isolates or problem or others:
            found.append(
                {
                    "finding": finding,
                    "type": after.get("type"),
                    "isolates": isolates,
                    "mails": (mailed(after) > 0) - (mailed(before) > 0),
                    "policies": policies,
                    "regrouped": others,
                    "problem": after["problem"],
                }
            )
    return sorted(found, key=lambda one: (-abs(one["isolates"]), -one["isolates"], one["finding"]))


def strangers(told: dict) -> set[str]:
    """Instances whose groups have changed, but the finding's own."""
    return set(told.get("regrouped", [])) - {told.get("target")}


def _policies(before: dict, after: dict) -> Iterator[tuple[str, dict | None, dict | None]]:
    old, new = before.get("policies", {}), after.get("policies", {})
    return ((name, old.get(name), new.get(name)) for name in sorted(old | new))


def outcome(of: dict | None) -> object:
    """What makes two ends of a policy the same."""
    if of is None:
        return None
    return (
        bool(of["unmatched"]),
        of["stopped"],
        [(step["step"], step["status"]) for step in of["steps"]],
        normal(of["error"] or "", ()),
        sorted((mail["to"], mail["problems"]) for mail in of["mails"]),
    )


def acting(of: dict | None) -> int:
    """1 where a policy got as far as its actions."""
    return int(of is not None and not of["unmatched"] and of["stopped"] is None)


def mailed(told: dict) -> int:
    return sum(bool(mail["to"]) for of in told.get("policies", {}).values() for mail in of["mails"])


def endings(before: dict | None, after: dict | None) -> tuple[str, str]:
    """Both ends of a policy, in words; where it acts in both, only what differs."""
    old, new = ending(before), ending(after)
    if acting(before) and acting(after) and sorted(old) != sorted(new):
        gone, more = Counter(old) - Counter(new), Counter(new) - Counter(old)
        old, new = list(gone.elements()), list(more.elements())
    return "; ".join(old), "; ".join(new)


def ending(of: dict | None) -> list[str]:
    """The end of a policy, in words: its steps and mails."""
    if of is None:
        return ["no such policy"]
    if of["unmatched"]:
        return ["the rule does not match: " + ", ".join(of["unmatched"])]
    if of["stopped"]:
        return [f"a filter stops it: {of['stopped']}"]
    said = [f"{step['step']} {step['status']}" for step in of["steps"]]
    said += [f"FAILS: {of['error']}"] if of["error"] else []
    said += [f"mails {', '.join(mail['to'])}" for mail in of["mails"] if mail["to"]]
    said += [f"not mailed: {problem}" for mail in of["mails"] for problem in mail["problems"]]
    return said or ["acts"]


# Policies


def changed_policies(base: dict, head: dict) -> list[dict]:
    """[{policy, file, opt_in, deployed, played, what, words}]; what: added, removed or changed.

    deployed: whether it becomes a function. played: whether findings start it.
    """
    found = []
    for name in sorted(base | head):
        old, new = base.get(name), head.get(name)
        if old is None:
            found.append({"policy": name, **_place(new), "what": "added", "words": []})
        elif new is None:
            found.append({"policy": name, **_place(old), "what": "removed", "words": []})
        elif lines := [*_moves(old, new), *differences(old["data"], new["data"])]:
            found.append({"policy": name, **_place(new), "what": "changed", "words": lines})
    return found


OPT_IN = {True: "only deployed by its name now", False: "every deploy takes it now"}


def _moves(old: dict, new: dict) -> Iterator[str]:
    if old["file"] != new["file"]:
        yield f"was {old['file']}"
    if old["opt_in"] != new["opt_in"]:
        yield OPT_IN[new["opt_in"]]


def _place(policy: dict) -> dict:
    mode = policy["data"].get("mode")
    return {
        "file": policy["file"],
        "opt_in": policy["opt_in"],
        "deployed": mode is not None,
        "played": policy["pattern"] is not None,
    }


# Calls and permissions


def changed_calls(both: dict) -> list[dict]:
    """[{policy, call, before, after}]: how often a policy makes a call in all findings together.

    A finding that it newly acts on, or no longer, is left out: there all its calls differ.
    """
    before, after = Counter(), Counter()
    for pair in both.values():
        for name, old, new in _policies(*pair):
            if old is None or new is None or acting(old) == acting(new):
                before += Counter((name, call["call"]) for call in (old or NO_CALLS)["calls"])
                after += Counter((name, call["call"]) for call in (new or NO_CALLS)["calls"])
    return [
        {"policy": name, "call": call, "before": before[name, call], "after": after[name, call]}
        for name, call in sorted(before | after)
        if before[name, call] != after[name, call]
    ]


NO_CALLS = {"calls": []}


def changed_parameters(both: dict) -> list[dict]:
    """[{policy, call, findings, diff}]: calls that are made as often as before with something else
    in them; the difference of the first finding."""
    found: dict[tuple, dict] = {}
    for finding, pair in both.items():
        own = {one for told in pair for one in told.get("ids", [])}
        for name, old, new in _policies(*pair):
            if old is None or new is None or acting(old) != acting(new):
                continue
            before, after = _parameters(old, own), _parameters(new, own)
            for call in before.keys() & after.keys():
                if len(before[call]) == len(after[call]) and before[call] != after[call]:
                    one = found.setdefault(
                        (name, call),
                        {
                            "policy": name,
                            "call": call,
                            "findings": [],
                            "diff": _diff(before[call], after[call]),
                        },
                    )
                    one["findings"].append(finding)
    return [found[key] for key in sorted(found)]


def changed_order(both: dict) -> list[str]:
    """The policies that make the same calls in another order."""
    return sorted(
        {
            name
            for pair in both.values()
            for name, old, new in _policies(*pair)
            if old and new
            for before, after in [[[call["call"] for call in of["calls"]] for of in (old, new)]]
            if before != after and sorted(before) == sorted(after)
        }
    )


def _parameters(of: dict, own: set[str]) -> dict[str, list[str]]:
    """The parameters of each call, sorted: {call: texts without what is made up}."""
    found: dict[str, list[str]] = {}
    for call in of["calls"]:
        said = json.dumps(call["parameters"], default=str, sort_keys=True)
        found.setdefault(call["call"], []).append(normal(said, own))
    return {call: sorted(texts) for call, texts in found.items()}


def changed_permissions(base: dict, head: dict) -> list[dict]:
    """[{policy, more, less, lacks}] of the policies that need other IAM actions, or whose role
    lacks some. lacks: None where infra/account.yml has no role for it."""
    found = []
    for name, new in head.items():
        old = base.get(name, {"needs": [], "lacks": []})
        more, less = set(new["needs"]) - set(old["needs"]), set(old["needs"]) - set(new["needs"])
        lacks = new["lacks"] if "mode" in new["data"] else []
        if more or less or lacks or lacks is None:
            found.append(
                {"policy": name, "more": sorted(more), "less": sorted(less), "lacks": lacks}
            )
    return found


def changed_roles(base: dict, head: dict) -> list[dict]:
    """[{policy, more, less}]: what the role of a function may, a line each, and may no longer."""
    found = []
    for name in sorted(base.keys() & head.keys()):
        old, new = ({*(one[name].get("allowed") or ())} for one in (base, head))
        if old != new:
            found.append({"policy": name, "more": sorted(new - old), "less": sorted(old - new)})
    return found


def changed_modes(base: list[dict], head: list[dict]) -> list[dict]:
    """[{target, before, after}]: the mode of accounts.yml in an account and region; None where it
    says none or has no such target."""
    old, new = ({f"{t['account']} {t['region']}": t["mode"] for t in some} for some in (base, head))
    return [
        {"target": one, "before": old.get(one), "after": new.get(one)}
        for one in sorted(old | new)
        if (one in old, old.get(one)) != (one in new, new.get(one))
    ]


def changed_swap(both: dict) -> dict | None:
    """Where the isolation comes after more calls, or fewer: {policy, finding, before, after} of the
    finding with the largest difference."""
    found = [
        {"policy": name, "finding": finding, "before": _calls_to(old), "after": _calls_to(new)}
        for finding, (before, after) in both.items()
        for name, old, new in _policies(before, after)
        if old and new and _calls_to(old) and _calls_to(new)
    ]
    return max(
        (one for one in found if one["before"] != one["after"]),
        key=lambda one: abs(one["after"] - one["before"]),
        default=None,
    )


def _calls_to(of: dict) -> int:
    """The number of the call that takes the groups off, from 1; 0 when there is none."""
    calls = [call["call"] for call in of["calls"]]
    return calls.index(SWAP) + 1 if SWAP in calls else 0


# Mails


def changed_mails(both: dict) -> list[dict]:
    """[{policy, findings, diff}]: mails that say something else than before, the same difference
    once. Mails that are new or gone are among the findings."""
    found: dict[tuple, list[str]] = {}
    for finding, (before, after) in both.items():
        own = set(before.get("ids", [])) | set(after.get("ids", []))
        for name, old, new in _policies(before, after):
            for one, other in zip(*(of["mails"] if of else [] for of in (old, new)), strict=False):
                diff = _diff(_lines(one, own), _lines(other, own))
                if not diff and normal(one["html"], own) != normal(other["html"], own):
                    diff = HTML_ALONE
                if diff:
                    found.setdefault((name, diff), []).append(finding)
    return [
        {"policy": name, "findings": findings, "diff": diff}
        for (name, diff), findings in found.items()
    ]


HTML_ALONE = "(the same words, other HTML)"


def _lines(mail: dict, own: set[str]) -> list[str]:
    head = f"From: {mail['from']}\nSubject: {mail['subject']}"
    return normal(f"{head}\n\n{mail['text']}", own).splitlines()


def _diff(before: list[str], after: list[str]) -> str:
    lines = difflib.unified_diff(before, after, lineterm="", n=1)
    return "\n".join(line for line in itertools.islice(lines, 2, None) if line[:2] != "@@")


# The verdict


def verdict(found: dict, policies: dict) -> Iterator[str]:
    """What a reviewer must not miss, the gravest first."""
    findings = found["findings"]
    for one in found["modes"]:
        yield f"{one['target']} is {one['after'] or 'not said'}, was {one['before'] or 'not said'}"
    for words, those in (
        ("newly isolating", [f for f in findings if f["isolates"] == 1]),
        ("no longer isolating", [f for f in findings if f["isolates"] == -1]),
        ("changing another instance", [f for f in findings if f["regrouped"]]),
        ("newly mailed", [f for f in findings if f["mails"] == 1]),
        ("no longer mailed", [f for f in findings if f["mails"] == -1]),
    ):
        if those:
            yield f"{words}: {number(those, 'finding')}"
    yield from _acting([f for f in findings if not f["isolates"]])
    failing = Counter(p["policy"] for f in findings for p in f["policies"] if "FAILS" in p["after"])
    for policy, count in failing.items():
        yield f"{policy} fails on {number(range(count), 'finding')}"
    for one in found["permissions"]:
        if one["lacks"] is None:
            yield f"{one['policy']} has no role in infra/account.yml"
        elif one["lacks"]:
            yield f"{one['policy']} needs {', '.join(one['lacks'])}, which its role lacks"
    if found["swap"]:
        yield _before_the_swap(found["swap"], policies)
    for one in found["policies"]:
        if moved := [line for line in one["words"] if line in OPT_IN.values()]:
            yield f"{one['policy']}: {moved[0]}"
    for one in found["allowed"]:
        if one["more"]:
            yield f"the role of {one['policy']} may more"
    for what in ("added", "removed"):
        names = [one["policy"] for one in found["policies"] if one["what"] == what]
        if names:
            yield f"{what}: {', '.join(names)}"
    if others := [f for f in findings if not (f["isolates"] or f["mails"] or f["regrouped"])]:
        others = [f for f in others if not any(p["acts"] for p in f["policies"])]
        if others:
            yield f"other outcomes: {number(others, 'finding')}"
    if found["parameters"]:
        calls = ", ".join(dict.fromkeys(one["call"] for one in found["parameters"]))
        yield f"other parameters in {calls}"
    if found["order"]:
        yield f"calls in another order: {', '.join(found['order'])}"
    if mails := [finding for one in found["mails"] for finding in one["findings"]]:
        yield f"other words in {number(mails, 'mail')}"


def _acting(findings: list[dict]) -> Iterator[str]:
    for word, sign in (("newly acts", 1), ("no longer acts", -1)):
        acting = Counter(p["policy"] for f in findings for p in f["policies"] if p["acts"] == sign)
        for policy, count in acting.items():
            yield f"{policy} {word} on {number(range(count), 'finding')}"


def _before_the_swap(swap: dict, policies: dict) -> str:
    actions = [_type(action) for action in policies[swap["policy"]]["data"]["actions"]]
    earlier = actions[: actions.index(ISOLATING)] if ISOLATING in actions else []
    steps = f", behind {', '.join(earlier)}" if earlier else ""
    return (
        f"{swap['policy']} takes the groups off with call {swap['after']} instead of "
        f"{swap['before']}{steps}"
    )


def _type(action: object) -> str:
    return action if isinstance(action, str) else action["type"]


def number(things: Sized, word: str) -> str:
    """How many, with the word in its number."""
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
