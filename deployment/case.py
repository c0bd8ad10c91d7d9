"""`make case` and `make verify-case`: a case record as a timeline, and the proof that it stands."""

import functools
import json
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import click
from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from custom_actions import case, record
from custom_actions.record import tags_of
from custom_actions.response import ignoring
from custom_actions.steps.write_case import FUNCTION
from deployment.errors import Refused, printable, reason
from deployment.targets import targeted
from mailer.errors import one_line

WIDTH = 80
# parameters that --json has
WORDY = ("Tags", "Filters", "IpPermissions", "TagSpecifications")
GONE = "InvalidSnapshot.NotFound"


def about_a_case(command):
    """Options that say which cases are meant. For a copy in a folder AWS is not asked."""
    there = targeted(command)

    @functools.wraps(there)
    def run(folder, region, config, accounts, tags, role, **said):
        if folder:
            return command(targets=[], folder=folder, **said)
        of = {"region": region, "config": config, "accounts": accounts, "tags": tags, "role": role}
        return there(folder=None, **of, **said)

    for option in (
        click.option("--instance", default="", help="all cases of an instance"),
        click.option("--finding", default="", help="all cases that a finding is in"),
        click.option("--bucket", default="", help="else the function's tag says it"),
        click.option("--folder", type=click.Path(path_type=Path), help="a copy of a case here"),
    ):
        run = option(run)
    return run


class Refusal(Refused):
    UNTOUCHED = ""


@click.command("case")
@about_a_case
@click.option("--json", "as_json", is_flag=True, help="the document itself")
def show(targets, as_json, **said):
    """Print case records as timelines: what was done when, by whom, and how it ended.

    IAM: s3:ListBucket and s3:GetObject of the account's folder, kms:Decrypt by way of S3, and
    lambda:ListTags where --bucket is not said.
    """
    documents = [json.loads(folder.read(case.CASE)) for folder in chosen(targets, **said)]
    if as_json:
        click.echo(json.dumps(documents, indent=2))
        return
    console = Console(width=WIDTH, highlight=False)
    for document in documents:
        for line, style in told(document):
            for part in textwrap.wrap(line, WIDTH, subsequent_indent=" " * 12) or [""]:
                console.print(Text(part, style=style))


@click.command("verify-case")
@about_a_case
def verify(targets, **said):
    """Prove that case records are what was written: every file by its hash, every version.

    Exit code 0 when all stand, 1 when one does not, each reason named.

    IAM: as `case`, and s3:ListBucketVersions, s3:GetObjectVersion, s3:GetObjectRetention of the
    account's folder, ec2:DescribeSnapshots.
    """
    stands = True
    for folder in chosen(targets, hidden=True, **said):
        problems, notes = folder.verify()
        stands = stands and not problems
        click.echo(f"{folder.name}: {'ALTERED or not whole' if problems else 'as it was written'}")
        for line in [f"  ! {problem}" for problem in problems] + [f"  {note}" for note in notes]:
            click.echo(printable(line))
    sys.exit(0 if stands else 1)


def chosen(targets, instance, finding, bucket, folder, hidden=False):
    """The cases that are meant; hidden: also those of which only versions are left.

    Raises Refused where there is none.
    """
    if folder:
        if not (folder / case.MANIFEST).is_file():
            raise Refusal(f"{folder} has no {case.MANIFEST}: it is no copy of a case.")
        return [Local(folder)]
    if bool(instance) == bool(finding):
        raise Refusal("Say INSTANCE=i-... or FINDING=<id>, or CASE=<folder>.")
    found = []
    for target in targets:
        session = target.session()
        name = bucket or bucket_of(session, target)
        if not case.BUCKET.fullmatch(name) or name == case.NONE:
            raise Refusal(f"{printable(name)!r} is not the name of a bucket.")
        prefix = f"cases/{target.account_id}/{target.region}/"
        if instance:
            prefix = case.of_instance(target.account_id, target.region, instance)
        try:
            folders = listed(session, name, prefix, hidden)
        except ClientError as error:
            raise Refusal(f"The cases in {name} are not to be read: {reason(error)}.") from error
        found += [Stored(session, name, key) for key in folders]
    if finding:
        found = [one for one in found if one.is_about(finding)]
    if not found:
        where = ", ".join(map(str, targets))
        raise Refusal(f"There is no case of {printable(instance or finding)} in {where}.")
    return found


def bucket_of(session, target):
    """The bucket that the function writes to. Raises Refused."""
    arn = target.arn("lambda", f"function:{FUNCTION}")
    client = session.client("lambda")
    shown = ignoring("ResourceNotFoundException", client.list_tags, Resource=arn)
    name = ((shown or {}).get("Tags") or {}).get(record.EVIDENCE_BUCKET)
    if not name:
        raise Refusal(f"No evidence bucket is known in {target}: say EVIDENCE_BUCKET=<name>.")
    return name


def listed(session, bucket, prefix, hidden):
    """The folders of cases below a prefix, in the order of their names."""
    operation, of = "list_objects_v2", "Contents"
    if hidden:  # by delete markers
        operation, of = "list_object_versions", "Versions"
    pages = session.client("s3").get_paginator(operation)
    keys = [
        shown["Key"]
        for page in pages.paginate(Bucket=bucket, Prefix=prefix)
        for shown in page.get(of, ())
    ]
    return sorted({key.rpartition("/")[0] + "/" for key in keys})


class Local:
    """A copy of a case in a folder of this machine."""

    def __init__(self, path):
        self.path, self.name = path, str(path)

    def read(self, name):
        return (self.path / name).read_bytes()

    def verify(self):
        """(problems, notes). Whether the manifest is the one that was written, only its hash says
        that the mail or a snapshot has."""
        body = self.read(case.MANIFEST)
        problems = []
        for file in json.loads(body)["files"]:
            # a name is the pack's, in a manifest that may not be
            path = self.path / Path(file["name"]).name
            if not path.is_file():
                problems.append(f"{file['name']} is missing")
            else:
                problems += compare(file, path.read_bytes())
        return problems, [
            f"The SHA-256 of the manifest is {case.sha256(body)}: compare it with the mail, or "
            f"with the tag {record.CASE_HASH} of the snapshots."
        ]


class Stored:
    """A case in the bucket."""

    def __init__(self, session, bucket, folder):
        self.s3, self.ec2 = session.client("s3"), session.client("ec2")
        self.bucket, self.folder = bucket, folder
        self.name = f"s3://{bucket}/{folder}"

    def read(self, name, version_id=None):
        """Raises Refused where it cannot be read."""
        version = {"VersionId": version_id} if version_id else {}
        try:
            got = self.s3.get_object(Bucket=self.bucket, Key=self.folder + name, **version)
            return got["Body"].read()
        except ClientError as error:
            raise Refusal(f"{self.name}{name} is not to be read: {reason(error)}.") from error

    def is_about(self, finding):
        document = json.loads(self.read(case.CASE))
        return finding in [f["id"] for f in document["findings"]]

    def versions(self):
        """({name: version ids, the newest first}, names that a delete marker hides)."""
        found, hidden = {}, []
        pages = self.s3.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self.bucket, Prefix=self.folder):
            for version in page.get("Versions", ()):
                name = version["Key"].removeprefix(self.folder)
                place = 0 if version["IsLatest"] else len(found.get(name, ()))
                found.setdefault(name, []).insert(place, version["VersionId"])
            hidden += [m["Key"].removeprefix(self.folder) for m in page.get("DeleteMarkers", ())]
        return found, sorted(set(hidden))

    def verify(self):
        """(problems, notes)."""
        versions, hidden = self.versions()
        problems = [f"{name}: somebody has put a delete marker over it" for name in hidden]
        if case.MANIFEST not in versions:
            return [*problems, f"{case.MANIFEST} is missing"], []
        body = self.read(case.MANIFEST, versions[case.MANIFEST][0])
        manifest = json.loads(body)
        named = {file["name"]: file for file in manifest["files"]}
        for name, file in named.items():
            problems += self.check(name, file, versions.get(name, []))
        strange = sorted(set(versions) - set(named) - {case.MANIFEST})
        problems += [f"{name}: no manifest names it" for name in strange]
        if not problems:
            problems += self.chain(named[case.CASE], versions)
        document = json.loads(self.read(case.CASE, named[case.CASE]["version_id"]))
        problems += self.tags(document, case.sha256(body))
        locked, unlocked = self.retention(versions)
        problems += [f"{name}: version {version} is not locked" for name, version in unlocked]
        notes = [f"{sum(map(len, versions.values()))} versions of {len(versions)} files"]
        if locked:
            notes.append(f"locked until {min(locked):%Y-%m-%d}, the first of them")
        return problems, [*notes, f"SHA-256 of the manifest: {case.sha256(body)}"]

    def check(self, name, file, versions):
        """What is wrong with a file of the manifest."""
        if file["version_id"] not in versions:
            return [f"{name}: the version {file['version_id']} of the manifest is not there"]
        found = compare(file, self.read(name, file["version_id"]))
        if versions[0] != file["version_id"]:
            found.append(f"{name}: the version {versions[0]} was put over that of the manifest")
        if name != case.CASE and len(versions) > 1:
            found.append(f"{name}: it is written once, and has {len(versions)} versions")
        return found

    def chain(self, last, versions):
        """What is wrong with the earlier versions of the case, each of which names the one before,
        and of the manifest, each of which names one of these."""
        link, hashes, problems, later = last, {}, [], None
        while link:
            version_id = link["version_id"]
            if version_id not in versions[case.CASE] or version_id in hashes:
                return [f"{case.CASE}: the version {version_id} before is not there"]
            body = self.read(case.CASE, version_id)
            hashes[version_id] = case.sha256(body)
            if hashes[version_id] != link["sha256"]:
                problems.append(f"{case.CASE}: version {version_id} is not what was written")
            document = json.loads(body)
            problems += [
                f"{case.CASE}: {what} of version {version_id} is not what a later one says"
                for what in lost(document, later)
            ]
            link, later = document["previous"], document
        for version_id in set(versions[case.CASE]) - set(hashes):
            problems.append(f"{case.CASE}: no later version names version {version_id}")
        for version_id in versions[case.MANIFEST]:
            files = json.loads(self.read(case.MANIFEST, version_id))["files"]
            (of,) = [file for file in files if file["name"] == case.CASE]
            if hashes.get(of["version_id"]) != of["sha256"]:
                problems.append(f"{case.MANIFEST}: version {version_id} is of no version of it")
        return problems

    def tags(self, document, hashed):
        """What the snapshots say of the manifest."""
        problems = []
        for snapshot in document["snapshots"]:
            shown = ignoring(GONE, self.ec2.describe_snapshots, SnapshotIds=[snapshot["id"]])
            if not shown:
                problems.append(f"{snapshot['id']}: the snapshot is gone")
                continue
            tag = tags_of(shown["Snapshots"][0]).get(record.CASE_HASH)
            if tag != hashed:
                problems.append(
                    f"{snapshot['id']}: its tag {record.CASE_HASH} is {tag}, not the hash of the "
                    "manifest"
                )
        return problems

    def retention(self, versions):
        """([until when each version is locked], [(name, version) that is not locked]).

        S3 shows a lock to whom it allows s3:GetObjectRetention.
        """
        locked, unlocked = [], []
        for name, version_id in [(n, v) for n, ids in versions.items() for v in ids]:
            key = {"Key": self.folder + name, "VersionId": version_id}
            until = self.s3.head_object(Bucket=self.bucket, **key).get("ObjectLockRetainUntilDate")
            if until and until > datetime.now(UTC):
                locked.append(until)
            else:
                unlocked.append((name, version_id))
        return locked, unlocked


def lost(earlier, later):
    """What of a case is not in its later version, though a case only grows.

    A finding may be replaced by its update. Of a case that is full the oldest runs but the first
    are left out, as many as it says.
    """
    if later is None:
        return
    for key in ("case", "account", "region", "instance", "began"):
        if earlier[key] != later[key]:
            yield key
    if earlier["described"] not in (None, later["described"]):
        yield "described"
    left_out = later.get("runs_left_out", 0) - earlier.get("runs_left_out", 0)
    is_full = len(earlier["runs"]) >= case.MOST_RUNS
    cut = earlier["runs"][1 : 1 + left_out] if is_full else []
    for key in ("runs", "snapshots", "files"):
        for entry in earlier[key]:
            if entry not in later[key] and entry not in cut:
                yield f"{key} {entry.get('id') or entry['name']}"
    kept = {finding["id"] for finding in later["findings"]}
    for finding in earlier["findings"]:
        if finding["id"] not in kept:
            yield f"finding {finding['id']}"


def compare(file, body):
    """What is wrong with a file, by what its manifest says."""
    if len(body) != file["size"] or case.sha256(body) != file["sha256"]:
        return [f"{file['name']}: not what was written, its SHA-256 is {case.sha256(body)}"]
    return []


def told(document):
    """A case in lines of plain text: [(line, style)]. Any text in it may be an attacker's."""
    plain = one_line
    yield f"Case {plain(document['case'], 80)}", "bold"
    yield f"  instance  {document['instance']}, {document['account']} {document['region']}", ""
    for finding in document["findings"]:
        kind = plain(str(finding.get("type") or "by hand"), 100)
        yield f"  finding   {plain(finding['id'], 80)} {kind}", ""
    for snapshot in document["snapshots"]:
        yield f"  snapshot  {snapshot['id']} of {snapshot['volume']}", ""
    for file in document["files"]:
        yield f"  file      {file['name']}, {file['size']} bytes, {file['collected']}", ""
    for name, why in document["not_collected"].items():
        yield f"  none      {name}: {plain(why, 200)}", ""
    for run in document["runs"]:
        yield "", ""
        by = plain(str(run["by"]), 200)
        yield f"{run['began']}  {plain(run['policy'], 80)}", "bold"
        yield f"  by {by}{', a person' if run['by_hand'] else ''}", ""
        yield from groups(run["groups"])
        for outcome in run["outcomes"]:
            said = plain(str(outcome["error"] or outcome["detail"]), 1000)
            style = "red" if outcome["status"] == "failed" else ""
            yield f"  {outcome['status']:<10}{outcome['step']}: {said}", style
        for call in run["calls"]:
            yield row(call), "red" if call["result"] != "ok" else "dim"


def words(value):
    """A parameter without its brackets."""
    if isinstance(value, list):
        return ",".join(words(held) for held in value)
    if isinstance(value, dict):
        return "/".join(words(held) for held in value.values())
    return str(value)


def groups(of):
    for name, before in of["before"].items():
        after = (of["after"] or {}).get(name)
        now = "unknown" if after is None else " ".join(after) or "no group"
        yield f"  {name}: {' '.join(before) or 'no group'} -> {now}", ""


def row(call):
    """One call: when, what, about what, how it ended."""
    about = " ".join(words(v) for k, v in call["parameters"].items() if k not in WORDY)
    result = "" if call["result"] == "ok" else f" {one_line(call['result'], 60)}"
    at = call["at"][11:23]
    return (
        f"  {at} {call['ms']:>5} ms  {call['service']}:{call['operation']} "
        f"{one_line(about, 120)}{result}"
    )
