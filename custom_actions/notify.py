"""The remediation mail is sent once for each outcome."""

import hashlib
import json

from c7n.actions import Notify
from c7n.resources.ec2 import EC2
from c7n.utils import type_schema

from custom_actions.headline import NOTICE, SUBJECT, remediation_headline
from custom_actions.record import NOTIFIED
from custom_actions.response import OUTCOMES, ResponseAction, retry, tags_of


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

    def get_permissions(self):
        return self.permissions

    def left_alone(self, resource):
        return None  # that an instance is exempt is told as well

    def respond(self, instance, event):
        outcomes = instance[OUTCOMES]
        current = digest(outcomes)
        if tags_of(instance).get(NOTIFIED) == current:
            return self.outcome("unchanged", "This outcome has been mailed before.")
        statuses = {o["status"] for o in outcomes}
        event[NOTICE] = {
            "headline": remediation_headline(event["detail"], instance["InstanceId"], outcomes),
            "isolated": any(o.get("isolated") for o in outcomes),
            "observe_only": "planned" in statuses,
        }
        Notify.process(self, [instance], event)
        if not statuses <= {"exempt", "skipped", "planned"}:
            retry(
                self.client().create_tags,
                Resources=[instance["InstanceId"]],
                Tags=[{"Key": NOTIFIED, "Value": current}],
            )
        return self.outcome("done", "The message was accepted by SNS.")

    def expand_variables(self, message):
        return {**super().expand_variables(message), "subject": SUBJECT}
