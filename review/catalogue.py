"""docs/policies.md: what each policy and step does, for who reviews them and for who got a mail.

It is made of the policies with their comments, the docstrings of the steps, and the Makefile, which
has the commands that people run. A step of which nobody says how it is undone is refused.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import jinja2
import yaml
from c7n.exceptions import PolicyValidationError
from c7n.policy import Policy

from custom_actions.api_call import API_VERSION
from custom_actions.finding import FindingFilter
from deployment import policies
from deployment.errors import Refused
from infra import generated, permissions
from review import filters, prose
from review.ablation import fields
from review.steps import Step, revert, reverted, steps, undone

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "policies.md"

METADATA = ("title", "severity", "mitre-attack", "runbook")
# Options of a step that no reader misses, or that stand with the calls.
UNSHOWN = ("type", "transport", "subject", "calls", "what", "about", "followed-by")


class Command(NamedTuple):
    """What a person types to run a policy without a mode, as `make help` has it."""

    target: str
    arguments: str

    @property
    def line(self) -> str:
        return f"make {self.target} {self.arguments}"


class Entry:
    """A policy, as the catalogue shows it. Raises Refused when it lacks what is shown."""

    def __init__(self, policy: Policy, path: Path):
        self.data = policy.data
        self.name = policy.name
        self.mode = policy.data.get("mode", {})
        self.metadata = policy.data.get("metadata", {})
        self.is_opt_in = path.parent.name == "opt-in"
        self.path = path.relative_to(ROOT)
        self.comments = Comments(path.read_text())
        self.filters = policy.resource_manager.filters
        self.actions = policy.resource_manager.actions
        self.steps = [steps()[type(action)] for action in self.actions]
        missing = [f"metadata.{key}" for key in METADATA if key not in self.metadata]
        missing += [] if "description" in self.data else ["description"]
        if missing:
            raise Refused(f"{self.path} has no {', '.join(missing)}.")
        if not self.mode and self.command is None:
            raise Refused(
                f"{self.path} has no mode, and no target of the Makefile with a help text "
                "(`## what it does; ARGUMENTS`) runs it."
            )

    @property
    def group(self) -> str:
        if self.is_opt_in:
            return "opt-in"
        return self.mode.get("type", "by hand")

    @property
    def description(self) -> str:
        return prose.markdown(self.data["description"])

    @property
    def runbook(self) -> str:
        page, _, place = self.metadata["runbook"].partition("#")
        file = ROOT / page
        found = re.findall(r"^#+ (.*)$", file.read_text() if file.is_file() else "", re.MULTILINE)
        heading = next((one for one in found if prose.anchor(one) == place), None)
        if heading is None:
            raise Refused(f"{self.path}: its runbook, {self.metadata['runbook']}, leads nowhere.")
        return f"[{heading}]({page.removeprefix('docs/')}#{place})"

    @property
    def command(self) -> Command | None:
        return commands().get(self.path.as_posix())

    @property
    def techniques(self) -> str:
        """MITRE's, https://attack.mitre.org/techniques/"""
        return ", ".join(
            f"[{one}](https://attack.mitre.org/techniques/{one.replace('.', '/')}/)"
            for one in self.metadata["mitre-attack"]
        )

    @property
    def changing(self) -> list[Step]:
        return [step for step in self.steps if step.changes]

    @property
    def types(self) -> list[tuple[list[str], str]]:
        """The types of findings of the rule, by the reason that stands above them."""
        found = self._types
        place = ("policies", 0, "mode", "pattern", "detail", "type")
        return grouped(
            (filters.entry(wanted), self.comments.above(*place, number))
            for number, wanted in enumerate(found)
        )

    @property
    def number_of_types(self) -> str:
        """In words; a prefix stands for types that GuardDuty may add."""
        prefixes = sum(isinstance(wanted, dict) for wanted in self._types)
        counted = ((len(self._types) - prefixes, "finding type"), (prefixes, "prefix"))
        plural = {"finding type": "finding types", "prefix": "prefixes"}
        return " and ".join(
            f"{number} {words if number == 1 else plural[words]}"
            for number, words in counted
            if number
        )

    @property
    def is_for_findings(self) -> bool:
        return self.mode.get("type") == "guard-duty"

    @property
    def _types(self) -> list:
        """Those that the rule names; none where it means every type but some."""
        found = self.mode.get("pattern", {}).get("detail", {}).get("type", [])
        return [] if any("anything-but" in wanted for wanted in found) else found

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        """The API calls of the rule, by what the mail says about them."""
        explained = next((a.data["calls"] for a in self.actions if "calls" in a.data), {})
        names = [API_VERSION.sub("", call["event"]) for call in self.mode.get("events", ())]
        by_words: dict[str, list[str]] = {}
        for name in names:
            by_words.setdefault(explained.get(name, ""), []).append(f"`{name}`")
        return [(found, prose.markdown(words)) for words, found in by_words.items()]

    @property
    def services(self) -> list[str]:
        return sorted({call["source"].partition(".")[0] for call in self.mode.get("events", ())})

    @property
    def left_out(self) -> list[str]:
        """The findings that a filter stops, with the reason."""
        return [
            self.reason(words, "filters", number, argument) if argument in element.data else words
            for number, element in enumerate(self.filters)
            if isinstance(element, FindingFilter)
            for argument, words in filters.left_out(element)
        ]

    @property
    def asked(self) -> list[tuple[int, str]]:
        """What the other filters ask for, with the reason: (how deep inside another, words)."""
        return [
            (len(place) // 2 - 1, self.reason(words, *place))
            for number, element in enumerate(self.filters)
            if not isinstance(element, FindingFilter)
            for place, words in filters.conditions(element, "filters", number)
        ]

    @property
    def only(self) -> list[str]:
        """What else the rule asks of a finding, where no filter asks it again."""
        asked = "".join(words for _, words in self.asked)
        passed = {"type", "accountId"}  # told by themselves
        if any("min-severity" in element.data for element in self.filters):
            passed.add("severity")
        return [
            f"`{key}` is {' or '.join(f'`{one}`' for one in wanted)}"
            for path, wanted in fields(self.mode.get("pattern", {}).get("detail", {}))
            if (key := ".".join(path)) not in passed and f"`{key}`" not in asked
        ]

    def reason(self, words: str, *place: str | int) -> str:
        """The words, and the comment above what they are about."""
        said = prose.markdown(self.comments.above("policies", 0, *place)) if self.mode else ""
        if not said:
            return words
        said = f"{said[:1].upper()}{said[1:]}{'' if said.endswith('.') else '.'}"
        if words.endswith(":**"):
            return f"{said} {words}"
        return f"{words}{'' if words.endswith('.') else '.'} {said}"

    def options(self, number: int) -> str:
        """How the policy sets up a step, as it stands there."""
        shown = {
            key: value
            for key, value in self.actions[number].data.items()
            if key not in UNSHOWN and not (isinstance(value, str) and value.startswith("{"))
        }
        lines = [
            yaml.safe_dump({key: value}, default_flow_style=True, width=1000).strip()[1:-1]
            for key, value in shown.items()
        ]
        return ", ".join(f"`{line}`" for line in lines)

    @property
    def rights(self) -> str:
        """The managed policies for people, of infra/operators.yml, that have what it needs."""
        elements = [*self.filters, *self.actions]
        needed = {need for element in elements for need in element.get_permissions()}
        respond, *others = (
            (name, permissions.allowed(permissions.managed("operators.yml", name)))
            for name in ("Respond", "Evidence", "Nodes", "Credentials")
        )
        wanted = [respond, *(other for other in others if needed & (other[1] - respond[1]))]
        return ", ".join(f"[{name}](permissions.md#people-{name.lower()})" for name, _ in wanted)

    @property
    def undo(self) -> list[Command]:
        """What undoes the whole: it runs the reverts of its steps, or the steps that it reverts."""
        wanted = [
            other
            for step in self.steps
            for other in (reverted(step) if step.is_revert else [revert(step)])
            if other
        ]
        return list(dict.fromkeys(command for step in wanted for command in by_hand(step)))

    @property
    def for_good(self) -> list[Step]:
        """The steps that change something and have no way back that a person could run."""
        return [
            step
            for step in self.changing
            if not step.is_revert and not ((back := revert(step)) and by_hand(back))
        ]

    @property
    def findings(self) -> list[tuple[str, list[str]]]:
        """The findings of tests/ by what becomes of them, as paths from docs/."""
        kinds = {"positive": "it acts on", "negative": "it leaves alone", "sample": "samples"}
        folder = ROOT / "tests" / self.name
        found = [(words, sorted((folder / kind).glob("*.json"))) for kind, words in kinds.items()]
        return [(words, [_file(path) for path in paths]) for words, paths in found if paths]

    @property
    def tests(self) -> list[str]:
        return [_file(path) for path in sorted((ROOT / "tests" / self.name).glob("test_*.py"))]


@functools.cache
def entries() -> list[Entry]:
    """All policies: those for findings, the guards, what people run, and the opt-in ones."""
    loaded = permissions.load()
    found = []
    for path in permissions.POLICIES:
        if path.stem not in loaded:
            raise Refused(f"{path.relative_to(ROOT)} has no policy of its own name, {path.stem}.")
        found.append(Entry(loaded[path.stem], path))
    order = {"guard-duty": 0, "cloudtrail": 1, "by hand": 3, "opt-in": 4}
    return sorted(found, key=lambda one: order.get(one.group, 2))


def by_hand(step: Step) -> list[Command]:
    """What a person types to have a step done."""
    return [one.command for one in entries() if one.command and step in one.steps]


class Comments:
    """The comments of a YAML file, which Custodian's data does not have."""

    def __init__(self, text: str):
        self.lines = text.splitlines()
        self.root = yaml.compose(text, yaml.SafeLoader)

    def above(self, *place: str | int) -> str:
        """What stands above a key, or above an element of a list; its place from the root."""
        node = self.root
        for step in place:
            if isinstance(step, int):
                node = start = node.value[step]
            else:
                start, node = next(pair for pair in node.value if pair[0].value == step)
        found: list[str] = []
        for line in reversed(self.lines[: start.start_mark.line]):
            if not line.strip().startswith("#"):
                break
            found.insert(0, line.strip(" #"))
        return " ".join(found)


@functools.cache
def commands() -> dict[str, Command]:
    """The targets of make that run one policy: {file of the policy: command}."""
    found = {}
    for rule in re.split(r"\n(?=\S)", (ROOT / "Makefile").read_text()):
        head = re.match(r"([a-z-]+):.*## .*?; (.*)", rule)
        for file in re.findall(r"policies/\S+\.yml", rule):
            if head:
                found[file] = Command(*head.groups())
    return found


def grouped(found: Iterator[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Entries of a list by the comment above the first of them."""
    groups: list[tuple[list[str], str]] = []
    for entry, comment in found:
        if comment or not groups:
            groups.append(([], prose.markdown(comment)))
        groups[-1][0].append(entry)
    return groups


def _file(path: Path) -> str:
    return f"[{path.stem}](../{path.relative_to(ROOT).as_posix()})"


def page() -> str:
    """docs/policies.md. Raises Refused where a policy or a step lacks what is shown of it."""
    try:
        permissions.load()
    except (PolicyValidationError, ValueError, yaml.YAMLError) as error:
        policies.policies()  # refuses with the name of the file
        raise Refused(f"A policy is not valid: make validate. {error}") from error
    return rendered(
        "policies.md.j2",
        entries=entries(),
        steps=list(steps().values()),
        undone=undone,
        revert=revert,
        by_hand=by_hand,
    )


def rendered(template: str, **values: object) -> str:
    """A template of this package with values, as Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 - it is Markdown, and no text of a finding is in it
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": prose.cell, "markdown": prose.markdown}
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(template).render(**values))


@click.command()
@generated.option
def catalogue(check: bool) -> None:
    """Write docs/policies.md: what each policy and step does, and how it is undone."""
    generated.write(PAGE, page(), "catalogue", check)
