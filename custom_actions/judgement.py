"""What holds an isolation back: the brake, and a release from the same finding.

Both go by tags of the forensic groups, where the tags of instances do not reach
(custom_actions/seal.py).

**The brake.** GuardDuty can be wrong for many instances at once: a bad line on a threat list, a
proxy or a forwarder that asks on behalf of others. So an isolation first claims its place,
`begun=<time>` in the instance's seal, in the very call that records the original groups, and then
reads all claims of the account and region: when as many as allowed are earlier, within an hour, it
takes its claim and the record back and changes nothing. Each invocation writes before it reads, so
of many at once the first ones, by the time of their claims, go on and the others do not. One that
is isolated already counts whatever its time; one that could not be isolated counts no more. By the
same claims the last healthy members of a group do not go together (custom_actions/last_healthy.py).

What remains without a database: EC2 shows new tags late now and then, and clocks of functions
differ by some milliseconds; an invocation that does not see an earlier claim yet goes on, so among
those that begin in the same moment a few more may be isolated. A claim that could not be written is
not counted by others. Where the claims cannot be read, the instance is isolated and the step fails.
Whoever may tag the forensic group can hold the brake; see docs/limits.md.

**A release lasts.** `release-instance` leaves `forensic:released:<instance id>` with the findings
that the instance was released from, ten at most, the newest. They do not isolate it again.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from custom_actions import record, seal
from custom_actions.record import RELEASED, SEAL, tags_of

WINDOW = timedelta(hours=1)
AT_MOST = 5
FINDINGS = 10  # with them a tag of 256 characters is full

AT, BY, FROM = "at", "by", "from"


class Claim(NamedTuple):
    begun: datetime
    instance_id: str
    is_done: bool = False
    is_released: bool = False

    def __str__(self):
        return f"{self.instance_id} at {self.begun:%H:%M:%S} UTC"


def as_word(moment):
    """A time as one word of a tag, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_time(word):
    """The time that such a word names; None when it names none: anybody may have written it."""
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def claims(client):
    """The isolations that have begun, of all forensic groups of the region: {instance id: Claim}.

    Those of instances that were released since count as well.

    IAM: ec2:DescribeSecurityGroups.
    """
    pages = client.get_paginator("describe_security_groups").paginate(
        Filters=[{"Name": f"tag:{record.GROUP}", "Values": ["true"]}]
    )
    found = {}
    for tags in (tags_of(group) for page in pages for group in page["SecurityGroups"]):
        for key, value in tags.items():
            prefix = next((p for p in (SEAL, RELEASED) if key.startswith(p)), None)
            words = seal.pairs(value) if prefix else {}
            if begun := as_time(words.get(seal.BEGUN, "")):
                name, done = key.removeprefix(prefix), not seal.is_claim(words)
                claim = Claim(begun, name, done, prefix == RELEASED)
                found[claim.instance_id] = max(claim, found.get(claim.instance_id, claim))
    return found


class Brake:
    """The place of one isolation among those of an hour.

    at_most: how many may begin within an hour. begun: the words of claims that an earlier try has
    left; the time is the first one's, unless that was more than an hour ago.
    earlier: the claims before this one, once `look` has read them.
    """

    def __init__(self, client, instance_id, at_most, begun=()):
        self.client, self.at_most = client, at_most
        now = datetime.now(UTC)
        left = [t for t in map(as_time, begun) if t and now - WINDOW < t <= now]
        self.claim = Claim(min(left, default=now), instance_id)
        self.earlier = []

    @property
    def tag(self):
        return {
            "Key": SEAL + self.claim.instance_id,
            "Value": f"{seal.BEGUN}={as_word(self.claim.begun)}",
        }

    @property
    def holds(self):
        return len(self.earlier) >= self.at_most

    def look(self):
        """Read the claims. Raises ClientError."""
        others = claims(self.client)
        others.pop(self.claim.instance_id, None)
        mine = self.claim._replace(begun=as_time(as_word(self.claim.begun)))
        self.earlier = sorted(
            claim
            for claim in others.values()
            if claim.begun > mine.begun - WINDOW and (claim.is_done or claim < mine)
        )


class Release(NamedTuple):
    """A release as the forensic group remembers it."""

    at: str
    by: str
    findings: list  # short ids, the newest first


def release_of(group, instance_id):
    """The last release of an instance, by a tag of a group as EC2 describes it, or None."""
    words = seal.pairs(tags_of(group).get(RELEASED + instance_id, ""))
    if AT not in words:
        return None
    return Release(words[AT], words.get(BY, "somebody"), words.get(FROM, "").split("/"))


def remember_release(client, group_id, instance_id, who, findings, begun):
    """Keep a release on a forensic group. Raises as seal.write_tag does.

    who: the end of the ARN that sts:GetCallerIdentity names. findings: short ids, the newest first.
    begun: when the isolation did, as the seal said, or None: it still counts for the brake.

    IAM: ec2:CreateTags on groups that have the tag forensic:group.
    """
    now = as_word(datetime.now(UTC))
    (group,) = client.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    before = release_of(group, instance_id)
    findings = list(dict.fromkeys([*findings, *(before.findings if before else ())]))
    words = {AT: now, seal.BEGUN: begun, BY: re.sub(r"[^\w+=.@:/-]", "", who)[:70]}
    words[FROM] = "/".join(findings[:FINDINGS])
    value = " ".join(f"{name}={text}" for name, text in words.items() if text)
    seal.write_tag(client, group_id, RELEASED + instance_id, value)
