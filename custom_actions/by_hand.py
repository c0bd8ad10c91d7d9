"""A person says what is to be responded to, where otherwise a rule of EventBridge does."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from c7n.exceptions import ClientError, PolicyExecutionError, PolicyValidationError
from c7n.filters import Filter
from c7n.utils import type_schema

from custom_actions import builtin, clients, guardduty, record
from custom_actions.finding import (
    GUARDDUTY_ID,
    finding_id,
    finding_type,
    is_sample,
    mapping,
    named_instances,
    role_session,
    user_key,
)
from custom_actions.finding_file import NotAFinding, account_and_region, as_event, read_finding
from custom_actions.record import tags_of
from custom_actions.registry import register
from custom_actions.response import describe

# The name of an incident that began without a finding; it is no id that GuardDuty would give.
OWN_ID = re.compile(r"by-hand-\d{8}T\d{6}Z")


class ByHand(Filter):
    """Passes the resource that the finding which a person names is about, and hands its event on.

    The steps of a policy without a mode get it as they would from GuardDuty. When the finding is
    not about the resource that the person names it raises, before anything is changed. Who ran the
    policy (sts:GetCallerIdentity) goes into the mails. Put it last among the filters.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-one
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
              - type: by-hand
                finding: 1ab2c3d4e5f60718293a4b5c6d7e8f90
            actions:
              - isolate-instance
              - fail-unless-complete

    Arguments: `finding`, one of

    - empty (the default; of an instance alone): a response without a finding. It is named
      `by-hand-<time>`, and has no addresses to deny.
    - the id of a finding, 32 hexadecimal digits: GuardDuty of the account and region is asked for
      it. An archived one, or one of any type, will do: a person says so.
    - the path of a file with an event as EventBridge delivers it, or a finding as
      `aws guardduty get-findings` prints it. It is believed.
    - the name of an earlier response without a finding that was not complete, to go on with it.

    `exempt-tag` (default forensic:exempt): an instance with it is refused.

    Raises PolicyExecutionError for a finding that GuardDuty does not have, is a sample or
    malformed, or is about another instance, account or region. Of an `account` the finding has to
    be about a session of a role. Of `iam-user` it has to be about a user, and only that one passes.

    IAM: sts:GetCallerIdentity, and for an id guardduty:ListDetectors and guardduty:GetFindings.

    Limits: what GuardDuty answers for an id that it does not have is not documented; no finding and
    a refusal are both told.

    Sources: https://docs.aws.amazon.com/guardduty/latest/APIReference/API_GetFindings.html
    """

    schema = type_schema(
        "by-hand",
        **{
            "finding": {"type": "string"},
            "exempt-tag": {"type": "string", "minLength": 1, "maxLength": 128},
        },
    )
    schema_alias = False
    permissions = ("sts:GetCallerIdentity", "guardduty:ListDetectors", "guardduty:GetFindings")

    def validate(self):
        mode = mapping(self.manager.data, "mode").get("type", "pull")
        if mode != "pull":
            raise PolicyValidationError(
                f"policy:{self.manager.data.get('name')} filter:{self.type} is for a policy that a "
                f"person runs; the mode is {mode}, which brings an event of its own"
            )
        return self

    def process(self, resources, event=None):
        builtin.hold(self.manager)
        named = self.data.get("finding", "")
        chosen = getattr(self, f"choose_{self.manager.type.replace('-', '_')}")(resources, named)
        if chosen:
            who = self.client("sts").get_caller_identity()["Arn"]
        return [r | {record.BY_HAND: {"who": who, "event": e}} for r, e in chosen]

    def choose_ec2(self, instances, named):
        return [(instance, self.event_of_instance(instance, named)) for instance in instances]

    def choose_account(self, accounts, named):
        event = self.finding(named)
        role_session(event, self.manager.config.account_id)
        return [(account, event) for account in accounts]

    def choose_iam_user(self, users, named):
        event = self.finding(named)
        name = user_key(event, self.manager.config.account_id).user_name
        return [(user, event) for user in users if user["UserName"] == name]

    def event_of_instance(self, instance, named):
        instance_id, tags = instance["InstanceId"], tags_of(instance)
        exempt = self.data.get("exempt-tag", record.EXEMPT)
        if exempt in tags:
            raise self.refusal(
                f"{instance_id} has the exemption tag {record.told(exempt, tags)}: ask who set it. "
                f"To isolate it all the same remove the tag: aws ec2 delete-tags --region "
                f"{self.manager.config.region} --resources {instance_id} --tags Key={exempt}"
            )
        if not named:
            return self.own_event(instance_id, f"by-hand-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        if OWN_ID.fullmatch(named):
            return self.own_event(instance_id, named)
        event = self.finding(named)
        about = [named.instance_id for named in named_instances(event)]
        if instance_id not in about:
            said = ", ".join(f"{one!r:.99}" for one in about[:10]) or "no instance"
            raise self.refusal(f"finding {finding_id(event)} is about {said}, not {instance_id}")
        return event

    def own_event(self, instance_id, name):
        """The event of a response without a finding, in the shape of one with it."""
        account, region = self.manager.config.account_id, self.manager.config.region
        return {
            "version": "0",
            "id": name,
            "detail-type": "Response by hand",
            "source": "custom_actions",
            "account": account,
            "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "region": region,
            "resources": [],
            "detail": {
                "id": name,
                "accountId": account,
                "region": region,
                "resource": {
                    "resourceType": "Instance",
                    "instanceDetails": {"instanceId": instance_id},
                },
            },
        }

    def finding(self, named):
        """The event of the finding that a person names. Raises PolicyExecutionError."""
        if not named:
            raise self.refusal("no finding is named. Say FINDING=")
        try:
            if GUARDDUTY_ID.fullmatch(named):
                event = as_event(self.from_guardduty(named))
            elif Path(named).is_file():
                event = read_finding(named)
            else:
                raise self.refusal(
                    f"{named!r} is neither the id of a finding (32 hexadecimal digits) nor a file"
                )
        except NotAFinding as error:
            raise self.refusal(str(error)) from error
        name = finding_id(event)
        here = self.manager.config.account_id, self.manager.config.region
        if is_sample(event):
            raise self.refusal(f"finding {name} is a sample: nothing happened")
        if not finding_type(event):
            raise self.refusal(f"finding {name} has no type")
        if account_and_region(event) != here:
            raise self.refusal(
                f"finding {name} is of {' '.join(map(str, account_and_region(event)))}; this is "
                f"{' '.join(here)}"
            )
        return event

    def from_guardduty(self, name):
        """The finding as GuardDuty's API has it."""
        where = f"of account {self.manager.config.account_id} in {self.manager.config.region}"
        try:
            found = guardduty.find(self.client("guardduty"), name)
        except ClientError as error:
            raise self.refusal(f"GuardDuty {where}, asked for {name}: {describe(error)}") from error
        if found is None:
            raise self.refusal(f"GuardDuty {where} has no finding {name}, or is not on")
        return json.loads(json.dumps(found[1], default=str))  # without Python's times

    def client(self, service):
        return clients.client(self.manager.session_factory, service)

    def refusal(self, reason):
        return PolicyExecutionError(
            f"policy:{self.manager.data.get('name')} {reason}. Nothing was changed"
        )


register("by-hand", ByHand, "ec2", "account", "iam-user")
