"""Keep what the instance holds: settings that protect it from deletion, and one snapshot of its
volumes, locked and tagged; and the way back of the settings.

`forensic:settings` holds one word for each setting that was changed, with the value it had
(`disableApiStop=False`, `vol-0abc1234def567890=delete`); `forensic:snapshots` holds the time of
the incident and the ids of its snapshots. Whoever may tag the instance can write there too: what
is recorded counts only where EC2 shows it, and words that are none are skipped and named.
"""

import re
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.instance import OfInstance
from custom_actions.registry import register
from custom_actions.response import (
    Change,
    ClientError,
    Impossible,
    LookAgain,
    Revert,
    Step,
    error_code,
)

VOLUME = re.compile(r"(vol-[0-9a-f]+)=delete")
SNAPSHOT_ID = re.compile(r"snap-[0-9a-f]+")

# How often snapshots on record are looked for, before new ones are made.
LOOKS = 4

# States of a lock that keeps a snapshot from deletion; an expired one does not.
LOCKED = ("governance", "compliance", "compliance-cooloff")

# AWS takes 36,500; the roles of infra/ allow as many as this.
MOST_DAYS = 3650


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

PROTECTIONS = SETTINGS[:2]
STOPPABLE = SETTINGS[1:]  # what only an instance that can be stopped has

# The clock of the function and that of EC2 may differ.
SKEW = timedelta(minutes=1)

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

    def volumes(self, run, instance):
        """The attached EBS volumes: {volume id: (device, whether it is deleted on termination)}."""
        found = {}
        mappings = run.read("the volumes", instance.__getitem__, "BlockDeviceMappings")
        for mapping in mappings or ():
            told = f"the volume at {mapping.get('DeviceName')}"
            found |= run.read(told, volume_of, mapping, default={})
        return found

    def protections(self, run, instance, values, volumes):
        """The changes that keep the instance and its volumes, with what they were in words."""
        for setting in SETTINGS:
            if reason := excuse(setting, instance):
                yield Change(setting.name, excused=reason, fact=setting.attribute)
        for setting, value in values.items():
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
        service = operator(instance)
        for volume, (device, deleted) in volumes.items():
            yield Change(
                volume,
                holds=not deleted,
                make=partial(self.write_volume, run, device, False),
                key=record.SETTINGS,
                words=(f"{volume}=delete",) if deleted else (),
                excused=managed_by(service) if service else None,
                end="kept",
                unseen=NOT_SHOWN,
            )

    def write(self, run, setting, value):
        self.modify(run, **{setting.parameter: {"Value": value}})

    def write_volume(self, run, device, delete):
        ebs = {"DeleteOnTermination": delete}
        self.modify(run, BlockDeviceMappings=[{"DeviceName": device, "Ebs": ebs}])

    def modify(self, run, **attribute):
        try:
            self.client().modify_instance_attribute(InstanceId=self.resource_id(run), **attribute)
        except ClientError as error:
            if error_code(error) != "UnsupportedOperation":
                raise
            raise Impossible(f"EC2 says {error.response['Error'].get('Message')!r}") from error


def volume_of(mapping):
    """{volume id: (device, whether it is deleted on termination)} of a block device."""
    if "Ebs" not in mapping:
        return {}  # an instance store
    ebs = mapping["Ebs"]
    return {ebs["VolumeId"]: (mapping["DeviceName"], ebs["DeleteOnTermination"])}


def operator(instance):
    """The service that manages an instance, which nobody else may change then; None for most."""
    shown = instance.get("Operator") or {}
    return shown.get("Principal", "an AWS service") if shown.get("Managed") else None


def excuse(setting, instance):
    """Why an instance cannot have a setting, whoever asks for it; None when it can."""
    if service := operator(instance):
        return managed_by(service)
    if setting in PROTECTIONS and instance.get("InstanceLifecycle") == "spot":
        return "EC2 has none for Spot Instances"
    if setting in STOPPABLE and instance.get("RootDeviceType") == "instance-store":
        return "an instance whose root is an instance store cannot be stopped"
    return None


def managed_by(service):
    return (
        f"it is managed by {service}, and EC2 lets nobody else change it: cordon or drain it "
        "there, so that it is not replaced"
    )


class Snapshot(NamedTuple):
    """A snapshot as EC2 shows it."""

    id: str
    volume: str
    state: str
    began: datetime
    description: str
    tags: dict

    @classmethod
    def parse(cls, shown):
        fields = ("SnapshotId", "VolumeId", "State", "StartTime", "Description")
        return cls(*(shown[k] for k in fields), record.tags_of(shown))

    @property
    def is_broken(self):
        return self.state == "error"


class View(NamedTuple):
    instance: dict
    values: dict  # {Setting: value}
    volumes: dict
    incident: str  # when it began
    finding: str  # that began it
    recorded: list  # ids of the incident's snapshots in the record
    snapshots: list  # the incident's, as EC2 shows them
    locks: dict  # {snapshot id: its lock as EC2 shows it, None without}, where they are known

    @property
    def snapshot_tags(self):
        instance_id = self.instance["InstanceId"]
        return {
            "Name": f"forensic {instance_id} {self.finding}"[:255],
            record.FINDING: self.finding,
            record.ISOLATED_AT: self.incident,
            record.INSTANCE: instance_id,
            record.CASE: record.case_id(instance_id, self.incident),
        }

    def missing_tags(self, snapshot):
        """What a snapshot does not have yet, of what is its own and what all are given."""
        device, _ = self.volumes.get(snapshot.volume, (None, None))
        wanted = {
            record.CASE: self.snapshot_tags[record.CASE],
            record.VOLUME: snapshot.volume,
            **({record.DEVICE: device} if device else {}),
        }
        return {key: value for key, value in wanted.items() if key not in snapshot.tags}

    def is_locked(self, snapshot):
        return (self.locks.get(snapshot.id) or {}).get("LockState") in LOCKED

    @property
    def description(self):
        """Of a snapshot: set when it is made and never changed, as its tags could be."""
        instance_id = self.instance["InstanceId"]
        return f"{instance_id} isolated {self.incident} GuardDuty {self.finding}"

    def is_genuine(self, snapshot):
        """Whether a snapshot that carries the incident's tags is one of its snapshots."""
        return (
            snapshot.description == self.description
            and (snapshot.volume in self.volumes or snapshot.id in self.recorded)
            and not is_before(snapshot.began, self.incident)
        )

    @property
    def usable(self):
        return [s for s in self.snapshots if not s.is_broken]

    @property
    def broken(self):
        """Those that failed, of volumes that no other one holds."""
        held = {s.volume for s in self.usable}
        return [s for s in self.snapshots if s.is_broken and s.volume not in held]

    @property
    def ids(self):
        return sorted(s.id for s in self.usable)

    @property
    def lost(self):
        """What is on record and not there: deleted, or never made."""
        return sorted(set(self.recorded) - {s.id for s in self.snapshots})


def is_before(moment, incident):
    """Whether something was before the incident; False when it is not known when that began."""
    try:
        return moment < datetime.fromisoformat(incident) - SKEW
    except (ValueError, TypeError):
        return False


class PreserveEvidence(Settings, Step):
    """Protects an isolated instance from deletion, snapshots all its volumes, locks the snapshots.

    Termination protection on, stop protection on, a shutdown from inside stops the instance
    instead of terminating it, and every attached EBS volume outlives the instance. What was set
    otherwise is recorded for `restore-settings`; what a person had protected before is not, and so
    stays protected after the release. Then one multi-volume snapshot: all volumes at one point in
    time, as after a power cut. It is made once for an incident, whatever updates of the finding
    follow, and is tagged with the case, the finding, the instance, the time of the isolation and a
    name; then each with its volume and device. Each is locked against deletion (EBS snapshot lock,
    governance mode): nobody deletes it before the days are over, but who may unlock it first
    (ec2:UnlockSnapshot). A lock that there is is left as it is, whoever set it; one that somebody
    took off, or that is over, is set by the next run for the same incident.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-preserve
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - type: preserve-evidence
                lock-days: 30
              - fail-unless-complete

    Arguments: `lock-days`, for how many days each snapshot is locked, 0 to 3650, by default 30; 0
    locks none. Put it behind `isolate-instance`, which says which incident it is; alone it goes
    by the instance's tags, and without them counts one incident a finding. A setting that cannot
    be read is not changed either, since what it was could not be recorded; and where locks cannot
    be read only what this very run made is locked, since to lock is also to change a lock.

    The outcome has a list `snapshots` of {id, volume_id, device, state, lock, locked_until}:
    `lock` is the state of the lock as EC2 shows it, or None. It is `failed` when one part is
    refused; the other parts are done all the same.

    Price: with stop protection nobody can stop the instance through the API until the release,
    or until somebody takes the protection off. Neither protection stops Auto Scaling from
    terminating an instance (see `leave-service`), AWS from stopping it for a scheduled event, or
    whoever may change these settings. A lock costs nothing, but what is locked is stored, and paid,
    for its days at least: you cannot delete it before either without ec2:UnlockSnapshot, nor does
    a release take the lock off.

    What an instance cannot have is told as not possible, and is no failure: Spot Instances have
    neither protection; one whose root is an instance store cannot be stopped, so it has no stop
    protection and no shutdown behaviour; an instance that a service manages (`Operator`: EKS Auto
    Mode, ECS Managed Instances) is changed by that service alone. A snapshot of the latter is
    tried, since it is not documented that EC2 refuses it.

    Snapshots count when EC2 shows them as this account's, with the incident's tags, of a volume
    that is attached (or they are on record), begun since the incident did, with the description
    that this step gives (which nobody can change later), and not failed. What the record names and
    EC2 does not show, be it that somebody deleted it or wrote the record himself, is made anew and
    told: a second set costs less than none.

    Limits: whoever may make snapshots can make one that passes for the incident's. Before making
    anew what is on record this looks for it four times within a second. An instance store
    cannot be snapshotted; that is said. A volume attached after the snapshots is kept on
    termination, and named as not in them. Snapshots are pending until EBS has copied them, which
    can take hours; a later update of the finding reports one that failed, and takes new ones.
    The days of a lock count from
    the completion, and until then EC2 may show no end; before it a snapshot cannot be deleted, and
    a lock ends with a snapshot that fails. A lock keeps a snapshot, not the key that it is
    encrypted with: who deletes that key leaves nothing to read. Whoever may lock can also shorten
    the days in governance mode, and whoever may unlock is as before. EC2 locks no local snapshots
    of an Outpost: told as a failure. What DescribeLockedSnapshots answers for a snapshot without a
    lock is not documented; here it is taken to leave it out.
    Volumes encrypted with a customer managed key need a
    key policy that lets the role use the key through EC2 (kms:CreateGrant, kms:Decrypt,
    kms:DescribeKey, kms:GenerateDataKeyWithoutPlaintext, kms:ReEncrypt*), which the pack does not
    grant. Two invocations at the same moment can make two sets, and so can a CreateSnapshots
    whose answer is lost; CreateSnapshots has no idempotency token.

    IAM: ec2:CreateSnapshots on instances, volumes and snapshots; ec2:CreateTags on snapshots
    (ec2:CreateAction CreateSnapshots, and of those with the tag forensic:instance) and on
    instances; ec2:LockSnapshot on snapshots with that tag; ec2:ModifyInstanceAttribute on
    instances and volumes.

    Sources: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html,
    API_ModifyInstanceAttribute.html and errors-overview.html there;
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-stop-protection.html (neither for Spot
    Instances nor instance store roots) and Using_ChangingDisableAPITermination.html; the code
    UnsupportedOperation: https://github.com/cloud-custodian/cloud-custodian/issues/2083; locks:
    https://docs.aws.amazon.com/ebs/latest/userguide/snapshot-lock-considerations.html and
    API_LockSnapshot.html.
    """

    schema = type_schema(
        "preserve-evidence",
        **{"lock-days": {"type": "integer", "minimum": 0, "maximum": MOST_DAYS}},
    )
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceAttribute",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeLockedSnapshots",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSnapshots",
        "ec2:ModifyInstanceAttribute",
        "ec2:CreateSnapshots",
        "ec2:CreateTags",
        "ec2:LockSnapshot",
    )
    nothing = {"snapshots": []}
    waits = True  # snapshots cost, and settings that are changed twice are recorded twice

    def look_at(self, run, instance):
        incident = record.incident(run.resource, run.tags, run.event)
        began, *words = record.from_tags(run.tags, record.SNAPSHOTS) or [""]
        ids = [word for word in words if SNAPSHOT_ID.fullmatch(word)]
        view = View(
            instance,
            self.values(run, [s for s in SETTINGS if not excuse(s, instance)]),
            self.volumes(run, instance),
            incident[record.ISOLATED_AT],
            incident[record.FINDING],
            ids if began == incident[record.ISOLATED_AT] else [],
            [],
            {},
        )
        if made := run.memory.get("made"):
            view = view._replace(recorded=made)  # EC2 may not show yet what was just recorded
        found = run.read("looking for snapshots", self.find, view, default=())
        view = view._replace(snapshots=[s for s in found if view.is_genuine(s)])
        return view._replace(locks=self.locks(run, view.ids))

    @property
    def days(self):
        return self.data.get("lock-days", 30)

    def locks(self, run, ids):
        """The locks of snapshots: {id: lock, or None without}; {} when they cannot be read."""
        if not (self.days and ids):
            return {}
        shown = run.read("the locks", self.locked, ids)
        return {} if shown is None else dict.fromkeys(ids) | shown

    def locked(self, ids):
        shown = self.client().describe_locked_snapshots(SnapshotIds=ids)["Snapshots"]
        return {lock["SnapshotId"]: lock for lock in shown}

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
        return [Snapshot.parse(shown) for page in pages for shown in page["Snapshots"]]

    def changes(self, run):
        view = run.view
        yield from self.protections(run, view.instance, view.values, view.volumes)
        if view.volumes or view.snapshots:
            made = run.memory.get("made", [])
            yield Change(
                "snapshots",
                holds=self.are_kept(run) and set(view.ids) >= set(made),
                make=partial(self.snapshot, run),
                end=" ".join(view.ids or view.recorded),
                unseen=PolicyExecutionError(f"EC2 does not show them yet: {', '.join(made)}"),
            )
        yield from self.kept(run, view.usable, view.locks)
        for snapshot in view.broken:
            yield Change(
                snapshot.id,
                error=PolicyExecutionError(
                    f"EBS could not complete the snapshot of {snapshot.volume}"
                ),
            )

    def kept(self, run, snapshots, locks):
        """The changes that tag and lock snapshots, where it is known how they are locked."""
        for snapshot in snapshots:
            missing = run.view.missing_tags(snapshot)
            yield Change(
                f"the tags of {snapshot.id}",
                holds=not missing,
                make=partial(self.tag_snapshot, snapshot.id, missing),
                end="tagged",
            )
            if snapshot.id in locks:
                yield Change(
                    f"the lock of {snapshot.id}",
                    holds=(locks[snapshot.id] or {}).get("LockState") in LOCKED,
                    make=partial(self.lock, snapshot.id),
                    end="locked",
                )

    def are_kept(self, run):
        """Whether the incident has snapshots, and they are on record."""
        view = run.view
        if "looking for snapshots" in run.unread:
            return bool(view.recorded)  # nothing better is known; that is told as a failure
        broken = [s for s in view.broken if s.volume in view.volumes]
        return bool(view.ids) and set(view.ids) <= set(view.recorded) and not broken

    def snapshot(self, run):
        """Make the snapshots, unless a run that died made them, and record them."""
        view, memory, new = run.view, run.memory, []
        is_whole = view.ids and not view.broken
        if not is_whole and "made" not in memory:
            memory["looks"] = memory.get("looks", 0) + 1
            if view.lost and memory["looks"] < LOOKS:
                raise LookAgain  # made a moment ago by another run, EC2 may not show them yet
            memory["lost"] = view.lost
            memory["made"] = []
            new = self.create(run)
            memory["made"] = sorted(snapshot.id for snapshot in new)
        ids = memory.get("made") or view.ids
        if not ids:
            raise LookAgain  # they were made, only the answer did not say which
        # Before the read-back: these ids are all that a later run may have to go by.
        self.tag(run, record.as_tags(record.SNAPSHOTS, [view.incident, *ids]))
        memory["made"] = ids
        # At once, since a round for it would read everything again; nobody has locked them yet.
        unlocked = dict.fromkeys(s.id for s in new) if self.days else {}
        for change in self.kept(run, [s for s in new if s.volume in view.volumes], unlocked):
            self.make(run, change)
            run.changes.append(change)  # with its error, for the next look

    def create(self, run):
        """Take one snapshot of all volumes; returns them, as far as they are told."""
        view = run.view
        try:
            answer = self.client().create_snapshots(
                InstanceSpecification={
                    "InstanceId": self.resource_id(run),
                    "ExcludeBootVolume": False,
                },
                Description=view.description,
                TagSpecifications=[
                    {
                        "ResourceType": "snapshot",
                        "Tags": [{"Key": k, "Value": v} for k, v in view.snapshot_tags.items()],
                    }
                ],
            )
        except ClientError as error:
            if not (service := operator(view.instance)):
                raise
            raise Impossible(f"{error_code(error)}; {managed_by(service)}") from error
        return [
            Snapshot(
                shown["SnapshotId"], shown.get("VolumeId"), "pending", None, "", view.snapshot_tags
            )
            for shown in answer.get("Snapshots", ())
            if shown.get("SnapshotId")
        ]

    def tag_snapshot(self, snapshot_id, tags):
        self.client().create_tags(
            Resources=[snapshot_id], Tags=[{"Key": k, "Value": v} for k, v in tags.items()]
        )

    def lock(self, snapshot_id):
        self.client().lock_snapshot(
            SnapshotId=snapshot_id, LockMode="governance", LockDuration=self.days
        )

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
            f"one snapshot of {len(run.view.volumes)} volumes"
            + (f", locked for {self.days} days." if self.days else ", not locked.")
        )

    def tell(self, run):
        view = run.view
        kept = [s.name for s, value in view.values.items() if value == s.keep]
        kept += [f"volume {v}" for v, (_, deleted) in view.volumes.items() if not deleted]
        lost = ", ".join(run.memory.get("lost", ()))
        if view.snapshots:
            rows = [f"{s.id} of {s.volume} ({s.state})" for s in view.snapshots]
            told = f"Snapshots of one point in time: {', '.join(rows)}. {self.tell_locks(view)}"
        elif not view.volumes:
            told = "The instance has no EBS volume, so there is nothing to snapshot."
        elif view.recorded:
            told = f"On record, and not shown by EC2: {', '.join(view.recorded)}."
        else:
            told = "There is no snapshot."
        if lost:
            told += (
                f" On record for this incident were {lost}, which EC2 does not show: deleted, or "
                "never made. New ones were taken."
            )
        if missed := self.missed(view):
            told += f" Attached later and not in the snapshots: {', '.join(missed)}."
        store = run.memory.get("store", "")
        return f"Protected, as read back from EC2: {', '.join(kept) or 'nothing'}. {told}{store}"

    def tell_locks(self, view):
        """Until when each snapshot is locked, in sentences; all have the same end mostly."""
        if not self.days:
            return "They are not locked (lock-days: 0)."
        ends = {}
        for snapshot in filter(view.is_locked, view.usable):
            ends.setdefault(until(view.locks[snapshot.id]), []).append(snapshot.id)
        told = [f"Locked against deletion {end}: {', '.join(ids)}." for end, ids in ends.items()]
        if open_to_all := [s.id for s in view.usable if not view.is_locked(s)]:
            told.append(f"NOT locked: {', '.join(open_to_all)}.")
        return " ".join(told)

    def missed(self, view):
        """The volumes that are in none of the snapshots, where there are any."""
        taken = {s.volume for s in view.snapshots}
        return sorted(set(view.volumes) - taken) if taken else []

    def facts(self, run):
        return super().facts(run) + [f"{v}:not-in-snapshots" for v in self.missed(run.view)]

    def more(self, run):
        return {
            "snapshots": [
                {
                    "id": s.id,
                    "volume_id": s.volume,
                    "device": run.view.volumes.get(s.volume, (None,))[0],
                    "state": s.state,
                    "lock": (run.view.locks.get(s.id) or {}).get("LockState"),
                    "locked_until": ending(run.view.locks.get(s.id)),
                }
                for s in run.view.snapshots
            ]
        }


def ending(lock):
    """When a lock is over, as text; None when EC2 does not say: without a lock, or before it is
    known when the snapshot is complete."""
    moment = (lock or {}).get("LockExpiresOn")
    return moment and moment.isoformat(timespec="seconds")


def until(lock):
    if moment := (lock or {}).get("LockExpiresOn"):
        return f"until {moment:%Y-%m-%d %H:%M} UTC"
    return f"for {lock.get('LockDuration', 'some')} days from its completion"


class KeepProtections(Settings, Step):
    """Sets again the protections that `preserve-evidence` sets, where somebody took them off.

    For a guard: no snapshot is taken, since whoever may tag the instance and take its protection
    off could have as many made, and nothing is recorded. What an instance had before its response
    is on record already; a value that somebody has set since is not what a release puts back.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-keep-protected
            resource: ec2
            mode:
              type: cloudtrail
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
              events:
                - source: ec2.amazonaws.com
                  event: ModifyInstanceAttribute
                  ids: requestParameters.instanceId
            filters:
              - isolated
            actions:
              - keep-protections
              - fail-unless-complete

    No arguments. Termination protection, stop protection, the shutdown behaviour and the volumes'
    DeleteOnTermination, each read back.

    Limits: it goes by what `preserve-evidence` would set, not by what it did: of an instance whose
    response could not set one, a release leaves it on. There is no revert of its own:
    `restore-settings` puts back what is on record.

    IAM: ec2:ModifyInstanceAttribute on instances and volumes.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
    """

    schema = type_schema("keep-protections")
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeInstanceAttribute",
        "ec2:ModifyInstanceAttribute",
    )

    def look_at(self, run, instance):
        settings = [s for s in SETTINGS if not excuse(s, instance)]
        return instance, self.values(run, settings), self.volumes(run, instance)

    def changes(self, run):
        for change in self.protections(run, *run.view):
            change.words = ()
            yield change

    def is_wanting(self, run):
        return bool(run.fresh)

    def plan(self, run):
        return f"Would set again: {', '.join(change.name for change in run.fresh)}."

    def tell(self, run):
        kept = ", ".join(change.name for change in run.holding)
        return f"Protected, as read back from EC2: {kept or 'nothing'}."


class RestoreSettings(Settings, Revert):
    """Puts back the settings that `preserve-evidence` changed; its snapshots and their locks stay.

    Only what the record names is changed, so that an instance or a volume that a person had
    protected before stays protected. A volume that is no longer attached has no such setting; it is
    named, and so is a word of the record that means nothing. When EC2 refuses a change the record
    stays, so that this can be run again. The snapshots stay with their tags, by which they are
    found (`forensic:case`, `forensic:instance`, `forensic:finding`), and with their locks: delete
    them when the lock is over, or unlock them first (ec2:UnlockSnapshot).

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
        settings = [s for s in SETTINGS if s.word in words]
        return self.values(run, settings), self.volumes(run, instance)

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
        known = [s.word for s in SETTINGS] + [f"{v}=delete" for v in self.recorded_volumes(run)]
        for word in dict.fromkeys(run.memory[record.SETTINGS]):
            if word not in known:
                yield skipped(word)
        for word in run.memory[record.SNAPSHOTS][1:]:
            if not SNAPSHOT_ID.fullmatch(word):
                yield skipped(word)

    def recorded_volumes(self, run):
        matches = map(VOLUME.fullmatch, run.memory[record.SETTINGS])
        return sorted({match[1] for match in matches if match})

    def plan(self, run):
        return f"Would put back: {' '.join(run.memory[record.SETTINGS]) or 'nothing'}."

    def tell(self, run):
        back = [change.name for change in run.holding if not change.flaws]
        detail = f"Back as before, as read back from EC2: {', '.join(back) or 'no setting'}."
        if not self.is_over(run):
            detail = "Not everything could be put back; the record is kept, this can be run again."
        if gone := [v for v in self.recorded_volumes(run) if v not in run.view[1]]:
            detail += f" No longer attached, nothing to put back: {', '.join(gone)}."
        if snapshots := [w for w in run.memory[record.SNAPSHOTS] if SNAPSHOT_ID.fullmatch(w)]:
            detail += (
                f" The snapshots stay, with their locks: {', '.join(snapshots)}. Delete them (aws "
                "ec2 delete-snapshot) when their locks are over, which aws ec2 "
                "describe-locked-snapshots shows, or after aws ec2 unlock-snapshot."
            )
        return detail


def skipped(word):
    """A word of the record that this pack did not write, or somebody has changed."""
    return Change(
        f"in the record: {word[:80]}", holds=True, flaws={"malformed": "means nothing, left out"}
    )


register("preserve-evidence", PreserveEvidence, "ec2")
register("keep-protections", KeepProtections, "ec2")
register("restore-settings", RestoreSettings, "ec2")
