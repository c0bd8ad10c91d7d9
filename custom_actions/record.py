"""The record of a response: every tag that this pack writes, and how words get into tags and out.

Tags travel with the resource and need no database. Whoever may tag the resource can write them
too: what they say is checked against AWS before it is acted on, and what a release puts back
against the seal (custom_actions/seal.py).

Limits: a tag value holds 256 characters, a resource 50 tags. What does not fit into one tag goes
on under the same key with `:2`, `:3` behind it.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html
"""

import hashlib
import re
import textwrap
from datetime import UTC, datetime
from typing import NamedTuple

from custom_actions.words import one_line

STATE = "forensic:state"
FINDING = "forensic:finding"
ISOLATED_AT = "forensic:isolated-at"
EXEMPT = "forensic:exempt"
ORIGINAL_GROUPS = "forensic:original-groups:"
NOT_CUT = "forensic:connections-not-cut"
DENY = "forensic:deny:"
SETTINGS = "forensic:settings"
SNAPSHOTS = "forensic:snapshots"
MALWARE_SCAN = "forensic:malware-scan"
MEMORY = "forensic:memory"
INSTANCE = "forensic:instance"
CASE = "forensic:case"
VOLUME = "forensic:volume"
DEVICE = "forensic:device"
AUTO_SCALING_GROUP = "forensic:auto-scaling-group"
LOAD_BALANCERS = "forensic:load-balancers"
SUSPENDED = "forensic:suspended-processes"
NODE = "forensic:node"
ROLE_POLICY = "forensic:role-policy"
DEACTIVATED_KEYS = "forensic:deactivated-keys"
NOTIFIED = "forensic:notified"
GUARDED = "forensic:notified-guard"
GROUP = "forensic:group"
SEAL = "forensic:record:"
RELEASED = "forensic:released:"
AUTONOMY = "forensic:autonomy"
DEPLOYMENT = "forensic:deployment"
MEMBER_ROLE = "forensic:member-role"
MAX_PER_HOUR = "forensic:max-per-hour"
EVIDENCE_BUCKET = "forensic:evidence-bucket"
CASE_HASH = "forensic:case-sha256"


class Key(NamedTuple):
    """A tag: what it means, on which resource, who writes it and who takes it off.

    A key that ends in a colon is followed by what it is about: an id or an address.
    """

    on: str
    means: str
    written_by: str
    taken_off_by: str


KEYS = {
    STATE: Key(
        "instance",
        "isolated (only after the read-back), incomplete, or releasing",
        "isolate-instance, release-instance",
        "release-instance",
    ),
    FINDING: Key(
        "instance, snapshot",
        "id of the finding that began the incident",
        "isolate-instance, preserve-evidence",
        "release-instance; stays on snapshots",
    ),
    ISOLATED_AT: Key(
        "instance, snapshot",
        "when the incident began",
        "isolate-instance, preserve-evidence",
        "release-instance; stays on snapshots",
    ),
    DEPLOYMENT: Key(
        "instance",
        "the account whose deployment isolated it, where that is another than its own",
        "isolate-instance",
        "release-instance",
    ),
    EXEMPT: Key("instance", "the pack leaves the instance alone", "a person", "a person"),
    ORIGINAL_GROUPS: Key(
        "network interface",
        "<interface id>: ids of the security groups that the interface had",
        "isolate-instance",
        "release-instance",
    ),
    NOT_CUT: Key(
        "instance",
        "interfaces that were isolated without the transition that was asked for",
        "isolate-instance",
        "isolate-instance, release-instance",
    ),
    DENY: Key(
        "instance, network ACL",
        "<address>: on an instance the ACLs on which it needs the deny, behind the word released "
        "once a release has begun; on an ACL the rules that were made for it",
        "block-remote-address, keep-denied",
        "unblock-remote-address",
    ),
    SETTINGS: Key(
        "instance",
        "settings that were changed, with the value that they had",
        "preserve-evidence",
        "restore-settings",
    ),
    SNAPSHOTS: Key(
        "instance",
        "time of the incident and ids of its snapshots",
        "preserve-evidence",
        "restore-settings",
    ),
    MALWARE_SCAN: Key(
        "instance",
        "<time of the incident>=<id of GuardDuty's malware scan>",
        "scan-for-malware",
        "release-instance",
    ),
    MEMORY: Key(
        "instance",
        "<finding>:<command>:<how it ended>, of the capture of its memory before the isolation",
        "capture-memory",
        "release-instance",
    ),
    INSTANCE: Key("snapshot", "id of the instance", "preserve-evidence", "nobody"),
    CASE: Key(
        "snapshot",
        "name of the case: the instance, and when its incident began",
        "preserve-evidence",
        "nobody",
    ),
    VOLUME: Key("snapshot", "id of the volume", "preserve-evidence", "nobody"),
    DEVICE: Key("snapshot", "name of the device of the volume", "preserve-evidence", "nobody"),
    AUTO_SCALING_GROUP: Key(
        "instance",
        "name of the Auto Scaling group that it was in, or is in",
        "leave-service",
        "return-to-service",
    ),
    LOAD_BALANCERS: Key(
        "instance",
        "what it was registered in",
        "leave-service",
        "return-to-service",
    ),
    SUSPENDED: Key(
        "instance",
        "processes of its Auto Scaling group that are suspended for it; with - before them when "
        "it needs that no longer",
        "leave-service, return-to-service",
        "return-to-service",
    ),
    NODE: Key(
        "instance",
        "the ECS container instance that was ACTIVE, the EKS cluster whose node was schedulable",
        "cordon-node",
        "uncordon-node",
    ),
    ROLE_POLICY: Key(
        "instance",
        "inline policies that were put on its role, as <role>/<policy>",
        "revoke-role-sessions",
        "restore-role-sessions",
    ),
    DEACTIVATED_KEYS: Key(
        "IAM user",
        "access keys that were active before",
        "deactivate-access-key",
        "reactivate-access-key",
    ),
    NOTIFIED: Key(
        "instance, role, user",
        "the outcome that was mailed last; on a role or user with :<finding id> behind it, since "
        "they can be in several incidents at once",
        "notify-once",
        "release-instance, restore-role-sessions, reactivate-access-key",
    ),
    GUARDED: Key(
        "instance",
        "the same, of a guard's mail",
        "notify-once",
        "release-instance",
    ),
    GROUP: Key(
        "security group",
        "true: the forensic group; transition: the group that isolate-instance goes through when "
        "it is to cut connections",
        "isolate-instance, or a person",
        "nobody",
    ),
    SEAL: Key(
        "security group",
        "<instance id>: digests of what is on record of an instance in this forensic group, and "
        "whether a person is releasing it; see custom_actions/seal.py",
        "isolate-instance, seal-record, release-instance",
        "close-record",
    ),
    RELEASED: Key(
        "security group",
        "<instance id>: when, by whom and from which findings the instance was released; see "
        "custom_actions/judgement.py",
        "release-instance",
        "isolate-instance, seal-record: the oldest, where a group has no room",
    ),
    AUTONOMY: Key(
        "Lambda function",
        "how far the policy may go by itself; see custom_actions/autonomy.py",
        "a person, by the deploy",
        "nobody",
    ),
    MAX_PER_HOUR: Key(
        "Lambda function",
        "how many isolations an hour the brake lets pass, where it is not the policy's number",
        "a person, by the deploy",
        "a person, by a deploy with the number `policy`",
    ),
    CASE_HASH: Key(
        "snapshot",
        "SHA-256 of the manifest of the case; see custom_actions/case.py",
        "write-case",
        "nobody",
    ),
    EVIDENCE_BUCKET: Key(
        "Lambda function",
        "the bucket that it writes case records to; see custom_actions/steps/write_case.py",
        "a person, by the deploy",
        "a person, by a deploy with the name `none`",
    ),
    MEMBER_ROLE: Key(
        "Lambda function",
        "what the names of the roles begin with by which it acts in other accounts; see "
        "custom_actions/central.py",
        "a person, by the deploy",
        "a person, by the deploy",
    ),
}

ISOLATED, INCOMPLETE, RELEASING = "isolated", "incomplete", "releasing"

# Where isolate-instance leaves the incident for the steps behind it.
INCIDENT = "c7n:incident"

# Under that: the ids of the forensic groups that every interface was read back in.
FORENSIC_GROUPS = "forensic-groups"

# Where steps leave the words that they recorded and that they could not record: {key: words}.
RECORDED = "c7n:recorded"
UNRECORDED = "c7n:unrecorded"

# Where isolate-instance says that the original groups must not be sealed by the steps behind it.
DOUBTFUL = "c7n:doubtful"

# Where isolate-instance says that it failed before anything could be judged.
NOT_JUDGED = "c7n:not-judged"

# Where verify-record leaves what is to be put back: {key: words}.
VERIFIED = "c7n:verified"

# Where revoke-role-sessions leaves the role of a credential finding for the mark of the mail, once
# it is known to be the right one.
ROLE = "c7n:role"

# Where `by-hand` says who runs the policy, and hands on the event: {"who": ARN, "event": event}.
BY_HAND = "c7n:by-hand"

# Where a step says in the event that another deployment was waited for, which is done once.
WAITED = "c7n:waited"

# What a release takes off the instance itself.
OF_THE_INCIDENT = (
    STATE,
    FINDING,
    ISOLATED_AT,
    DEPLOYMENT,
    NOTIFIED,
    GUARDED,
    NOT_CUT,
    MALWARE_SCAN,
    MEMORY,
)

# What a release goes by, on the instance, besides the denies of addresses.
OF_THE_WAY_BACK = (
    SETTINGS,
    SNAPSHOTS,
    AUTO_SCALING_GROUP,
    LOAD_BALANCERS,
    SUSPENDED,
    NODE,
    ROLE_POLICY,
)

# Behind a key whose words did not fit into one tag.
PART = re.compile(r":([2-9]|[1-9][0-9])$")


def tags_of(resource, key="Tags"):
    """A resource's tags as a dictionary; EC2 calls the list `Tags`, on interfaces `TagSet`."""
    return {tag["Key"]: tag["Value"] for tag in resource.get(key) or ()}


def told(key, tags):
    """A tag and what it says, for a person: whoever wrote it may have meant one. On one line, and
    no quote in it ends the quotation: what follows would pass for words of the pack."""
    value = one_line(tags.get(key), 100).replace('"', "'")
    return f'{key} ("{value}")' if value else key


def as_tags(key, words):
    """Words without blanks as tags: `key`, and `key:2`, `key:3` for what does not fit."""
    values = textwrap.wrap(" ".join(words), 255, break_on_hyphens=False)
    return [
        {"Key": key if n == 1 else f"{key}:{n}", "Value": value}
        for n, value in enumerate(values or [""], 1)
    ]


def from_tags(tags, key):
    """The words that `as_tags` wrote, out of a dictionary of tags; None when there are none."""
    if key not in tags:
        return None
    return [word for k in tag_keys(tags, key) for word in tags[k].split()]


def held(words):
    """Words on record; a hold that is being dropped, `-Terminate`, is like one that is not."""
    return [word.removeprefix("-") for word in words]


def tag_keys(tags, key):
    """The keys that a record occupies, in order."""
    keys, n = [key] if key in tags else [], 2
    while f"{key}:{n}" in tags:
        keys.append(f"{key}:{n}")
        n += 1
    return keys


def find(client, keys):
    """The instances of the region that have any of these keys: {instance id: {key: value}}.

    client: of EC2. IAM: ec2:DescribeTags.
    """
    pages = client.get_paginator("describe_tags").paginate(
        Filters=[
            {"Name": "resource-type", "Values": ["instance"]},
            {"Name": "key", "Values": [k for key in keys for k in (key, f"{key}:2")]},
        ]
    )
    found = {}
    for tag in (tag for page in pages for tag in page["Tags"]):
        found.setdefault(tag["ResourceId"], {})[tag["Key"]] = tag["Value"]
    return found


def original_groups(interface):
    """The group ids recorded on an interface (as DescribeNetworkInterfaces shows it), or None."""
    return from_tags(
        tags_of(interface, "TagSet"), ORIGINAL_GROUPS + interface["NetworkInterfaceId"]
    )


def record_keys(interface):
    """The keys of all record tags on an interface, its own and those of its siblings."""
    return [key for key in tags_of(interface, "TagSet") if key.startswith(ORIGINAL_GROUPS)]


def is_of_the_pack(key):
    """Whether the pack writes tags with this key on instances from the isolation on."""
    written = {*OF_THE_INCIDENT, *OF_THE_WAY_BACK} - {MEMORY}  # which is there before
    return PART.sub("", key) in written or key.startswith(DENY)


def marks(tags, key):
    """What was mailed last of each event: {short id of the event: digest}, the oldest first."""
    return dict(word.split(":", 1) for word in from_tags(tags, key) or () if ":" in word)


def notified_key(finding_id):
    """The key of the mark on a role or user, which may be in several incidents at once."""
    return f"{NOTIFIED}:{finding_id}"


def incident(resource, tags, event):
    """The incident that an instance is in: {FINDING: its first finding, ISOLATED_AT: its begin}.

    From what `isolate-instance` left on Custodian's dictionary of the instance, since EC2 may not
    show its tags yet; else from the tags; else one incident a finding, which began "unknown".
    """
    known = resource.get(INCIDENT) or {}
    return {
        FINDING: known.get(FINDING) or tags.get(FINDING) or finding_tag(event),
        ISOLATED_AT: known.get(ISOLATED_AT) or tags.get(ISOLATED_AT, "unknown"),
    }


def begin_incident(resource, tags, event):
    """The same, of an instance whose isolation this is; it begins now unless the tags know it."""
    resource[INCIDENT] = {
        FINDING: tags.get(FINDING) or finding_tag(event),
        ISOLATED_AT: tags.get(ISOLATED_AT) or datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return resource[INCIDENT]


def short_id(event):
    """A short word for the finding, or for the API call, that an event is about."""
    detail = event["detail"]
    text = str(detail.get("eventID") or detail.get("id"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def case_id(instance_id, began):
    """The name of the case of one incident: the instance, and when its incident began.

    began: `ISOLATED_AT` of the incident. Fit for a tag, a file name and a key of S3.
    """
    return f"{instance_id}-{re.sub(r'[^0-9A-Za-z]', '', began.split('+')[0])}"


def finding_tag(event):
    """The id of the finding, fit for a tag: a real one is 32 hexadecimal digits."""
    finding = str(((event or {}).get("detail") or {}).get("id") or "unknown")
    return re.sub(r"[^\w-]", "", finding)[:256]
