"""Take every security group off an instance and put it into the forensic group; and the way back.

What isolation does not cut (tracked connections, DNS to the VPC resolver, credentials that have
left the instance) is said in the mail and in the README.
"""

from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import forensic_group, record, transition_group
from custom_actions.record import tags_of
from custom_actions.registry import register
from custom_actions.response import (
    REFUSED,
    Change,
    NothingToDo,
    NotReadBack,
    Revert,
    Step,
    describe,
)


def attached_interfaces(client, instance_id):
    """The interfaces attached to an instance now, with their tags, as EC2 describes them."""
    return client.describe_network_interfaces(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}]
    )["NetworkInterfaces"]


def group_ids(interface):
    return [group["GroupId"] for group in interface["Groups"]]


def shown_groups(interface):
    """The groups of an interface as the mail shows them."""
    return [{"id": g["GroupId"], "name": g["GroupName"]} for g in interface["Groups"]]


class NothingReadBack(PolicyExecutionError):
    """All of nothing is no read-back: it was terminated, or EC2 does not show it."""


class View(NamedTuple):
    interfaces: list  # as EC2 describes them
    live: bool  # with their tags, as attached now; else as the instance was described at first


class OfInterfaces:
    """What the step and its revert share."""

    def set_groups(self, interface, groups):
        self.client().modify_network_interface_attribute(
            NetworkInterfaceId=interface["NetworkInterfaceId"], Groups=groups
        )

    def check_read_back(self, run):
        if not run.view.interfaces:
            run.errors["interfaces"] = NothingReadBack(
                "EC2 shows no interface of the instance any more"
            )


class IsolateInstance(OfInterfaces, Step):
    """Replaces all security groups of all interfaces by the forensic group, and reads that back.

    Each attached interface gets exactly one group: the forensic group of its own VPC, which is
    created when it is missing and stripped of every rule it has. Before that, the groups it had
    are recorded in tags (see custom_actions/record.py) for `release-instance`. An instance that
    is isolated already is left as it is, except for interfaces attached since. Stopped and
    hibernated instances are isolated like running ones; of terminated ones it is only reported
    that there is nothing left to isolate.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-tor-client
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
              pattern:
                detail:
                  type: ["UnauthorizedAccess:EC2/TorClient"]
            filters:
              - type: event
                key: detail.type
                value: UnauthorizedAccess:EC2/TorClient
            actions:
              - type: isolate-instance
                forensic-group: ForensicSecurityGroup
                exempt-tag: forensic:exempt
                cut-tracked-connections: false
              - fail-unless-complete

    Arguments: `forensic-group`, the name of the group (default ForensicSecurityGroup);
    `exempt-tag`, the key of a tag that makes an instance exempt, whatever its value (default
    forensic:exempt); `cut-tracked-connections` (default false), see below. With
    `execution-options: {dryrun: true}` in the mode it only says what it would do.

    The outcome has, besides what every outcome has, `isolated` (true only when the read-back
    showed it), `verified_at` and a list `interfaces`. It is `failed` when an interface is not
    isolated, when the forensic group is not empty, or when the way back is not recorded.

    `cut-tracked-connections: true` brings each interface through the group
    ForensicTransitionGroup of its VPC, which allows everything in both directions and both
    families, into the forensic group. AWS documents that tracked connections survive a change of
    rules until they time out, that a flow which rules allow from and to everywhere is not
    tracked, and that an untracked flow is cut at once when its rule goes. AWS does not document
    when a tracked flow becomes untracked; others report that one which is silent in that moment
    stays tracked. None of this was run against AWS. The price: between the two calls, usually
    less than a second, the whole internet may reach the instance and the instance everything.
    It does not cut ICMP, nor what is always tracked: flows through egress-only internet
    gateways, Gateway and Network Load Balancers, Global Accelerator, NAT gateways, Network
    Firewall, PrivateLink, transit gateways, Lambda, and gateway endpoints of DynamoDB. Prefer
    `block-remote-address`.

    No interface is left in the transition group: when the forensic group is refused after it, it
    is tried again, then the groups before are put back and the step fails. A function that dies
    in between finishes when it is tried again. Where the transition is refused, the interface is
    isolated without it, and the step fails with that reason, on every later finding too
    (`forensic:connections-not-cut`): an isolated instance is not opened again. The group
    stays in the VPC and is made only when it is missing; one of that name without the tag
    forensic:group=transition and without these rules is left alone and not used.

    Calls up to the swap: DescribeInstances (Custodian), DescribeSecurityGroups, CreateTags, then
    one ModifyNetworkInterfaceAttribute for each interface; four more when the group has to be
    made. With `cut-tracked-connections` one more, and one more for each interface; then
    ec2:AuthorizeSecurityGroupIngress and ec2:AuthorizeSecurityGroupEgress are needed too.

    Limits: branch interfaces of ECS tasks are interfaces of their own, attached to a trunk, and
    are not touched. An interface that an AWS service manages refuses the change; that is
    reported. Custodian's built-in `modify-security-groups` cannot be used: it leaves groups in
    place (tests/test_builtin_modify_security_groups.py).

    Sources: c7n.actions.network.ModifyVpcSecurityGroupsAction;
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyNetworkInterfaceAttribute.html
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html
    """

    schema = type_schema(
        "isolate-instance",
        **{
            # EC2's own rule for the name of a security group in a VPC
            "forensic-group": {
                "type": "string",
                "pattern": r"^(?!sg-)[\w .:/()#,@\[\]+=&;!$*-]{1,255}$",
            },
            "exempt-tag": {"type": "string", "minLength": 1, "maxLength": 128},
            "cut-tracked-connections": {"type": "boolean"},
        },
    )
    permissions = (
        *forensic_group.PERMISSIONS,
        "ec2:DescribeNetworkInterfaces",
        "ec2:ModifyNetworkInterfaceAttribute",
    )
    nothing = {"isolated": False, "verified_at": None, "interfaces": []}

    def get_permissions(self):
        cut = self.data.get("cut-tracked-connections")
        return self.permissions + (transition_group.PERMISSIONS if cut else ())

    @property
    def group_name(self):
        return self.data.get("forensic-group", "ForensicSecurityGroup")

    def look(self, run):
        instance = run.resource
        run.tags = tags_of(instance)
        exempt = self.data.get("exempt-tag", record.EXEMPT)
        if exempt in run.tags:
            raise NothingToDo(
                f"The instance has the exemption tag {exempt}. Nothing was changed.", "exempt"
            )
        if not instance.get("NetworkInterfaces"):
            raise NothingToDo(
                f"The instance is {instance['State']['Name']} and has no network interface: "
                "there is nothing to isolate.",
                "skipped",
            )
        if run.view is not None:
            view = View(attached_interfaces(self.client(), self.resource_id(run)), live=True)
            run.unread.pop("the records", None)  # these are their tags, whatever the first look got
        else:
            view = View(instance["NetworkInterfaces"], live=False)
            groups = forensic_group.ForensicGroups(self.client(), self.group_name)
            run.memory |= {
                "groups": groups,
                "transition": transition_group.Transition(
                    self.client(), record.from_tags(run.tags, record.NOT_CUT) or ()
                ),
                "records": {},  # interface id: the groups it had
                "unrecorded": {},  # interface id: why they could not be recorded
            }
        run.memory["groups"].look({i["VpcId"] for i in view.interfaces})
        if not view.live and not self.is_first_response(run, view):
            # Nothing to hurry for, or something to know before: what is on record.
            live = run.read(
                "the records", attached_interfaces, self.client(), self.resource_id(run)
            )
            view = View(live, live=True) if live is not None else view
        for interface in view.interfaces:
            recorded = record.original_groups(interface)
            if recorded is not None:
                run.memory["records"][interface["NetworkInterfaceId"]] = recorded
        return view

    def is_first_response(self, run, view):
        """Whether there is an interface to isolate, and none has a record that matters."""
        return (
            record.STATE not in run.tags
            and not all(self.is_isolated(run, i) for i in view.interfaces)
            and not any(transition_group.holds_transition_group(i) for i in view.interfaces)
        )

    def is_isolated(self, run, interface):
        return group_ids(interface) == [run.memory["groups"].ids.get(interface["VpcId"])]

    def changes(self, run):
        groups = run.memory["groups"]
        for vpc_id in sorted({i["VpcId"] for i in run.view.interfaces}):
            # A group that could not be emptied is used all the same: it replaces groups that let
            # the attacker through today. The outcome will not say "isolated".
            yield Change(
                f"the forensic group of {vpc_id}",
                holds=vpc_id in groups.empty,
                make=partial(groups.make_empty, vpc_id),
                end="empty",
            )
        for interface in run.view.interfaces:
            change = Change(
                interface["NetworkInterfaceId"],
                holds=self.is_isolated(run, interface),
                make=partial(self.isolate, run, interface),
                end="isolated",
                unseen=NotReadBack("EC2 still shows other groups"),
                item=interface,
            )
            change.flaws |= self.flaws(run, change)
            yield change

    def flaws(self, run, change):
        """What an isolated interface lacks: the way back, the cut of what was open before."""
        if not change.holds:
            return {}
        flaws = {}
        if cause := run.memory["unrecorded"].get(change.name):
            flaws["not-recorded"] = cause
        elif run.view.live and change.name not in run.memory["records"]:
            flaws["not-recorded"] = "NoRecord: its original groups are not recorded"
        if cause := run.memory["transition"].not_cut.get(change.name):
            flaws["not-cut"] = f"connections open before were not cut: {describe(cause)}"
        return flaws

    def put_on_record(self, run):
        """Write each interface's groups into its tags, once: an existing record is never touched.

        One call for all interfaces; each then carries the records of its siblings as well, which
        is harmless, and keeps the number of calls before the swap at four.
        """
        records = run.memory["records"]
        new = {
            change.name: change
            for change in run.fresh
            if change.item is not None
            and change.name not in records
            # Left there by a run that died: what it had before is on record, or nowhere.
            and not transition_group.holds_transition_group(change.item)
        }
        if not run.view.live and "the records" in run.unread:
            # What cannot be read must not be overwritten; isolated all the same.
            for name, change in new.items():
                self.log.error("not recorded: %s has %s", name, group_ids(change.item))
            return
        if not new:
            return
        records |= {name: group_ids(change.item) for name, change in new.items()}
        tags = {n: record.as_tags(record.ORIGINAL_GROUPS + n, records[n]) for n in new}
        refused = {}
        try:
            self.tag_interfaces(list(new), [tag for own in tags.values() for tag in own])
        except REFUSED as error:
            refused = dict.fromkeys(new, error)
        for name in list(refused) if len(new) > 1 else ():
            # One interface that is gone, or full of tags, makes the whole call fail.
            try:
                self.tag_interfaces([name], tags[name])
                del refused[name]
            except REFUSED as error:
                refused[name] = error
        for name, error in refused.items():
            # Isolated all the same; the mail and this line are then the only record.
            self.log.error("not recorded: the original groups of %s are %s", name, records[name])
            run.memory["unrecorded"][name] = (
                f"its original groups could not be recorded: {describe(error)}"
            )

    def tag_interfaces(self, interface_ids, tags):
        self.client().create_tags(Resources=interface_ids, Tags=tags)

    def isolate(self, run, interface):
        forensic = run.memory["groups"].of(interface["VpcId"])
        if not self.data.get("cut-tracked-connections"):
            self.set_groups(interface, [forensic])
            return
        transition = run.memory["transition"]
        transition.find([c.item for c in run.fresh if c.item is not None])
        before = run.memory["records"].get(interface["NetworkInterfaceId"]) or ()
        transition.bring_through(interface, self.set_groups, forensic, before)

    def is_verified(self, run):
        """Whether every attached interface was read back in the empty group of its VPC."""
        return (
            run.view.live
            and bool(run.view.interfaces)
            and all(change.holds for change in run.changes)
        )

    def conclude(self, run):
        """Write the state; the time and the finding are those of the first response."""
        run.memory["verified_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        if run.view.live:
            self.check_read_back(run)
        incident = dict(record.begin_incident(run.resource, run.tags, run.event))
        if self.is_verified(run):
            run.resource[record.INCIDENT][record.GROUPS] = sorted(
                {group for i in run.view.interfaces for group in group_ids(i)}
            )
        state = record.ISOLATED if self.is_verified(run) else record.INCOMPLETE
        wanted = {record.STATE: state} | ({} if record.STATE in run.tags else incident)
        new = [{"Key": k, "Value": v} for k, v in wanted.items() if run.tags.get(k) != v]
        isolated = {c.name for c in run.holding if c.item is not None}
        not_cut = sorted(isolated & set(run.memory["transition"].not_cut))
        if not_cut != sorted(record.from_tags(run.tags, record.NOT_CUT) or ()):
            new += record.as_tags(record.NOT_CUT, not_cut)
        if new:
            run.attempt("the state could not be recorded on the instance", self.tag, run, new)

    def plan(self, run):
        pending = [c for c in run.changes if c.item is not None and not c.holds]
        vpc_ids = {i["VpcId"] for i in run.view.interfaces}
        missing = sorted(vpc_ids - set(run.memory["groups"].ids))
        through = self.data.get("cut-tracked-connections")
        return (
            f"Would put {len(pending)} of {len(run.view.interfaces)} interfaces into "
            f"{self.group_name}"
            + (f" through {transition_group.NAME}" if through else "")
            + (f", which would be made in {', '.join(missing)}." if missing else ".")
        )

    def tell(self, run):
        rows = self.rows(run)
        done = sum(row["status"] == "isolated" for row in rows)
        return ("" if run.made else "Nothing had to be changed. ") + (
            f"{done} of {len(rows)} interfaces hold only the forensic group of their VPC, "
            "as read back from EC2."
        )

    def more(self, run):
        return {
            "isolated": self.is_verified(run),
            "verified_at": run.memory.get("verified_at"),
            "interfaces": self.rows(run),
        }

    def rows(self, run):
        """What the mail shows of each interface."""
        names = {
            group["GroupId"]: group["GroupName"]
            for interface in run.resource["NetworkInterfaces"]
            for group in interface["Groups"]
        }
        return [self.row(run, c, names) for c in run.changes if c.item is not None]

    def row(self, run, change, names):
        interface, vpc_id = change.item, change.item["VpcId"]
        now, groups = shown_groups(interface), run.memory["groups"]
        removed = run.memory["records"].get(change.name, ())
        row = {
            "id": change.name,
            "vpc_id": vpc_id,
            "subnet_id": interface.get("SubnetId"),
            "private_ip": interface.get("PrivateIpAddress"),
            "removed": [{"id": i, "name": names.get(i, "")} for i in removed],
            "now": now,
            "forensic_group": groups.ids.get(vpc_id),
            "status": "isolated" if change.holds and vpc_id in groups.empty else "failed",
            "error": change.problem,
        }
        if change.holds and vpc_id in groups.errors:
            row["error"] = f"the forensic group is not empty: {describe(groups.errors[vpc_id])}"
        if self.dryrun and not change.holds:
            row |= {"removed": now, "status": "planned", "error": None}
        return row


class ReleaseInstance(OfInterfaces, Revert):
    """Puts the recorded groups back on each interface and removes the record.

    Refuses an instance that is not isolated. A recorded group that no longer exists is reported
    by id, the rest is put back. An interface without a record (it was isolated by hand, or
    attached since) is left as it is and reported. When EC2 refuses the change of an interface,
    all records stay, so that the release can be run again; the state is then `releasing`, in which
    `isolation-guard` leaves the instance alone.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-release-one
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - release-instance
              - fail-unless-complete

    Archive the finding in GuardDuty first: the next update of an active finding isolates the
    instance again. The outcome has a list `interfaces` as that of `isolate-instance`.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyNetworkInterfaceAttribute.html
    """

    schema = type_schema("release-instance")
    permissions = (
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:CreateTags",
        "ec2:DeleteTags",
    )

    def look(self, run):
        interfaces = attached_interfaces(self.client(), self.resource_id(run))
        if run.view is None:
            # The interfaces' tags: the instance's own may come from Custodian's cache.
            records = {i["NetworkInterfaceId"]: record.original_groups(i) for i in interfaces}
            if not any(records.values()):
                raise PolicyExecutionError(
                    f"{self.resource_id(run)} is not isolated by this pack: none of its "
                    f"{len(interfaces)} interfaces has a record of its groups. Nothing was changed."
                )
            run.memory |= {"records": records, "known": self.existing_groups(records)}
        return View(interfaces, live=True)

    def existing_groups(self, records):
        """Those of the recorded groups that still exist."""
        recorded = {group_id for ids in records.values() for group_id in ids or ()}
        pages = (
            self.client()
            .get_paginator("describe_security_groups")
            .paginate(Filters=[{"Name": "group-id", "Values": sorted(recorded)}])
        )
        return {group["GroupId"] for page in pages for group in page["SecurityGroups"]}

    def changes(self, run):
        known = run.memory["known"]
        for interface in run.view.interfaces:
            name = interface["NetworkInterfaceId"]
            recorded = run.memory["records"].get(name)
            if recorded is None:
                flaws = {"not-recorded": "no record of its groups, left as it is"}
                yield Change(name, holds=True, flaws=flaws)
                continue
            groups = [g for g in recorded if g in known]
            gone = [g for g in recorded if g not in known]
            change = Change(
                name,
                holds=bool(groups) and set(group_ids(interface)) == set(groups),
                make=partial(self.set_groups, interface, groups),
                unseen=NotReadBack("EC2 still shows other groups, run it again"),
            )
            if gone:
                change.flaws["gone"] = f"no longer exists: {', '.join(gone)}"
            if not groups:
                change.error = PolicyExecutionError(
                    "none of its groups exists any more, it stays isolated"
                )
            yield change

    def put_on_record(self, run):
        """Say so first: from then on no guard takes the change of groups for somebody else's."""
        if not run.memory.get("announced"):
            self.tag(run, [{"Key": record.STATE, "Value": record.RELEASING}])
            run.memory["announced"] = True

    def conclude(self, run):
        self.check_read_back(run)
        super().conclude(run)

    def forget(self, run):
        """Remove record and state. The same keys are deleted everywhere, present or not."""
        interfaces = run.view.interfaces
        keys = {
            *record.OF_THE_INCIDENT,
            *record.tag_keys(tags_of(run.resource), record.NOT_CUT),
            *(key for i in interfaces for key in record.record_keys(i)),
        }
        self.client().delete_tags(
            Resources=[self.resource_id(run), *(i["NetworkInterfaceId"] for i in interfaces)],
            Tags=[{"Key": key} for key in sorted(keys)],
        )

    def plan(self, run):
        return f"Would put back {run.memory['records']}."

    def tell(self, run):
        if not run.problems:
            return "The recorded groups are back on every interface, as read back from EC2."
        if self.is_over(run):
            return "Not everything could be put back."
        return "Not everything could be put back; the record is kept, the release can be run again."

    def more(self, run):
        rows = [
            {"id": i["NetworkInterfaceId"], "now": shown_groups(i)} for i in run.view.interfaces
        ]
        return {"interfaces": rows if not self.dryrun else []}


register("isolate-instance", IsolateInstance, "ec2")
register("release-instance", ReleaseInstance, "ec2")
