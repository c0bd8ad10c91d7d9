"""make new-policy, make new-step: files that work, and their lines in the files that name each.

What the files say stands in skeletons/. Everything is made in memory first: what is refused leaves
nothing behind. What no generator can write (why, limits, sources) is for CONTRIBUTING.md.
"""

import json
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import click
import jinja2

from deployment.errors import Refused
from deployment.targets import ROOT

SKELETONS = Path(__file__).parent / "skeletons"
FINDINGS = Path("tests/findings")
LONGEST_NAME = 30  # with the longest prefix of a member's role, 64 characters
LONGEST_LINE = 120  # of YAML, see .yamllint
TYPE = re.compile(r"[A-Z]\w+:(\w+)/[\w.&!-]+")


class Kind(NamedTuple):
    """What a policy on a kind of resource begins with.

    step: the pack's step. managed: the managed policies of the templates that the step needs
    besides its own statements (skeletons/role.yml.j2). guards: the guards that would take what the
    step does for somebody else's work, and the policy whose roles they know. positive, negative:
    findings of tests/findings. families: what stands before the slash of its finding types.
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
    positive: str
    negative: str
    families: tuple
    usual: str
    fixture: str
    scene: str
    user_type: str | None = None


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
        positive="ec2-malicious-ip-caller",
        negative="ec2-port-probe",
        families=("EC2", "Runtime"),
        usual="UnauthorizedAccess:EC2/MaliciousIPCaller.Custom",
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
        positive="iam-user-malicious-ip-caller",
        negative="iam-role-credential-exfiltration",
        families=("IAMUser",),
        usual="UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom",
        fixture="credentials",
        scene="identities",
        user_type="IAMUser",
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
        positive="iam-role-credential-exfiltration",
        negative="iam-user-malicious-ip-caller",
        families=("IAMUser",),
        usual="UnauthorizedAccess:IAMUser/InstanceCredentialExfiltration.OutsideAWS",
        fixture="credentials",
        scene="identities",
        user_type="AssumedRole",
    ),
}


class Tree:
    """Files of a repository as they are to be. root: its folder."""

    def __init__(self, root: Path):
        self.root, self.texts = root, {}

    def read(self, path: str | Path) -> str:
        return self.texts.get(Path(path)) or (self.root / path).read_text()

    def add(self, path: str | Path, text: str) -> None:
        """A new file. Raises Refused when there is one of that name."""
        if (self.root / path).exists():
            raise Refused(f"{path} is there already: take another name.")
        self.texts[Path(path)] = text

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
        return sorted(self.texts)


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
@click.option("--type", "finding_type", help="of GuardDuty's findings")
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
    mail(tree, name, finding_type)
    done(tree, f".venv/bin/pytest {test} tests/test_contract.py, then CONTRIBUTING.md.")


def add_findings(tree, name, finding_type, kind):
    """One finding that is acted on, one that is not, and a sample."""

    def finding(base, **detail):
        event = json.loads(tree.read(FINDINGS / f"{base}.json"))
        event["detail"] |= {"id": uuid.uuid5(uuid.NAMESPACE_URL, name + base).hex, **detail}
        return event

    positive = finding(kind.positive, type=finding_type)
    sample = finding(kind.positive, type=finding_type)
    sample["detail"]["service"]["additionalInfo"] = {"sample": True}
    sample["detail"]["title"] = f"[SAMPLE] {sample['detail']['title']}"
    for folder, event in (
        ("positive", positive),
        ("negative", finding(kind.negative)),
        ("sample", sample),
    ):
        text = json.dumps(event, indent=1) + "\n"
        tree.add(f"tests/{name}/{folder}/{name}-{folder}.json", text)


def add_rights(tree, name, words):
    """The role of the function, in its account and in members; who may pass and deploy it."""
    account, operators = "infra/account.yml", "infra/operators.yml"
    central = "  # Central mode (custom_actions/central.py)"
    tree.insert(account, central, skeleton("role.yml", member=False, **words) + "\n")
    tree.insert(account, "  Topic:\n", skeleton("members.yml", **words) + "\n")
    tree.append("infra/member-role.yml", "\n" + skeleton("role.yml", member=True, **words))
    rights = ", ".join(["Tell", *(words["kind"].managed or ["and its own"])])
    tree.insert(account, "# docs/permissions.md says why", f"#   {name:<32} {rights}\n")
    for prefix, paths in (
        ("guardduty-response-", (account, operators)),
        ("custodian-", (operators,)),
    ):
        for path in paths:
            tree.beside(path, f"{prefix}guardduty-guard", prefix + name)


def mail(tree, name, finding_type):
    """Have finding-notify mail the type, and say what follows, where it does not yet."""
    notify, parts = "policies/finding-notify.yml", "mailer/templates/_parts.html.j2"
    text = tree.read(notify)
    prefixes = re.findall(r'- prefix: "(.*)"', text)
    if f"- {finding_type}\n" in text or finding_type.startswith(tuple(prefixes)):
        return
    positive = tree.read(f"tests/{name}/positive/{name}-positive.json")
    tree.add(f"tests/finding-notify/positive/{name}.json", positive)
    comment = f"# policies/opt-in/{name}.yml acts on it"
    lines = "".join(f"            {line}\n" for line in (comment, f"- {finding_type}"))
    tree.insert(notify, '            - prefix: "Backdoor:EC2/"', lines)
    tree.insert(parts, "] %}{# opt-in types #}", f"  '{finding_type}',\n")


@click.command("new-step")
@click.option("--name", required=True)
@root_option
def new_step(name, root):
    """A step on an EC2 instance that works, with its revert, stage and test."""
    if not re.fullmatch(r"[a-z]+(-[a-z]+)+", name):
        raise Refused(f"NAME={name} is not two or more words in small letters with - between them.")
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
