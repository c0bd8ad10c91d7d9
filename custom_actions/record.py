"""The way back: the original groups of each interface and the state of the instance, in EC2 tags.

On an interface: `forensic:original-groups:<interface id>` with the group ids, a blank between two;
what does not fit into one tag goes on under the same key with `:2`, `:3` behind it. On the
instance: `forensic:state`, `forensic:finding`, `forensic:isolated-at`, and `forensic:notified`
(the outcome that was mailed last, see custom_actions/notify.py).

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
INSTANCE_KEYS = (STATE, FINDING, ISOLATED_AT, NOTIFIED)

ISOLATED, INCOMPLETE = "isolated", "incomplete"


def original_groups_tags(interface_id, group_ids):
    """The tags that record an interface's groups; 16 of them, the most EC2 allows, need two."""
    values = textwrap.wrap(" ".join(group_ids), 255, break_on_hyphens=False)
    return [
        {"Key": f"{ORIGINAL_GROUPS}{interface_id}" + (f":{n}" if n > 1 else ""), "Value": value}
        for n, value in enumerate(values, 1)
    ]


def original_groups(interface):
    """The group ids recorded on an interface (as DescribeNetworkInterfaces shows it), or None."""
    tags = tags_of(interface, "TagSet")
    key = ORIGINAL_GROUPS + interface["NetworkInterfaceId"]
    keys, n = [key], 2
    while f"{key}:{n}" in tags:
        keys.append(f"{key}:{n}")
        n += 1
    if key not in tags:
        return None
    return [group_id for key in keys for group_id in tags[key].split()]


def record_keys(interface):
    """The keys of all record tags on an interface, its own and those of its siblings."""
    return [key for key in tags_of(interface, "TagSet") if key.startswith(ORIGINAL_GROUPS)]


def state_tags(state):
    """The instance's state: ISOLATED only after the read-back, else INCOMPLETE."""
    return [{"Key": STATE, "Value": state}]


def incident_tags(event):
    """The finding that began the incident, and when."""
    finding = str(((event or {}).get("detail") or {}).get("id") or "unknown")
    return [
        # the id of a real finding is 32 hexadecimal digits; anything else could be refused by EC2
        {"Key": FINDING, "Value": re.sub(r"[^\w-]", "", finding)[:256]},
        {"Key": ISOLATED_AT, "Value": datetime.now(UTC).isoformat(timespec="seconds")},
    ]
