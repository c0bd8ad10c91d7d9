"""Seal what is on record at the end of a response; verify it before a release, and close it after.

What a seal is, and what remains without one: custom_actions/seal.py.
"""

from functools import partial
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record, seal
from custom_actions.instance import OfInstance, attached_interfaces, describe_instance
from custom_actions.record import tags_of
from custom_actions.registry import register
from custom_actions.response import (
    OUTCOMES,
    Change,
    LookAgain,
    NothingToDo,
    ResponseAction,
    Revert,
    Step,
)


class View(NamedTuple):
    words: dict  # {part: words on record}
    seals: dict  # {group id: seal}

    @property
    def code(self):
        return seal.code(self.words)

    @property
    def parts(self):
        """The parts that have something on record."""
        return [part for part in seal.PARTS if self.words[part]]

    def shown(self, parts):
        """What a part says, for a person; any of it may be an intruder's."""
        return "; ".join(f"{part} {' '.join(sorted(self.words[part]))}" for part in parts)


class OfRecord(OfInstance):
    """What sealing and closing share: what is on record of one instance, and its seals."""

    when_terminated = None

    def look_at(self, run, instance):
        interfaces = attached_interfaces(self.client(), instance)
        return View(seal.words_on_record(run.tags, interfaces), self.seals(run, instance))

    def seals(self, run, instance):
        return seal.find(self.client(), self.resource_id(run))


class SealRecord(OfRecord, Step):
    """Seals the record of a response, so that a release puts back nothing that others wrote.

    Digests of what the steps before it have recorded go onto the forensic groups that the
    instance's interfaces are in, where the instance's own tags are not. Put it behind the last step
    that records and before the mail, which then has the word (`record` of the outcome) that a
    release can be given to compare with.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-seal
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - preserve-evidence
              - seal-record
              - fail-unless-complete

    No arguments. The first seal of an incident takes what is there. From then on a part that is not
    what was sealed, and was not recorded by this very run, is not sealed again: the step fails and
    names it, and a release asks. Another response that has recorded and not yet sealed is waited
    for. What could not be recorded is noted in the seal, so that the release can say so.

    IAM: ec2:CreateTags on security groups with the tag forensic:group=true.

    Limits: see custom_actions/seal.py. A forensic group holds the seals of 48 instances; then the
    seals of terminated instances make room, and when there is none the step is `skipped`: a release
    of the instance asks, and no guard keeps it.
    """

    schema = type_schema("seal-record")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:CreateTags",
    )

    def seals(self, run, instance):
        held = {
            group["GroupId"]
            for interface in instance.get("NetworkInterfaces") or ()
            for group in interface["Groups"]
        }
        found = seal.find(self.client(), self.resource_id(run), held) if held else {}
        if not found:
            raise NothingToDo("The instance is in no forensic group to seal on.", "skipped")
        return found

    def changes(self, run):
        for group_id, present in run.view.seals.items():
            wanted = self.wanted(run, present)
            broken = [part for part in seal.PARTS if not self.may_seal(run, present, part)]
            yield Change(
                f"the seal on {group_id}",
                holds=present == wanted and not broken,
                make=partial(self.seal, run, group_id, wanted, broken),
                fact="the seal",
                end="sealed",
                unseen=seal.Broken(
                    f"{run.view.shown(broken)}: not what was sealed, and not of this run. Somebody "
                    "changed the tags; a release will ask"
                ),
            )

    def seal(self, run, group_id, wanted, broken):
        if broken:
            raise LookAgain  # perhaps another response is about to seal what it has recorded
        seal.write(self.client(), group_id, self.resource_id(run), wanted)

    def may_seal(self, run, present, part):
        """Whether a part is sealed, recorded by this run, or of an incident not yet sealed."""
        if part == seal.GROUPS and run.resource.get(record.DOUBTFUL):
            return False
        own = seal.recorded_by(run.resource).get(part, ())
        first = part not in present
        return first or seal.is_sealed(present, part, run.view.words[part], own)

    def wanted(self, run, present):
        digests = {part: seal.digest(run.view.words[part]) for part in seal.PARTS}
        unrecorded = {seal.part_of(key) for key in run.resource.get(record.UNRECORDED, ())}
        unrecorded |= set(seal.unrecorded(present))
        noted = {seal.UNRECORDED: ",".join(sorted(unrecorded))} if unrecorded else {}
        claimed = {k: v for k, v in present.items() if k in (seal.BEGUN, seal.BY)}
        return claimed | digests | noted

    def plan(self, run):
        return f"Would seal the record on {', '.join(run.view.seals)}."

    def tell(self, run):
        if not all(change.holds for change in run.changes):
            return "The record is not sealed: a release will ask before it puts anything back."
        return (
            f"The record is sealed on {', '.join(run.view.seals)}. A release with "
            f"RECORD={run.view.code} puts back this record and no other."
        )

    def more(self, run):
        return {"record": run.view.code}


class VerifyRecord(ResponseAction):
    """Shows what a release would put back, and lets it begin when that is what was sealed.

    The record stands in tags that an intruder may have written: a group that was never there, a
    target group of somebody else. When a part of it is not what the seal says, nothing is put back,
    and the error has the word by which a person who has compared it with the mail confirms exactly
    this record. Between this action and the reverts nothing else is believed either.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-verify-and-release
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - type: verify-record
                record: k5xw6vlmnb2hq7da
              - release-instance
              - fail-unless-complete

    Arguments: `record` (default none), the word of the record that a person confirms.

    The outcome has `record`, `would_put_back`, `unrecorded` (what the response changed and could
    not record) and `passed`. It changes nothing, and needs no more than the right to read.
    """

    schema = type_schema("verify-record", record={"type": "string"})
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
    )
    gate = True

    def respond(self, resource, event):
        client, instance_id = self.client(), resource["InstanceId"]
        instance = describe_instance(client, instance_id)
        interfaces = attached_interfaces(client, instance)
        words = seal.words_on_record(tags_of(instance), interfaces)
        view = View(words, seal.find(client, instance_id))
        unrecorded = sorted({p for s in view.seals.values() for p in seal.unrecorded(s)})
        about = {
            "record": view.code,
            "would_put_back": view.shown(view.parts),
            "unrecorded": unrecorded,
        }
        confirmed = self.data.get("record")
        broken = [part for part in view.parts if not is_sealed(view, part)]
        if confirmed and confirmed != view.code:
            error = f"it is not the one that RECORD={confirmed} stands for"
        elif broken and not confirmed:
            error = (
                f"{', '.join(broken)}: not what this pack has sealed, or never sealed. It may be "
                "an intruder's: compare it with the mail of the isolation"
            )
        else:
            resource[record.VERIFIED] = {
                **{key: words[seal.part_of(key)] for key in seal.SEALED_KEYS},
                record.DENY: words[seal.DENIES],
                record.ORIGINAL_GROUPS: seal.groups_on_record(interfaces),
            }
            told = f"On record: {view.shown(view.parts) or 'nothing'}."
            if confirmed:
                told += " A person has confirmed it."
            if unrecorded:
                told += (
                    f" Changed, but never recorded: {', '.join(unrecorded)}. Look into the mail of "
                    "the isolation, and put that back by hand."
                )
            return self.outcome("unchanged", told, **about)
        shown = (
            f"On record: {view.shown(view.parts) or 'nothing'}. If that is right: make release "
            f"INSTANCE={instance_id} REGION={self.manager.config.region} RECORD={view.code}"
        )
        return self.outcome(
            "failed",
            "Nothing was changed.",
            error=f"the record: {error}. {shown}",
            facts=[f"broken:{part}" for part in broken],
            **about,
        )


def is_sealed(view, part):
    return any(seal.is_sealed(s, part, view.words[part]) for s in view.seals.values())


class CloseRecord(OfRecord, Revert):
    """Removes the seal at the end of a release, when nothing is on record any more.

    What a response recorded while the release was on its way is named, and the release can be run
    again. Put it behind the last revert.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-release-and-close
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - verify-record
              - release-instance
              - close-record
              - fail-unless-complete

    No arguments. IAM: ec2:DeleteTags on security groups.
    """

    schema = type_schema("close-record")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DeleteTags",
    )

    def look_at(self, run, instance):
        view = super().look_at(run, instance)
        if view.parts and any(o["status"] == "failed" for o in run.resource.get(OUTCOMES, ())):
            raise NothingToDo("The rest is still on record, so that the release can be run again.")
        if run.view is None and not view.parts and not view.seals:
            raise NothingToDo("There is no seal to remove.")
        return view

    def changes(self, run):
        view = run.view
        yield Change(
            "the record",
            holds=not view.parts,
            make=look_again,  # EC2 may go on showing tags for a moment
            unseen=PolicyExecutionError(
                f"{view.shown(view.parts)}: recorded while the release was on its way. Run it again"
            ),
        )
        if view.seals and not view.parts:
            yield Change(
                "the seal",
                make=partial(seal.remove, self.client(), view.seals, [self.resource_id(run)]),
            )

    def forget(self, run):
        """The seal was all."""

    def plan(self, run):
        return "Would remove the seal."

    def tell(self, run):
        if run.problems:
            return "The record could not be closed."
        return "Nothing is on record any more, and the seal is gone."


def look_again():
    raise LookAgain


register("seal-record", SealRecord, "ec2")
register("verify-record", VerifyRecord, "ec2")
register("close-record", CloseRecord, "ec2")
