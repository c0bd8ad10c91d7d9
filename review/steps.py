"""The steps of the pack: what each says that it does, which calls it makes, what undoes it."""

import functools
import re
from collections import Counter

from c7n.actions import Action
from c7n.manager import resources

from custom_actions import response
from custom_actions.builtin import TELLING, called
from deployment.errors import Refused
from infra import permissions
from review import prose

READ = re.compile(r":(Describe|Get|List)")
# A message, and the mark that it was sent.
TELLS = {"sns:Publish", "ec2:CreateTags", "iam:TagRole", "iam:TagUser"}
# Custodian's own actions whose docstring does not begin with what they do.
CUSTODIANS = {"notify": "Hands a message to the mailer, by an SNS topic."}
NO_REVERT = "There is no revert:"


class Step:
    """An action, under its name in policies; of several kinds of resource where they share it."""

    def __init__(self, element: type[Action], name: str):
        self.element = element
        self.name = name
        self.title = name
        self.kinds: list[str] = []
        self.used_in: list[str] = []
        self.needs = set()

    @property
    def anchor(self) -> str:
        return prose.anchor(self.title)

    @property
    def link(self) -> str:
        return f"[`{self.name}`](#{self.anchor})"

    @property
    def is_of_the_pack(self) -> bool:
        return self.element.__module__.startswith("custom_actions.")

    @property
    def file(self) -> str:
        return f"{self.element.__module__.replace('.', '/')}.py" if self.is_of_the_pack else ""

    @property
    def is_revert(self) -> bool:
        return issubclass(self.element, response.Revert)

    @property
    def reads(self) -> list[str]:
        return sorted(need for need in self.needs if READ.search(need))

    @property
    def writes(self) -> list[str]:
        return sorted(self.needs - set(self.reads))

    @property
    def changes(self) -> bool:
        """Whether it does more than to read and to tell."""
        if not self.is_of_the_pack:
            return self.name not in TELLING
        return issubclass(self.element, response.Step) or bool(set(self.writes) - TELLS)

    @property
    def does(self) -> str:
        return prose.markdown(CUSTODIANS.get(self.name) or prose.sentence(self.element))

    @property
    def lead(self) -> list[str]:
        """What its docstring says before the example, in paragraphs."""
        told = prose.lead(self.element) if self.is_of_the_pack else []
        return [prose.markdown(one) for one in told] or [self.does]

    def says(self, label: str) -> str:
        """A paragraph of its docstring."""
        return prose.markdown(prose.paragraph(self.element, label)) if self.is_of_the_pack else ""

    @property
    def no_revert(self) -> str:
        """Why there is none, where its docstring says so."""
        return prose.markdown(prose.after(self.element, NO_REVERT))


@functools.cache
def steps() -> dict[type[Action], Step]:
    """Every action of the pack, and those of Custodian that its policies use."""
    found: dict[type[Action], Step] = {}
    for kind in sorted({policy.resource_type for policy in permissions.load().values()}):
        for name, element in resources.get(kind).action_registry.items():
            if element.__module__.startswith("custom_actions."):
                step = found.setdefault(element, Step(element, name))
                step.kinds.append(kind)
                step.needs |= set(element.permissions)
    for policy in permissions.load().values():
        for action in policy.resource_manager.actions:
            step = found.setdefault(type(action), Step(type(action), called(action)))
            step.used_in.append(policy.name)
            if not step.is_of_the_pack:
                step.kinds = sorted({*step.kinds, policy.resource_type})
                step.needs |= set(action.get_permissions())
    names = Counter(step.name for step in found.values())
    for step in found.values():
        if names[step.name] > 1:
            step.title = f"{step.name} ({', '.join(step.kinds)})"
    return dict(sorted(found.items(), key=lambda one: one[1].title))


def revert(step: Step) -> Step | None:
    """The way back of a step: the revert in its module, of the same kind of resource if there are
    several."""
    if step.is_revert or not step.changes:
        return None
    beside = [
        other
        for other in steps().values()
        if other.is_revert and other.element.__module__ == step.element.__module__
    ]
    beside.sort(key=lambda other: set(other.kinds).isdisjoint(step.kinds))
    return beside[0] if beside else None


def reverted(step: Step) -> list[Step]:
    """What a revert undoes."""
    return [other for other in steps().values() if revert(other) is step]


def undone(step: Step) -> str:
    """How a step is undone, as Markdown. Raises Refused where nobody says it."""
    if not step.changes:
        return "nothing to undo"
    if step.is_revert:
        back_of = ", ".join(other.link for other in reverted(step))
        return f"is the way back of {back_of or 'nothing in its module'}"
    if back := revert(step):
        return back.link
    if step.no_revert:
        return f"no revert: {step.no_revert}"
    if not step.is_of_the_pack:
        return "not by this pack: the action is Custodian's"
    raise Refused(
        f"{step.file}: {step.element.__name__} changes something, has no revert in its module, and "
        f"its docstring does not say why: add a Revert, or a sentence `{NO_REVERT} ...`."
    )
