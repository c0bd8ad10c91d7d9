"""Several invocations at once, call by call, in an order that a seed decides.

Each runs in a thread of its own, and exactly one goes on: from one of its calls to the next. What
must hold is what must hold of one alone; and when all have ended, a release of each brings
everything back.
"""

import contextlib
import random
import threading
from typing import NamedTuple

from clockwork import aws, unshared
from flows import invoke, release
from matrix import BUT, IS_BACK, Failure, checked
from scene import Scene, differences

REMOTES = [f"203.0.113.{n}" for n in range(7, 12)]


class Actor(threading.Thread):
    """One invocation. It waits at each call until it is its turn."""

    def __init__(self, play):
        super().__init__(daemon=True)
        self.play, self.came, self.broke = play, None, None
        self.turn, self.arrived = threading.Semaphore(0), threading.Semaphore(0)

    def run(self):
        try:
            self.came = self.play()
        except BaseException as error:  # noqa: BLE001 - raised where it was begun
            self.broke = error
        self.arrived.release()

    def wait(self):
        self.arrived.release()
        self.turn.acquire()


def together(wire, plays, seed):
    """Run all of them at once; returns what each returned."""
    actors = [Actor(play) for play in plays]
    draw, wire.order = random.Random(seed), []
    wire.gate = lambda thread, call: thread.wait() if isinstance(thread, Actor) else None
    try:
        for actor in actors:
            actor.start()
            actor.arrived.acquire()  # at its first call
        while waiting := [actor for actor in actors if actor.is_alive()]:
            actor = draw.choice(waiting)
            wire.order.append(actors.index(actor))
            actor.turn.release()
            actor.arrived.acquire()
            if actor.came is not None or actor.broke is not None:
                actor.join()
    finally:
        wire.gate = None
    for actor in actors:
        if actor.broke is not None:
            raise actor.broke
    return [actor.came for actor in actors]


class Troupe:
    """Five instances in one subnet, in the beginnings that the plays start from."""

    def __init__(self, wire):
        self.wire = wire
        self.scene = scene = Scene(wire, instances=5)
        self.before = {number: scene.state(number) for number in (1, 2, 5)}
        self.findings = [scene.finding(instance, REMOTES[0]) for instance in scene.instances]
        self.elsewhere = [
            scene.finding(*pair) for pair in zip(scene.instances, REMOTES, strict=True)
        ]
        self.second = scene.finding(scene.instance, REMOTES[1])
        self.clean = wire.aws.freeze()
        self.isolate(self.findings[0])
        self.one = wire.aws.freeze()
        self.call = scene.opened()
        self.opened = wire.aws.freeze()
        wire.aws.thaw(self.one)
        self.isolate(self.findings[1])
        self.two = wire.aws.freeze()
        for finding in self.findings[2:]:
            self.isolate(finding)
        self.five = wire.aws.freeze()
        wire.aws.keeps = False

    def isolate(self, finding):
        return invoke(self.wire, "ec2-isolate", unshared(finding))

    def guard(self):
        return invoke(self.wire, "isolation-guard", unshared(self.call))

    def release(self, instance):
        return release(self.wire, instance)


class Plot(NamedTuple):
    """start: the beginning. invocations: of a troupe, the functions to run at once.

    isolated: the numbers of the instances that have to be isolated when all have ended.
    """

    start: str
    invocations: object
    isolated: tuple = ()
    cast: int = 1  # how many instances take part


PLOTS = {
    "two findings of one instance": Plot(
        "clean", lambda t: [lambda f=f: t.isolate(f) for f in (t.findings[0], t.second)], (0,)
    ),
    "the same finding twice": Plot("clean", lambda t: [lambda: t.isolate(t.findings[0])] * 2, (0,)),
    "re-sent while a person releases": Plot(
        "one",
        lambda t: [lambda: t.isolate(t.findings[0]), lambda: t.release(t.scene.instance)],
    ),
    "another finding while a person releases": Plot(
        "one", lambda t: [lambda: t.isolate(t.second), lambda: t.release(t.scene.instance)]
    ),
    "two that share a deny isolated": Plot(
        "clean", lambda t: [lambda f=f: t.isolate(f) for f in t.findings[:2]], (0, 1), 2
    ),
    "two that share a deny released": Plot(
        "two", lambda t: [lambda i=i: t.release(i) for i in t.scene.instances[:2]], cast=2
    ),
    "one isolated while the other is released": Plot(
        "one",
        lambda t: [lambda: t.isolate(t.findings[1]), lambda: t.release(t.scene.instance)],
        (1,),
        2,
    ),
    "one released twice": Plot("one", lambda t: [lambda: t.release(t.scene.instance)] * 2),
    "isolated and guarded": Plot(
        "opened", lambda t: [lambda: t.isolate(t.second), lambda: t.guard()], (0,)
    ),
    "guarded while a person releases": Plot(
        "opened", lambda t: [lambda: t.guard(), lambda: t.release(t.scene.instance)]
    ),
    "five of one address": Plot(
        "clean", lambda t: [lambda f=f: t.isolate(f) for f in t.findings], (0, 1, 2, 3, 4), 5
    ),
    "five of five addresses": Plot(
        "clean", lambda t: [lambda f=f: t.isolate(f) for f in t.elsewhere], (0, 1, 2, 3, 4), 5
    ),
    "five released": Plot("five", lambda t: [lambda i=i: t.release(i) for i in t.scene.instances]),
}


def play(troupe, name, seed):
    """What is wrong when a plot is played in the order that the seed decides."""
    plot = PLOTS[name]
    troupe.wire.aws.thaw(getattr(troupe, plot.start))
    found = list(acts(troupe, plot, seed))
    return [Failure(what, f"{name}, seed {seed}: {what}: {text}") for what, text in found]


def acts(troupe, plot, seed):
    scene = troupe.scene
    told = len(scene.mails())

    def judged(invocation):
        ran = invocation()
        # what it says has to be so in that moment
        return ran, list(checked(ran, scene, is_alone=bool(plot.isolated)))

    ended = together(troupe.wire, [lambda i=i: judged(i) for i in plot.invocations(troupe)], seed)
    for _, found in ended:
        yield from found
    for number in plot.isolated:
        if not scene.is_isolated(scene.instances[number]):
            yield "not isolated", str(scene.of_instance(scene.instances[number]))
    left = differences(troupe.before[plot.cast], scene.state(plot.cast))
    ran = [ran for ran, _ in ended]
    if left and all(one.policy == "ec2-release" and not one.error for one in ran):
        yield "the releases end well and all is not back", str(left)
    claims = [line for line in scene.mails()[told:] if IS_BACK in line and BUT not in line]
    if left and len(ran) == len(claims):
        yield "the releases claim that all is back", str(left)
    last = [troupe.release(instance) for instance in affected(scene, left)]
    text = "\n".join(one.text for one in (*ran, *last))
    still = differences(troupe.before[plot.cast], scene.state(plot.cast))
    for key, (then, now) in still.items():
        yield f"{key[0]} not back after one more release", f"{key}: {then} -> {now}\n{text}"


def affected(scene, left):
    """The instances that a person would release: those on which something is left."""
    return [i for i in scene.instances if any(i in key for key in left)]


@contextlib.contextmanager
def troupe():
    with aws() as wire:
        yield Troupe(wire)
