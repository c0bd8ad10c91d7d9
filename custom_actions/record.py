"""The way back: the original groups of each interface and the state of the instance, in EC2 tags.

On an interface: `forensic:original-groups:<interface id>` with the group ids, a blank between two;
what does not fit into one tag goes on under the same key with `:2`, `:3` behind it. On the
instance: `forensic:state`, `forensic:finding`, `forensic:isolated-at`, `forensic:notified` (the
outcome that was mailed last, see custom_actions/notify.py), `forensic:role-policy` (the inline
policies put on its role, see custom_actions/sessions.py), and what each other step records.

Limits: a tag value holds 256 characters, a resource 50 tags.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html
"""

import re
import textwrap
from datetime import UTC, datetime

from custom_actions.response import tags_of

ORIGINAL_GROUPS = "forensic:original-groups:"
STATE = "forensic:state"
FINDING = "forensic:finding"
ISOLATED_AT = "forensic:isolated-at"
NOTIFIED = "forensic:notified"
GUARDED = "forensic:notified-guard"
ROLE_POLICY = "forensic:role-policy"
DEACTIVATED_KEYS = "forensic:deactivated-keys"  # on an IAM user, see custom_actions/access_key.py
INSTANCE_KEYS = (STATE, FINDING, ISOLATED_AT, NOTIFIED, GUARDED)

ISOLATED, INCOMPLETE, RELEASING = "isolated", "incomplete", "releasing"


def notified_key(finding_id):
    """The key of the mark on a role or user, which may be in several incidents at once."""
    return f"{NOTIFIED}:{finding_id}"


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


def tag_keys(tags, key):
    """The keys that a record occupies, in order."""
    keys, n = [key] if key in tags else [], 2
    while f"{key}:{n}" in tags:
        keys.append(f"{key}:{n}")
        n += 1
    return keys


def original_groups_tags(interface_id, group_ids):
    """The tags that record an interface's groups; 16 of them, the most EC2 allows, need two."""
    return as_tags(ORIGINAL_GROUPS + interface_id, group_ids)


def original_groups(interface):
    """The group ids recorded on an interface (as DescribeNetworkInterfaces shows it), or None."""
    return from_tags(
        tags_of(interface, "TagSet"), ORIGINAL_GROUPS + interface["NetworkInterfaceId"]
    )


def record_keys(interface):
    """The keys of all record tags on an interface, its own and those of its siblings."""
    return [key for key in tags_of(interface, "TagSet") if key.startswith(ORIGINAL_GROUPS)]


def state_tags(state):
    """The instance's state: ISOLATED only after the read-back, else INCOMPLETE, or RELEASING."""
    return [{"Key": STATE, "Value": state}]


def incident_tags(event):
    """The finding that began the incident, and when."""
    finding = str(((event or {}).get("detail") or {}).get("id") or "unknown")
    return [
        # the id of a real finding is 32 hexadecimal digits; anything else could be refused by EC2
        {"Key": FINDING, "Value": re.sub(r"[^\w-]", "", finding)[:256]},
        {"Key": ISOLATED_AT, "Value": datetime.now(UTC).isoformat(timespec="seconds")},
    ]
