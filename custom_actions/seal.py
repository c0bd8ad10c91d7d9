"""The seal of a record: digests of it, in a tag of the forensic group.

The record stands in tags of the instance and of its interfaces, and whoever has the instance's
credentials can often write those (ec2:CreateTags). What a release attaches, registers and switches
off must not be theirs to choose. So the digest of each part of the record stands where the
instance's tags are not: `forensic:record:<instance id>` on the forensic groups that its interfaces
are in, as words `<part>=<digest>`. A release puts back what is sealed; anything else it shows, and
does only when a person confirms exactly that (steps/seal_record.py).

A seal begins as a claim, `begun=<time>`, before the swap (custom_actions/judgement.py), then has
the original groups, by `isolate-instance`, and is complete when `seal-record` has been at the end
of a response: from then on nothing is sealed that the run itself has not recorded.
`by=own`, or `by=<account>` of GuardDuty's administrator, says whose deployment sealed first
(nobody's, where a person isolates by hand), `releasing=<time>` that a person releases the instance,
and `unrecorded=<parts>` what was changed without a record.

What remains: whoever may tag the forensic group can seal what they like, as can whoever tags the
instance between a step and the first complete seal, some seconds; and a group has room for the
seals of 48 instances (50 tags), see `seal-record`. An organisation that has service control
policies denies ec2:CreateTags and ec2:DeleteTags of `forensic:*` to everybody but the response and
its people.
"""

import base64
import hashlib
from datetime import UTC, datetime
from functools import partial

from c7n.exceptions import ClientError, PolicyExecutionError

from custom_actions import network_acl, record
from custom_actions.record import RELEASED, SEAL, tags_of
from custom_actions.response import Impossible

GROUPS = record.ORIGINAL_GROUPS.split(":")[1]
DENIES = record.DENY.split(":")[1]
RELEASING, UNRECORDED, BEGUN, BY = "releasing", "unrecorded", "begun", "by"


class Broken(PolicyExecutionError):
    """The record is not what was sealed."""


class NoRoom(Impossible):
    """A group has as many tags as a resource can have, all of them needed."""


def part_of(key):
    """The part of the record that a tag belongs to: the word behind `forensic:`."""
    return key.split(":")[1]


# Not the snapshots: a release only names them.
SEALED_KEYS = tuple(key for key in record.OF_THE_WAY_BACK if key != record.SNAPSHOTS)
PARTS = (GROUPS, DENIES, *map(part_of, SEALED_KEYS))


def groups_on_record(interfaces):
    """{interface id: its original groups}, by the tags of the interfaces.

    Each interface carries the records of its siblings too, so that one which was detached since is
    still known. Two tags that say different things of one interface are both in the answer, the
    second with the key (interface id, groups).
    """
    found = {}
    for interface in interfaces:
        tags = tags_of(interface, "TagSet")
        for key in tags:
            name = key.removeprefix(record.ORIGINAL_GROUPS)
            if key.startswith(record.ORIGINAL_GROUPS) and ":" not in name:
                words = record.from_tags(tags, key)
                if found.setdefault(name, words) != words:
                    found[name, *words] = words
    return found


def words_of(groups):
    """The words of original groups, as they are sealed: `<interface>=<groups>`."""
    return [f"{name}={','.join(sorted(ids))}" for name, ids in groups.items()]


def denies_on_record(tags):
    """The words of denied addresses, `<address>=<ACL>`, whether or not they are being taken off."""
    return [
        f"{key.removeprefix(record.DENY)}={word}"
        for key, value in tags.items()
        if key.startswith(record.DENY)
        for word in value.split()
        if word != network_acl.RELEASED
    ]


def words_on_record(tags, interfaces):
    """What is on record now, as it is sealed: {part: words}.

    tags: of the instance, as a dictionary. interfaces: the attached ones, as EC2 describes them.
    """
    words = {part_of(k): record.held(record.from_tags(tags, k) or []) for k in SEALED_KEYS}
    words[DENIES] = denies_on_record(tags)
    words[GROUPS] = words_of(groups_on_record(interfaces))
    return words


def recorded_by(resource):
    """What this run has recorded, in the same words: {part: words}."""
    words = {}
    for key, own in (resource.get(record.RECORDED) or {}).items():
        if key.startswith(record.DENY):
            own = [f"{key.removeprefix(record.DENY)}={word}" for word in own]
        words.setdefault(part_of(key), []).extend(own)
    return words


def digest(words):
    """72 bits in 12 letters: all parts fit into one tag, and no other record has the same."""
    text = " ".join(sorted(words))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:9]).decode()


# A part of which nothing is on record is written in one letter: the rest is room for what could not
# be recorded.
NOTHING = digest(())
SHORT = "-"


def code(words):
    """One word for all that is on record, which a person can confirm: small letters and digits."""
    text = " ".join(f"{part}={digest(words[part])}" for part in PARTS)
    return base64.b32encode(hashlib.sha256(text.encode()).digest()[:10]).decode().lower()


def is_sealed(seal, part, words, own=()):
    """Whether the words of a part are those that were sealed, with or without this run's own."""
    others = [word for word in words if word not in own]
    return seal.get(part) in (digest(words), digest(others))


def is_claim(seal):
    """Whether it says no more than that an isolation was about to begin."""
    return set(seal) <= {BEGUN}


def pairs(value):
    """The words `<name>=<text>` of a tag's value, as a dictionary."""
    return dict(word.split("=", 1) for word in value.split() if "=" in word)


def read(group, instance_id):
    """The seal of an instance on a security group as EC2 describes it: {part: digest}, or {}."""
    found = pairs(tags_of(group).get(SEAL + instance_id, ""))
    return {part: NOTHING if text == SHORT else text for part, text in found.items()}


def leaving(group):
    """The instances that a group has a seal or a claim of, and that nobody is releasing."""
    keys = [key for key in tags_of(group) if key.startswith(SEAL)]
    ids = [key.removeprefix(SEAL) for key in keys]
    return {i for i in ids if RELEASING not in read(group, i)}


def find(client, instance_id, group_ids=None):
    """The groups that carry a seal of the instance: {group id: seal}.

    group_ids: of these groups those that are forensic, with or without a seal.
    IAM: ec2:DescribeSecurityGroups.
    """
    wanted = {"Name": "tag-key", "Values": [SEAL + instance_id]}
    if group_ids is not None:
        wanted = {"Name": "group-id", "Values": sorted(group_ids)}
    pages = client.get_paginator("describe_security_groups").paginate(Filters=[wanted])
    groups = [group for page in pages for group in page["SecurityGroups"]]
    return {g["GroupId"]: read(g, instance_id) for g in groups if is_forensic(g, instance_id)}


def instances_in(client, vpc_ids):
    """The ids of the instances that have a seal on a forensic group of these VPCs.

    IAM: ec2:DescribeSecurityGroups.
    """
    pages = client.get_paginator("describe_security_groups").paginate(
        Filters=[
            {"Name": "vpc-id", "Values": sorted(vpc_ids)},
            {"Name": f"tag:{record.GROUP}", "Values": ["true"]},
        ]
    )
    keys = {key for page in pages for group in page["SecurityGroups"] for key in tags_of(group)}
    return sorted(key.removeprefix(SEAL) for key in keys if key.startswith(SEAL))


def is_forensic(group, instance_id):
    """Whether a group has the mark of the pack's own, or a seal of the instance."""
    return tags_of(group).get(record.GROUP) == "true" or bool(read(group, instance_id))


def write(client, group_id, instance_id, seal):
    """Put a seal on a group. Raises as `write_tag` does."""
    # what could not be recorded last: where it does not fit, some of it is cut off
    parts = sorted(seal.items(), key=lambda item: item[0] == UNRECORDED)
    words = (f"{part}={SHORT if text == NOTHING else text}" for part, text in parts)
    value = " ".join(words)[:256]
    write_tag(client, group_id, SEAL + instance_id, value)


def write_tag(client, group_id, key, value):
    """Tag a group; where it is full of tags, in the place of one that nobody needs.

    Raises NoRoom when there is none.

    IAM: ec2:CreateTags on groups that have the tag forensic:group; ec2:DeleteTags and
    ec2:DescribeInstances where the group is full.
    """
    tag = partial(client.create_tags, Resources=[group_id], Tags=[{"Key": key, "Value": value}])
    try:
        tag()
    except ClientError as error:
        if error.response["Error"]["Code"] != "TagLimitExceeded":
            raise
        if not remove_unneeded(client, group_id):
            raise NoRoom(
                f"{group_id} has no room for another tag: a release will ask, and no guard keeps "
                "the instance isolated"
            ) from error
        tag()


def remove_unneeded(client, group_id):
    """Take off a group the tags that nobody needs; returns their keys.

    The seals of instances that are terminated; else the release that is the longest ago.
    """
    (group,) = client.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    tags = tags_of(group)
    gone = [SEAL + instance_id for instance_id in terminated(client, tags)]
    # what a response that died had no time to remove
    gone += [key for key in tags if key.startswith(record.ORIGINAL_GROUPS)]
    if not gone:
        released = sorted((value, key) for key, value in tags.items() if key.startswith(RELEASED))
        gone = [key for _, key in released[:1]]
    if gone:
        client.delete_tags(Resources=[group_id], Tags=[{"Key": key} for key in gone])
    return gone


def terminated(client, tags):
    """The ids of the instances that the tags of a group have a seal of and that are terminated."""
    ids = {key.removeprefix(SEAL) for key in tags if key.startswith(SEAL)}
    if not ids:
        return set()
    pages = client.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-id", "Values": sorted(ids)}]
    )
    alive = {
        instance["InstanceId"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "terminated"
    }
    return ids - alive


def remove(client, group_ids, instance_ids):
    """Take seals off groups. IAM: ec2:DeleteTags on security groups."""
    client.delete_tags(
        Resources=sorted(group_ids), Tags=[{"Key": SEAL + i} for i in sorted(instance_ids)]
    )


def unrecorded(seal):
    """The parts of which something was changed and could not be recorded."""
    return seal[UNRECORDED].split(",") if UNRECORDED in seal else []


def releasing(seal):
    """The seal of an instance that a person is releasing, from now on.

    Nobody waits for a deployment then, and a tag is too short for that as well.
    """
    return {part: text for part, text in seal.items() if part != BY} | {
        RELEASING: datetime.now(UTC).strftime("%Y%m%dT%H%MZ")
    }
