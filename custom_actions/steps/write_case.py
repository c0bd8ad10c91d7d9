"""Write the case record of an incident to a bucket that locks what is in it.

What stands in it, and how it is proven: custom_actions/case.py and docs/evidence.md.
"""

import base64
import json
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import generate_arn, type_schema

from custom_actions import autonomy, case, record, timeline
from custom_actions.instance import describe_instance
from custom_actions.notify import digest, who_by_hand
from custom_actions.record import tags_of
from custom_actions.registry import register
from custom_actions.response import (
    OUTCOMES,
    REFUSED,
    Change,
    Impossible,
    LookAgain,
    NothingToDo,
    Step,
    describe,
    error_code,
    ignoring,
)
from custom_actions.version import VERSION

# Whose tag says which bucket it is, where a person responds.
FUNCTION = "custodian-ec2-isolate"

# A screenshot or an output is an attacker's: no browser should show it as a page.
RAW = "application/octet-stream"

# Another writer was there first.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
LOST = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})

# May not, in contrast to: there is none. What EC2 answers where a type of instance has no
# screenshot is documented nowhere.
DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})


class File(NamedTuple):
    """What is collected besides: its name in the folder and for people, its source, its limit."""

    name: str
    words: str
    source: str
    at_most: int  # bytes


# EC2 keeps 64 KB of output; how large a screenshot can be is not documented.
FILES = (
    File(case.OUTPUT, "the console output", "ec2:GetConsoleOutput", 1 << 20),
    File(case.SCREENSHOT, "the console screenshot", "ec2:GetConsoleScreenshot", 5 << 20),
)


class Stored(NamedTuple):
    """An object as it is now; etag: by which it may be replaced."""

    body: bytes
    version_id: str
    etag: str
    modified: datetime


class View(NamedTuple):
    """bucket, folder: where the case is. keys: what is there. case, manifest: Stored or None.
    document: the case, None where there is none yet. instance: as EC2 describes it now, or None.
    snapshots: {id: tags} of the incident.
    """

    bucket: str
    folder: str
    keys: set
    case: Stored | None
    document: dict | None
    manifest: Stored | None
    instance: dict | None
    snapshots: list

    @property
    def expected(self):
        """What the manifest has to be, as bytes."""
        of = self.case
        return case.as_bytes(case.manifest(self.document, of.body, of.version_id))

    @property
    def uri(self):
        return f"s3://{self.bucket}/{self.folder}"


class WriteCase(Step):
    """Writes the case record of the incident: one JSON document, and a manifest that proves it.

    The document (docs/case.schema.json) has the finding, the instance as EC2 described it, what
    each step reported, every call to AWS with its time and outcome, the groups before and after,
    the snapshots, and who did it. Beside it stand the console output and a screenshot, taken once,
    after the isolation. A later run, and the release, add to the document; versions stay. Nothing
    is written when nothing is new. The SHA-256 of the manifest is in the outcome, so in the mail
    and the log, and in a tag of the incident's snapshots.

    Put it behind the last step that changes something, so that it has their outcomes, and before
    the mail, which then says where the case is or that it could not be written. It depends on no
    step before it, and writes also what failed.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-write
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - preserve-evidence
              - type: write-case
                bucket: "{evidence-bucket}"
              - fail-unless-complete

    Arguments: `bucket` (default none), the name of the evidence bucket (infra/evidence.yml). The
    variable is replaced by what a deploy says, EVIDENCE_BUCKET=, or what the function was deployed
    with before. Where a person runs the policy and says none, the tag `forensic:evidence-bucket` of
    the function custodian-ec2-isolate in the account and region says it.

    `skipped` without a bucket, and where no incident has begun: nothing was changed then. What EC2
    does not have of the instance (a screenshot of some types) is told and no failure. Another
    writer at the same moment is noticed by S3 (If-Match) and its record kept. What a policy does
    after this step is not in the record: the mail.

    There is no revert: evidence stays.

    IAM: s3:ListBucket, s3:GetObject and s3:PutObject of the account's own folder, the right to use
    the bucket's key by way of S3, ec2:GetConsoleOutput, ec2:GetConsoleScreenshot, ec2:CreateTags on
    snapshots of the pack; for a person lambda:ListTags.

    Limits: the case is named by the time in the tag `forensic:isolated-at`, which whoever may tag
    the instance can change: the release then writes into another folder of the same instance, which
    `make case INSTANCE=...` shows too. Custodian's own look for the instance is among the calls of
    a function, and not of a person's command. The latest console output is there for Nitro
    instances; others have what was posted shortly after their last start.

    Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html,
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleOutput.html,
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetConsoleScreenshot.html
    """

    schema = type_schema("write-case", bucket={"type": "string"})
    permissions = (
        "ec2:CreateTags",
        "ec2:DescribeInstances",
        "ec2:DescribeSnapshots",
        "ec2:GetConsoleOutput",
        "ec2:GetConsoleScreenshot",
        "lambda:ListTags",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
        "sts:GetCallerIdentity",
    )
    of_a_person = ("lambda:ListTags", "sts:GetCallerIdentity")

    def get_permissions(self):
        """Those that are needed beside none: without a bucket nothing is called."""
        if not self.is_by_hand:
            every = self.permissions if self.named else ()
            return tuple(p for p in every if p not in self.of_a_person)
        return self.permissions if self.named else self.of_a_person

    @property
    def is_by_hand(self):
        return "mode" not in self.manager.data

    @property
    def named(self):
        """The bucket that the policy names, or None where it leaves that open."""
        name = self.data.get("bucket")
        return None if name in (None, "", case.UNSET, case.NONE) else name

    def left_alone(self, resource):
        return None  # what was left alone, and why, is part of the record

    def look(self, run):
        memory = run.memory
        if "folder" not in memory:
            bucket = self.bucket()
            memory |= {"bucket": bucket, "folder": self.folder(run, bucket)}
        bucket, folder = memory["bucket"], memory["folder"]
        keys = self.keys(bucket, folder)
        stored, manifest = (
            self.get(bucket, folder + name) if folder + name in keys else None
            for name in (case.CASE, case.MANIFEST)
        )
        view = View(
            bucket,
            folder,
            keys,
            stored,
            json.loads(stored.body) if stored else None,
            manifest,
            run.read("the instance", describe_instance, self.client(), self.resource_id(run)),
            run.read("the snapshots", self.snapshots, run, default=[]),
        )
        if "run" not in memory:
            memory |= {"files": [], "missing": {}}
            memory["run"] = self.this_run(run, view) if self.is_new(run, view) else None
        if view.document is None and memory["run"] is None:
            raise NothingToDo("There is nothing to write.", "skipped")
        return view

    def bucket(self):
        """The name of the bucket; raises NothingToDo where there is none."""
        name = self.named
        if name is None and self.is_by_hand and self.data.get("bucket") != case.NONE:
            name = self.of_the_function()
        if name is None:
            raise NothingToDo(
                "No evidence bucket is named, so no case record is written: docs/evidence.md.",
                "skipped",
            )
        if not case.BUCKET.fullmatch(name):
            raise PolicyExecutionError(f"{name!r:.100} is not the name of a bucket")
        return name

    def of_the_function(self):
        """The bucket that the function of the account and region was deployed with, or None."""
        config = self.manager.config
        arn = generate_arn(
            "lambda",
            f"function:{FUNCTION}",
            region=config.region,
            account_id=config.account_id,
            separator=":",
        )
        try:
            shown = ignoring(
                "ResourceNotFoundException", self.client("lambda").list_tags, Resource=arn
            )
        except REFUSED as error:
            raise PolicyExecutionError(
                f"whether there is an evidence bucket is not known, the tags of {FUNCTION} are not "
                f"to be read ({describe(error)}): say EVIDENCE_BUCKET=<name>, or none"
            ) from error
        return ((shown or {}).get("Tags") or {}).get(record.EVIDENCE_BUCKET)

    def folder(self, run, bucket):
        """Where the case of the incident is; raises NothingToDo where none has begun."""
        config, instance_id = self.manager.config, self.resource_id(run)
        of = config.account_id, config.region
        incident = record.incident(run.resource, tags_of(run.resource), run.event)
        run.memory["incident"] = incident
        if incident[record.ISOLATED_AT] != "unknown":
            return case.folder(*of, record.case_id(instance_id, incident[record.ISOLATED_AT]))
        statuses = {outcome["status"] for outcome in run.resource.get(OUTCOMES, ())}
        if run.event is None and statuses & {"done", "failed"}:
            # a release that is run again, after its first part had removed the tags
            keys = self.keys(bucket, case.of_instance(*of, instance_id))
            if folders := sorted({key.rpartition("/")[0] + "/" for key in keys}):
                return folders[-1]
        raise NothingToDo("No incident has begun: there is no case to write.", "skipped")

    def keys(self, bucket, prefix):
        pages = self.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=prefix)
        return {shown["Key"] for page in found for shown in page.get("Contents", ())}

    def get(self, bucket, key):
        got = self.client("s3").get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        # without a version the bucket keeps none, and whatever is written could be replaced
        return Stored(got["Body"].read(), got["VersionId"], got["ETag"], got["LastModified"])

    def snapshots(self, run):
        """Those of the incident, as EC2 shows them: [snapshot]."""
        of = {
            record.INSTANCE: self.resource_id(run),
            record.ISOLATED_AT: run.memory["incident"][record.ISOLATED_AT],
        }
        pages = (
            self.client()
            .get_paginator("describe_snapshots")
            .paginate(
                OwnerIds=["self"],
                Filters=[{"Name": f"tag:{key}", "Values": [value]} for key, value in of.items()],
            )
        )
        return [snapshot for page in pages for snapshot in page["Snapshots"]]

    def is_new(self, run, view):
        """Whether this run did or found anything that the last one had not; an update of the
        finding by itself is none, or a case would grow with each, for as long as there are any."""
        outcomes = run.resource.get(OUTCOMES, ())
        if view.document is None or any(o["status"] == "done" for o in outcomes):
            return True
        ends = [r["end"] for r in view.document["runs"] if r["policy"] == self.policy_name]
        return digest(outcomes) not in ends[-1:]

    def finding(self, run):
        """GuardDuty's finding that the run is about, or None."""
        detail = (run.event or {}).get("detail")
        is_one = isinstance(detail, dict) and isinstance(detail.get("id"), str)
        return case.plain(detail) if is_one else None

    def this_run(self, run, view):
        """What is recorded of this run. Its own calls to S3 are in no version: S3 has them."""
        calls = timeline.of(self.resource_id(run))
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        outcomes = run.resource.get(OUTCOMES, ())
        return case.plain(
            {
                "id": uuid.uuid4().hex,
                "policy": self.policy_name,
                "version": VERSION,
                "autonomy": autonomy.of(self.manager.config),
                "began": calls[0]["at"] if calls else now,
                "recorded": now,
                "by": self.who(run),
                "by_hand": self.is_by_hand,
                "finding": run.memory["incident"][record.FINDING],
                "outcomes": outcomes,
                "end": digest(outcomes),
                "groups": {
                    "before": groups_of(run.resource),
                    "after": groups_of(view.instance) if view.instance else None,
                },
                "calls": calls,
                **({"calls_left_out": cut} if (cut := timeline.left_out()) else {}),
            }
        )

    def who(self, run):
        """Who did it, as far as AWS knows; the role of a function."""
        if not self.is_by_hand:
            return self.manager.data["mode"].get("role")
        if who := who_by_hand(run.resource):
            return who
        try:
            return self.client("sts").get_caller_identity()["Arn"]
        except REFUSED as error:
            run.errors["who ran it"] = error
            return None

    def document(self, run, view):
        """The case with all that is known of it now."""
        config, memory = self.manager.config, run.memory
        began = memory["incident"][record.ISOLATED_AT]
        return case.merged(
            view.document
            or case.begun(
                view.folder.split("/")[3],
                config.account_id,
                config.region,
                self.resource_id(run),
                began,
            ),
            finding=self.finding(run),
            described=case.plain(
                {k: v for k, v in run.resource.items() if not k.startswith("c7n:")}
            ),
            snapshots=case.plain([kept(snapshot) for snapshot in view.snapshots]),
            files=memory["files"],
            missing=memory["missing"],
            run=memory["run"],
        )

    def changes(self, run):
        view, memory = run.view, run.memory
        present = view.document or {"files": [], "not_collected": {}}
        for file in FILES:
            yield Change(
                file.words,
                holds=file.name in {f["name"] for f in present["files"] + memory["files"]},
                make=partial(self.collect, run, file),
                excused=present["not_collected"].get(file.name),
                fact=file.name,
                end="kept",
            )
        wanted = self.document(run, view)
        yield Change(
            "the case record",
            holds=wanted == view.document,
            make=partial(self.put_case, run),
            end="written",
            unseen=PolicyExecutionError("others write it at the same time: run it again"),
        )
        if wanted == view.document:
            yield from self.proofs(view)

    def proofs(self, view):
        """The manifest, which follows from the case, and its hash where others keep it."""
        hashed = case.sha256(view.expected)
        yield Change(
            f"the manifest of version {view.case.version_id}",
            holds=bool(view.manifest) and view.manifest.body == view.expected,
            make=partial(self.put_manifest, view),
            fact="the manifest",
            end="written",
            unseen=PolicyExecutionError("others write it at the same time: run it again"),
        )
        if view.snapshots:
            ids = [snapshot["SnapshotId"] for snapshot in view.snapshots]
            tag = {"Key": record.CASE_HASH, "Value": hashed}
            yield Change(
                f"the hash {hashed[:12]} on {', '.join(ids)}",
                holds=all(tags_of(s).get(record.CASE_HASH) == hashed for s in view.snapshots),
                make=partial(self.client().create_tags, Resources=ids, Tags=[tag]),
                fact="the hash on the snapshots",
                end="tagged",
            )

    def collect(self, run, file):
        """Keep a file beside the case, or say why it cannot be had. Raises Impossible."""
        view = run.view
        if view.folder + file.name in view.keys:
            # of a run that died before it wrote the case, or of another that is at work
            there = self.get(view.bucket, view.folder + file.name)
            body, version_id, at = there.body, there.version_id, there.modified
        else:
            try:
                body, at = getattr(self, file.source.partition(":")[2])(run), datetime.now(UTC)
            except ClientError as error:
                if error_code(error) in DENIED:
                    raise
                body, why = None, describe(error)
            else:
                why = "EC2 has none"
            if not body:
                run.memory["missing"][file.name] = why
                raise Impossible(why)
            body = body[: file.at_most]
            version_id = self.put(view, file.name, body, None)
        run.memory["files"].append(
            {
                **case.entry(file.name, body, version_id),
                "source": file.source,
                "collected": at.isoformat(timespec="seconds"),
                "is_cut": len(body) == file.at_most,
            }
        )

    def GetConsoleOutput(self, run):  # noqa: N802 - the name of the call
        """What the instance wrote to its console, as bytes; b"" where EC2 has nothing yet."""
        ec2 = self.client()
        ec2.meta.events.register_first(
            "after-call.ec2.GetConsoleOutput", keep_undecoded, unique_id="undecoded"
        )
        ask = partial(ec2.get_console_output, InstanceId=self.resource_id(run))
        try:
            answer = ask(Latest=True)
        except ClientError as error:
            # of an instance that is not Nitro; which code EC2 answers is not documented
            if error_code(error) in DENIED:
                raise
            answer = ask()
        return base64.b64decode(answer.get("Undecoded") or "")

    def GetConsoleScreenshot(self, run):  # noqa: N802 - the name of the call
        answer = self.client().get_console_screenshot(InstanceId=self.resource_id(run))
        return base64.b64decode(answer.get("ImageData") or "")

    def put_case(self, run):
        view = run.view
        document = self.document(run, view)
        if view.case:
            before = {"version_id": view.case.version_id, "sha256": case.sha256(view.case.body)}
            document = document | {"previous": before}
        self.put(view, case.CASE, case.as_bytes(document), view.case)

    def put_manifest(self, view):
        self.put(view, case.MANIFEST, view.expected, view.manifest)

    def put(self, view, name, body, replaces):
        """Write an object where it still is as the look saw it; its version id.

        S3 compares the checksum with what it got. Raises LookAgain where another was faster.
        """
        condition = {"IfMatch": replaces.etag} if replaces else {"IfNoneMatch": "*"}
        digested = base64.b64encode(bytes.fromhex(case.sha256(body))).decode()
        try:
            answer = self.client("s3").put_object(
                Bucket=view.bucket,
                Key=view.folder + name,
                Body=body,
                ContentType="application/json" if name.endswith("json") else RAW,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=digested,
                **condition,
            )
        except ClientError as error:
            if error_code(error) in LOST:
                raise LookAgain from error
            raise
        if "VersionId" not in answer:
            raise PolicyExecutionError(f"the bucket {view.bucket} keeps no versions")
        return answer["VersionId"]

    def plan(self, run):
        return f"Would write the case record to {run.view.uri}."

    def tell(self, run):
        view = run.view
        if not view.document:
            return "The case record could not be written."
        return (
            f"The case record is {view.uri}{case.CASE}; the SHA-256 of its manifest is "
            f"{case.sha256(view.expected)}."
        )

    def more(self, run):
        view = run.view
        hashed = case.sha256(view.expected) if view.document else None
        return {"case": view.uri, "manifest_sha256": hashed}


def keep_undecoded(parsed, **_):
    """Before botocore makes text of it, in which what is no UTF-8 is lost."""
    parsed["Undecoded"] = parsed.get("Output")


def groups_of(instance):
    """The groups of each interface: {interface id: [group id]}."""
    return {
        interface["NetworkInterfaceId"]: [group["GroupId"] for group in interface["Groups"]]
        for interface in instance.get("NetworkInterfaces") or ()
    }


def kept(snapshot):
    """What is recorded of a snapshot: what does not change any more."""
    return {
        "id": snapshot["SnapshotId"],
        "volume": snapshot.get("VolumeId"),
        "started": snapshot.get("StartTime"),
    }


register("write-case", WriteCase, "ec2")
