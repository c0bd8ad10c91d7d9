"""Custodian's own actions as steps of a response.

A built-in action knows neither the pack's autonomy nor an exemption, and one that raises takes the
steps behind it and the mail with it. So where an event becomes resources each of them is held by a
step, which decides whether it runs and reports what became of it.
"""

from c7n.actions import EventAction

from custom_actions.response import OUTCOMES, FailUnlessComplete, ResponseAction, readable

# They change nothing of the resource, so they tell in every mode. post-finding does: it tags it.
TELLING = frozenset({"notify", "webhook", "put-metric", "post-item"})


class BuiltIn(ResponseAction):
    """A built-in action of Custodian, held as a step.

    In observe and ask it is `planned`. A resource that an earlier step left alone is left alone by
    it as well. What it raises is its failed outcome. What it did is not read back, and where it
    passes over resources in a state that it does not want, that stands in the log alone: `done`
    says that it ran.

    action: as Custodian made it from the policy. It gets one resource at a time, so that one that
    is refused does not stop the next.
    """

    def __init__(self, action):
        super().__init__(action.data, action.manager)
        self.action = action
        self.type = called(action)

    def respond(self, resource, event):
        if self.dryrun:
            return self.outcome("planned", f"Would run {self.type}.")
        events = (event,) if isinstance(self.action, EventAction) else ()
        self.action.process([resource], *events)
        return self.outcome("done", f"Custodian's {self.type} ran; the log has what it did.")


class Telling(BuiltIn):
    """One that only tells: it runs in observe and ask too, and for a resource that is left alone.

    It gets all resources at once, as Custodian gives them, and leaves an outcome only where it
    raises: a failed one, so that a topic that is gone costs neither a step nor the mail, and the
    run still fails at its end. Custodian's webhook raises nothing where nobody answers: that stands
    in the log alone.
    """

    def process(self, resources, event=None):
        events = (event,) if isinstance(self.action, EventAction) else ()
        try:
            self.action.process(resources, *events)
        except Exception as error:  # noqa: BLE001 - what tells must not stop what acts
            self.log.exception("policy:%s %s failed", self.policy_name, self.type)
            for resource in resources:
                resource.setdefault(OUTCOMES, []).append(self.failed(readable(error)))


def hold(manager):
    """Have the built-in actions of a policy held as steps; manager: its resource manager.

    Where the policy does not end in `fail-unless-complete`, one is added: what such an action
    raised was a failed run, and stays one.
    """
    held = [held_by(action) for action in manager.actions]
    if held != manager.actions and not isinstance(held[-1], FailUnlessComplete):
        held.append(FailUnlessComplete({"type": FailUnlessComplete.type}, manager))
    manager.actions = held


def held_by(action):
    """What runs in place of an action; one of the pack decides for itself."""
    if type(action).__module__.startswith("custom_actions."):
        return action
    return (Telling if called(action) in TELLING else BuiltIn)(action)


def called(action):
    """Its name in the policy; a class may be registered under several."""
    return action.data.get("type") or action.type
