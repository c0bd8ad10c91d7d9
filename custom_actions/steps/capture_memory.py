"""Have a command of the user's capture the memory of an instance before it is isolated.

It is the one step that may stand before the isolation, and the only one that waits.
"""

import time
from functools import partial

from c7n.exceptions import ClientError
from c7n.utils import type_schema

from custom_actions import clients, deadline, judgement, record, seal, timeline
from custom_actions.record import BY_HAND, MEMORY, tags_of
from custom_actions.registry import register
from custom_actions.response import (
    Change,
    Impossible,
    NothingToDo,
    Run,
    Step,
    error_code,
)

DEADLINE, LONGEST = 60, 240  # seconds
POLL = 2

# Seconds of the function's time that stay for the isolation and what follows it, before the minute
# of the mail (custom_actions/deadline.py): with a time-out of 300 s no wait is longer than 120 s.
ROOM = 120

# Where `process` leaves what it has begun, for the outcome of each instance.
BEGUN = "c7n:memory"

# How a command of Systems Manager is, as GetCommandInvocation says it.
RUNNING = ("Pending", "InProgress", "Delayed", "Cancelling")
CAPTURED = "Success"

# Ours: what a mark says besides how the command ended.
SENT, UNFINISHED, UNMANAGED, LATE = "sent", "deadline", "unmanaged", "late"
WHY = {
    UNFINISHED: "the command was not over at the deadline, and goes on as far as the isolation "
    "lets it",
    UNMANAGED: "Systems Manager does not manage the instance, its agent does not answer, or the "
    "document is not for its platform",
    LATE: "the deadline was over before its command could be sent",
}
REFUSALS = ("InvalidInstanceId", "UnsupportedPlatformType")

MARKS = 3  # findings of which an instance has a mark; with them a tag is full


class CaptureMemory(Step):
    """Runs a command of Systems Manager that captures the memory, and waits for it, not for long.

    Put it before `isolate-instance`: afterwards nothing reaches the instance any more. Which
    command it is, you say: the pack brings none. At the deadline at the latest the isolation
    follows, whatever became of the command, which is then not cancelled: it may still finish a
    file on the instance, or an upload over a connection that the isolation does not cut.

    All instances of one finding get their command first, then all are waited for together: they
    delay the isolation by one deadline, not by one each. How long it was stands in the outcome and
    in the mail.

    Off by default.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-remember-and-isolate
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - type: capture-memory
                document: CaptureMemory
                parameters:
                  key: ["memory/<instance>/<finding>"]
                deadline: 60
              - isolate-instance
              - fail-unless-complete

    Arguments: `document`, the name of a document of the type Command (required). `parameters`, its
    parameters, each a list of texts, in which `<instance>` stands for the id of the instance and
    `<finding>` for that of the finding; nothing else of a finding gets there. `deadline`, seconds
    (default 60, at most 240; never more than leaves the function 120 s for the isolation and 60 s
    for the mail). `exempt-tag`, as of `isolate-instance`.

    Left out, and so not delayed: an instance that is exempt, not running, isolated already, or was
    released from this finding; one whose memory was captured for this finding, or could not be
    (`forensic:memory`). In observe and ask it is planned. The brake and the last healthy member are
    asked by `isolate-instance`, which comes later: memory may be captured of an instance that is
    then held back.

    The outcome has `delayed`, the seconds. It is `skipped`, with the reason, where no other try
    could do better: the instance is not managed by Systems Manager, the command failed, or was not
    over in time. It is `failed` where somebody has to mend something: the document does not
    exist, a call was refused or throttled. Neither keeps the isolation from happening, and after it
    no try captures anything.

    Price: for so long the intruder goes on, may notice it, and may take what he came for; the
    isolation is late even where nothing is captured. The agent and the document run on a machine
    that is his: what they bring is evidence of what he lets them see. A tool that is loaded changes
    memory and disk.

    IAM: ssm:SendCommand on that document and on instances, ssm:GetCommandInvocation,
    ec2:DescribeSecurityGroups, ec2:CreateTags; MemoryDocument of infra/account.yml.

    Limits: the instance needs the agent, a role for it and a way to Systems Manager. Whether what
    was captured is whole, only the document can say, by how it ends. Where an answer of SendCommand
    is lost, or the function dies in that moment, it is sent twice. Whoever may tag the forensic
    group can have it left out. Never run against AWS.

    There is no revert: what was captured stays where the document put it.

    Sources: https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetCommandInvocation.html
    https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html
    """

    schema = type_schema(
        "capture-memory",
        required=["document"],
        **{
            # as SendCommand takes it
            "document": {"type": "string", "pattern": r"^[a-zA-Z0-9_\-.:/]{3,128}$"},
            "parameters": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
            "deadline": {"type": "integer", "minimum": 1, "maximum": LONGEST},
            "exempt-tag": {"type": "string", "minLength": 1, "maxLength": 128},
        },
    )
    permissions = (
        "ssm:SendCommand",
        "ssm:GetCommandInvocation",
        "ec2:DescribeSecurityGroups",
        "ec2:CreateTags",
    )
    nothing = {"delayed": 0}

    def process(self, resources, event=None):
        try:
            with deadline.enforced():
                self.capture(resources, event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the isolation follows
            for resource in resources:
                resource[BEGUN] = error
        super().process(resources, event)
        for resource in resources:
            resource.pop(BEGUN, None)

    def capture(self, resources, event):
        """Send a command to each instance, then wait for all of them together."""
        begun = time.monotonic()
        end = begun + max(0, min(self.deadline, deadline.left() - ROOM))
        for resource in resources:
            if self.left_alone(resource) is None:
                known = event or resource.get(BY_HAND, {}).get("event")
                resource[BEGUN] = self.begin(Run(resource, known), end)
        runs = [r[BEGUN] for r in resources if isinstance(r.get(BEGUN), Run)]
        self.wait(runs, end)
        for run in runs:
            run.memory["delayed"] = round(time.monotonic() - begun)
            self.finish(run)

    def begin(self, run, end):
        """The run once its command was sent; what it raised instead, for `go`."""
        timeline.about(self.type, self.resource_id(run))
        try:
            run.view = self.look(run)
            run.see(self.changes(run, end))
            if not self.dryrun:
                for change in run.fresh:
                    self.make(run, change)
        except Exception as error:  # noqa: BLE001 - the other instances, and the isolation
            return error
        return run

    def go(self, run):
        """What `process` has done already, for all instances together."""
        begun = run.resource.pop(BEGUN)
        if isinstance(begun, Exception):
            raise begun
        vars(run).update(vars(begun))

    def look(self, run):
        """What became of the memory for this finding: a word, "" where nothing did yet."""
        run.tags = tags_of(run.resource)
        if self.data.get("exempt-tag", record.EXEMPT) in run.tags:
            raise NothingToDo("The instance is exempt.", "skipped")
        command, _, word = self.marks(run).get(self.about(run), "").partition(":")
        if word:
            run.memory["command"] = command
            return word
        state = (run.resource.get("State") or {}).get("Name")
        if state != "running":
            raise NothingToDo(f"The instance is {state}: it has no memory to capture.", "skipped")
        self.check_needed(run)
        return ""

    def check_needed(self, run):
        """Raise NothingToDo where the isolation that it would come before is over."""
        instance_id = self.resource_id(run)
        keys = [record.SEAL + instance_id, record.RELEASED + instance_id]
        groups = self.quick("ec2").describe_security_groups(
            Filters=[{"Name": "tag-key", "Values": keys}]
        )["SecurityGroups"]
        for group in groups:
            found, release = seal.read(group, instance_id), judgement.release_of(group, instance_id)
            if found and not seal.is_claim(found):
                raise NothingToDo("The instance is isolated already.", "skipped")
            if release and self.about(run) in release.findings:
                raise NothingToDo("The instance was released from this finding.", "skipped")

    def changes(self, run, end):
        yield Change(
            "the memory",
            holds=run.view == CAPTURED,
            excused=self.why(run.view) if run.view not in ("", SENT, CAPTURED) else None,
            make=partial(self.send, run, end) if run.view == "" else lambda: None,
            end="captured",
        )

    def send(self, run, end):
        if time.monotonic() >= end:
            run.memory["word"] = LATE
            raise Impossible(WHY[LATE])
        try:
            sent = self.quick("ssm").send_command(
                InstanceIds=[self.resource_id(run)],
                DocumentName=self.data["document"],
                Parameters=self.parameters(run),
                # What was not delivered until then never runs, not after a release either.
                TimeoutSeconds=max(30, self.deadline),
                Comment=f"GuardDuty response, finding {record.finding_tag(run.event)}"[:100],
            )
        except ClientError as error:
            if error_code(error) not in REFUSALS:
                raise
            run.memory["word"] = UNMANAGED
            raise Impossible(f"{WHY[UNMANAGED]} ({error_code(error)})") from error
        run.memory["command"] = sent["Command"]["CommandId"]
        self.mark(run, SENT)

    def wait(self, runs, end):
        """Until each command is over, or the deadline."""
        running = [run for run in runs if "command" in run.memory and run.view in ("", SENT)]
        while running := [run for run in running if not self.is_over(run)]:
            if time.monotonic() >= end:
                break
            time.sleep(POLL)

    def is_over(self, run):
        timeline.about(self.type, self.resource_id(run))
        answer = run.read(
            "the command",
            self.quick("ssm").get_command_invocation,
            CommandId=run.memory["command"],
            InstanceId=self.resource_id(run),
            default={},
        )
        error = run.unread.get("the command")
        if error is not None and error_code(error) == "InvocationDoesNotExist":
            del run.unread["the command"]  # not yet
        status = answer.get("Status", "")
        run.memory["word"] = UNFINISHED if not status or status in RUNNING else status
        return run.memory["word"] != UNFINISHED

    def finish(self, run):
        """Say what became of it, and mark it for the updates of the finding."""
        timeline.about(self.type, self.resource_id(run))
        (change,) = run.changes
        word = run.memory.get("word")
        if word is None:
            return
        change.holds = run.made = word == CAPTURED
        if not change.holds and not change.excused:
            change.excused = self.why(word)
        self.mark(run, word)

    def why(self, word):
        return WHY.get(word, f"the command ended as {word}")

    def mark(self, run, word):
        known = self.marks(run)
        known.pop(self.about(run), None)
        words = [f"{about}:{rest}" for about, rest in known.items()][1 - MARKS :]
        words.append(f"{self.about(run)}:{run.memory.get('command', '')}:{word}")
        told = "the mark of the memory could not be recorded"
        tags = record.as_tags(MEMORY, words)
        if run.attempt(
            told, self.quick("ec2").create_tags, Resources=[self.resource_id(run)], Tags=tags
        ):
            run.tags |= {tag["Key"]: tag["Value"] for tag in tags}

    def marks(self, run):
        return record.marks(run.tags, MEMORY)

    def about(self, run):
        return record.short_id(run.event) if run.event else "none"

    def parameters(self, run):
        known = {"<instance>": self.resource_id(run), "<finding>": record.finding_tag(run.event)}

        def filled(text):
            for placeholder, value in known.items():
                text = text.replace(placeholder, value)
            return text

        given = self.data.get("parameters", {})
        return {name: [filled(text) for text in texts] for name, texts in given.items()}

    def quick(self, service):
        """A client that does not go on trying: the isolation waits."""
        return clients.client(self.manager.session_factory, service, patient=False)

    @property
    def deadline(self):
        return self.data.get("deadline", DEADLINE)

    def plan(self, run):
        return (
            f"Would run {self.data['document']} by Systems Manager before the isolation, for "
            f"{self.deadline} s at most."
        )

    def tell(self, run):
        named = f" (command {run.memory['command']})" if run.memory.get("command") else ""
        is_captured = any(change.holds for change in run.changes)
        told = f"The memory was {'' if is_captured else 'NOT '}captured{named}."
        if run.view in ("", SENT):
            told += f" The isolation was delayed by {run.memory['delayed']} s."
        return told

    def more(self, run):
        return {"delayed": run.memory.get("delayed", 0) if run.view in ("", SENT) else 0}


register("capture-memory", CaptureMemory, "ec2")
