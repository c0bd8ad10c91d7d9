"""What the functions did not deal with: the dead-letter queue of an account and region."""

import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from c7n.utils import generate_arn

from custom_actions import guardduty
from custom_actions.finding import named_instances
from custom_actions.finding_file import camel_case
from deployment import logs
from deployment.errors import Refused, reason
from deployment.everywhere import everywhere
from deployment.policies import function_name, policies
from deployment.targets import targeted
from mailer.errors import one_line

QUEUE, TOPIC = "guardduty-response-dlq", "guardduty-response"
PREFIX = "custodian-"
OLD = timedelta(days=1)
# Seconds for which a letter is held: longer than a function can run.
HOLD = 960
# Lambda tries for six hours, then sends it here.
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
TRIED = timedelta(hours=7)
# A function is waited for as long as it may run, and never invoked twice.
PATIENT = Config(read_timeout=HOLD, retries={"mode": "standard", "total_max_attempts": 1})
POLICY = re.compile(r"policy:([\w-]+) ")  # what the pack's own errors begin with


@dataclass
class Letter:
    """One message. event: None when it is none. function: that did not deal with it, or None."""

    id: str
    receipt: str
    sent: datetime
    event: dict | None
    function: str | None
    why: str

    @property
    def detail(self):
        detail = (self.event or {}).get("detail")
        return detail if isinstance(detail, dict) else {}

    @property
    def is_finding(self):
        return (self.event or {}).get("detail-type") == "GuardDuty Finding"

    @property
    def is_mail(self):
        """Whether it is a mail, as SNS has it, that did not get to the mail queue."""
        return (self.event or {}).get("Type") == "Notification"

    @property
    def about(self):
        """What it is about, as it says itself: nothing of it is to be believed."""
        named = [str(named.instance_id or "") for named in named_instances(self.event)]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        said = {
            "message": self.id,
            "function": self.function,
            "finding": self.detail.get("id") or self.detail.get("eventID"),
            "type": "a mail"
            if self.is_mail
            else self.detail.get("type") or self.detail.get("eventName"),
            "instance": ", ".join(named[:3]) + more,
            "account": self.detail.get("accountId") or (self.event or {}).get("account"),
            "happened": (self.event or {}).get("time"),
            "sent": self.sent.isoformat(timespec="seconds"),
            "why": self.why,
        }
        return {key: one_line(value or "-", 300) for key, value in said.items()}


@click.command()
@targeted
@click.option("--finding", help="the letters about this finding id alone")
@click.option("--replay", is_flag=True, help="invoke the functions again; what succeeds is deleted")
@click.option("--function", help="with --replay, for letters that do not say which it was")
@click.option("--aged", is_flag=True, help="with --replay, what is older than a day too")
@click.option("--drop", metavar="MESSAGE", help="delete the letter with this message id, undone")
@click.option("--json", "as_json", is_flag=True, help="for a machine")
def dlq(targets, finding, replay, function, aged, drop, as_json):
    """List what the functions did not deal with, or have them do it again.

    Each letter stays where it is, unless it was done. A replay waits for the function and shows
    what it answers. Only functions of this pack are invoked, whatever a letter says; and not with
    the finding of the letter, but with the one that GuardDuty has under its id: whoever may send to
    the queue could make one up. An API call, which the guards are about, is believed; they act by
    the seal alone. A mail that SNS could not put on the mail queue is published again.

    IAM: sqs:GetQueueUrl, sqs:ReceiveMessage, sqs:ChangeMessageVisibility, logs:FilterLogEvents;
    with --replay lambda:InvokeFunction, guardduty:ListDetectors, guardduty:GetFindings, sns:Publish
    as one of PublisherArns of infra/account.yml; with --replay or --drop sqs:DeleteMessage.
    """
    if (replay or drop) and len(targets) != 1:
        raise Refused("A replay, or to drop a letter, works in one account and region at a time.")
    if function and function not in functions():
        raise Refused(f"{function!r} is no function of this pack: {', '.join(functions())}.")
    if replay or drop:
        sys.exit(0 if deal_with(targets[0], finding, function, aged, drop) else 1)
    results = everywhere(listed, targets, finding, doing="Looking")
    failed = [result for result in results if result.error]
    rows = [
        {"place": str(result.target), "region": result.target.region} | about
        for result in results
        for about in result.answer or ()
    ]
    if as_json:
        errors = [{"place": str(r.target), "error": r.error} for r in failed]
        click.echo(json.dumps({"letters": rows, "failed": errors}, indent=2))
    else:
        for row in rows:
            click.echo(f"{row['place']}\n{tell(row)}\n")
        read = f"{len(results) - len(failed)} of {len(results)} accounts and regions"
        click.echo(f"{len(rows)} events that no function has dealt with, in {read}.")
        for result in failed:
            click.echo(f"not read: {result.target}: {result.error}", err=True)
    sys.exit(1 if failed else 0)


def functions():
    """The names of the functions of this pack."""
    return [function_name(policy) for policy in policies().values()]


def listed(target, finding):
    """What the letters of one account and region are about."""
    box = Box(target.session())
    letters = box.take()
    try:
        return [one.about for one in letters if not finding or one.about["finding"] == finding]
    finally:
        box.put_back(letters)


def tell(about):
    lines = [
        f"  {key:<9} {value}" for key, value in about.items() if key not in ("place", "region")
    ]
    return "\n".join(lines)


def deal_with(target, finding, function, aged, drop):
    """Replay or drop; returns whether nothing that was asked for is left."""
    box = Box(target.session())
    letters = box.take()
    chosen = [
        one
        for one in letters
        if (not drop or one.id == drop) and (not finding or one.about["finding"] == finding)
    ]
    left = list(letters)
    all_done = bool(chosen) or not drop
    if not chosen:
        click.echo("No such letter." if letters else f"{QUEUE} is empty.")
    try:
        for one in chosen:
            if drop:
                is_done, told = True, "dropped, undone"
            else:
                is_done, told = box.replay(one, function, aged)
            if is_done:
                box.delete(one)
                left.remove(one)
            all_done = all_done and is_done
            about = one.about
            name = f"{about['function']} finding {about['finding']} of {about['happened']}"
            click.echo(f"{'done' if is_done else 'KEPT'}: {name} (message {one.id}): {told}")
    finally:
        box.put_back(left)
    return all_done


class Box:
    """The dead-letter queue of a session's account and region."""

    def __init__(self, session):
        self.session = session
        self.sqs = session.client("sqs")
        self.url = self.sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]

    def take(self):
        """All letters, the oldest first; nobody else gets them until they are put back, or for
        HOLD seconds."""
        letters = []
        while True:
            got = self.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=10,
                # of all servers of SQS, not of some
                # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html
                WaitTimeSeconds=1,
                VisibilityTimeout=HOLD,
                MessageAttributeNames=["All"],
                AttributeNames=["SentTimestamp"],
            ).get("Messages", [])
            if not got:
                return sorted(letters, key=lambda one: one.sent)
            letters += map(self.read, got)

    def read(self, message):
        attributes = {
            name: str(value.get("StringValue", ""))
            for name, value in message.get("MessageAttributes", {}).items()
        }
        sent = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)
        try:
            event = json.loads(message["Body"])
        except ValueError:
            event = None
        code, said = (
            attributes.get(lambdas) or attributes.get(events, "")
            for lambdas, events in (("ErrorCode", "ERROR_CODE"), ("ErrorMessage", "ERROR_MESSAGE"))
        )
        return Letter(
            id=message["MessageId"],
            receipt=message["ReceiptHandle"],
            sent=sent,
            event=event if isinstance(event, dict) else None,
            function=self.function_of(attributes, sent),
            why=" ".join(filter(None, (code, said))),
        )

    def function_of(self, attributes, sent):
        """Which function did not deal with it. EventBridge names it. Lambda does not: it is the one
        whose policy the error names, or that has logged the request.

        https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
        https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
        """
        if "TARGET_ARN" in attributes:
            name = (attributes["TARGET_ARN"].split(":") + [""] * 7)[6]
            return name if name in functions() else None
        named = POLICY.match(attributes.get("ErrorMessage", ""))
        if named and PREFIX + named[1] in functions():
            return PREFIX + named[1]
        request = attributes.get("RequestID", "")
        if logs.WORD.fullmatch(request):
            for name in functions():
                if logs.lines(self.session, name, request, sent - TRIED):
                    return name
        return None

    def replay(self, letter, function, aged):
        """(whether it is done, what is to be said)."""
        if letter.is_mail:
            return self.publish_again(letter)
        name = letter.function or function
        if name is None:
            return False, "it does not say which function it was: FUNCTION=custodian-..."
        if letter.event is None:
            return False, f"no event. DROP={letter.id} deletes it"
        if datetime.now(UTC) - letter.sent > OLD and not aged:
            return False, "older than a day: look at the instance first, then AGED=1"
        try:
            self.hold(letter, HOLD)
            event, doubt = self.believed(letter)
            if doubt:
                return False, doubt
            answer = self.session.client("lambda", config=PATIENT).invoke(
                FunctionName=name, Payload=json.dumps(event)
            )
            result = json.loads(answer["Payload"].read() or "null")
        except (ClientError, BotoCoreError, ValueError) as error:
            return False, reason(error)
        if "FunctionError" in answer:
            said = result.get("errorMessage") if isinstance(result, dict) else result
            return False, f"failed again: {one_line(said)}"
        return self.judge(letter, result)

    def publish_again(self, letter):
        """A mail, to the topic of this account and region. Nothing in it is believed here: the
        mailer looks at what it says."""
        try:
            identity = self.session.client("sts").get_caller_identity()
            topic = generate_arn(
                "sns", TOPIC, account_id=identity["Account"], region=self.session.region_name
            )
            if letter.event.get("TopicArn") != topic:
                return False, f"not of {topic}. DROP={letter.id} deletes it"
            self.session.client("sns").publish(
                TopicArn=topic, Message=str(letter.event.get("Message"))
            )
        except (ClientError, BotoCoreError) as error:
            return False, reason(error)
        return True, "published again"

    def judge(self, letter, result):
        """What a function has answered (custom_actions/handler.py)."""
        answers = list(result.values()) if isinstance(result, dict) else [str(result)]
        nothing = [one_line(answer) for answer in answers if isinstance(answer, str)]
        if nothing:
            return False, f"{'; '.join(nothing)}. DROP={letter.id} deletes it"
        outcomes = [f"{one['step']} {one['status']}" for answer in answers for one in answer]
        return True, one_line(", ".join(outcomes) or "done")

    def believed(self, letter):
        """(the event to invoke with, why there is none). Of a finding, what GuardDuty has."""
        if not letter.is_finding:
            return letter.event, None
        finding = str(letter.detail.get("id"))
        found = guardduty.find(self.session.client("guardduty"), finding)
        if found is None:
            return None, (
                "GuardDuty of this account and region has no such finding: made up, or GuardDuty "
                f"was off since. DROP={letter.id} deletes it"
            )
        return letter.event | {"detail": camel_case(found[1])}, None

    def hold(self, letter, seconds):
        self.sqs.change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=letter.receipt, VisibilityTimeout=seconds
        )

    def delete(self, letter):
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=letter.receipt)

    def put_back(self, letters):
        """Visible to everybody again. What cannot be is so after HOLD seconds."""
        for letter in letters:
            try:
                self.hold(letter, 0)
            except (ClientError, BotoCoreError) as error:
                click.echo(f"message {letter.id} is back in {HOLD} s: {reason(error)}", err=True)
