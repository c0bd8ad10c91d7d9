"""The policies, run as Lambda and `make release` run them, in this process."""

import functools
from unittest import mock

from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.utils import load_file
from scene import ROOT
import stages

from custom_actions import handler
from custom_actions.response import OUTCOMES


DEBUG = False


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

    def __str__(self):
        return f"{self.policy}\n{self.text}"


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


def invoke(wire, name, event, trouble=None, only=None):
    """Run a policy as Lambda does, on one event."""
    seen = []
    modes = {
        kind: type(mode.__name__, (mode,), {"resolve_resources": keep(mode, seen)})
        for kind, mode in handler.MODES.items()
    }
    with (
        mock.patch.object(handler, "load", lambda: (load(name, only), options(), wire.factory)),
        mock.patch.object(handler, "MODES", modes),
        wire.run(trouble),
    ):
        return Ran(name, seen, raised(handler.run, event, wire))


def keep(mode, seen):
    def resolve_resources(self, event):
        resources = mode.resolve_resources(self, event)
        seen.extend(resources)
        return resources

    return resolve_resources


def by_hand(wire, name, trouble=None, **variables):
    """Run a policy as a person does, on the command line."""
    data = load_file(str(ROOT / f"policies/{name}.yml"), vars=variables)
    (policy,) = PolicyCollection.from_data(data, options(), wire.factory)
    policy.validate()
    resources = []

    def run():
        with wire.run(trouble):
            resources.extend(policy.resource_manager.resources())
            for action in policy.resource_manager.actions:
                action.process(resources)

    return Ran(name, resources, raised(run))


def raised(call, *args):
    """What the call raised: a policy that is not complete raises, and so does a refused mail."""
    try:
        call(*args)
    except Exception as error:  # noqa: BLE001 - it is judged later
        if DEBUG:
            import traceback

            traceback.print_exc()
        return error
    return None
