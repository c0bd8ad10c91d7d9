"""Archive in GuardDuty the finding that an isolation began with, at the end of its release."""

from functools import partial

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import guardduty, record
from custom_actions.finding import GUARDDUTY_ID
from custom_actions.record import tags_of
from custom_actions.registry import register
from custom_actions.response import Change, NothingToDo, Step

MEMBER = (
    ". In a member account only the administrator account of GuardDuty may archive: have finding "
    "{} archived there. The release itself is not affected"
)


class ArchiveFinding(Step):
    """Archives the finding that an instance was isolated for, when a person asks for it.

    An active finding is sent again when GuardDuty sees it again; an archived one is not sent. The
    finding is the one of the tag `forensic:finding`, as it was when the release began. Whoever may
    tag the instance can write that, so only a finding is archived that GuardDuty says is about
    this instance.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-release-and-archive
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - release-instance
              - type: archive-finding
                archive: "1"
              - fail-unless-complete

    Arguments: `archive`, "1" to do it; anything else leaves the finding as it is. Put it behind the
    reverts: its failure is told, and keeps none of them from happening.

    IAM: guardduty:ListDetectors, guardduty:GetFindings, guardduty:ArchiveFindings.

    Limits: only the administrator account may archive; how AWS refuses a member is not documented,
    and any refusal is told with that. Only the first finding of the incident is on record.
    There is no revert: unarchive it in GuardDuty.

    Sources: https://docs.aws.amazon.com/guardduty/latest/APIReference/API_ArchiveFindings.html
    """

    schema = type_schema("archive-finding", archive={"type": "string"})
    permissions = (
        "guardduty:ListDetectors",
        "guardduty:GetFindings",
        "guardduty:ArchiveFindings",
    )

    def look(self, run):
        if self.data.get("archive") != "1":
            raise NothingToDo("Not asked for (ARCHIVE=1).", "skipped")
        name = tags_of(run.resource).get(record.FINDING)
        if name is None:
            raise NothingToDo("No finding is on record: there is none to archive.")
        if not GUARDDUTY_ID.fullmatch(name):
            raise NothingToDo(f"The isolation began with {name!r:.80}, no finding of GuardDuty.")
        found = guardduty.find(self.client("guardduty"), name)
        if found is None:
            raise PolicyExecutionError(f"GuardDuty has no finding {name} here: archive it by hand")
        detector, finding = found
        about = finding["Resource"].get("InstanceDetails", {}).get("InstanceId")
        if about != self.resource_id(run):
            raise PolicyExecutionError(
                f"finding {name} is about {about!r:.40}: the tag {record.FINDING} was changed. "
                "Nothing was archived"
            )
        return {"id": name, "detector": detector, "archived": finding["Service"].get("Archived")}

    def changes(self, run):
        yield Change(
            run.view["id"],
            holds=run.view["archived"] is True,
            make=partial(self.archive, run.view),
            end="archived",
            unseen=PolicyExecutionError("GuardDuty still shows it as active"),
        )

    def archive(self, view):
        try:
            self.client("guardduty").archive_findings(
                DetectorId=view["detector"], FindingIds=[view["id"]]
            )
        except ClientError as error:
            error.response["Error"]["Message"] += MEMBER.format(view["id"])
            raise

    def plan(self, run):
        return f"Would archive finding {run.view['id']}."

    def tell(self, run):
        return f"Finding {run.view['id']} is {'' if run.holding else 'not '}archived."


register("archive-finding", ArchiveFinding, "ec2")
