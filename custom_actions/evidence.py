"""Keep what the instance holds: settings that protect it from deletion, and one snapshot of its
volumes; and the way back of the settings.

The record, on the instance: `forensic:settings` holds one word for each setting that was changed,
with the value it had (`disableApiStop=False`, `vol-0abc1234def567890=delete`);
`forensic:snapshots` holds the time of the incident and the ids of its snapshots.
"""

import logging
import time
from typing import NamedTuple

from botocore.exceptions import BotoCoreError
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.resources.ec2 import EC2
from c7n.utils import get_retry, type_schema

from custom_actions import record
from custom_actions.instance import describe_instance
from custom_actions.response import ResponseAction, describe, error_code, retry, tags_of

log = logging.getLogger("custodian.actions.evidence")

SETTINGS_KEY = "forensic:settings"
SNAPSHOTS_KEY = "forensic:snapshots"
INSTANCE_KEY = "forensic:instance"

# Seconds before each look: EC2's describes are eventually consistent.
READ_BACK_DELAYS = (0, 0.2, 0.5, 1, 2)

# EC2 allows few snapshots of one volume at a time and asks for increasing pauses ("error codes").
per_volume_retry = get_retry(("SnapshotCreationPerVolumeRateExceeded",), max_attempts=5)


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


class Settings:
    """The settings of one instance that decide about its deletion, read and changed one by one.

    An error at one of them is kept in `errors` under its name and does not stop the others.
    """

    def __init__(self, client, instance):
        self.client = client
        self.instance = instance
        self.instance_id = instance["InstanceId"]
        self.errors = {}
        self.changed = []

    def attempt(self, part, call, **request):
        """Do a call; False, with the error kept, when it is refused."""
        try:
            retry(call, **request)
        except (ClientError, BotoCoreError) as error:
            self.errors[part] = error
            return False
        return True

    def read(self, setting):
        """The present value, or None, with the error kept, when it cannot be read."""
        try:
            return retry(
                self.client.describe_instance_attribute,
                InstanceId=self.instance_id,
                Attribute=setting.attribute,
            )[setting.parameter]["Value"]
        except (ClientError, BotoCoreError) as error:
            self.errors[setting.name] = error
            return None

    def write(self, setting, value):
        if self.attempt(
            setting.name,
            self.client.modify_instance_attribute,
            InstanceId=self.instance_id,
            **{setting.parameter: {"Value": value}},
        ):
            self.changed.append(setting.name)

    def volumes(self, delete):
        """Devices by volume id, of the attached volumes that are (not) deleted on termination."""
        return {
            mapping["Ebs"]["VolumeId"]: mapping["DeviceName"]
            for mapping in self.instance.get("BlockDeviceMappings") or ()
            if "Ebs" in mapping and mapping["Ebs"]["DeleteOnTermination"] is delete
        }

    def write_volumes(self, devices, delete):
        """Set what happens to volumes on termination; one call, unless one of them is refused."""
        batches = [devices] if devices else []
        for batch in batches:
            try:
                retry(
                    self.client.modify_instance_attribute,
                    InstanceId=self.instance_id,
                    BlockDeviceMappings=[
                        {"DeviceName": device, "Ebs": {"DeleteOnTermination": delete}}
                        for device in batch.values()
                    ],
                )
                self.changed.extend(batch)
            except (ClientError, BotoCoreError) as error:
                if len(batch) == 1:
                    self.errors.update(dict.fromkeys(batch, error))
                else:
                    batches.extend({volume: device} for volume, device in batch.items())

    def read_back(self, expected, volumes, delete):
        """Look until EC2 shows what was written; what it does not show becomes an error.

        expected: {setting: value}. volumes: ids of the volumes that were set to `delete`.
        """
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            self.instance = describe_instance(self.client, self.instance_id)
            wrong = [s.name for s, value in expected.items() if self.read(s) != value]
            wrong += [v for v in volumes if v in self.volumes(not delete)]
            if not wrong:
                return
        for part in wrong:
            self.errors.setdefault(
                part, PolicyExecutionError("EC2 does not show the new value, it may come later")
            )


class Snapshots:
    """The snapshots of one incident. At most one set is made, whoever died in between."""

    def __init__(self, client, instance_id, tags, event):
        self.client = client
        self.instance_id = instance_id
        self.finding = tags.get(record.FINDING) or record.incident_tags(event)[0]["Value"]
        self.incident = tags.get(record.ISOLATED_AT, "unknown")
        incident, *ids = record.from_tags(tags, SNAPSHOTS_KEY) or ["", ""]
        self.recorded = ids if incident == self.incident else []
        self.found = []
        self.made = False
        self.errors = {}

    @property
    def tags(self):
        return {
            "Name": f"forensic {self.instance_id} {self.finding}"[:255],
            record.FINDING: self.finding,
            record.ISOLATED_AT: self.incident,
            INSTANCE_KEY: self.instance_id,
        }

    @property
    def ids(self):
        return sorted(snapshot["SnapshotId"] for snapshot in self.found) or sorted(self.recorded)

    def run(self, volumes):
        """Find the snapshots of the incident or make them, record them, read them back."""
        try:
            self.find()
        except (BotoCoreError, ClientError) as error:
            # Made all the same: a second set costs less than none, and the record ends it there.
            self.errors["looking for snapshots"] = error
        found = self.ids
        try:
            if volumes and not found:
                found = self.make()
            if found and not self.recorded:
                # Before the read-back: these ids are all that a later run has to go by.
                retry(
                    self.client.create_tags,
                    Resources=[self.instance_id],
                    Tags=record.as_tags(SNAPSHOTS_KEY, [self.incident, *found]),
                )
            if self.made:
                self.read_back(found)
        except (BotoCoreError, ClientError, PolicyExecutionError) as error:
            self.errors["snapshots"] = error
        for snapshot in self.found:
            if snapshot["State"] == "error":
                self.errors[snapshot["SnapshotId"]] = PolicyExecutionError(
                    f"EBS could not complete the snapshot of {snapshot['VolumeId']}"
                )

    def find(self):
        searched = (INSTANCE_KEY, record.FINDING, record.ISOLATED_AT)
        pages = self.client.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"],
            Filters=[{"Name": f"tag:{key}", "Values": [self.tags[key]]} for key in searched],
        )
        self.found = retry(lambda: [s for page in pages for s in page["Snapshots"]])

    def make(self):
        made = per_volume_retry(
            retry,
            self.client.create_snapshots,
            InstanceSpecification={"InstanceId": self.instance_id, "ExcludeBootVolume": False},
            Description=f"{self.instance_id} isolated {self.incident} GuardDuty {self.finding}",
            TagSpecifications=[
                {
                    "ResourceType": "snapshot",
                    "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
                }
            ],
        )["Snapshots"]
        self.made = True
        return sorted(snapshot["SnapshotId"] for snapshot in made)

    def read_back(self, ids):
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            self.find()
            if set(ids) <= set(self.ids):
                return
        raise PolicyExecutionError(f"EC2 does not show them yet: {', '.join(ids)}")


def instance_store(client, instance_type):
    """What is said of the instance store of an instance type; "" when it has none."""
    found = retry(client.describe_instance_types, InstanceTypes=[instance_type])["InstanceTypes"]
    size = found[0].get("InstanceStorageInfo", {}).get("TotalSizeInGB")
    if not size:
        return ""
    return (
        f" The instance store of {instance_type} ({size} GB) cannot be snapshotted: what is on it "
        "is lost when the instance is stopped or terminated."
    )


@EC2.action_registry.register("preserve-evidence")
class PreserveEvidence(ResponseAction):
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

    No arguments. Put it behind `isolate-instance`, which writes the tags that identify the
    incident; without them it waits four seconds for them and then counts one incident a finding.

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

    def respond(self, instance, event):
        client = self.client()
        instance = self.with_incident(client, instance["InstanceId"])
        if instance["State"]["Name"] == "terminated":
            return self.outcome(
                "skipped", "The instance is terminated: there is nothing to preserve.", snapshots=[]
            )
        settings = Settings(client, instance)
        snapshots = Snapshots(client, instance["InstanceId"], tags_of(instance), event)
        if self.dryrun:
            return self.plan(settings, snapshots)
        self.protect(settings)
        volumes = settings.volumes(False) | settings.volumes(True)
        snapshots.run(volumes)
        return self.report(settings, snapshots, volumes)

    def with_incident(self, client, instance_id):
        """The instance, with the tags that `isolate-instance` wrote a moment ago."""
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            instance = describe_instance(client, instance_id)
            if record.ISOLATED_AT in tags_of(instance):
                break
            if self.dryrun or instance["State"]["Name"] == "terminated":
                break  # there will be none
        return instance

    def protect(self, settings):
        values = {setting: settings.read(setting) for setting in SETTINGS}
        wrong = [setting for setting, value in values.items() if value != setting.keep]
        volumes = settings.volumes(True)
        self.record(settings, [s for s in wrong if values[s] == s.other], volumes)
        for setting in wrong:
            settings.write(setting, setting.keep)
        settings.write_volumes(volumes, False)
        if not settings.changed:
            return
        expected = {s: s.keep for s in SETTINGS if s.name in settings.changed}
        settings.read_back(expected, [v for v in volumes if v in settings.changed], False)
        late = {v: d for v, d in settings.volumes(True).items() if v not in volumes}
        if late:
            self.record(settings, [], late)
            settings.write_volumes(late, False)
            settings.read_back({}, [v for v in late if v in settings.changed], False)

    def record(self, settings, changing, volumes):
        """Write what is about to be changed into the instance's tags; words never go away."""
        recorded = record.from_tags(tags_of(settings.instance), SETTINGS_KEY) or []
        words = [setting.word for setting in changing] + [f"{v}=delete" for v in volumes]
        new = [word for word in words if word not in recorded]
        if new and not settings.attempt(
            f"the record ({' '.join(new)})",
            settings.client.create_tags,
            Resources=[settings.instance_id],
            Tags=record.as_tags(SETTINGS_KEY, recorded + new),
        ):
            # Protected all the same; the mail and this line are then the only record.
            log.error("not recorded: settings of %s before: %s", settings.instance_id, new)

    def plan(self, settings, snapshots):
        """What would be done: reads, changes nothing."""
        wrong = [s.name for s in SETTINGS if settings.read(s) != s.keep]
        volumes = settings.volumes(False) | settings.volumes(True)
        return self.outcome(
            "planned",
            f"Would set {', '.join(wrong) or 'nothing'}, keep {len(settings.volumes(True))} of "
            f"{len(volumes)} volumes on termination that would be deleted now, and take one "
            f"snapshot of {len(volumes)} volumes.",
            snapshots=[],
        )

    def report(self, settings, snapshots, volumes):
        errors = settings.errors | snapshots.errors
        kept = [s.name for s in SETTINGS if s.name not in settings.errors]
        kept += [f"volume {v}" for v in volumes if v not in settings.errors]
        store = ""
        try:
            store = instance_store(settings.client, settings.instance["InstanceType"])
        except (ClientError, BotoCoreError) as error:
            errors["whether there is an instance store"] = error
        missed = sorted(set(volumes) - {s["VolumeId"] for s in snapshots.found})
        if not snapshots.found:
            missed = []
        facts = [f"{s.attribute}:{self.end(settings.errors.get(s.name))}" for s in SETTINGS]
        facts += [f"{v}:{self.end(settings.errors.get(v))}" for v in volumes]
        facts += [*snapshots.ids, *(f"{v}:not-in-snapshots" for v in missed)]
        facts += [
            f"{part.partition(' (')[0]}:{error_code(error)}"
            for part, error in errors.items()
            if part not in {s.name for s in SETTINGS} | set(volumes)
        ]
        return self.outcome(
            "failed" if errors else "done" if settings.changed or snapshots.made else "unchanged",
            f"Protected, as read back from EC2: {', '.join(kept) or 'nothing'}. "
            + self.tell(snapshots, volumes, missed)
            + store,
            error="; ".join(f"{part}: {describe(e)}" for part, e in errors.items()) or None,
            facts=facts,
            snapshots=[
                {
                    "id": s["SnapshotId"],
                    "volume_id": s["VolumeId"],
                    "device": volumes.get(s["VolumeId"]),
                    "state": s["State"],
                }
                for s in snapshots.found
            ],
        )

    def end(self, error):
        return error_code(error) if error else "kept"

    def tell(self, snapshots, volumes, missed):
        if snapshots.found:
            rows = [f"{s['SnapshotId']} of {s['VolumeId']} ({s['State']})" for s in snapshots.found]
            told = f"Snapshots of one point in time: {', '.join(rows)}."
        elif snapshots.ids:
            told = f"The snapshots of this incident exist no more: {', '.join(snapshots.ids)}."
        elif volumes:
            told = "There is no snapshot."
        else:
            told = "The instance has no EBS volume, so there is nothing to snapshot."
        if missed:
            told += f" Attached later and not in the snapshots: {', '.join(missed)}."
        return told


@EC2.action_registry.register("restore-settings")
class RestoreSettings(ResponseAction):
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

    def respond(self, instance, event):
        client = self.client()
        instance = describe_instance(client, instance["InstanceId"])
        tags = tags_of(instance)
        keys = record.tag_keys(tags, SETTINGS_KEY) + record.tag_keys(tags, SNAPSHOTS_KEY)
        if not keys:
            return self.outcome("unchanged", "Nothing to revert: no settings are recorded.")
        if instance["State"]["Name"] == "terminated":
            return self.outcome("skipped", "The instance is terminated.")
        words = record.from_tags(tags, SETTINGS_KEY) or []
        if self.dryrun:
            return self.outcome("planned", f"Would put back: {' '.join(words) or 'nothing'}.")
        settings = Settings(client, instance)
        gone = self.restore(settings, words)
        if not settings.errors:
            # `attempt`, because what was put back is put back whether or not the tags go
            settings.attempt(
                "the record",
                client.delete_tags,
                Resources=[settings.instance_id],
                Tags=[{"Key": key} for key in keys],
            )
        return self.report(settings, words, gone, record.from_tags(tags, SNAPSHOTS_KEY) or [])

    def restore(self, settings, words):
        """Put back what the words say; returns the volumes that are no longer attached."""
        expected = {setting: setting.other for setting in SETTINGS if setting.word in words}
        for setting, value in expected.items():
            settings.write(setting, value)
        recorded = {word.partition("=")[0] for word in words if word.endswith("=delete")}
        kept, deleted = settings.volumes(False), settings.volumes(True)
        volumes = {v: d for v, d in kept.items() if v in recorded}
        settings.write_volumes(volumes, True)
        if settings.changed:
            settings.read_back(
                {s: v for s, v in expected.items() if s.name in settings.changed},
                [v for v in volumes if v in settings.changed],
                True,
            )
        return sorted(recorded - set(kept) - set(deleted))

    def report(self, settings, words, gone, snapshots):
        errors = settings.errors
        detail = (
            "Not everything could be put back; the record is kept, this can be run again."
            if errors
            else f"Back as before, as read back from EC2: {' '.join(words) or 'no setting'}."
        )
        if gone:
            detail += f" No longer attached, nothing to put back: {', '.join(gone)}."
        if snapshots[1:]:
            detail += f" The snapshots stay: {', '.join(snapshots[1:])}."
        return self.outcome(
            "failed" if errors else "done",
            detail,
            error="; ".join(f"{part}: {describe(e)}" for part, e in errors.items()) or None,
            facts=[f"{part}:{error_code(e)}" for part, e in errors.items()],
        )
