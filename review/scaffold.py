"""make new-policy, make new-step: files that work, and their lines in the files that name each.

What the files say stands in skeletons/. Everything is made in memory first: what is refused leaves
nothing behind. What no generator can write (why, limits, sources) is for CONTRIBUTING.md.
"""

import copy
import json
import os
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import click
import jinja2
import yaml
from c7n.manager import resources
from c7n.resources import load_resources

from custom_actions.finding import is_among, is_sample
from custom_actions.finding_file import as_event
from deployment import policies
from deployment.errors import Refused
from deployment.targets import ROOT
from infra.permissions import Loader
from review import followed_by
from review.coverage import functions_of
from review.decision import decide
from review.findings import KINDS as FOLDERS
from review.findings import MAILED

SKELETONS = Path(__file__).parent / "skeletons"
FINDINGS = Path("tests/findings")
ADMINISTRATOR = "444455556666"  # of the members, in tests/findings
LONGEST_NAME = 30  # with the longest prefix of a member's role, 64 characters
LONGEST_LINE = 120  # of YAML, see .yamllint
OF_THE_PACK = ("ec2", "account", "iam-user", "security-group")  # what its actions are of
TYPE = re.compile(r"[A-Z]\w+:(\w+)/[\w.&!-]+")


class Kind(NamedTuple):
    """What a policy on a kind of resource begins with.

    step: the pack's step. managed: the managed policies of the templates that the step needs
    besides its own statements (skeletons/role.yml.j2). guards: the guards that would take what the
    step does for somebody else's work, and the policy whose roles they know. finding: the one of
    tests/findings that new ones are made of. other: one that nobody should take for the policy's.
    families: what stands before the slash of its finding types. usual: a type that no policy acts
    on. user_type: of the credentials that the step is for, and the other one.
    """

    step: str
    title: str
    does: str
    says: str
    undo: str
    template: str
    managed: list
    guards: tuple
    like: str
    finding: str
    other: str
    families: tuple
    usual: str
    fixture: str
    scene: str
    user_type: tuple = ()


KINDS = {
    "ec2": Kind(
        step="isolate-instance",
        title="Isolate an EC2 instance",
        does="Isolates the instance of such a finding, reads that back and mails it.",
        says="it isolates the instance",
        undo="`make release INSTANCE=i-... REGION=...`",
        template="remediation.html",
        managed=["ForensicGroup", "Isolate"],
        guards=("isolation-guard", "forensic-group-guard"),
        like="ec2-isolate",
        finding="ec2-malicious-ip-caller",
        other="ec2-port-probe",
        families=("EC2", "Runtime"),
        usual="Execution:EC2/SuspiciousFile",
        fixture="pack",
        scene="scene",
    ),
    "iam-user": Kind(
        step="deactivate-access-key",
        title="Deactivate an access key",
        does="Deactivates the access key of such a finding, reads that back and mails it.",
        says="it deactivates the access key",
        undo="`make reactivate-key USER_NAME=... KEY=... FINDING=...`",
        template="credentials.html",
        managed=[],
        guards=(),
        like="iam-user-deactivate-access-key",
        finding="iam-user-malicious-ip-caller",
        other="iam-role-credential-exfiltration",
        families=("IAMUser",),
        usual="UnauthorizedAccess:IAMUser/MaliciousIPCaller",
        fixture="credentials",
        scene="identities",
        user_type=("IAMUser", "AssumedRole"),
    ),
    "account": Kind(
        step="revoke-role-sessions",
        title="Revoke sessions of a role",
        does="Denies the session of a role that such a finding names, reads that back, mails it.",
        says="it denies the session of the role",
        undo="`make restore-sessions ROLE=... FINDING=...`",
        template="credentials.html",
        managed=[],
        guards=("response-guard",),
        like="iam-role-revoke-sessions",
        finding="iam-role-credential-exfiltration",
        other="iam-user-malicious-ip-caller",
        families=("IAMUser",),
        usual="UnauthorizedAccess:IAMUser/MaliciousIPCaller",
        fixture="credentials",
        scene="identities",
        user_type=("AssumedRole", "IAMUser"),
    ),
}


class Tree:
    """Files of a repository as they are to be. root: its folder."""

    def __init__(self, root: Path):
        self.root, self.texts, self.links = root, {}, {}

    def read(self, path: str | Path) -> str:
        return self.texts.get(Path(path)) or (self.root / path).read_text()

    def add(self, path: str | Path, text: str) -> None:
        """A new file. Raises Refused when there is one of that name."""
        if (self.root / path).exists():
            raise Refused(f"{path} is there already: take another name.")
        self.texts[Path(path)] = text

    def link(self, path: str | Path, to: str | Path) -> None:
        """A link to a file of the tree; nothing where the path is there already."""
        if not (self.root / path).exists():
            self.links[Path(path)] = os.path.relpath(to, Path(path).parent)

    def unlink(self, path: str | Path) -> None:
        """Take a link away, where it is there."""
        if (self.root / path).is_symlink():
            self.links[Path(path)] = None

    def insert(self, path: str | Path, anchor: str, text: str) -> None:
        """Text before the line that begins with the anchor. Raises Refused without such a line."""
        before, found, after = self.read(path).partition(f"\n{anchor}")
        if not found:
            raise Refused(f"{path} has no line {anchor!r}, before which the new one would stand.")
        self.texts[Path(path)] = f"{before}\n{text}{anchor}{after}"

    def append(self, path: str | Path, text: str) -> None:
        self.texts[Path(path)] = f"{self.read(path).rstrip()}\n{text}"

    def beside(self, path: str | Path, word: str, new: str) -> None:
        """Behind each item of a YAML list that has the word, the same item with the new word.

        Raises Refused when no item has it.
        """
        lines, found = [], False
        for line in self.read(path).splitlines():
            lines.append(line)
            if re.search(rf"^ *- .*(?<![\w-]){re.escape(word)}(?![\w-])", line):
                found = True
                item = line.replace(word, new)
                if len(item) > LONGEST_LINE and "- !Sub " in item:
                    indent = " " * (item.index("- ") + 2)
                    item = item.replace("- !Sub ", f"- !Sub >-\n{indent}")
                lines.append(item)
        if not found:
            raise Refused(f"{path} names {word} nowhere, beside which {new} would stand.")
        self.texts[Path(path)] = "\n".join(lines) + "\n"

    def write(self) -> list[Path]:
        """Write all of it; the paths, new ones and changed ones."""
        for path, text in self.texts.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        for path, to in self.links.items():
            if to is None:
                (self.root / path).unlink()
            else:
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (self.root / path).symlink_to(to)
        return sorted({*self.texts, *self.links})


def skeleton(file: str, **words: object) -> str:
    """A file of skeletons/, filled in."""
    loader = jinja2.FileSystemLoader(SKELETONS)
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(f"{file}.j2").render(words)


def camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


root_option = click.option(
    "--root", type=click.Path(path_type=Path), default=ROOT, help="another checkout"
)


@click.command("new-policy")
@click.option("--name", required=True)
@click.option("--type", "finding_type", help="of findings, such as Execution:EC2/SuspiciousFile")
@click.option("--resource", type=click.Choice(list(KINDS)), default="ec2", show_default=True)
@root_option
def new_policy(name, finding_type, resource, root):
    """A policy of policies/opt-in/ that works, with role, findings, test and runbook section."""
    kind = KINDS[resource]
    finding_type = finding_type or kind.usual
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", name):
        raise Refused(
            f"NAME={name} is not two or more words in small letters with - between them, of at "
            f"most {LONGEST_NAME} characters."
        )
    family = TYPE.fullmatch(finding_type)
    if not family or family[1] not in kind.families:
        families = " or ".join(f"<purpose>:{family}/<what>" for family in kind.families)
        raise Refused(f"TYPE={finding_type} is no finding type of {resource}, {families}.")
    tree = Tree(root)
    there = policies.policies(root / "policies", "guard-duty")
    for other, data in there.items():
        types = data["mode"]["pattern"]["detail"].get("type", [])
        if other not in MAILED and data["resource"] == resource and is_among(types, finding_type):
            raise Refused(
                f"policy {other} acts on TYPE={finding_type} already: take another type, or add "
                "what is missing to that policy."
            )
    refuse_taken(tree, name)
    words = {"name": name, "type": finding_type, "resource": resource, "kind": kind}
    words |= {"camel": camel(name)}
    tree.add(f"policies/opt-in/{name}.yml", skeleton("policy.yml", **words))
    add_findings(tree, name, finding_type, kind)
    test = f"tests/{name}/test_{name.replace('-', '_')}.py"
    tree.add(test, skeleton("test_policy.py", **words))
    tree.insert("docs/runbook.md", "## Guard e-mail", skeleton("runbook.md", **words) + "\n")
    add_rights(tree, name, words)
    for guard in kind.guards:
        for prefix in ("guardduty-response-", "guardduty-response-member-"):
            tree.beside(f"policies/{guard}.yml", prefix + kind.like, prefix + name)
    mail(tree, name, there)
    link_findings(tree, name, kind, there)
    checks = "tests/test_contract.py tests/test_findings.py tests/review/test_coverage.py"
    done(
        tree,
        f"put real findings in place of tests/findings/{name}*.json, then .venv/bin/pytest {test} "
        f"{checks}, then CONTRIBUTING.md.",
    )


def refuse_taken(tree, name):
    """Raises Refused when something of the pack has the name already."""
    for path in [*sorted((tree.root / "policies").rglob("*.yml")), tree.root / "tests" / name]:
        if path.stem == name and path.exists():
            raise Refused(f"{path.relative_to(tree.root)} is there already: take another name.")
    word = camel(name)
    new = {word, f"{word}InMembers", f"With{word}", f"Make{word}"}
    for template in ("infra/account.yml", "infra/member-role.yml"):
        data = yaml.load(tree.read(template), Loader)  # noqa: S506 - a SafeLoader
        for part in ("Parameters", "Conditions", "Resources"):
            if taken := new & {*data[part]}:
                raise Refused(
                    f"NAME={name}: {template} has {min(taken)} in its {part} already: take "
                    "another name."
                )


def add_findings(tree, name, finding_type, kind):
    """One finding that is acted on, and one for each thing that keeps a finding out."""
    whole = json.loads(tree.read(FINDINGS / f"{kind.finding}.json"))
    whole["detail"]["type"] = finding_type

    def add(ending="", account=None, **detail):
        event, stem = copy.deepcopy(whole), name + ending
        event["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, stem))
        event["account"] = account or event["account"]
        event["detail"]["id"] = uuid.uuid5(uuid.NAMESPACE_OID, stem).hex
        arn, _, _ = event["detail"]["arn"].rpartition("/")
        event["detail"] |= {"arn": f"{arn}/{event['detail']['id']}", **detail}
        tree.add(FINDINGS / f"{stem}.json", json.dumps(event, indent=1) + "\n")

    service, resource = (copy.deepcopy(whole["detail"][part]) for part in ("service", "resource"))
    add()
    add(
        "-sample",
        title=f"[SAMPLE] {whole['detail']['title']}",
        service=service | {"additionalInfo": {"sample": True}},
    )
    add("-archived", service=service | {"archived": True})
    add("-of-a-member", account=ADMINISTRATOR)
    add("-of-another-type", type=f"{finding_type.partition('/')[0]}/SomethingElse")
    if kind.user_type:
        resource["accessKeyDetails"]["userType"] = kind.user_type[1]
        add("-of-another-user", resource=resource)


def link_findings(tree, name, kind, data):
    """Each finding into the folders of the policies, as review/findings.py wants it.

    data: the policies for findings that are there, {name: data}.
    """
    for path in (f"policies/opt-in/{name}.yml", *(f"policies/{one}.yml" for one in MAILED)):
        data = data | {Path(path).stem: yaml.safe_load(tree.read(path))["policies"][0]}
    new = [path for path in tree.texts if path.parent == FINDINGS]
    there = [FINDINGS / path.name for path in sorted((tree.root / FINDINGS).glob("*.json"))]
    for policy, of in ((one, functions_of(whole)) for one, whole in data.items()):
        for path in [*new, *(there if policy in (name, *MAILED) else [])]:
            event = as_event(json.loads(tree.read(path)))
            acts = decide(of(event), event).acts
            told = path in new and policy in (name, *MAILED)
            told |= policy == name and path.stem == kind.other
            if not (acts or told):
                continue
            folder = "sample" if is_sample(event) else "positive" if acts else "negative"
            for one in FOLDERS:
                place = f"tests/{policy}/{one}/{path.name}"
                if one == folder:
                    tree.link(place, path)
                else:
                    tree.unlink(place)


def add_rights(tree, name, words):
    """The role of the function, in its account and in members; who may pass and deploy it.

    The roles are made where the parameter With<Name> is yes, since the policy is opt-in.
    """
    account, member, operators = (
        f"infra/{stack}.yml" for stack in ("account", "member-role", "operators")
    )
    parameter = skeleton("parameter.yml", **words)
    tree.insert(account, "  MemberRole:\n", parameter)
    tree.insert(member, "\nRules:\n", parameter)
    tree.insert(account, "\n# One role for each", skeleton("conditions.yml", member=False, **words))
    tree.insert(member, "\nResources:\n", skeleton("conditions.yml", member=True, **words))
    tree.insert(
        account,
        "                      # yamllint enable rule:line-length\n",
        skeleton("publisher.yml", **words),
    )
    central = "  # Central mode (custom_actions/central.py)"
    tree.insert(account, central, skeleton("role.yml", member=False, **words) + "\n")
    tree.insert(account, "  Topic:\n", skeleton("members.yml", **words) + "\n")
    tree.append(member, "\n" + skeleton("role.yml", member=True, **words))
    rights = ", ".join(["Tell", *(words["kind"].managed or ["and its own"])])
    tree.insert(account, "# docs/permissions.md says why", f"#   {name:<32} {rights}\n")
    for prefix in ("guardduty-response-", "custodian-"):
        tree.beside(operators, f"{prefix}guardduty-guard", prefix + name)


def mail(tree, name, there):
    """Have the finding mail say what follows by the policy. there: the policies that are there."""
    new = yaml.safe_load(tree.read(f"policies/opt-in/{name}.yml"))["policies"][0]
    opt_in = policies.opt_ins(tree.root / "policies") | {name}
    tree.texts[followed_by.FILE] = followed_by.written(
        tree.read(followed_by.FILE), there | {name: new}, opt_in
    )


@click.command("new-step")
@click.option("--name", required=True)
@root_option
def new_step(name, root):
    """A step on an EC2 instance that works, with its revert, stage and test."""
    if not re.fullmatch(r"[a-z]+(-[a-z]+)+", name):
        raise Refused(f"NAME={name} is not two or more words in small letters with - between them.")
    load_resources([f"aws.{kind}" for kind in OF_THE_PACK])
    for kind in OF_THE_PACK:
        for taken in (name, f"undo-{name}"):
            if element := resources.get(kind).action_registry.get(taken):
                raise Refused(
                    f"NAME={name}: {element.__module__}.{element.__qualname__} is {taken} of "
                    f"{kind} already: take another name."
                )
    tree, module = Tree(root), name.replace("-", "_")
    words = {"name": name, "module": module, "camel": camel(name), "constant": module.upper()}
    words |= {"title": name.replace("-", " ").capitalize(), "base": f"Of{camel(name)}"}
    stages = "tests/conformance/stages.py"
    if f"class {words['camel']}(" in tree.read(stages):
        raise Refused(f"{stages} has a class {words['camel']} already: take another name.")
    tree.add(f"custom_actions/steps/{module}.py", skeleton("step.py", **words))
    test = f"tests/conformance/test_{module}.py"
    tree.add(test, skeleton("test_step.py", **words))
    tree.insert(stages, "STAGES = [", skeleton("stage.py", **words))
    tree.insert(stages, "    Archive,\n]", f"    {camel(name)},\n")
    record = "custom_actions/record.py"
    tree.insert(record, 'STATE = "', f'{words["constant"]} = "forensic:{name}"\n')
    tree.insert(record, "    EXEMPT: Key(", skeleton("key.py", **words))
    done(tree, f".venv/bin/pytest {test} tests/conformance -k {name}, then CONTRIBUTING.md.")


def done(tree, next_):
    """Write, and say what was."""
    for path in tree.write():
        click.echo(path)
    click.echo(f"Next: {next_}")
