"""Keep what the instance holds: settings that protect it from deletion, and one snapshot of its
volumes; and the way back of the settings.

`forensic:settings` holds one word for each setting that was changed, with the value it had
(`disableApiStop=False`, `vol-0abc1234def567890=delete`); `forensic:snapshots` holds the time of
the incident and the ids of its snapshots.
"""

from functools import partial
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.instance import OfInstance
from custom_actions.registry import register
from custom_actions.response import Change, Revert, Step


class Setting(NamedTuple):
    """An attribute of an instance with two values: the one that keeps evidence, and the other."""

    name: str
    attribute: str  # as DescribeInstanceAttribute spells it
    keep: object
    other: object

    @property
    def parameter(self):
        return self.attribute[0].upper() + self.attribute[1:]

    @property
    def word(self):
        return f"{self.attribute}={self.other}"


SETTINGS = (
    Setting("termination protection", "disableApiTermination", True, False),
    Setting("stop protection", "disableApiStop", True, False),
    Setting("shutdown behaviour stop", "instanceInitiatedShutdownBehavior", "stop", "terminate"),
)

NOT_SHOWN = PolicyExecutionError("EC2 does not show the new value, it may come later")


class Settings(OfInstance):
    """What the step and its revert share: reading and writing the settings of one instance."""

    def value(self, run, setting):
        answer = self.client().describe_instance_attribute(
            InstanceId=self.resource_id(run), Attribute=setting.attribute
        )
        return answer[setting.parameter]["Value"]

    def values(self, run, settings):
        """The present values, without those that cannot be read: {setting: value}."""
        found = {s: run.read(s.name, self.value, run, s) for s in settings}
        return {setting: value for setting, value in found.items() if value is not None}

    def write(self, run, setting, value):
        self.client().modify_instance_attribute(
            InstanceId=self.resource_id(run), **{setting.parameter: {"Value": value}}
        )

    def write_volume(self, run, device, delete):
        self.client().modify_instance_attribute(
            InstanceId=self.resource_id(run),
            BlockDeviceMappings=[{"DeviceName": device, "Ebs": {"DeleteOnTermination": delete}}],
        )


def volumes(instance):
    """The attached EBS volumes: {volume id: (device, whether it is deleted on termination)}."""
    return {
        mapping["Ebs"]["VolumeId"]: (mapping["DeviceName"], mapping["Ebs"]["DeleteOnTermination"])
        for mapping in instance.get("BlockDeviceMappings") or ()
        if "Ebs" in mapping
    }


class View(NamedTuple):
    instance: dict
    values: dict  # {Setting: value}
    volumes: dict
    incident: str  # when it began
    finding: str  # that began it
    recorded: list  # ids of the incident's snapshots in the record
    snapshots: list  # as DescribeSnapshots shows them

    @property
    def snapshot_tags(self):
        instance_id = self.instance["InstanceId"]
        return {
            "Name": f"forensic {instance_id} {self.finding}"[:255],
            record.FINDING: self.finding,
            record.ISOLATED_AT: self.incident,
            record.INSTANCE: instance_id,
        }

    @property
    def snapshot_ids(self):
        return sorted(s["SnapshotId"] for s in self.snapshots) or sorted(self.recorded)


class PreserveEvidence(Settings, Step):
    """Protects an isolated instance from deletion and takes one snapshot of all its volumes.

    Termination protection on, stop protection on, a shutdown from inside stops the instance
    instead of terminating it, and every attached EBS volume outlives the instance. What was set
    otherwise is recorded for `restore-settings`; what a person had protected before is not, and so
    stays protected after the release. Then one multi-volume snapshot: all volumes at one point in
    time, as after a power cut. It is made once for an incident, whatever updates of the finding
    follow, and is tagged with the finding, the instance, the time of the isolation and a name.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-preserve
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - preserve-evidence
              - fail-unless-complete

    No arguments. Put it behind `isolate-instance`, which says which incident it is; alone it goes
    by the instance's tags, and without them counts one incident a finding. A setting that cannot
    be read is not changed either, since what it was could not be recorded.

    The outcome has a list `snapshots` of {id, volume_id, device, state}. It is `failed` when one
    part is refused; the other parts are done all the same.

    A price: with stop protection nobody can stop the instance through the API until the release,
    or until somebody takes the protection off. Neither protection stops Auto Scaling from
    terminating an instance (see `leave-service`), AWS from stopping it for a scheduled event, or
    whoever may change these settings.

    Limits: Spot Instances refuse both protections, instances with an instance-store root volume
    refuse stop protection; each is reported as failed. An instance store cannot be snapshotted;
    that is said. A volume attached after the snapshots is kept on termination, and named as not
    in them. Snapshots are pending until EBS has copied them, which can take hours; a later update
    of the finding reports one that failed. Volumes encrypted with a customer managed key need a
    key policy that lets the role use the key through EC2 (kms:CreateGrant, kms:Decrypt,
    kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext, kms:ReEncrypt*), which the pack does not
    grant. Two invocations at the same moment can make two sets, and so can a CreateSnapshots
    whose answer is lost; CreateSnapshots has no idempotency token.

    IAM: ec2:CreateSnapshots on instances, volumes and snapshots; ec2:CreateTags on snapshots
    (ec2:CreateAction CreateSnapshots) and on instances; ec2:ModifyInstanceAttribute on instances
    and volumes.

    Sources: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html,
    API_ModifyInstanceAttribute.html and errors-overview.html there;
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-stop-protection.html; for Spot
    Instances https://github.com/cloud-custodian/cloud-custodian/issues/2083.
    """

    schema = type_schema("preserve-evidence")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceAttribute",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeSnapshots",
        "ec2:ModifyInstanceAttribute",
        "ec2:CreateSnapshots",
        "ec2:CreateTags",
    )
    nothing = {"snapshots": []}

    def look_at(self, run, instance):
        incident = record.incident(run.resource, run.tags, run.event)
        began, *ids = record.from_tags(run.tags, record.SNAPSHOTS) or ["", ""]
        view = View(
            instance,
            self.values(run, SETTINGS),
            volumes(instance),
            incident[record.ISOLATED_AT],
            incident[record.FINDING],
            ids if began == incident[record.ISOLATED_AT] else run.memory.get("recorded", []),
            [],
        )
        return view._replace(
            # Unseen ones are made all the same: a second set costs less than none, and the record
            # ends it there.
            snapshots=run.read("looking for snapshots", self.find, view, default=[])
        )

    def find(self, view):
        searched = (record.INSTANCE, record.FINDING, record.ISOLATED_AT)
        pages = (
            self.client()
            .get_paginator("describe_snapshots")
            .paginate(
                OwnerIds=["self"],
                Filters=[
                    {"Name": f"tag:{key}", "Values": [view.snapshot_tags[key]]} for key in searched
                ],
            )
        )
        return [snapshot for page in pages for snapshot in page["Snapshots"]]

    def changes(self, run):
        view = run.view
        for setting, value in view.values.items():
            yield Change(
                setting.name,
                holds=value == setting.keep,
                make=partial(self.write, run, setting, setting.keep),
                key=record.SETTINGS,
                words=(setting.word,) if value == setting.other else (),
                fact=setting.attribute,
                end="kept",
                unseen=NOT_SHOWN,
            )
        for volume, (device, deleted) in view.volumes.items():
            yield Change(
                volume,
                holds=not deleted,
                make=partial(self.write_volume, run, device, False),
                key=record.SETTINGS,
                words=(f"{volume}=delete",) if deleted else (),
                end="kept",
                unseen=NOT_SHOWN,
            )
        if view.volumes or view.snapshot_ids:
            made = set(run.memory.get("snapshots", ()))
            yield Change(
                "snapshots",
                # Those that a person deleted since are not made again.
                holds=bool(view.recorded) and {s["SnapshotId"] for s in view.snapshots} >= made,
                make=partial(self.snapshot, run),
                end=" ".join(view.snapshot_ids),
                unseen=PolicyExecutionError(f"EC2 does not show them yet: {', '.join(made)}"),
            )
        for snapshot in view.snapshots:
            if snapshot["State"] == "error":
                yield Change(
                    snapshot["SnapshotId"],
                    error=PolicyExecutionError(
                        f"EBS could not complete the snapshot of {snapshot['VolumeId']}"
                    ),
                )

    def snapshot(self, run):
        """Make the snapshots, unless a run that died made them, and record them."""
        view, ids, instance_id = run.view, run.view.snapshot_ids, self.resource_id(run)
        if not ids:
            made = self.client().create_snapshots(
                InstanceSpecification={
                    "InstanceId": instance_id,
                    "ExcludeBootVolume": False,
                },
                Description=f"{instance_id} isolated {view.incident} GuardDuty {view.finding}",
                TagSpecifications=[
                    {
                        "ResourceType": "snapshot",
                        "Tags": [{"Key": k, "Value": v} for k, v in view.snapshot_tags.items()],
                    }
                ],
            )["Snapshots"]
            ids = run.memory["snapshots"] = sorted(s["SnapshotId"] for s in made)
        # Before the read-back: these ids are all that a later run may have to go by.
        self.tag(run, record.as_tags(record.SNAPSHOTS, [view.incident, *ids]))
        run.memory["recorded"] = ids

    def conclude(self, run):
        run.memory["store"] = run.read(
            "whether there is an instance store", self.instance_store, run.view.instance, default=""
        )

    def instance_store(self, instance):
        """What is said of the instance store of the instance's type; "" when it has none."""
        name = instance["InstanceType"]
        found = self.client().describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
        size = found[0].get("InstanceStorageInfo", {}).get("TotalSizeInGB")
        if not size:
            return ""
        return (
            f" The instance store of {name} ({size} GB) cannot be snapshotted: what is on it is "
            "lost when the instance is stopped or terminated."
        )

    def plan(self, run):
        wrong = [s.name for s, value in run.view.values.items() if value != s.keep]
        deleted = [volume for volume, (_, deleted) in run.view.volumes.items() if deleted]
        return (
            f"Would set {', '.join(wrong) or 'nothing'}, keep {len(deleted)} of "
            f"{len(run.view.volumes)} volumes on termination that would be deleted now, and take "
            f"one snapshot of {len(run.view.volumes)} volumes."
        )

    def tell(self, run):
        view = run.view
        kept = [s.name for s, value in view.values.items() if value == s.keep]
        kept += [f"volume {v}" for v, (_, deleted) in view.volumes.items() if not deleted]
        if view.snapshots:
            rows = [f"{s['SnapshotId']} of {s['VolumeId']} ({s['State']})" for s in view.snapshots]
            told = f"Snapshots of one point in time: {', '.join(rows)}."
        elif view.snapshot_ids:
            told = f"The snapshots of this incident exist no more: {', '.join(view.snapshot_ids)}."
        elif view.volumes:
            told = "There is no snapshot."
        else:
            told = "The instance has no EBS volume, so there is nothing to snapshot."
        if missed := self.missed(view):
            told += f" Attached later and not in the snapshots: {', '.join(missed)}."
        store = run.memory.get("store", "")
        return f"Protected, as read back from EC2: {', '.join(kept) or 'nothing'}. {told}{store}"

    def missed(self, view):
        """The volumes that are in none of the snapshots, where there are any."""
        taken = {s["VolumeId"] for s in view.snapshots}
        return sorted(set(view.volumes) - taken) if taken else []

    def facts(self, run):
        return super().facts(run) + [f"{v}:not-in-snapshots" for v in self.missed(run.view)]

    def more(self, run):
        return {
            "snapshots": [
                {
                    "id": s["SnapshotId"],
                    "volume_id": s["VolumeId"],
                    "device": run.view.volumes.get(s["VolumeId"], (None,))[0],
                    "state": s["State"],
                }
                for s in run.view.snapshots
            ]
        }


class RestoreSettings(Settings, Revert):
    """Puts back the settings that `preserve-evidence` changed; its snapshots stay.

    Only what the record names is changed, so that an instance or a volume that a person had
    protected before stays protected. A volume that is no longer attached has no such setting; it is
    named. When EC2 refuses a change the record stays, so that this can be run again. The tags of
    the snapshots stay: `forensic:instance` and `forensic:finding` find them.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-restore-settings
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - restore-settings
              - fail-unless-complete

    No arguments. IAM: ec2:ModifyInstanceAttribute on instances and volumes, ec2:DeleteTags on
    instances.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
    """

    schema = type_schema("restore-settings")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceAttribute",
        "ec2:ModifyInstanceAttribute",
        "ec2:DeleteTags",
    )
    keys = (record.SETTINGS, record.SNAPSHOTS)
    unrecorded = "no settings are recorded."

    def look_at(self, run, instance):
        run.memory |= self.recorded(run)
        words = run.memory[record.SETTINGS]
        return self.values(run, [s for s in SETTINGS if s.word in words]), volumes(instance)

    def changes(self, run):
        values, attached = run.view
        for setting, value in values.items():
            yield Change(
                setting.name,
                holds=value == setting.other,
                make=partial(self.write, run, setting, setting.other),
                unseen=NOT_SHOWN,
            )
        for volume in self.recorded_volumes(run):
            if volume in attached:
                device, deleted = attached[volume]
                yield Change(
                    volume,
                    holds=deleted,
                    make=partial(self.write_volume, run, device, True),
                    unseen=NOT_SHOWN,
                )

    def recorded_volumes(self, run):
        words = run.memory[record.SETTINGS]
        return sorted(word.partition("=")[0] for word in words if word.endswith("=delete"))

    def plan(self, run):
        return f"Would put back: {' '.join(run.memory[record.SETTINGS]) or 'nothing'}."

    def tell(self, run):
        words, snapshots = (run.memory[key] for key in self.keys)
        detail = f"Back as before, as read back from EC2: {' '.join(words) or 'no setting'}."
        if run.problems:
            detail = "Not everything could be put back; the record is kept, this can be run again."
        if gone := [v for v in self.recorded_volumes(run) if v not in run.view[1]]:
            detail += f" No longer attached, nothing to put back: {', '.join(gone)}."
        if snapshots[1:]:
            detail += f" The snapshots stay: {', '.join(snapshots[1:])}."
        return detail


register("preserve-evidence", PreserveEvidence, "ec2")
register("restore-settings", RestoreSettings, "ec2")
