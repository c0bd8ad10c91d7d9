"""The remediation mail: what it says first, and that it is sent once."""

import hashlib
import json

from c7n.actions import Notify
from c7n.resources.ec2 import EC2
from c7n.utils import type_schema

from custom_actions.record import NOTIFIED
from custom_actions.response import OUTCOMES, ResponseAction, retry, tags_of

NOTICE = "c7n:notice"

# The only type whose sentence is given; it reads as the e-mail of the scenario.
THREAT_LIST = "UnauthorizedAccess:EC2/MaliciousIPCaller.Custom"
FOLLOW_UP = "Please follow up with any additional remediation actions."
LONGEST = 900  # characters; a mail server may cut, or refuse, a header line of 998 and more


def headline(finding, instance_id, outcomes):
    """The first line and the subject of the remediation mail, as plain text on one line.

    `finding` is the event's `detail`. The line says "isolated" only when the outcome of
    `isolate-instance` does, that is after the read-back.
    """
    kind, name = finding.get("type"), f"EC2 instance (Instance ID: {instance_id})"
    if kind == THREAT_LIST:
        discovered = (
            f"GuardDuty discovered an {name} that is communicating outbound with an IP Address "
            "on a threat list that you uploaded."
        )
    else:
        discovered = f"GuardDuty discovered an {name}: {_one_line(finding.get('title'), 300)}"
    isolation = next((o for o in outcomes if "isolated" in o), {})
    failures = [o for o in outcomes if o["status"] == "failed"]
    errors = _one_line("; ".join(f"{o['step']}: {o['error']}" for o in failures), 400)
    if isolation.get("status") == "planned":
        result = f"Nothing was changed. {isolation['detail']}"
    elif isolation.get("isolated"):
        result = (
            f"All security groups have been removed and it has been isolated. {FOLLOW_UP}"
            if not failures
            else "All security groups have been removed and it has been isolated, "
            f"but the response is NOT COMPLETE: {errors}"
        )
    else:
        result = f"It was NOT isolated. {errors or isolation.get('detail', '')}"
    line = f"GuardDuty Remediation | ID: {_one_line(finding.get('id'), 64)}: {discovered} {result}"
    if isolation.get("status") == "planned":
        line = f"OBSERVE ONLY | {line}"
    return _one_line(line, LONGEST)


def _one_line(text, longest):
    """Text from a finding or an error, fit for a header: no line break, no control character."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text or "")).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def digest(outcomes):
    """What two responses share that came to the same end; done and unchanged are the same end."""
    ends = [
        [o["step"], "ok" if o["status"] in ("done", "unchanged") else o["status"], o["facts"]]
        for o in outcomes
    ]
    return hashlib.sha256(json.dumps(ends).encode()).hexdigest()[:32]


@EC2.action_registry.register("notify-once")
class NotifyOnce(ResponseAction, Notify):
    """Custodian's `notify`, sent once for each outcome of the response.

    GuardDuty sends an updated finding again and again, EventBridge delivers at least once and
    Lambda tries a failed function twice more. This action mails when the outcome of the steps
    before it is not the one that was mailed last, which is recorded on the instance
    (`forensic:notified`) after SNS has accepted the message. So a function that dies, or that SNS
    refuses, mails when it is tried again; one that fails in the same way again does not.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-tell
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - type: notify-once
                template: remediation.html
                to: [resource-owner, account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments: those of `notify` but `subject`: the subject is the headline, which is also in
    `event["c7n:notice"]` for the template, with `isolated` and `observe_only`.

    Limits: where nothing may be written to the instance (exempt, terminated, dry run) each
    delivery of the finding is mailed. A function that dies between SNS's acceptance and the tag
    mails again, and so do two invocations at the same moment. The mail about a failure is sent
    again when the tag itself is refused. Needs iam:ListAccountAliases, as `notify` does.

    Source: c7n.actions.notify.Notify.
    """

    schema = type_schema(
        "notify-once",
        required=["to", "transport", "template"],
        **{
            key: Notify.schema["properties"][key]
            for key in ("to", "cc", "owner_absent_contact", "from", "template", "assume_role")
        },
        transport={
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "topic"],
            "properties": {
                "type": {"enum": ["sns"]},
                "topic": {"type": "string"},
                "attributes": {"type": "object"},
            },
        },
    )
    permissions = ("sns:Publish", "iam:ListAccountAliases", "ec2:CreateTags")

    # A constant: text of a finding inside it would be run as a template by the mailer.
    SUBJECT = '{{ event["c7n:notice"].headline }}'

    def get_permissions(self):
        return self.permissions

    def respond(self, instance, event):
        outcomes = instance[OUTCOMES]
        current = digest(outcomes)
        if tags_of(instance).get(NOTIFIED) == current:
            return self.outcome("unchanged", "This outcome has been mailed before.")
        statuses = {o["status"] for o in outcomes}
        event[NOTICE] = {
            "headline": headline(event["detail"], instance["InstanceId"], outcomes),
            "isolated": any(o.get("isolated") for o in outcomes),
            "observe_only": "planned" in statuses,
        }
        Notify.process(self, [instance], event)
        if not statuses & {"exempt", "skipped", "planned"}:
            retry(
                self.client().create_tags,
                Resources=[instance["InstanceId"]],
                Tags=[{"Key": NOTIFIED, "Value": current}],
            )
        return self.outcome("done", "The message was accepted by SNS.")

    def expand_variables(self, message):
        return {**super().expand_variables(message), "subject": self.SUBJECT}
