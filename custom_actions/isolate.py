"""Take every security group off an instance and put it into the forensic group; and the way back.

What isolation does not cut (tracked connections, DNS to the VPC resolver, credentials that have
left the instance) is said in the mail and in the README.
"""

import logging
import time
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.resources.ec2 import EC2
from c7n.utils import type_schema

from custom_actions import forensic_group, record, transition_group
from custom_actions.response import ResponseAction, describe, error_code, retry, tags_of

log = logging.getLogger("custodian.actions.isolate")

# Seconds before each look at the interfaces: EC2's describes are eventually consistent.
READ_BACK_DELAYS = (0, 0.2, 0.5, 1, 2)

# Tag of the instance: the interfaces that were isolated without the transition that was asked for.
NOT_CUT = "forensic:connections-not-cut"


def attached_interfaces(client, instance_id):
    """The interfaces attached to an instance now, with their tags, as EC2 describes them."""
    return retry(
        client.describe_network_interfaces,
        Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}],
    )["NetworkInterfaces"]


def group_ids(interface):
    return [group["GroupId"] for group in interface["Groups"]]


class Isolation:
    """One instance on its way into the forensic group: what was tried and what EC2 then shows.

    An error at one interface, or in one VPC, is kept and does not stop the others.
    """

    def __init__(self, client, group_name, instance, cut_connections=False):
        self.client = client
        self.group_name = group_name
        self.instance = instance
        self.cut_connections = cut_connections
        self.groups = {}  # VPC id: id of its forensic group
        self.group_errors = {}  # VPC id: why that group is missing, or not empty
        self.records = {}  # interface id: group ids that this run recorded or found recorded
        self.record_errors = {}  # interface id: why its groups could not be recorded
        self.swap_errors = {}  # interface id: why its groups could not be changed
        self.swapped = set()  # interface ids that this run changed
        self.transitions = {}  # VPC id: id of its transition group
        # interface id: why it did not go through the transition group, now or in an earlier run
        self.cut_errors = dict.fromkeys(
            record.from_tags(tags_of(instance), NOT_CUT) or (),
            PolicyExecutionError("it was isolated without the transition group"),
        )
        self.live = []  # the interfaces as read back

    def run(self):
        """Isolate the interfaces, and those that were attached in the meantime; read them back."""
        self.contain(self.instance["NetworkInterfaces"])
        self.read_back()
        late = [i for i in self.live if not self.is_isolated(i) and not self.was_tried(i)]
        if late:
            self.contain(late)
            self.read_back()

    def contain(self, interfaces):
        self.find_groups({i["VpcId"] for i in interfaces} - set(self.groups))
        pending = [i for i in interfaces if not self.is_isolated(i)]
        self.record(pending)
        self.swap(pending)

    def find_groups(self, vpc_ids):
        """Find or make the forensic group of each VPC and see that it is empty."""
        if not vpc_ids:
            return
        found = forensic_group.find_forensic_groups(self.client, self.group_name, vpc_ids)
        for vpc_id in vpc_ids:
            try:
                if vpc_id in found:
                    self.groups[vpc_id] = found[vpc_id]["GroupId"]
                    if forensic_group.is_empty(found[vpc_id]):
                        continue
                else:
                    self.groups[vpc_id] = forensic_group.create_forensic_group(
                        self.client, self.group_name, vpc_id
                    )
                forensic_group.empty_forensic_group(self.client, self.groups[vpc_id])
            except (ClientError, PolicyExecutionError) as error:
                # A group that could not be emptied is used all the same: it replaces groups that
                # let the attacker through today. The outcome will not say "isolated".
                self.group_errors[vpc_id] = error

    def record(self, interfaces):
        """Write each interface's groups into its tags, once: an existing record is never touched.

        One call for all interfaces; each then carries the records of its siblings as well, which
        is harmless, and keeps the number of calls before the swap at four.
        """
        if not interfaces:
            return
        if record.STATE in tags_of(self.instance) or any(
            transition_group.holds_transition_group(i) for i in interfaces
        ):
            for interface in attached_interfaces(self.client, self.instance["InstanceId"]):
                recorded = record.original_groups(interface)
                if recorded is not None:
                    self.records[interface["NetworkInterfaceId"]] = recorded
        new = {
            i["NetworkInterfaceId"]: group_ids(i)
            for i in interfaces
            if i["NetworkInterfaceId"] not in self.records
            # Left there by a run that died: what it had before is on record, or nowhere.
            and not transition_group.holds_transition_group(i)
        }
        if not new:
            return
        self.records.update(new)
        tags = {key: record.original_groups_tags(key, ids) for key, ids in new.items()}
        try:
            retry(
                self.client.create_tags,
                Resources=list(new),
                Tags=[tag for own in tags.values() for tag in own],
            )
        except ClientError as error:
            self.record_errors.update(dict.fromkeys(new, error))
        if self.record_errors and len(new) > 1:
            # One interface that is gone, or full of tags, makes the whole call fail.
            for interface_id, own in tags.items():
                try:
                    retry(self.client.create_tags, Resources=[interface_id], Tags=own)
                    del self.record_errors[interface_id]
                except ClientError as error:
                    self.record_errors[interface_id] = error
        for interface_id in set(new) & set(self.record_errors):
            # Isolated all the same; the mail and this line are then the only record.
            log.error(
                "not recorded: the original groups of %s are %s", interface_id, new[interface_id]
            )

    def swap(self, interfaces):
        if self.cut_connections:
            self.find_transitions(interfaces)
        for interface in interfaces:
            forensic = self.groups.get(interface["VpcId"])
            interface_id = interface["NetworkInterfaceId"]
            if forensic is None:
                self.swap_errors[interface_id] = self.group_errors[interface["VpcId"]]
                continue
            opened = self.open(interface)
            try:
                self.set_groups(interface, [forensic])
            except (ClientError, BotoCoreError) as error:
                self.swap_errors[interface_id] = error
                if opened:
                    self.close(interface, [forensic])

    def set_groups(self, interface, groups):
        retry(
            self.client.modify_network_interface_attribute,
            NetworkInterfaceId=interface["NetworkInterfaceId"],
            Groups=groups,
        )
        if groups == [self.groups[interface["VpcId"]]]:
            self.swapped.add(interface["NetworkInterfaceId"])

    def find_transitions(self, interfaces):
        """Find or make the transition group where there is an interface to bring through it."""
        through = [i for i in interfaces if not transition_group.holds_transition_group(i)]
        vpc_ids = {i["VpcId"] for i in through if i["VpcId"] in self.groups}
        vpc_ids -= set(self.transitions)
        if not vpc_ids:
            return
        found, errors = transition_group.transition_groups(self.client, vpc_ids)
        self.transitions.update(found)
        for interface in through:
            if interface["VpcId"] in errors:
                self.cut_errors[interface["NetworkInterfaceId"]] = errors[interface["VpcId"]]

    def open(self, interface):
        """Put an interface into the transition group; whether it may be in there afterwards."""
        if transition_group.holds_transition_group(interface):
            return True
        transition = self.transitions.get(interface["VpcId"])
        if transition is None:
            return False
        try:
            self.set_groups(interface, [transition])
            self.cut_errors.pop(interface["NetworkInterfaceId"], None)
        except (ClientError, BotoCoreError) as error:
            self.cut_errors[interface["NetworkInterfaceId"]] = error
        return True  # also after an error: the answer may have been lost, not the change

    def close(self, interface, forensic):
        """Take an interface out of the transition group when the swap after it failed.

        The forensic group once more, or else the groups that it had: those are open to somebody,
        the transition group is open to all.
        """
        interface_id = interface["NetworkInterfaceId"]
        before = self.records.get(interface_id) or ()
        if not transition_group.holds_transition_group(interface):
            before = group_ids(interface)
        cause = describe(self.swap_errors[interface_id])
        self.swap_errors[interface_id] = PolicyExecutionError(
            f"{cause}; it may be left in {transition_group.NAME}, which allows EVERYTHING: "
            "give it another group now"
        )
        for groups in filter(None, (forensic, before)):
            try:
                self.set_groups(interface, groups)
            except (ClientError, BotoCoreError) as error:
                log.error("%s is still open: %s", interface_id, describe(error))
                continue
            if groups == forensic:
                del self.swap_errors[interface_id]
            else:
                self.swap_errors[interface_id] = PolicyExecutionError(
                    f"{cause}; it has the groups again that it had"
                )
            return

    def read_back(self):
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            self.live = attached_interfaces(self.client, self.instance["InstanceId"])
            if not any(i["NetworkInterfaceId"] in self.swapped for i in self.open_interfaces):
                return

    def is_isolated(self, interface):
        return group_ids(interface) == [self.groups.get(interface["VpcId"])]

    def was_tried(self, interface):
        return interface["NetworkInterfaceId"] in self.swapped | set(self.swap_errors)

    @property
    def open_interfaces(self):
        return [i for i in self.live if not self.is_isolated(i)]

    @property
    def verified(self):
        """Whether every attached interface was read back in the empty forensic group of its VPC."""
        return bool(self.live) and not self.open_interfaces and not self.group_errors

    def rows(self):
        """What the mail shows of each attached interface."""
        names = {
            group["GroupId"]: group["GroupName"]
            for interface in self.instance["NetworkInterfaces"]
            for group in interface["Groups"]
        }
        return [self.row(interface, names) for interface in self.live]

    def row(self, interface, names):
        interface_id, vpc_id = interface["NetworkInterfaceId"], interface["VpcId"]
        removed = self.records.get(interface_id) or record.original_groups(interface)
        fact, error = self.verdict(interface, removed)
        return {
            "id": interface_id,
            "vpc_id": vpc_id,
            "subnet_id": interface.get("SubnetId"),
            "private_ip": interface.get("PrivateIpAddress"),
            "removed": [{"id": i, "name": names.get(i, "")} for i in removed or ()],
            "now": [{"id": g["GroupId"], "name": g["GroupName"]} for g in interface["Groups"]],
            "forensic_group": self.groups.get(vpc_id),
            "status": "isolated" if fact in ("isolated", "not-recorded", "not-cut") else "failed",
            "error": error,
            "fact": f"{interface_id}:{fact}",
        }

    def verdict(self, interface, removed):
        """What became of an interface: a word that two equal outcomes share, and the error."""
        interface_id = interface["NetworkInterfaceId"]
        if not self.is_isolated(interface):
            cause = self.swap_errors.get(interface_id)
            if cause is None:
                return "not-read-back", "NotReadBack: EC2 still shows other groups"
            return error_code(cause), describe(cause)
        if cause := self.group_errors.get(interface["VpcId"]):
            return error_code(cause), f"the forensic group is not empty: {describe(cause)}"
        if cause := self.record_errors.get(interface_id):
            return "not-recorded", f"its original groups could not be recorded: {describe(cause)}"
        if removed is None:
            return "not-recorded", "NoRecord: its original groups are not recorded"
        if cause := self.cut_errors.get(interface_id):
            return "not-cut", f"connections open before were not cut: {describe(cause)}"
        return "isolated", None


@EC2.action_registry.register("isolate-instance")
class IsolateInstance(ResponseAction):
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

    def get_permissions(self):
        cut = self.data.get("cut-tracked-connections")
        return self.permissions + (transition_group.PERMISSIONS if cut else ())

    def respond(self, instance, event):
        exempt = self.data.get("exempt-tag", "forensic:exempt")
        if exempt in tags_of(instance):
            return self.outcome(
                "exempt",
                f"The instance has the exemption tag {exempt}. Nothing was changed.",
                isolated=False,
                verified_at=None,
                interfaces=[],
            )
        if not instance.get("NetworkInterfaces"):
            return self.outcome(
                "skipped",
                f"The instance is {instance['State']['Name']} and has no network interface: "
                "there is nothing to isolate.",
                isolated=False,
                verified_at=None,
                interfaces=[],
            )
        isolation = Isolation(
            self.client(),
            self.data.get("forensic-group", "ForensicSecurityGroup"),
            instance,
            self.data.get("cut-tracked-connections", False),
        )
        if self.dryrun:
            return self.plan(isolation)
        isolation.run()
        verified_at = datetime.now(UTC).isoformat(timespec="seconds")
        errors = [f"{row['id']}: {row['error']}" for row in isolation.rows() if row["error"]]
        if not isolation.live:
            # all of nothing is no read-back: it was terminated, or EC2 does not show it
            errors.append("NothingReadBack: EC2 shows no interface of the instance any more")
        try:
            self.mark(isolation, event)
        except ClientError as error:
            errors.append(f"the state could not be recorded on the instance: {describe(error)}")
        return self.report(isolation, errors, verified_at)

    def plan(self, isolation):
        """What would be done: reads the forensic groups, changes nothing."""
        instance = isolation.instance
        vpc_ids = {i["VpcId"] for i in instance["NetworkInterfaces"]}
        found = forensic_group.find_forensic_groups(isolation.client, isolation.group_name, vpc_ids)
        isolation.groups = {vpc_id: group["GroupId"] for vpc_id, group in found.items()}
        isolation.live = instance["NetworkInterfaces"]
        rows = [
            {**row, "removed": row["now"], "status": "planned", "error": None}
            for row in isolation.rows()
            if row["status"] != "isolated"
        ]
        missing = sorted(vpc_ids - set(found))
        return self.outcome(
            "planned",
            f"Would put {len(rows)} of {len(isolation.live)} interfaces into "
            f"{isolation.group_name}"
            + (f" through {transition_group.NAME}" if isolation.cut_connections else "")
            + (f", which would be made in {', '.join(missing)}." if missing else "."),
            isolated=False,
            verified_at=None,
            interfaces=rows,
        )

    def mark(self, isolation, event):
        """Write the instance's state; the time and the finding are those of the first response."""
        state = record.ISOLATED if isolation.verified else record.INCOMPLETE
        tags = tags_of(isolation.instance)
        before = tags.get(record.STATE)
        isolated = {i["NetworkInterfaceId"] for i in isolation.live if isolation.is_isolated(i)}
        not_cut = sorted(isolated & set(isolation.cut_errors))
        new = [] if before == state else record.state_tags(state)
        if not before:
            new += record.incident_tags(event)
        if not_cut != sorted(record.from_tags(tags, NOT_CUT) or ()):
            new += record.as_tags(NOT_CUT, not_cut)
        if new:
            retry(
                isolation.client.create_tags,
                Resources=[isolation.instance["InstanceId"]],
                Tags=new,
            )

    def report(self, isolation, errors, verified_at):
        rows = isolation.rows()
        facts = [row.pop("fact") for row in rows]
        done = sum(row["status"] == "isolated" for row in rows)
        detail = (
            f"{done} of {len(rows)} interfaces hold only the forensic group of their VPC, "
            "as read back from EC2."
        )
        if isolation.swapped:
            status = "done"
        else:
            status, detail = "unchanged", "Nothing had to be changed. " + detail
        return self.outcome(
            "failed" if errors else status,
            detail,
            error="; ".join(errors) or None,
            facts=facts,
            isolated=isolation.verified,
            verified_at=verified_at,
            interfaces=rows,
        )


@EC2.action_registry.register("release-instance")
class ReleaseInstance(ResponseAction):
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

    def respond(self, instance, event):
        client, instance_id = self.client(), instance["InstanceId"]
        interfaces = attached_interfaces(client, instance_id)
        records = {i["NetworkInterfaceId"]: record.original_groups(i) for i in interfaces}
        # Not the instance's own tags: on the command line Custodian may have them from its cache.
        if not any(records.values()):
            raise PolicyExecutionError(
                f"{instance_id} is not isolated by this pack: none of its {len(interfaces)} "
                "interfaces has a record of its groups. Nothing was changed."
            )
        known = self.existing_groups(client, records)
        if self.dryrun:
            return self.outcome("planned", f"Would put back {records}.", interfaces=[])
        # From here on no guard takes the change of groups for somebody else's.
        retry(client.create_tags, Resources=[instance_id], Tags=record.state_tags(record.RELEASING))
        errors, kept = [], False
        for interface_id, recorded in records.items():
            if recorded is None:
                errors.append(f"{interface_id}: no record of its groups, left as it is")
                continue
            gone = [g for g in recorded if g not in known]
            if gone:
                errors.append(f"{interface_id}: no longer exists: {', '.join(gone)}")
            try:
                self.restore(client, interface_id, [g for g in recorded if g in known])
            except (ClientError, PolicyExecutionError) as error:
                errors.append(f"{interface_id}: {describe(error)}")
                kept = True
        wanted = {i: {g for g in ids or () if g in known} for i, ids in records.items()}
        for delay in READ_BACK_DELAYS:
            time.sleep(delay)
            live = attached_interfaces(client, instance_id)
            different = [
                i["NetworkInterfaceId"]
                for i in live
                if wanted.get(i["NetworkInterfaceId"])
                and set(group_ids(i)) != wanted[i["NetworkInterfaceId"]]
            ]
            if kept or not different:
                break
        else:
            errors.append(f"{', '.join(different)}: EC2 still shows other groups, run it again")
            kept = True
        if not kept:
            self.forget(client, instance_id, interfaces)
        return self.outcome(
            "failed" if errors else "done",
            "The recorded groups are back on every interface, as read back from EC2."
            if not errors
            else "Not everything could be put back"
            + ("; the record is kept, the release can be run again." if kept else "."),
            error="; ".join(errors) or None,
            interfaces=[
                {
                    "id": i["NetworkInterfaceId"],
                    "now": [{"id": g["GroupId"], "name": g["GroupName"]} for g in i["Groups"]],
                }
                for i in live
            ],
        )

    def existing_groups(self, client, records):
        """Those of the recorded groups that still exist."""
        recorded = {group_id for ids in records.values() for group_id in ids or ()}
        if not recorded:
            return set()
        pages = client.get_paginator("describe_security_groups").paginate(
            Filters=[{"Name": "group-id", "Values": sorted(recorded)}]
        )
        return set(retry(lambda: [g["GroupId"] for p in pages for g in p["SecurityGroups"]]))

    def restore(self, client, interface_id, groups):
        if not groups:
            raise PolicyExecutionError("none of its groups exists any more, it stays isolated")
        retry(
            client.modify_network_interface_attribute,
            NetworkInterfaceId=interface_id,
            Groups=groups,
        )

    def forget(self, client, instance_id, interfaces):
        """Remove record and state. The same keys are deleted everywhere, present or not."""
        keys = {
            *record.INSTANCE_KEYS,
            NOT_CUT,
            f"{NOT_CUT}:2",
            *(k for i in interfaces for k in record.record_keys(i)),
        }
        retry(
            client.delete_tags,
            Resources=[instance_id, *(i["NetworkInterfaceId"] for i in interfaces)],
            Tags=[{"Key": key} for key in sorted(keys)],
        )
