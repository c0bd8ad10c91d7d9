"""What is isolated now, as EC2 shows it, by which finding, and the command that releases it."""

import json
import sys

import click
from c7n.utils import chunks

from custom_actions import judgement, record, seal
from custom_actions.forensic_group import is_empty
from custom_actions.instance import including_managed
from custom_actions.record import tags_of
from custom_actions.steps.seal_record import View, is_sealed
from deployment.checks import there
from deployment.everywhere import everywhere
from deployment.targets import targeted
from mailer.errors import one_line

# EC2 takes 200 values in a filter
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Filter.html
VALUES = 200


@click.command()
@targeted
@click.option("--json", "as_json", is_flag=True, help="for a machine")
def isolated(targets, as_json):
    """List what is isolated, since when, by which finding, and how to release it.

    By the seals on the forensic groups, by the tags of instances, and by which instances EC2 shows
    in a forensic group: whichever of these somebody took away, the others still name the instance.
    Denied addresses and revoked roles are those on the instance's own record; what was denied for
    a finding about credentials alone stands on no instance and is not listed.

    Ends with 1 when an instance is not as it should be: open again, its record not the sealed one.

    IAM: ec2:DescribeInstances, ec2:DescribeNetworkInterfaces, ec2:DescribeSecurityGroups,
    ec2:DescribeTags.
    """
    results = everywhere(look, targets, doing="Looking")
    found = [instance for result in results for instance in result.answer or ()]
    failed = [result for result in results if result.error]
    if as_json:
        click.echo(json.dumps({"instances": found, "failed": as_rows(failed)}, indent=2))
    else:
        for instance in found:
            click.echo(tell(instance) + "\n")
        places = f"{len(targets) - len(failed)} of {len(targets)} accounts and regions"
        click.echo(f"{len(found)} isolated, or said to be, in {places}.")
        for result in failed:
            click.echo(f"not read: {result.target}: {result.error}", err=True)
    sys.exit(1 if failed or any(instance["problems"] for instance in found) else 0)


def as_rows(failed):
    """Targets that failed, for JSON."""
    return [
        {"account": r.target.account_id, "region": r.target.region, "error": r.error}
        for r in failed
    ]


def look(target):
    """The isolated instances of one account and region, a dictionary each, ready for JSON."""
    ec2 = target.session().client("ec2")
    groups = forensic_groups(ec2)
    marked = [name for name, group in groups.items() if tags_of(group).get(record.GROUP) == "true"]
    seals = {}
    for name, group in groups.items():
        for key in tags_of(group):
            if key.startswith(record.SEAL):
                instance_id = key.removeprefix(record.SEAL)
                seals.setdefault(instance_id, {})[name] = seal.read(group, instance_id)
    held = of_instances(interfaces(ec2, "group-id", marked))
    said = record.find(ec2, [record.STATE])
    # a claim alone is of an isolation that was held back, or has not begun yet
    sealed = {i for i, found in seals.items() if not all(map(seal.is_claim, found.values()))}
    shown = instances(ec2, sealed | set(held) | set(said))
    names = [i["NetworkInterfaceId"] for one in shown for i in one["NetworkInterfaces"]]
    attached = of_instances(interfaces(ec2, "network-interface-id", names))
    rows = [
        row(target, instance, attached.get(instance["InstanceId"], []), seals, groups, marked)
        for instance in shown
    ]
    return sorted(rows, key=lambda one: (one["since"], one["instance"]))


def forensic_groups(ec2):
    """The groups that have the mark, or a seal of any instance: {group id: group}."""
    pages = ec2.get_paginator("describe_security_groups").paginate(
        Filters=[{"Name": "tag-key", "Values": [record.GROUP, record.SEAL + "*"]}]
    )
    return {group["GroupId"]: group for page in pages for group in page["SecurityGroups"]}


def interfaces(ec2, by, values):
    """The interfaces that a filter with any of these values finds."""
    for some in chunks(sorted(values), VALUES):
        pages = ec2.get_paginator("describe_network_interfaces").paginate(
            Filters=[{"Name": by, "Values": some}],
            **including_managed(ec2, "DescribeNetworkInterfaces"),
        )
        for page in pages:
            yield from page["NetworkInterfaces"]


def of_instances(found):
    """Interfaces by the instance that they are attached to."""
    attached = {}
    for interface in found:
        if instance_id := interface.get("Attachment", {}).get("InstanceId"):
            attached.setdefault(instance_id, []).append(interface)
    return attached


def instances(ec2, ids):
    """Those of the instances that EC2 still knows."""
    found = []
    for some in chunks(sorted(ids), VALUES):
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-id", "Values": some}],
            **including_managed(ec2, "DescribeInstances"),
        )
        found += [i for page in pages for r in page["Reservations"] for i in r["Instances"]]
    return found


def row(target, instance, attached, seals, groups, marked):
    """What is to be said of one instance."""
    instance_id, tags = instance["InstanceId"], tags_of(instance)
    view = View(seal.words_on_record(tags, attached), seals.get(instance_id, {}))
    now = {i["NetworkInterfaceId"]: [g["GroupId"] for g in i["Groups"]] for i in attached}
    open_ = {name: held for name, held in now.items() if not held or not set(held) <= set(marked)}
    forensic = sorted({held for all_ in now.values() for held in all_ if held in marked})
    begun = [judgement.as_time(s.get(seal.BEGUN, "")) for s in view.seals.values()]
    begun = min((t for t in begun if t), default=None)
    since = begun.isoformat(timespec="seconds") if begun else tags.get(record.ISOLATED_AT)
    releasing = [s[seal.RELEASING] for s in view.seals.values() if seal.RELEASING in s]
    is_gone = instance["State"]["Name"] in ("terminated", "shutting-down")
    command = f"make release INSTANCE={instance_id} REGION={target.region}{there(target)}"
    ruled = [group for group in forensic if not is_empty(groups[group])]
    problems = []
    if not is_gone:
        problems = [
            f"OPEN: {name} has {', '.join(ids) or 'no group'}" for name, ids in open_.items()
        ]
        empty = f"make empty-forensic-group REGION={target.region} GROUP="
        problems += [f"OPEN: {g} has rules: {empty}{g}{there(target)}" for g in ruled]
        problems += on_record(view, releasing, now)
    denied = [k.removeprefix(record.DENY) for k in tags if k.startswith(record.DENY)]
    return {
        "account": target.account_id,
        "account_name": target.name,
        "region": target.region,
        "instance": instance_id,
        "name": one_line(tags.get("Name", ""), 80),
        "state": instance["State"]["Name"],
        "since": one_line(since or "unknown", 40),
        "finding": one_line(tags.get(record.FINDING) or "unknown", 80),
        "is_isolated": not is_gone and bool(now) and not open_ and not ruled,
        "interfaces": now,
        "releasing_since": one_line(min(releasing), 40) if releasing else None,
        "is_sealed": bool(view.seals) and all(is_sealed(view, part) for part in view.parts),
        "denied_addresses": sorted(one_line(address, 60) for address in set(denied)),
        "role_policies": [
            one_line(word, 160) for word in record.from_tags(tags, record.ROLE_POLICY) or ()
        ],
        "problems": problems,
        "release": None if is_gone else command,
    }


def on_record(view, releasing, now):
    """What a release would find wrong with the record."""
    if releasing:
        return
    words = view.words[seal.GROUPS]
    missing = sorted(name for name in now if not any(w.startswith(f"{name}=") for w in words))
    if missing:
        yield (
            f"no record of the groups of {', '.join(missing)}: the release needs GROUPS=..., as "
            "the mail of the isolation shows them"
        )
    if all(map(seal.is_claim, view.seals.values())):
        yield "the record was never sealed: the release will ask"
        return
    if broken := [part for part in view.parts if not is_sealed(view, part)]:
        yield (
            f"not what was sealed: {', '.join(broken)}. Somebody changed tags, or the response is "
            "not over yet: the release will ask"
        )


def tell(one):
    """One instance in plain words."""
    account = one["account"]
    if one["account_name"] != account:
        account = f"{one['account_name']} ({account})"
    total = len(one["interfaces"])
    shows = f"{one['state']}, all {total} interfaces in a forensic group without rules"
    if not one["is_isolated"]:
        shows = f"{one['state']}, NOT isolated"
    lines = [
        f"{one['instance']} {one['name']!r} in {account} {one['region']}",
        f"  since     {one['since']}, by finding {one['finding']}",
        f"  EC2 shows {shows}",
        *(f"  !         {problem}" for problem in one["problems"]),
    ]
    if one["releasing_since"]:
        lines.append(f"  released  by a person since {one['releasing_since']}: not complete yet")
    elif one["is_sealed"]:
        lines.append("  record    sealed")
    if one["denied_addresses"]:
        lines.append(f"  denied    {', '.join(one['denied_addresses'])}")
    if one["role_policies"]:
        lines.append(f"  revoked   {', '.join(one['role_policies'])}")
    if one["release"]:
        lines.append(f"  release   {one['release']}")
    return "\n".join(lines)
