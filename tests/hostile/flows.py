"""The policies, run as Lambda and `make release` run them, in this process."""

import functools
import re
import threading

import stages
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.utils import load_file
from scene import ROOT

from custom_actions import deadline, handler
from custom_actions.response import OUTCOMES

running = threading.local()  # several functions may be at work, each in its thread


class Ran:
    """What came of one invocation: its outcomes, what it raised, and what it was called."""

    def __init__(self, policy, resources, error):
        self.policy, self.resources, self.error = policy, resources, error

    @property
    def outcomes(self):
        return [outcome for r in self.resources for outcome in r.get(OUTCOMES, ())]

    @property
    def text(self):
        """Everything that a person is told: outcomes and error."""
        told = [f"{o['step']}: {o['status']}: {o['detail']} {o['error']}" for o in self.outcomes]
        return "\n".join([*told, f"raised: {self.error!r}"])

    @property
    def errors(self):
        """What it says went wrong, or is not on record: what is named here is not lost."""
        told = [str(o["error"]) for o in self.outcomes]
        told += [f"unrecorded: {o['unrecorded']}" for o in self.outcomes if o.get("unrecorded")]
        return "\n".join([*told, repr(self.error)])


@functools.cache
def load(name, only=None):
    """The policies of a file; only: the names of the actions that stay."""
    data = load_file(str(ROOT / f"policies/{name}.yml"))
    if only:
        (policy,) = data["policies"]
        policy["actions"] = [
            action
            for action in policy["actions"]
            if (action if isinstance(action, str) else action["type"]) in only
        ]
    return data


def options():
    return Config.empty(
        account_id=stages.ACCOUNT,
        region=stages.REGION,
        cache=None,
        output_dir="null",
        log_group="null",
    )


def prepare(patch):
    """Have the functions find their archive in this process, and keep what they worked on."""
    patch.setattr(handler, "load", lambda: running.archive)
    for kind, mode in handler.MODES.items():
        keeping = type(mode.__name__, (mode,), {"resolve_resources": keep(mode)})
        patch.setitem(handler.MODES, kind, keeping)


def keep(mode):
    def resolve_resources(self, event):
        resources = mode.resolve_resources(self, event)
        running.resources.extend(resources)
        return resources

    return resolve_resources


def invoke(wire, name, event, trouble=None, only=None):
    """Run a policy as Lambda does, on one event."""
    running.archive, running.resources = (load(name, only), options(), wire.factory), []
    with wire.run(trouble):
        return Ran(name, running.resources, raised(handler.run, event, wire))


def by_hand(wire, name, trouble=None, **variables):
    """Run a policy as a person does, on the command line."""
    data = load_file(str(ROOT / f"policies/{name}.yml"), vars=variables)
    (policy,) = PolicyCollection.from_data(data, options(), wire.factory)
    policy.validate()
    resources = []

    def run():
        deadline.begin(None)
        with wire.run(trouble):
            resources.extend(policy.resource_manager.resources())
            for action in policy.resource_manager.actions:
                action.process(resources)

    return Ran(name, resources, raised(run))


def release(wire, instance, earlier=(), trouble=None):
    """`make release`, by a person who confirms what it asks for and says what it does not know.

    earlier: what ran before; what its errors say is in the mails that the person has.
    """
    said = {"record": "", "groups": "", "archive": "", "evidence-bucket": "none"}
    told = "\n".join(ran.errors for ran in earlier)
    for _ in range(4):
        ran = by_hand(wire, "ec2-release", trouble, instance=instance, **said)
        answers = dict(said)
        if asked := re.search(r"RECORD=([\w-]+)", ran.errors):
            answers["record"] = asked[1]
        if "GROUPS=" in ran.errors:
            known = dict.fromkeys(re.findall(r"GROUPS=(eni-\w+=sg-[\w,-]+)", told))
            answers["groups"] = " ".join(known)
        if answers == said or trouble:
            break
        said = answers
    return ran


def raised(call, *args):
    """What the call raised: a policy that is not complete raises, and so does a refused mail."""
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001 - it is judged later
        return error
    return None
