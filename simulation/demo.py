"""`make demo`: one finding goes through the deployed pack, and the story is told as it happens.

    python -m simulation.demo [FINDING.json] [--mode observe|ask|contain] [--output FOLDER]

Exit code 0 when all went as the finding and the mode ask for: an instance that ec2-isolate took on
is isolated as read back here (of an attack sequence each that was not held back, and is there), no
neighbour has changed, each mail that was due has arrived, and after the release everything is as it
was. In observe and ask nothing has changed; in ask the command of the mail is then run, as a person
would. 1 when not, 2 when the file is no finding.
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from custom_actions import autonomy
from custom_actions.finding_file import NotAFinding, account_and_region, read_finding
from custom_actions.headline import fate
from custom_actions.words import one_line

from . import deploy, guardduty
from .cloud import Cloud
from .mail import deploy_mailer
from .smtp import MailSink
from .world import build

HERE = Path(__file__).parent
SCENARIO = HERE / "scenario.json"
POLICIES = ("finding-notify", "ec2-isolate", "iam-role-revoke-sessions")
NOTIFY, ISOLATE, REVOKE = (f"custodian-{name}" for name in POLICIES)


def plain(text):
    """Text that an attacker may have written, fit for a terminal."""
    return escape(one_line(text))


MAILER = "guardduty-response-mailer"
FORENSIC = "ForensicSecurityGroup"


class Story:
    """What is printed, with the seconds since the event in front."""

    def __init__(self):
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=118)
        self.begin = None
        self.lock = threading.Lock()
        self.number = 0

    def tell(self, text, style=""):
        """A line; text from a finding has to be escaped by the caller."""
        since = "" if self.begin is None else f"[dim]{time.monotonic() - self.begin:7.2f} s[/]  "
        with self.lock:
            self.console.print(f"{since}{text}", style=style, soft_wrap=True)

    def heading(self, text):
        self.console.print()
        self.console.rule(f"[bold]{text}", align="left")

    def call(self, call):
        """An AWS call as it is answered; those of the isolation are numbered."""
        if call.caller not in (ISOLATE, REVOKE) or call.operation.startswith("AssumeRole"):
            return
        self.number += 1
        about = next(
            (
                str(call.parameters[key])
                for key in ("NetworkInterfaceId", "Resources", "InstanceIds", "GroupId", "TopicArn")
                if key in call.parameters
            ),
            "",
        )
        if call.operation == "ModifyNetworkInterfaceAttribute":
            about += f" -> {call.parameters.get('Groups')}"
        style = "red" if call.error_code else "cyan"
        self.tell(
            f"[{style}]{self.number:>3}. {call.service}:{call.operation}[/] {escape(about)}"
            + (f" [red]{call.error_code}[/]" if call.error_code else "")
        )

    def invocation(self, invocation):
        if invocation.function_name == MAILER and not invocation.error:
            return  # what it does is told by the mails
        state = "[red]ended in an error[/]" if invocation.error else "ended"
        kind = f"cold, {invocation.init_duration:.2f} s to start" if invocation.cold else "warm"
        self.tell(
            f"[dim]Lambda {invocation.function_name} {state} after {invocation.duration:.2f} s "
            f"({kind}, try {invocation.attempt})[/]"
        )
        if invocation.error:
            self.tell(f"[red]{plain(invocation.error['errorMessage'])}[/]")

    def mail(self, mail):
        recipients = ", ".join(mail.recipients)
        self.tell(
            f"[bold green]MAIL[/] to {recipients}\n            [bold]{plain(mail.subject)}[/]"
        )

    def groups(self, title, world, snapshot, before=None):
        """A table of the groups of every interface; what differs from `before` stands out."""
        if not world.targets and not snapshot:
            self.tell("The finding names no instance that is here.")
            return
        several = len(world.targets) > 1
        style = {} if self.console.is_terminal else {"box": box.ASCII}
        table = Table(title=title, title_justify="left", **style)
        # of many instances no more than fits on a line
        for column in ("instance", "name", "interface", "address", "security groups"):
            if not several or column not in ("interface", "address"):
                table.add_column(column, overflow="fold")
        for instance_id, instance in snapshot.items():
            for number, interface in enumerate(instance["interfaces"]):
                groups = [
                    g["name"] if several else f"{g['id']} {g['name']}" for g in interface["groups"]
                ]
                text = escape("\n".join(groups))
                if before and interface["groups"] != _groups(before, instance_id, interface["id"]):
                    text = f"[bold yellow]{text}[/]"
                mark = " [red]*[/]" if instance_id in world.targets else ""
                table.add_row(
                    "" if number else f"{instance_id}{mark}",
                    "" if number else plain(instance["name"])[: 40 if several else 60],
                    *(() if several else (interface["id"], interface["private_ip"])),
                    text,
                )
        self.console.print(table)
        named = f"the {len(world.targets)} instances" if several else "the instance"
        named += " of the finding" + ("" if several else f": {world.target}")
        self.console.print(f"[dim]* {named}[/]")

    def outcomes(self, outcomes):
        """A table of what each step reports."""
        if not outcomes:
            return
        if "resource" in outcomes[0]:
            self.fates(outcomes)
            return
        style = {} if self.console.is_terminal else {"box": box.ASCII}
        table = Table(title="The steps", title_justify="left", **style)
        for column in ("step", "status", "detail"):
            table.add_column(column, overflow="fold")
        for outcome in outcomes:
            colour = "red" if outcome["status"] == "failed" else "green"
            table.add_row(
                outcome["step"],
                f"[{colour}]{outcome['status']}[/]",
                plain(outcome["error"] or outcome["detail"]),
            )
        self.console.print(table)

    def fates(self, outcomes):
        """A table of what became of each of several instances: a line, and what failed."""
        style = {} if self.console.is_terminal else {"box": box.ASCII}
        table = Table(title="The instances", title_justify="left", **style)
        for column in ("instance", "what became of it", "steps"):
            table.add_column(column, overflow="fold")
        for instance_id, steps in by_instance(outcomes).items():
            became = fate(steps)
            colour = "green" if became == "isolated" else "red"
            failed = [f"{o['step']}: {o['error']}" for o in steps if o["status"] == "failed"]
            done = {o["status"] for o in steps} <= {"done", "unchanged", "skipped"}
            said = "; ".join(failed) or ("all done" if done and became == "isolated" else "")
            table.add_row(instance_id, f"[{colour}]{plain(became)}[/]", plain(said))
        self.console.print(table)


def by_instance(outcomes):
    """The outcomes of several instances: {instance id: outcomes}."""
    found = {}
    for outcome in outcomes:
        found.setdefault(outcome["resource"], []).append(outcome)
    return found


def _groups(snapshot, instance_id, interface_id):
    interfaces = snapshot.get(instance_id, {}).get("interfaces", [])
    return next((i["groups"] for i in interfaces if i["id"] == interface_id), None)


def play(event, output, mode=autonomy.CONTAIN):
    """Play the story of one finding; returns what did not go as it should, a line each.

    mode: of the deploy, see custom_actions/autonomy.py.
    """
    story = Story()
    account, region = account_and_region(event)
    detail = event["detail"]
    story.heading("The finding")
    story.tell(f"{plain(detail.get('type'))}  severity {detail.get('severity')}")
    story.tell(plain(detail.get("title")))
    story.tell(f"account {account}, region {region}, id {plain(detail.get('id'))}")

    with Cloud() as cloud, MailSink() as sink:
        story.heading("Before")
        story.tell("Everything below runs on this machine. Nothing goes to AWS.")
        mailer_stack = deploy.mailer_stack(cloud, account, region)
        deploy.account_stack(cloud, account, region, mailer_stack["MailQueueArn"])
        story.tell("CloudFormation stacks of infra/ created")
        bucket = deploy.stack(cloud, "evidence.yml", account, region)["BucketName"]
        policies = [f"policies/{name}.yml" for name in POLICIES]
        deploy.deploy(cloud, policies, account, region, mode, evidence_bucket=bucket)
        names = ", ".join(Path(p).stem for p in policies)
        story.tell(f"deployed by `custodian run`, mode [bold]{mode}[/]: {names}")
        deploy_mailer(cloud, sink, account, region, mailer_stack)
        story.tell("deployed by `python -m mailer deploy`: the mailer, fed by the queue")
        world = build(cloud, event)
        guardduty.keep(event)
        before, everything = world.snapshot(), describe_everything(world)
        story.groups("Security groups before", world, before)

        story.heading("What happens, with seconds since the event")
        cloud.call_log.clear()
        cloud.call_log.subscribe(story.call)
        cloud.functions.subscribe(story.invocation)
        sink.subscribe(story.mail)
        story.begin = time.monotonic()
        story.tell(f"finding {plain(detail.get('id'))} put on the event bus")
        cloud.put_event(event)
        cloud.wait_idle()
        problems = wait_for_mails(cloud, sink)
        story.begin = None

        story.heading("After")
        after = world.snapshot()
        story.groups("Security groups after", world, after, before)
        problems += judge(story, cloud, sink, world, before, after, mode)
        responded = any("isolated" in outcome for outcome in outcomes_of(cloud, ISOLATE))
        isolated = [i for i in world.targets if world.is_isolated(i, FORENSIC)]
        if responded and mode == autonomy.ASK:
            problems += by_hand(story, cloud, sink, world, detail["id"])
            isolated = world.targets[:1]
        if responded and mode != autonomy.OBSERVE:
            problems += release(story, cloud, sink, world, isolated, everything)
            problems += verify_case(story, cloud, world)
        saved = save(output, cloud, sink, event, before, after)

    story.heading("Saved")
    for path in saved:
        story.tell(escape(str(path)))
    story.console.print()
    for problem in problems:
        story.tell(f"[bold red]NOT as it should be:[/] {plain(problem)}")
    if not problems:
        story.tell("[bold green]As it should be.[/]")
    return problems


def wait_for_mails(cloud, sink):
    """Wait until each message that SNS took has become a mail; returns what is missing."""
    published = [c for c in cloud.calls if c.operation == "Publish" and c.error_code is None]
    try:
        sink.wait_for(len(published), timeout=20)
    except TimeoutError as error:
        return [str(error)]
    return []


def describe_everything(world):
    """All that the steps may change, as AWS shows it; snapshots and mails are meant to stay."""
    if not world.instances:
        return {}
    ec2, elb = world.client("ec2"), world.client("elbv2")
    shown = {
        "instances": ec2.describe_instances(InstanceIds=world.instances)["Reservations"],
        "interfaces": ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": world.instances}]
        )["NetworkInterfaces"],
        "network ACLs": ec2.describe_network_acls()["NetworkAcls"],
        "targets": {
            group["TargetGroupName"]: elb.describe_target_health(
                TargetGroupArn=group["TargetGroupArn"]
            )["TargetHealthDescriptions"]
            for group in elb.describe_target_groups()["TargetGroups"]
        },
        "protection": [
            ec2.describe_instance_attribute(InstanceId=instance, Attribute=attribute)
            for instance in world.instances
            for attribute in (
                "disableApiTermination",
                "disableApiStop",
                "instanceInitiatedShutdownBehavior",
            )
        ],
    }
    iam = world.client("iam")
    shown["role policies"] = {
        role["RoleName"]: iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        for role in iam.list_roles()["Roles"]
    }
    return json.loads(json.dumps(shown, default=str, sort_keys=True), object_hook=without_metadata)


def without_metadata(mapping):
    mapping.pop("ResponseMetadata", None)
    # moto lists targets in the order of their registration
    for key, value in mapping.items():
        if isinstance(value, list) and all(isinstance(v, dict) for v in value):
            mapping[key] = sorted(value, key=lambda v: json.dumps(v, sort_keys=True))
    return mapping


def release(story, cloud, sink, world, instances, everything):
    """Release each instance as `make release` does, and compare all with what it was.

    instances: those that are isolated; where none is, the finding's own. Of the second and later
    ones only the groups are told.
    """
    for number, instance_id in enumerate(instances or world.targets[:1]):
        said = instance_id if len(world.targets) > 1 else "..."
        story.heading(f"The release: make release INSTANCE={said} REGION=...")
        mails = len(sink.mails)
        try:
            done = deploy.release(cloud, cloud.folder, instance_id, world.account_id, world.region)
        except RuntimeError as error:
            return [f"the release failed: {str(error)[-1500:]}"]
        for line in done.stdout.splitlines():
            if " step:release-instance" in line or (" step:" in line and number == 0):
                story.tell(plain(line[line.index("step:") :]))
        try:
            # one that finds nothing to put back tells nobody
            sink.wait_for(mails + ("step:notify-release status:done" in done.stdout), timeout=20)
        except TimeoutError as error:
            return [str(error)]
    now = describe_everything(world)
    different = [name for name in everything if everything[name] != now[name]]
    if not different:
        story.tell(f"[green]Everything is as it was before: {', '.join(everything)}.[/]")
    return [f"after the release {name} are not as they were" for name in different]


def verify_case(story, cloud, world):
    """Prove the case record as `make verify-case` does."""
    story.heading("The case record: make verify-case INSTANCE=... REGION=...")
    said = ["verify-case", "--region", world.region, "--instance", world.target]
    done = deploy.deployment(cloud, said, world.account_id, world.region)
    for line in done.stdout.splitlines():
        story.tell(plain(line))
    return [f"the case record is not proven: {done.stdout[-500:]}"] if done.returncode else []


def by_hand(story, cloud, sink, world, finding):
    """Run the command that the mail asks about, as `make isolate` does."""
    several = len(world.targets) > 1
    instance_id = "$i" if several else world.target
    command = f"make isolate INSTANCE={instance_id} REGION={world.region} FINDING={finding}"
    story.heading(f"A person decides: {command}" + (f", i={world.target} first" if several else ""))
    where = [mail.text if several else mail.subject for mail in sink.mails]
    if not any(command in " ".join(text.split()) for text in where):
        return [f"no mail has the command {command}"]
    mails = len(sink.mails)
    said = {"instance": world.target, "finding": finding}
    policy = "policies/ec2-isolate-by-hand.yml"
    try:
        done = deploy.by_hand(cloud, cloud.folder, policy, world.account_id, world.region, **said)
        sink.wait_for(mails + 1, timeout=20)
    except (RuntimeError, TimeoutError) as error:
        return [f"the isolation by hand failed: {str(error)[-1500:]}"]
    for line in done.stdout.splitlines():
        if " step:" in line:
            story.tell(plain(line[line.index("step:") :]))
    story.groups("Security groups now", world, world.snapshot())
    return [] if world.is_isolated(world.target, FORENSIC) else [f"{world.target} is not isolated"]


def judge(story, cloud, sink, world, before, after, mode):
    """Compare what was to happen with what EC2 and the SMTP server have."""
    problems = []
    invoked = {i.function_name: i for i in cloud.invocations}  # the last try of each
    for name in (NOTIFY, ISOLATE, REVOKE):
        invocation = invoked.get(name)
        if invocation is None:
            story.tell(f"{name}: its rule does not match this finding, it was not invoked")
        elif invocation.error:
            problems.append(f"{name} ended in an error: {invocation.error['errorMessage']}")
        else:
            answer = next(iter(invocation.result.values()))
            if isinstance(answer, str):
                story.tell(f"{name}: invoked, but {escape(answer)}")
    subjects = [mail.subject for mail in sink.mails]
    findings = [s for s in subjects if "GuardDuty Finding |" in s]
    remediations = [s for s in subjects if "GuardDuty Remediation |" in s]
    if NOTIFY in invoked and len(findings) != 1:
        problems.append(f"{len(findings)} finding mails instead of one")

    outcomes = outcomes_of(cloud, ISOLATE)
    story.outcomes([*outcomes, *outcomes_of(cloud, REVOKE)])
    isolations = {
        o.get("resource", world.target): o for o in outcomes if o["step"] == "isolate-instance"
    }
    touched = [
        instance
        for instance in before
        if before[instance]["interfaces"] != after.get(instance, {}).get("interfaces")
        or before[instance]["tags"] != after[instance]["tags"]
    ]
    if not isolations:
        problems += [f"{i} changed though no policy acts on this finding" for i in touched]
        return problems
    problems += [f"neighbour {i} changed" for i in touched if i in world.neighbours]
    if len(remediations) != 1:
        problems.append(f"{len(remediations)} remediation mails instead of one")
    if mode != autonomy.CONTAIN:
        problems += [f"{i} changed in mode {mode}" for i in touched]
        word = {autonomy.ASK: "ASK |", autonomy.OBSERVE: "OBSERVE ONLY |"}[mode]
        problems += [f"a mail does not say {word}" for s in remediations if word not in s]
        if not touched:
            story.tell("[green]Nothing has changed, as the mode asks for.[/]")
        return problems
    for instance_id, isolation in isolations.items():
        number = len(after.get(instance_id, {}).get("interfaces", ()))
        said = f"{instance_id}: " if len(isolations) > 1 else ""
        if isolation["isolated"] and world.is_isolated(instance_id, FORENSIC):
            story.tell(
                f"[green]{said}Read back by the function at {isolation['verified_at']}, and again "
                f"here: {number} of {number} interfaces hold only the forensic group, which has no "
                "rule.[/]"
            )
        elif said and isolation["status"] in ("withheld", "skipped") and instance_id not in touched:
            continue  # on purpose, as its line in the table says
        else:
            problems.append(f"{instance_id} is not isolated: {isolation['detail']}")
    return problems


def outcomes_of(cloud, function):
    """The outcomes of the last try of a function; none when it failed or left the finding out."""
    tries = [i for i in cloud.invocations if i.function_name == function]
    if not tries or tries[-1].error:
        return []
    answer = next(iter(tries[-1].result.values()))
    return [] if isinstance(answer, str) else answer


def save(output, cloud, sink, event, before, after):
    """Write what a reader may want to look at later; returns the files."""
    output.mkdir(parents=True, exist_ok=True)
    for old in output.iterdir():
        if old.is_file():
            old.unlink()
    documents = {"finding.json": event, "before.json": before, "after.json": after}
    for name, document in documents.items():
        (output / name).write_text(json.dumps(document, indent=2, default=str) + "\n")
    logs = [f"## {i.function_name}, try {i.attempt}\n{i.log}" for i in cloud.invocations]
    (output / "lambda.log").write_text("\n".join(logs))
    return [*(output / name for name in documents), output / "lambda.log", *sink.save(output)]


def main():
    parser = argparse.ArgumentParser(prog="python -m simulation.demo")
    parser.add_argument("finding", nargs="?", type=Path, default=SCENARIO)
    parser.add_argument("--mode", choices=autonomy.WORDS, default=autonomy.CONTAIN)
    parser.add_argument("--output", type=Path, default=Path("output/demo"))
    arguments = parser.parse_args()
    try:
        event = read_finding(arguments.finding)
    except (NotAFinding, OSError) as error:
        print(f"{arguments.finding}: {error}", file=sys.stderr)
        return 2
    return 1 if play(event, arguments.output, arguments.mode) else 0


if __name__ == "__main__":
    sys.exit(main())
