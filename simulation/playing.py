"""The playing of the demo: deploy, put a finding on the bus, tell what happens, judge, release."""

import collections
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from custom_actions import autonomy
from custom_actions.finding import instance_ids
from custom_actions.finding_file import account_and_region
from custom_actions.response import MISSHAPEN
from deployment.errors import Refused, reason
from deployment.targets import known

from . import deploy, guardduty
from .cloud import Cloud
from .happened import calls, functions
from .judging import FORENSIC, MAILER, describe_everything, judge
from .mail import deploy_mailer
from .smtp import Mail, MailSink
from .story import SHOWN, Story, seconds, some
from .world import build

BY_HAND = re.compile(r"^  (?P<status>\S.{9}) (?P<step>[a-z-]+): ", re.MULTILINE)
SAVED = ("finding.json", "before.json", "after.json", "lambda.log")
NOT_PLAYED = (*MISSHAPEN, Refused, RuntimeError, ValueError, BotoCoreError, ClientError, OSError)


@dataclass
class Ending:
    """became: what became of a finding, in some words. problems: what did not go as it should, a
    line each. page: the mail that says most, as a file, or None; acted: whether it is about what
    was done."""

    became: str
    problems: list[str]
    page: Path | None = None
    acted: bool = False


def play_all(found, output, mode=autonomy.CONTAIN, verbose=False, new=False):
    """Play findings, [(name, event)], and tell how each ended; the exit code.

    output: the folder for what is saved; of several findings each has one in it.
    """
    story = Story(verbose)
    story.line("All of this runs on this machine, in a simulated cloud. Nothing goes to AWS.")
    clear(output)
    endings = {}
    for number, (name, event) in enumerate(found, 1):
        folder = output / f"{number}-{name}" if len(found) > 1 else output
        story.line()
        if len(found) > 1:
            story.tell(name, f"{number} of {len(found)}", "bold")
        endings[number, name] = play(story, event, folder, mode, new)
    if len(found) > 1:
        story.line()
        story.tell(f"{len(found)} findings", "Together", "bold")
        for (number, name), ending in endings.items():
            verdict = "NOT as it should be" if ending.problems else ending.became
            story.tell(f"{name}: {verdict}", f"{number:>7}")
    problems = [problem for ending in endings.values() for problem in ending.problems]
    if not problems and len(found) > 1:
        story.tell("As it should be, of all of them.", "Verdict", "bold green")
    story.line()
    pages = [e.page for e in sorted(endings.values(), key=lambda e: not e.acted) if e.page]
    story.tell(
        f"{output}/{'<number>-<name>/' * (len(found) > 1)}: the mails (.eml, .html), the finding, "
        "the groups before and after, the functions' log. "
        + ("The mail to read first:" if pages else "No mail has come."),
        "Saved",
    )
    story.line(str((pages or [output])[0]))
    return 1 if problems else 0


def play(story, event, output, mode=autonomy.CONTAIN, new=False):
    """Play one finding in a cloud of its own, and tell it; returns the Ending."""
    try:
        ending = Play(story, event, mode, new).ending(output)
    except NOT_PLAYED as error:
        if story.verbose:
            story.console.print_exception()
        said = f"it could not be played to the end: {reason(error)} (VERBOSE=1 shows where)"
        ending = Ending("", [said])
    for problem in ending.problems:
        story.tell(f"NOT as it should be: {problem}", "Verdict", "bold red")
    if not ending.problems:
        became = ending.became[:1].upper() + ending.became[1:]
        story.tell(f"{became}.", "Verdict", "bold green")
    return ending


class Play:
    """One finding; mode: of the deploy, see custom_actions/autonomy.py. new: whether it is written
    as it is put on the bus, for the mails' times, and not at the time that it has."""

    def __init__(self, story, event, mode, new):
        self.story, self.mode = story, mode
        self.account, self.region = account_and_region(event)
        # where the resource is: of a member's finding GuardDuty sends an event there too
        self.event = event | {"account": self.account, "region": self.region}
        self.detail, self.new = event["detail"], new

    def ending(self, output):
        self.tell_finding()
        known(self.region)
        with Cloud() as self.cloud, MailSink() as self.sink:
            with self.story.working("deploying to the simulated cloud"):
                self.deploy()
                self.build()
            with self.story.working("the finding is on its way"):
                problems = self.send()
            after = self.world.snapshot()
            verdict = judge(
                self.cloud, self.sink, self.world, self.event, self.before, after, self.mode
            )
            problems += verdict.problems
            self.tell_groups(after)
            self.tell_read_back(after, verdict)
            if verdict.may_change_nothing:
                problems += self.different("nothing was to change, and changed has: ")
            isolated = verdict.isolated
            if verdict.planned and self.mode == autonomy.ASK:
                isolated = verdict.planned[:1]
                problems += self.isolate_by_hand(isolated[0])
                verdict.became += "; then isolated by the command of the mail"
            if isolated:
                problems += self.release(isolated)
                problems += self.verify_case(isolated[0])
                verdict.became += "; released, and everything is as it was"
            saved = self.save(output, after)
        return Ending(verdict.became, problems, *saved)

    def tell_finding(self):
        """What the finding says, as far as it says it."""
        detail, tell = self.detail, self.story.tell
        severity = detail.get("severity")
        kind = [str(detail.get("type") or "of no type")]
        kind += [f"severity {severity} of 10"] if severity is not None else []
        tell(", ".join(kind), "Finding", "bold")
        tell(detail.get("title"))
        of = f", id {detail['id']}" if detail.get("id") else ""
        tell(f"account {self.account} {self.region}{of}")

    def deploy(self):
        """What `make infra`, `make deploy` and `make deploy-mailer` do."""
        where = self.account, self.region
        queue = deploy.mailer_stack(self.cloud, *where)
        deploy.account_stack(self.cloud, *where, queue["MailQueueArn"])
        bucket = deploy.stack(self.cloud, "evidence.yml", *where)["BucketName"]
        said = ["deploy", "--region", self.region, "--mode", self.mode]
        with ThreadPoolExecutor() as both:
            mailer = both.submit(deploy_mailer, self.cloud, self.sink, *where, queue)
            self.command(*said, "--evidence-bucket", bucket)
            mailer.result()
        pages = self.cloud.client("lambda", *where).get_paginator("list_functions").paginate()
        names = [one["FunctionName"] for page in pages for one in page["Functions"]]
        policies = [name.removeprefix("custodian-") for name in names if name != MAILER]
        guards = sum(name.endswith("-guard") for name in policies)
        self.story.tell(
            f"infra/, the mailer, and {len(policies)} policies by make deploy MODE={self.mode}; "
            f"{guards} of them are guards, which wait for what CloudTrail reports: nothing here",
            "Deployed",
        )

    def build(self):
        self.world = world = build(self.cloud, self.event)
        guardduty.keep(self.event)
        self.before, self.everything = world.snapshot(), describe_everything(world)
        named = [str(name) for name in instance_ids(self.event)]
        if world.targets:
            gone = [name for name in named if name not in world.targets]
            said = f"{some(world.targets)}; {len(world.neighbours)} neighbours, to stay untouched"
            said += f"; EC2 does not know {some(gone)}" if gone else ""
        elif named:
            said = f"EC2 knows no instance {some(named)}"
        else:
            said = "the finding names no instance"
        self.story.tell(said, "Scene")

    def send(self):
        """Put the finding on the bus, wait until all is over, and tell it in the order of time;
        what is missing."""
        self.cloud.call_log.clear()
        ended = []
        self.cloud.functions.subscribe(lambda one: ended.append((self.since(), one)))
        self.begin, self.began_at = time.monotonic(), datetime.now(UTC)
        self.story.line()
        self.story.tell("the finding is on the event bus", seconds(0))
        if self.new:
            self.detail |= dict.fromkeys(("createdAt", "updatedAt"), self.began_at.isoformat())
        self.cloud.put_event(self.event)
        self.cloud.wait_idle()
        missing = self.wait_for_mails()
        happened = [
            *calls(list(self.cloud.calls), self.begin, self.story.verbose),
            *functions(ended, self.began_at, self.story.verbose),
        ]
        happened += [(mail.arrived - self.begin, mail) for mail in self.sink.mails]
        for since, *line in sorted(happened, key=lambda one: one[0]):
            if isinstance(line[0], Mail):
                self.tell_mail(line[0], seconds(since))
            else:
                self.story.tell(line[0], seconds(since), *line[1:])
        self.story.line()
        return missing

    def since(self):
        return time.monotonic() - self.begin

    def wait_for_mails(self):
        """Wait until each message that SNS took has become a mail; what is missing."""
        published = [c for c in self.cloud.calls if c.operation == "Publish" and not c.error_code]
        return self.wait_for(len(published))

    def wait_for(self, number):
        try:
            self.sink.wait_for(number, timeout=20)
        except TimeoutError as error:
            return [str(error)]
        return []

    def tell_mail(self, mail, label=""):
        self.story.tell(f"MAIL to {', '.join(mail.recipients)}", label, "green")
        self.story.tell(mail.subject, style="green")

    def tell_groups(self, after):
        """The groups of each instance, before and after; of many alike some."""
        rows = collections.defaultdict(list)
        for instance_id in self.before:
            change = groups(self.before[instance_id]), groups(after.get(instance_id))
            rows[change].append(instance_id)
        label = "Groups"
        for (was, now), alike in rows.items():
            said = f"{was}, as before" if was == now else f"{was} -> {now}"
            for instance_id in alike[:SHOWN]:
                whose = "" if instance_id in self.world.targets else " (a neighbour)"
                style = "" if was == now else "bold"
                self.story.tell(said + whose, label, style, f"{instance_id}  ")
                label = ""
            if len(alike) > SHOWN:
                self.story.tell(f"and {len(alike) - SHOWN} more: {said}")

    def tell_read_back(self, after, verdict):
        if not verdict.isolated:
            return
        number = sum(len(after[instance]["interfaces"]) for instance in verdict.isolated)
        of = f"{len(verdict.isolated)} instances: " if len(verdict.isolated) > 1 else ""
        self.story.tell(
            f"{of}{number} of {number} interfaces hold only {FORENSIC}, which has no rule: seen by "
            f"the function at {verdict.read_back[11:19]} UTC, and again now",
            "Read back",
            "green",
        )

    def command(self, *arguments):
        """A command of make's; RuntimeError with what it said where it fails."""
        done = deploy.deployment(self.cloud, arguments, self.account, self.region)
        if done.returncode:
            raise RuntimeError(f"{arguments[0]}: exit {done.returncode}: {done.stdout[-1500:]}")
        return done.stdout

    def isolate_by_hand(self, instance_id):
        """Run the command that the mail asks about, as a person would; what went wrong."""
        world, several = self.world, len(self.world.targets) > 1
        finding, place = self.detail["id"], f"REGION={self.region}"
        said = f"make isolate INSTANCE={'$i' if several else instance_id} {place}"
        command = f"{said} FINDING={finding}"
        self.story.tell(
            f"A person decides: {command}" + (f", i={instance_id} first" if several else ""),
            "By hand",
            "bold",
        )
        where = [mail.text if several else mail.subject for mail in self.sink.mails]
        if not any(command in " ".join(text.split()) for text in where):
            return [f"no mail has the command {command}"]
        policy = "policies/ec2-isolate-by-hand.yml"
        said = "--region", self.region, "--instance", instance_id, "--finding", finding
        problems = self.by_hand("isolate", policy, *said)
        self.tell_groups(world.snapshot())
        if not world.is_isolated(instance_id, FORENSIC):
            problems.append(f"{instance_id} is not isolated")
        return problems

    def release(self, instances):
        """Release each instance as `make release` does, and compare all with what it was; what went
        wrong. Of the second and later ones only that it was."""
        problems = []
        for instance_id in instances:
            command = f"make release INSTANCE={instance_id} REGION={self.region}"
            self.story.tell(command, "Release", "bold")
            said = "--region", self.region, "--instance", instance_id
            quiet = instance_id != instances[0]
            problems += self.by_hand("release", "policies/ec2-release.yml", *said, quiet=quiet)
        problems += self.different("after the release is not as it was: ")
        if not problems:
            self.story.tell(f"everything as before: {', '.join(self.everything)}", style="green")
        return problems

    def different(self, said):
        """What is not as it was before the finding, as a problem with these words before it."""
        now = describe_everything(self.world)
        names = [name for name in self.everything if self.everything[name] != now[name]]
        return [said + ", ".join(names)] if names else []

    def by_hand(self, *arguments, quiet=False):
        """A command that a person responds with: what it did with each step, in some lines, and its
        mail; what went wrong."""
        mails = len(self.sink.mails)
        try:
            said = self.command(*arguments)
        except RuntimeError as error:
            return [str(error)]
        steps = collections.defaultdict(list)
        for found in BY_HAND.finditer(said):
            steps[found["status"].strip()].append(found["step"])
        # one that has nothing to mail tells nobody
        missing = self.wait_for(mails + bool({"notify-release", "notify-once"} & {*steps["done"]}))
        if self.story.verbose:
            for line in re.sub(r"\n {13}", " ", said).splitlines():
                self.story.tell(line)
        elif not quiet:
            for nothing in ("no change", "skipped"):
                steps.pop(nothing, None)
            of_each = (f"{status}: {', '.join(names)}" for status, names in steps.items())
            self.story.tell("; ".join(of_each))
        if not quiet:
            for mail in self.sink.mails[mails:]:
                self.tell_mail(mail)
        return missing

    def verify_case(self, instance_id):
        """Prove the case record as `make verify-case` does; what went wrong."""
        command = f"make verify-case INSTANCE={instance_id} REGION={self.region}"
        self.story.tell(command, "Case", "bold")
        try:
            said = self.command("verify-case", "--region", self.region, "--instance", instance_id)
        except RuntimeError as error:
            return [f"the case record is not proven: {error}"]
        for line in said.splitlines() if self.story.verbose else said.splitlines()[:1]:
            self.story.tell(line, style="green")
        return []

    def save(self, output, after):
        """Write what a reader may want to look at later; see `Ending`: (page, acted)."""
        output.mkdir(parents=True, exist_ok=True)
        for name, document in zip(SAVED, (self.event, self.before, after), strict=False):
            (output / name).write_text(json.dumps(document, indent=2, default=str) + "\n")
        logs = [f"## {i.function_name}, try {i.attempt}\n{i.log}" for i in self.cloud.invocations]
        (output / SAVED[-1]).write_text("\n".join(logs))
        pages = [path for path in self.sink.save(output) if path.suffix == ".html"]
        told = ["GuardDuty Remediation |" in mail.subject for mail in self.sink.mails]
        return (pages[told.index(True)] if any(told) else next(iter(pages), None)), any(told)


def groups(instance):
    """The names of an instance's groups, of each interface that has others."""
    names = [
        ", ".join(g["name"] for g in i["groups"]) for i in (instance or {}).get("interfaces", ())
    ]
    return " | ".join(dict.fromkeys(names)) or "no interface"


def clear(output):
    """Remove what an earlier demo has saved there, and nothing else."""
    for folder in (output, *output.glob("[0-9]*-*/")):
        for pattern in (*SAVED, "[0-9]*.eml", "[0-9]*.html"):
            for old in folder.glob(pattern):
                old.unlink()
        if folder != output and not any(folder.iterdir()):
            folder.rmdir()
