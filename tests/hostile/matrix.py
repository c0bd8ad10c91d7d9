"""Every call of every flow, with everything that may go wrong at it.

A cell is a flow, the number of one of its calls (found by a run in which nothing goes wrong) and a
kind of trouble. The flow is run with that trouble, then once more without, as Lambda or a person
would; then the instance is released. What a person would notice is checked after each.
"""

import contextlib
import functools
import random
import re
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from clockwork import Trouble, aws, unshared
from flows import by_hand, invoke, release
from scene import Scene, differences
from wire import is_read

from custom_actions.response import OUTCOMES, REFUSED

PYTHON = re.compile(r"\b(Key|Index|Type|Attribute|Value|Name|UnboundLocal|Assertion|Lookup)Error\b")
# What the scene has no detector, and no bucket, for.
NOT_HERE = ("scan-for-malware", "write-case")
UNRECORDED = re.compile("could not be (recorded|marked)")
# What a release says when nothing is left to do, and when it knows of something.
IS_BACK, BUT = "is back as it was", "NOT recorded, and so not put back"

# The part of the record that a thing of scene.state() is in.
PARTS = {
    "groups": "original-groups",
    "setting": "settings",
    "deleted on termination": "settings",
    "target group": "load-balancers",
    "classic load balancer": "load-balancers",
    "role policies": "role-policy",
    "rules": "deny",
}

# What a report calls the things that scene.state() names otherwise.
CALLED = {
    "disableApiTermination": "termination protection",
    "disableApiStop": "stop protection",
    "instanceInitiatedShutdownBehavior": "shutdown behaviour",
}


class Cell(NamedTuple):
    flow: str
    at: int
    kind: str


class Failure(NamedTuple):
    """what: the rule that was broken; text: how."""

    what: str
    text: str


class Theatre:
    """The scene in each of its beginnings, and the flows that start from them."""

    def __init__(self, wire):
        self.wire = wire
        self.scene = scene = Scene(wire)
        self.before = scene.state()
        self.finding, self.stolen = scene.finding(), scene.stolen()
        self.clean = wire.aws.freeze()
        invoke(wire, "ec2-isolate", unshared(self.finding))
        self.isolated, self.after = wire.aws.freeze(), scene.state()
        self.call = scene.opened()
        self.opened = wire.aws.freeze()
        wire.aws.thaw(self.isolated)
        self.rule = scene.rule_added()
        self.ruled = wire.aws.freeze()
        self.flows = {flow.name: flow(self) for flow in (Swap, Isolate, Release, *Guards, *Others)}

    def release(self, *earlier, trouble=None):
        return release(self.wire, self.scene.instance, earlier, trouble)


class Flow:
    """name, start: the attribute of the theatre that holds the beginning."""

    name, start = None, "clean"
    lambda_like = True  # whether a function's time can run down

    def __init__(self, theatre):
        self.theatre, self.scene, self.wire = theatre, theatre.scene, theatre.wire
        self.before = theatre.before

    def begin(self):
        self.wire.aws.thaw(getattr(self.theatre, self.start))

    def go(self, trouble=None):
        raise NotImplementedError

    @functools.cached_property
    def calls(self):
        self.begin()
        self.go()
        return list(self.wire.calls)

    def cells(self):
        for at, call in enumerate(self.calls):
            for kind in Trouble.KINDS:
                if kind == "stale" and not (is_read(call) and self.written_before(at)):
                    continue
                if kind == "slow" and not self.lambda_like:
                    continue
                yield Cell(self.name, at, kind)

    def written_before(self, at):
        return any(not is_read(call) for call in self.calls[:at])

    def play(self, cell):
        """What is wrong in a cell: a list of failures."""
        trouble = Trouble(cell.at, cell.kind)
        self.begin()
        self.told = self.scene.mails()
        found = list(self.acts(trouble))
        where = f"{self.name}, call {cell.at} ({self.calls[cell.at]}), {cell.kind}"
        if getattr(trouble, "field", None):
            where += f" {trouble.field}"
        return [Failure(what, f"{where}: {what}: {text}") for what, text in found]

    def acts(self, trouble):
        raise NotImplementedError

    # what is checked

    def sound(self, ran):
        return checked(ran, self.scene)

    def complete(self, ran):
        """What a run without trouble has to reach."""
        if ran.error:
            yield "the next run without trouble is not complete", repr(ran.error)
        for outcome in ran.outcomes:
            ends = ("done", "unchanged", *["skipped"] * (outcome["step"] in NOT_HERE))
            if outcome["status"] not in ends:
                told = f"{outcome['step']} {outcome['status']}: {outcome['error']}"
                yield "a step of the next run is not done", told

    def isolated_and_told(self):
        if not self.scene.is_isolated():
            yield "the next run does not isolate", str(self.scene.of_instance(self.scene.instance))

    def released(self, release, *earlier):
        """After a release without trouble: all is back, or it is said what is not."""
        yield from self.sound(release)
        told = "\n".join(ran.errors for ran in (*earlier, release))
        left = differences(self.before, self.scene.state())
        for key, (then, now) in left.items():
            if not is_named(key, told):
                yield f"{key[0]} not back and not named", f"{key}: {then} -> {now}\n{release.text}"
        if left:
            yield from self.claims(left)

    def claims(self, left):
        for line in self.scene.mails()[len(self.told) :]:
            if IS_BACK in line and BUT not in line and left:
                yield "the release claims that all is back", f"{line}\n{left}"

    def in_order(self):
        """While the groups are not back: not behind a load balancer, and the deny is on."""
        now, before, after = self.scene.state(), self.before, self.theatre.after
        if all(now.get(k) == v for k, v in before.items() if k[0] == "groups"):
            return
        for key in now:
            kept = key[0] in ("target group", "classic load balancer", "role policies")
            if kept and now[key] == before[key] != after[key]:
                yield f"{key[0]} put back before the groups", f"{key}: {now[key]}"


def checked(ran, scene, is_alone=True):
    """What no run may do, whatever happens to it.

    is_alone: nobody releases the instance meanwhile, after it was read back.
    """
    for outcome in ran.outcomes:
        if PYTHON.search(str(outcome["error"])):
            yield "a Python error is an outcome", f"{outcome['step']}: {outcome['error']}"
    allowed = (type(None), PolicyExecutionError, *REFUSED)
    if not isinstance(ran.error, allowed):
        yield "something else was raised", repr(ran.error)
    for resource in ran.resources if is_alone else ():
        says = any(o.get("isolated") for o in resource.get(OUTCOMES, ()))
        if says and not scene.is_isolated(resource["InstanceId"]):
            yield "it says isolated and is not", ran.text


def is_named(key, text):
    """Whether a text names a thing of the scene's state that is not as it was."""
    if key[0] in ("tags", "seals"):
        return "record" in text or "tags" in text or "mark" in text
    if re.search(rf"unrecorded: .*{PARTS.get(key[0])}", text):
        return True
    words = {CALLED.get(word, word) for word in key[2:] or key[1:]} | set(key[2:])
    return any(word in text for word in words)


class Isolate(Flow):
    """policies/ec2-isolate.yml, all of it."""

    name = "isolate"
    only = None  # the actions, by name; None: all

    def go(self, trouble=None):
        finding = unshared(self.theatre.finding)
        return invoke(self.wire, "ec2-isolate", finding, trouble, self.only)

    def acts(self, trouble):
        ran = self.go(trouble)
        yield from self.sound(ran)
        stopped = self.wire.aws.freeze()
        # who releases now finds everything, or was told what was not recorded
        yield from self.tail(ran)
        self.wire.aws.thaw(stopped)
        again = self.go()
        yield from self.sound(again)
        yield from self.isolated_and_told()
        if not UNRECORDED.search(ran.errors):  # which no later run can mend, and each one says
            yield from self.complete(again)
            yield from self.mailed()
        yield from self.tail(ran, again)

    def tail(self, *earlier):
        yield from self.released(self.theatre.release(*earlier), *earlier)

    def mailed(self):
        lines = self.scene.mails()[len(self.told) :]
        if not self.only and not any("it has been isolated. " in line for line in lines):
            yield "no mail says that it is isolated", "\n".join(lines)


class Swap(Isolate):
    """The first action of policies/ec2-isolate.yml alone."""

    name = "swap"
    only = ("isolate-instance", "fail-unless-complete")


class Release(Flow):
    """policies/ec2-release.yml."""

    name, start, lambda_like = "release", "isolated", False

    def go(self, trouble=None):
        return self.theatre.release(trouble=trouble)

    def acts(self, trouble):
        ran = self.go(trouble)
        yield from self.sound(ran)
        yield from self.in_order()
        left = differences(self.before, self.scene.state())
        yield from self.claims(left)
        # without a resource `make release` says that there is no such instance
        if left and ran.resources and not ran.error:
            yield "the release ends well and all is not back", f"{left}\n{ran.text}"
        if not left:
            return
        again = self.go()
        yield from self.released(again, ran)
        if again.error:
            yield "a release cannot be finished", again.text


class Guard(Flow):
    name, start = "isolation-guard", "opened"

    def go(self, trouble=None):
        return invoke(self.wire, self.name, unshared(self.theatre.call), trouble)

    def acts(self, trouble):
        ran = self.go(trouble)
        yield from self.sound(ran)
        yield from self.truth()
        again = self.go()
        yield from self.sound(again)
        yield from self.complete(again)
        yield from self.isolated_and_told()
        yield from self.truth()
        if len(self.scene.mails()) == len(self.told):
            yield "the guard mails nothing", again.text
        yield from self.released(self.theatre.release(ran, again), ran, again)

    def truth(self):
        lines = self.scene.mails()[len(self.told) :]
        said = [line for line in lines if "put right and read back" in line or "holds" in line]
        if said and not self.scene.is_isolated():
            yield "the guard's mail says that the isolation holds", said[-1]


class GroupGuard(Guard):
    name, start = "forensic-group-guard", "ruled"

    def go(self, trouble=None):
        return invoke(self.wire, self.name, unshared(self.theatre.rule), trouble)


class Revoke(Flow):
    name, start = "iam-role-revoke-sessions", "clean"

    def go(self, trouble=None):
        return invoke(self.wire, self.name, unshared(self.theatre.stolen), trouble)

    def acts(self, trouble):
        ran = self.go(trouble)
        yield from self.sound(ran)
        yield from self.truth(ran)
        again = self.go()
        yield from self.sound(again)
        yield from self.complete(again)
        yield from self.truth(again)
        if not self.denied():
            yield "the next run does not deny", again.text
        if len(self.scene.mails()) == len(self.told):
            yield "no mail", again.text
        restored = by_hand(
            self.wire,
            "iam-role-restore-sessions",
            role=self.scene.role["RoleName"],
            finding=self.theatre.stolen["detail"]["id"],
        )
        yield from self.released(restored, ran, again)

    def denied(self):
        return len(self.scene.state()["role policies", "web"]) > 1

    def truth(self, ran):
        if any(o.get("revoked") for o in ran.outcomes) and not self.denied():
            yield "it says revoked and is not", ran.text


class Restore(Flow):
    name, start, lambda_like = "iam-role-restore-sessions", "clean", False

    def begin(self):
        super().begin()
        invoke(self.wire, "iam-role-revoke-sessions", unshared(self.theatre.stolen))

    def go(self, trouble=None):
        return by_hand(
            self.wire,
            self.name,
            trouble,
            role=self.scene.role["RoleName"],
            finding=self.theatre.stolen["detail"]["id"],
        )

    def acts(self, trouble):
        ran = self.go(trouble)
        yield from self.sound(ran)
        left = differences(self.before, self.scene.state())
        if left and not ran.error:
            yield "the restoring ends well and all is not back", f"{left}\n{ran.text}"
        yield from self.released(self.go(), ran)


class Notify(Flow):
    name = "finding-notify"

    def go(self, trouble=None):
        return invoke(self.wire, self.name, unshared(self.theatre.finding), trouble)

    def acts(self, trouble):
        ran = self.go(trouble)
        yield from self.sound(ran)
        sent = len(self.scene.mails()) - len(self.told)
        if not sent and not ran.error:
            yield "no mail, and the function ends well", ran.text
        again = self.go()
        yield from self.sound(again)
        if len(self.scene.mails()) == len(self.told):
            yield "no mail", again.text


Guards = (Guard, GroupGuard)
Others = (Revoke, Restore, Notify)


@contextlib.contextmanager
def theatre():
    with aws() as wire:
        yield Theatre(wire)


def sample(flow, number, seed=8):
    """Some of the cells of a flow, the same each time."""
    return random.Random(seed).sample(list(flow.cells()), number)


def whole(one):
    return [cell for flow in one.flows.values() for cell in flow.cells()]
