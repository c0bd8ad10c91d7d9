"""The case record: where it stands, what is in it, how it grows, and how it is proven.

One folder for each incident, `cases/<account>/<region>/<case>/`, in a bucket that locks objects:

- `case.json`: docs/case.schema.json. It grows by one run at a time; each version names the one
  before by its version id and SHA-256, so that the versions are a chain.
- `console-output.txt`, `screenshot.jpg`: raw, an attacker's, written once.
- `manifest.json`: SHA-256, size and version id of each file. It follows from `case.json` alone, so
  that whoever has the one can say what the other has to be.

The SHA-256 of the manifest stands in the mail, the log and a tag of the snapshots. Whoever has one
of these proves the manifest, by it the files, and by `case.json` all earlier versions of it.
This module calls nothing.
"""

import hashlib
import json
import re

SCHEMA = "1"
CASE, MANIFEST = "case.json", "manifest.json"
OUTPUT, SCREENSHOT = "console-output.txt", "screenshot.jpg"

# The rules for names that matter here: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
NONE = "none"  # no bucket: nothing is written
# Runs in one document. More than those are in its earlier versions alone.
MOST_RUNS = 50
UNSET = "{evidence-bucket}"  # the variable, where nobody has given it a value


def of_instance(account_id, region, instance_id):
    """What the keys of all cases of an instance begin with."""
    return f"cases/{account_id}/{region}/{instance_id}-"


def folder(account_id, region, case_id):
    """What the keys of a case begin with. case_id: see `record.case_id`."""
    return f"cases/{account_id}/{region}/{case_id}/"


def as_bytes(document):
    """A document as it is stored: the same document is the same bytes."""
    return json.dumps(document, indent=1, sort_keys=True, default=str).encode() + b"\n"


def plain(value):
    """A value as JSON has it: without times and other objects of Python."""
    return json.loads(json.dumps(value, default=str))


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def entry(name, body, version_id):
    """A file as a manifest names it."""
    return {"name": name, "sha256": sha256(body), "size": len(body), "version_id": version_id}


def manifest(document, body, version_id):
    """The manifest of a case. body, version_id: of its `case.json`."""
    kept = [
        {key: file[key] for key in ("name", "sha256", "size", "version_id")}
        for file in document["files"]
    ]
    return {
        "schema": SCHEMA,
        "case": document["case"],
        "files": [entry(CASE, body, version_id), *sorted(kept, key=lambda file: file["name"])],
    }


def begun(case_id, account_id, region, instance_id, began):
    """A case in which nothing stands yet."""
    return {
        "schema": SCHEMA,
        "case": case_id,
        "account": account_id,
        "region": region,
        "instance": instance_id,
        "began": began,
        "findings": [],
        "described": None,
        "snapshots": [],
        "files": [],
        "not_collected": {},
        "previous": None,
        "runs": [],
    }


def is_news(finding, document):
    """Whether a finding is another than the case has, and no earlier state that came late."""
    known = next((f for f in document["findings"] if f["id"] == finding["id"]), None)
    if known is None:
        return True
    return known != finding and str(known.get("updatedAt")) <= str(finding.get("updatedAt"))


def merged(document, *, finding=None, described=None, snapshots=(), files=(), missing=(), run=None):
    """A case with what one run adds to it; adding the same again changes nothing.

    finding: GuardDuty's, which replaces an earlier state of the same. described: the instance, of
    which the first description stays. files: as `entry`, and whence and when. missing: why a file
    could not be had, {name: reason}. Of more than MOST_RUNS runs the oldest but the first is left
    out, and counted.
    """
    known = {file["name"]: file for file in files} | {f["name"]: f for f in document["files"]}
    held = {s["id"]: s for s in snapshots} | {s["id"]: s for s in document["snapshots"]}
    findings = {f["id"]: f for f in document["findings"]}
    if finding is not None and is_news(finding, document):
        findings[finding["id"]] = finding
    runs = {r["id"]: r for r in document["runs"]}
    left_out = document.get("runs_left_out", 0)
    if run and run["id"] not in runs:
        if len(runs) >= MOST_RUNS:
            del runs[list(runs)[1]]
            left_out += 1
        runs[run["id"]] = run
    return document | {
        "findings": list(findings.values()),
        "described": document["described"] or described,
        "snapshots": [held[key] for key in sorted(held)],
        "files": [known[name] for name in sorted(known)],
        "not_collected": {
            k: v for k, v in (dict(missing) | document["not_collected"]).items() if k not in known
        },
        "runs": sorted(runs.values(), key=lambda r: (r["began"], r["id"])),
        **({"runs_left_out": left_out} if left_out else {}),
    }
