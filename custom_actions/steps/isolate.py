"""Take every security group off an instance and put it into the forensic group; and the way back.

What isolation does not cut (tracked connections, DNS to the VPC resolver, credentials that have
left the instance) is said in the mail and in the README.
"""

import re
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import (
    central,
    forensic_group,
    judgement,
    last_healthy,
    record,
    seal,
    transition_group,
)
from custom_actions.groups_record import GroupsRecord, by_hand, group_ids
from custom_actions.instance import attached_interfaces, describe_instance
from custom_actions.record import NOTIFIED, tags_of
from custom_actions.registry import register
from custom_actions.response import (
    REFUSED,
    Change,
    NothingToDo,
    NotReadBack,
    Revert,
    Run,
    Step,
    describe,
    error_code,
)


def shown_groups(interface):
    """The groups of an interface as the mail shows them."""
    return [{"id": g["GroupId"], "name": g["GroupName"]} for g in interface["Groups"]]


# EKS Auto Mode, ECS Managed Instances: EC2 lets nobody but the service change the instance.
OPERATED = (
    ". The instance is operated by {}: EC2 refuses changes of its interfaces to everybody else. "
    "Have that service replace it (EKS: delete the NodeClaim; ECS: drain the container instance)"
)

# What can hold an isolation back. The argument `judge` names those that do.
JUDGES = BRAKE, LAST_HEALTHY, RELEASE = "brake", "last-healthy", "release"
# The role may put interfaces into groups with the mark only (infra/account.yml).
UNMARKED = (
    ". The group {} has not the tag {Key}={Value}, without which the role may not use it: see "
    "whose it is, then tag it"
)

# As record.short_id makes them; whoever may tag the instance can write others.
SHORT_ID = re.compile(r"[0-9a-f]{10}")

# What a person says of one interface.
SAID = re.compile(r"eni-[0-9a-f]{8,17}=sg-[0-9a-f]{8,17}(,sg-[0-9a-f]{8,17})*")


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

    def attached(self, instance):
        """The interfaces in a look that reads back; raises NothingReadBack."""
        interfaces = attached_interfaces(self.client(), instance)
        if not interfaces:
            raise NothingReadBack("EC2 shows no interface of the instance any more")
        return interfaces


class IsolateInstance(OfInterfaces, Step):
    """Replaces all security groups of all interfaces by the forensic group, and reads that back.

    Each attached interface gets exactly one group: the forensic group of its own VPC, which is
    created when it is missing and stripped of every rule it has. Before that, the groups it had
    are recorded in tags (see custom_actions/record.py) for `release-instance`. An instance that
    is isolated already is left as it is, except for interfaces attached since. Stopped and
    hibernated instances are isolated like running ones; of terminated ones it is only reported
    that there is nothing left to isolate.

    Three judges may hold it back (`judge`): too many isolations of the account and region within an
    hour, the last healthy member of a group, a release of the instance from this finding.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-tor-client
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
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
                judge: [brake, last-healthy, release]
                max-per-hour: 5
              - fail-unless-complete

    Arguments: `forensic-group`, the name of the group (default ForensicSecurityGroup);
    `exempt-tag`, the key of a tag that makes an instance exempt, whatever its value (default
    forensic:exempt); `cut-tracked-connections` (default false), see below. With
    `execution-options: {dryrun: true}` in the mode it only says what it would do.

    `judge` (default all three) names those that are asked: `brake`, when `max-per-hour`
    (default 5) instances of the account and region were isolated within an hour
    (custom_actions/judgement.py, with what remains); `last-healthy`, when no other member of its
    Auto Scaling group, or of a target group that it is in, is healthy
    (custom_actions/last_healthy.py); `release`, when a person has released the instance from this
    finding. The outcome is then `withheld`, with the judge's name under that key, and every later
    step leaves the instance alone. What is isolated already is not judged.

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
    made. The brake needs one (DescribeSecurityGroups); `last-healthy` one in five minutes
    (DescribeTargetGroups), one for each target group of the VPC, and one when the instance is in an
    Auto Scaling group. With `cut-tracked-connections` one more, and one for each interface; then
    ec2:AuthorizeSecurityGroupIngress and ec2:AuthorizeSecurityGroupEgress are needed too, and the
    right to put back any group (CutTrackedConnections of infra/account.yml).

    Limits: connections that are open and tracked go on (`block-remote-address` cuts those to the
    finding's addresses), and no security group filters DNS to the VPC's resolver. Branch interfaces
    of ECS tasks are interfaces of their own, attached to a trunk, and are not touched. An interface
    that an AWS service manages refuses the change; that is reported. The roles of infra/account.yml
    may put interfaces only into groups with the tag forensic:group=true, which a group has that the
    pack made; one of that name without it is not used, and the error says so. Custodian's built-in
    `modify-security-groups` cannot be used: it leaves groups in place
    (tests/test_builtin_modify_security_groups.py).

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
            "judge": {"type": "array", "uniqueItems": True, "items": {"enum": list(JUDGES)}},
            "max-per-hour": {"type": "integer", "minimum": 1},
        },
    )
    permissions = (
        *forensic_group.PERMISSIONS,
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:DeleteTags",
    )
    nothing = {"isolated": False, "verified_at": None, "interfaces": []}

    def get_permissions(self):
        cut = self.data.get("cut-tracked-connections")
        judged = LAST_HEALTHY in self.data.get("judge", JUDGES)
        return (
            self.permissions
            + (transition_group.PERMISSIONS if cut else ())
            + (last_healthy.PERMISSIONS if judged else ())
        )

    @property
    def group_name(self):
        return self.data.get("forensic-group", "ForensicSecurityGroup")

    def respond(self, resource, event):
        try:
            return super().respond(resource, event)
        except Exception:
            resource[record.NOT_JUDGED] = True
            if not self.dryrun:
                self.begin_without_isolation(Run(resource, event))
            raise

    def begin_without_isolation(self, run):
        """Say that this finding was here, though not even the first look succeeded.

        The steps behind this one go on and record what they change; the next try has to know that
        for the pack's own (`is_another_try`).
        """
        tags = tags_of(run.resource)
        incident = record.begin_incident(run.resource, tags, run.event)
        if record.STATE not in tags:
            new = {record.STATE: record.INCOMPLETE, **incident, **self.deployment(run)}
            try:
                self.tag(run, [{"Key": key, "Value": value} for key, value in new.items()])
            except REFUSED as error:
                self.log.error("the state could not be recorded either: %s", describe(error))

    def look(self, run):
        if run.view is not None:
            instance = describe_instance(self.client(), self.resource_id(run))
            run.tags = tags_of(instance)
            view = View(self.attached(instance), live=True)
            run.unread.pop("the records", None)  # these are their tags, whatever came first
            run.memory["groups"].look({i["VpcId"] for i in view.interfaces})
        else:
            view = self.look_first(run, run.resource)
        if view.live:
            run.memory["record"].read(view.interfaces)
        return view

    def look_first(self, run, instance):
        """What Custodian has just read, and the forensic groups; what is on record, if it counts.

        The record counts when the groups carry its seal, when an interface is isolated already, or
        when this finding was here before. Else nobody isolated this instance, and tags that say so
        are not the pack's.
        """
        run.tags = tags_of(instance)
        exempt = self.data.get("exempt-tag", record.EXEMPT)
        if exempt in run.tags:
            tag = record.told(exempt, run.tags)
            raise NothingToDo(
                f"The instance has the exemption tag {tag}. Nothing was changed.", "exempt"
            )
        view = View(instance.get("NetworkInterfaces") or [], live=False)
        if not view.interfaces:
            view = self.ask_for_interfaces(run, instance)
        owner = next((i["OwnerId"] for i in view.interfaces if "OwnerId" in i), None)
        groups = forensic_group.ForensicGroups(self.client(), self.group_name, owner)
        groups.look({i["VpcId"] for i in view.interfaces})
        run.memory |= {
            "groups": groups,
            "names": {  # for the mail
                g["GroupId"]: g["GroupName"] for i in view.interfaces for g in i["Groups"]
            },
        }
        seals = groups.seals(self.resource_id(run))
        known = (
            bool(seals)
            or any(self.is_touched(run, i) for i in view.interfaces)
            or self.is_another_try(run)
        )
        run.memory["record"] = GroupsRecord(
            self.client(), self.resource_id(run), seals, begins=not known
        )
        closed = all(seal.RELEASING in found for found in seals.values())
        if closed and not any(self.is_touched(run, i) for i in view.interfaces):
            self.judge(run, view)  # never what is isolated already, or was and somebody opened it
        # What cuts connections is on record of an incident that is known, and of no other.
        not_cut = record.from_tags(run.tags, record.NOT_CUT) if known else ()
        run.memory["transition"] = transition_group.Transition(self.client(), not_cut or ())
        if known and not view.live:
            live = run.read("the records", attached_interfaces, self.client(), instance)
            view = View(live, live=True) if live is not None else view
        return view

    def judge(self, run, view):
        """Raise NothingToDo where the isolation is held back; prepare the brake."""
        judges = self.data.get("judge", JUDGES)
        groups = [g for g in run.memory["groups"].found.values() if g]
        instance_id = self.resource_id(run)
        if RELEASE in judges and run.event:
            for release in filter(None, (judgement.release_of(g, instance_id) for g in groups)):
                if record.short_id(run.event) in release.findings:
                    raise self.withheld(
                        RELEASE,
                        f"It was released by {release.by} at {release.at} from this finding, which "
                        "does not isolate it again; a new one does. Archive it in GuardDuty.",
                    )
        if LAST_HEALTHY in judges:
            instance = run.resource | {"NetworkInterfaces": view.interfaces}
            look = last_healthy.LastHealthy(self.manager.session_factory, instance)
            leaving = set().union(*map(seal.leaving, groups))
            self.spare_the_last(look, leaving)
            run.memory |= {"members": look, "leaving": leaving}
        if BRAKE in judges:
            run.memory["brake"] = [seal.read(g, instance_id).get(seal.BEGUN, "") for g in groups]

    def spare_the_last(self, look, leaving, but=""):
        """Raise NothingToDo for the last healthy member of a group."""
        if last := look.of(leaving):
            reason = f"It is the last healthy member of {', '.join(last):.300}."
            raise self.withheld(LAST_HEALTHY, reason, but)

    def withheld(self, by, reason, but=""):
        """What ends the step when a judge holds it back; `by` names the judge."""
        return NothingToDo(
            f"{reason} Nothing was changed{but}.", "withheld", facts=[f"withheld:{by}"], withheld=by
        )

    def ask_for_interfaces(self, run, instance):
        """Where DescribeInstances shows no interface: only a terminated instance has none."""
        state = instance["State"]["Name"]
        if state == "terminated":
            raise NothingToDo(
                "The instance is terminated and has no network interface: there is nothing to "
                "isolate.",
                "skipped",
            )
        interfaces = attached_interfaces(self.client(), instance)
        if not interfaces:
            raise PolicyExecutionError(
                f"the instance is {state}, but EC2 shows no network interface of it: nothing could "
                "be isolated. Look at it in the console"
            )
        return View(interfaces, live=True)

    def is_another_try(self, run):
        """Whether this very finding was responded to before, and no interface could be isolated.

        What the other steps have recorded then is the pack's. Nobody can write the id of a finding
        into the tags before there is one.
        """
        finding = record.finding_tag(run.event)
        return run.tags.get(record.FINDING) == finding and record.STATE in run.tags

    def is_touched(self, run, interface):
        """Whether this pack, or a run of it that died, has had the interface in its hands."""
        return self.is_isolated(run, interface) or transition_group.holds_transition_group(
            interface
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
        groups = run.memory["record"]
        if cause := groups.refused.get(change.name):
            flaws["not-recorded"] = cause
        elif run.view.live and change.name not in groups.of:
            flaws["not-recorded"] = "NoRecord: its original groups are not recorded"
        if cause := run.memory["transition"].not_cut.get(change.name):
            flaws["not-cut"] = f"connections open before were not cut: {describe(cause)}"
        return flaws

    def put_on_record(self, run):
        """Record each interface's groups before they are changed."""
        groups = run.memory["record"]
        new = [
            change.item
            for change in run.fresh
            if change.item is not None
            # Left there by a run that died: what it had before is on record, or nowhere.
            and not transition_group.holds_transition_group(change.item)
        ]
        if not run.view.live and "the records" in run.unread:
            # What cannot be read must not be overwritten; isolated all the same.
            for interface in new:
                name = interface["NetworkInterfaceId"]
                self.log.error("not recorded: %s has %s", name, group_ids(interface))
        elif new and "brake" in run.memory:
            self.record_and_claim(run, new, run.memory.pop("brake"))
        elif new:
            groups.write(new)

    def record_and_claim(self, run, new, begun):
        """Record the groups, claim a place within the hour, and go on when there was one.

        begun: the words of claims that earlier tries have left.
        """
        for change in run.fresh:
            if change.item is None:  # a claim needs the forensic group
                self.make(run, change)
        groups, at_most = run.memory["record"], self.data.get("max-per-hour", judgement.AT_MOST)
        brake = judgement.Brake(self.client(), self.resource_id(run), at_most, begun)
        # A seal, of a release that is on its way, is not to be written over.
        groups.write(new, () if groups.seals else run.memory["groups"].ids.values(), brake.tag)
        run.memory["begun"] = judgement.as_word(brake.claim.begun)
        run.read("the brake", brake.look)
        leaving = {c.instance_id for c in brake.earlier if not c.is_released}
        leaving |= run.memory.get("leaving", set())
        look = run.memory.get("members")
        if not (brake.holds or (look and look.of(leaving))) or self.is_isolated_meanwhile(run):
            return
        but = self.withdraw(run, brake.tag)
        if look:
            self.spare_the_last(look, leaving, but)
        raise self.withheld(
            BRAKE,
            f"The brake holds: {len(brake.earlier)} isolations have begun within an hour, and no "
            f"more than {at_most} may: {', '.join(map(str, brake.earlier)):.300}.",
            but,
        )

    def is_isolated_meanwhile(self, run):
        """Whether another response, or a person, isolates this very instance at the moment."""
        shown = run.read("the interfaces", attached_interfaces, self.client(), run.resource)
        return any(self.is_touched(run, interface) for interface in shown or ())

    def withdraw(self, run, claim):
        """Take the claim back; where that is refused, what the outcome has to say of it."""
        try:
            run.memory["record"].withdraw(claim)
        except REFUSED as error:
            return f", but for tags of the claim, which could not be taken back ({describe(error)})"
        return ""

    def isolate(self, run, interface):
        try:
            self.swap(run, interface)
        except ClientError as error:
            groups, vpc_id = run.memory["groups"], interface["VpcId"]
            if operator := (run.resource.get("Operator") or {}).get("Principal"):
                error.response["Error"]["Message"] += OPERATED.format(operator)
            elif error_code(error) == "UnauthorizedOperation" and not groups.is_marked(vpc_id):
                error.response["Error"]["Message"] += UNMARKED.format(
                    groups.ids[vpc_id], **forensic_group.MARK
                )
            raise

    def swap(self, run, interface):
        groups, vpc_id = run.memory["groups"], interface["VpcId"]
        forensic, set_groups = groups.of(vpc_id), self.set_groups
        if vpc_id in groups.made:
            set_groups = partial(forensic_group.when_tagged, set_groups)
        if not self.data.get("cut-tracked-connections"):
            set_groups(interface, [forensic])
            return
        transition = run.memory["transition"]
        transition.find([c.item for c in run.fresh if c.item is not None])
        before = run.memory["record"].of.get(interface["NetworkInterfaceId"]) or ()
        transition.bring_through(interface, set_groups, forensic, before)

    def is_verified(self, run):
        """Whether every attached interface was read back in the empty group of its VPC."""
        return (
            run.view.live
            and bool(run.view.interfaces)
            and all(change.holds for change in run.changes)
        )

    def conclude(self, run):
        """Seal the record and write the state, with the time and the finding that began it."""
        run.memory["verified_at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        groups = run.memory["record"]
        reopened = groups.is_being_released and run.made
        if run.view.live:
            groups.remove_foreign(run, run.view.interfaces)
            stale = {k: v for k, v in self.stale_tags(run).items() if run.tags.get(k) == v}
            groups.remove(run, self.resource_id(run), stale)
            vpc_ids = {i["VpcId"] for i in run.view.interfaces} & set(run.memory["groups"].ids)
            carriers = {vpc_id: run.memory["groups"].ids[vpc_id] for vpc_id in vpc_ids}
            counts = any(c.holds for c in run.changes if c.item is not None)
            by = None if record.BY_HAND in run.resource else central.word(self.manager.config)
            groups.seal(run, carriers, reopened, run.memory.get("begun"), counts, by)
            groups.tidy(run)
        # Not what was there before the incident; but another response may be a moment ahead.
        tags = {k: v for k, v in run.tags.items() if self.stale_tags(run).get(k) != v}
        incident = record.begin_incident(run.resource, tags, run.event) | self.deployment(run)
        if self.is_verified(run):
            run.resource[record.INCIDENT][record.FORENSIC_GROUPS] = sorted(
                {group for i in run.view.interfaces for group in group_ids(i)}
            )
        state = record.ISOLATED if self.is_verified(run) else record.INCOMPLETE
        if groups.is_being_released and not reopened:
            state = record.RELEASING
            run.resource[record.INCIDENT][record.RELEASING] = True
        if record.STATE in tags:
            run.memory["begun by"] = central.recorded_deployment(tags, self.manager.config)
            incident = {}
        wanted = {record.STATE: state} | incident
        new = [{"Key": k, "Value": v} for k, v in wanted.items() if run.tags.get(k) != v]
        isolated = {c.name for c in run.holding if c.item is not None}
        not_cut = sorted(isolated & set(run.memory["transition"].not_cut))
        if not_cut != sorted(record.from_tags(tags, record.NOT_CUT) or ()):
            new += record.as_tags(record.NOT_CUT, not_cut)
        if new:
            run.attempt("the state could not be recorded on the instance", self.tag, run, new)

    def deployment(self, run):
        """The tag of an incident that another account's deployment has begun: the first to seal."""
        sealed = run.memory.get("record")  # none where not even the first look succeeded
        word = (sealed and sealed.by) or central.word(self.manager.config)
        return {} if word == central.OWN else {record.DEPLOYMENT: word}

    def stale_tags(self, run):
        """The tags of a record that the instance had before this response began the incident."""
        if not run.memory["record"].begins:
            return {}
        return {k: v for k, v in tags_of(run.resource).items() if record.is_of_the_pack(k)}

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
        if run.made:
            unchanged = ""
        elif done == len(rows):
            unchanged = "Nothing had to be changed. "
        else:
            unchanged = "Nothing could be changed. "
        told = (
            f"{unchanged}{done} of {len(rows)} interfaces hold only the forensic group of their "
            "VPC, as read back from EC2."
        )
        begun_by = run.memory.get("begun by")
        if begun_by not in (None, central.deployment(self.manager.config)):
            told += f" The deployment of account {begun_by} was there before."
        if foreign := run.memory["record"].foreign:
            shown = ", ".join(f"{k}={v}" for k, v in sorted(foreign.items()))
            told += (
                " There were tags of a record that is not this pack's, or of an earlier incident; "
                f"they were replaced or removed: {shown:.300}."
            )
        if (look := run.memory.get("members")) and look.unknown:
            unknown = "; ".join(f"{what}: {why}" for what, why in look.unknown.items())
            told += f" Whether it is the last healthy member is not known of {unknown:.300}."
        if unsealed := run.memory["record"].unsealed:
            told += f" The record is not sealed: {unsealed}."
        return told

    def facts(self, run):
        groups = run.memory["record"]
        unsealed = ["not-sealed"] if groups.unsealed else []
        return super().facts(run) + unsealed + [f"foreign:{key}" for key in groups.foreign]

    def more(self, run):
        return {
            "isolated": self.is_verified(run),
            "verified_at": run.memory.get("verified_at"),
            "interfaces": self.rows(run),
        }

    def rows(self, run):
        """What the mail shows of each interface."""
        names = run.memory["names"]
        return [self.row(run, c, names) for c in run.changes if c.item is not None]

    def row(self, run, change, names):
        interface, vpc_id = change.item, change.item["VpcId"]
        now, groups = shown_groups(interface), run.memory["groups"]
        removed = run.memory["record"].of.get(change.name, ())
        row = {
            "id": change.name,
            "vpc_id": vpc_id,
            "subnet_id": interface.get("SubnetId"),
            "private_ip": interface.get("PrivateIpAddress"),
            "removed": [{"id": i, "name": names.get(i, "")} for i in removed],
            "now": now,
            "forensic_group": groups.ids.get(vpc_id),
            "status": "failed",
            "error": change.problem,
        }
        if change.holds and not run.view.live:
            row["error"] = "EC2 could not be asked again, so this was not read back"
        elif change.holds and vpc_id in groups.empty:
            row["status"] = "isolated"
        if change.holds and vpc_id in groups.errors:
            row["error"] = f"the forensic group is not empty: {describe(groups.errors[vpc_id])}"
        if self.dryrun and not change.holds:
            row |= {"removed": now, "status": "planned", "error": None}
        return row


class ReleaseInstance(OfInterfaces, Revert):
    """Puts the recorded groups back on each interface and removes the record.

    `unchanged` when no interface is in a forensic group and none has a record: a release that did
    not end can be run again and goes on from there. A recorded group that no longer exists is
    reported by id, the rest is put back. An interface that is in a forensic group and has no record
    stays there and is reported, until a person says its groups. When an interface is not back, all
    records stay, so that the release can be run again, and the reverts behind this one are left
    alone: nobody is sent to an instance that is still isolated. The state is then `releasing`, and
    the seal says so too, in which `isolation-guard` leaves the instance alone.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-release-one
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - type: release-instance
                groups: "eni-0123456789abcdef0=sg-0123456789abcdef0,sg-0fedcba9876543210"
              - fail-unless-complete

    Arguments: `groups` (default none), for interfaces whose groups are not on record or shall be
    others: `<interface>=<group>,<group>`, a blank between two. An interface that the instance does
    not have, or a group that does not exist, changes nothing.

    Put `verify-record` before it: what a tag says may be an intruder's. The release, and from which
    findings, is remembered on the forensic group, so that updates of these do not isolate the
    instance again (custom_actions/judgement.py); `stays` says so when it could not be. The outcome
    has a list `interfaces` as that of `isolate-instance`, and `passed`.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyNetworkInterfaceAttribute.html
    """

    schema = type_schema(
        "release-instance",
        groups={"type": "string"},
    )
    permissions = (
        "ec2:DescribeInstances",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:ModifyNetworkInterfaceAttribute",
        "ec2:CreateTags",
        "ec2:DeleteTags",
        "sts:GetCallerIdentity",
    )
    gate = True

    def look(self, run):
        instance = describe_instance(self.client(), self.resource_id(run))
        run.tags = tags_of(instance)
        if run.view is not None:
            return View(self.attached(instance), live=True)
        interfaces = attached_interfaces(self.client(), instance)
        if not interfaces and instance["State"]["Name"] == "terminated":
            raise NothingToDo(
                "The instance is terminated: no interface has groups to get back.", "skipped"
            )
        self.look_at_record(run, interfaces)
        return View(interfaces, live=True)

    def look_at_record(self, run, interfaces):
        records = {i["NetworkInterfaceId"]: record.original_groups(i) for i in interfaces}
        if record.VERIFIED in run.resource:
            verified = run.resource[record.VERIFIED].get(record.ORIGINAL_GROUPS, {})
            records = {name: verified.get(name) for name in records}
        said = self.said()
        if strange := sorted(set(said) - set(records)):
            raise PolicyExecutionError(
                f"GROUPS names {', '.join(strange)}, which the instance does not have. "
                "Nothing was changed"
            )
        records |= said
        held = {group_id for i in interfaces for group_id in group_ids(i)}
        groups = self.existing_groups(held.union(*filter(None, records.values())))
        if missing := sorted({g for ids in said.values() for g in ids} - set(groups)):
            raise PolicyExecutionError(
                f"GROUPS names {', '.join(missing)}, which does not exist. Nothing was changed"
            )
        forensic = {g for g in groups if seal.is_forensic(groups[g], self.resource_id(run))}
        isolated = {
            i["NetworkInterfaceId"] for i in interfaces if forensic.intersection(group_ids(i))
        }
        begun = any(record.PART.sub("", key) in record.OF_THE_INCIDENT for key in run.tags)
        if not isolated and not any(records.values()) and not begun:
            raise NothingToDo(
                "Nothing to revert: no interface is in a forensic group, and none has a record of "
                "its groups."
            )
        run.memory |= {"records": records, "known": set(groups), "isolated": isolated}
        run.memory["forensic"] = forensic

    def said(self):
        """The groups that a person said: {interface id: group ids}."""
        texts = self.data.get("groups", "").split()
        if wrong := [text for text in texts if not SAID.fullmatch(text)]:
            raise PolicyExecutionError(
                f"GROUPS={' '.join(wrong)!r:.200} is not <interface>=<group>,<group>. Nothing was "
                "changed"
            )
        words = [text.partition("=") for text in texts]
        return {interface: groups.split(",") for interface, _, groups in words}

    def existing_groups(self, group_ids):
        """Those of the groups that still exist: {group id: group as EC2 describes it}."""
        pages = (
            self.client()
            .get_paginator("describe_security_groups")
            .paginate(Filters=[{"Name": "group-id", "Values": sorted(group_ids)}])
        )
        return {group["GroupId"]: group for page in pages for group in page["SecurityGroups"]}

    def changes(self, run):
        for interface in run.view.interfaces:
            name = interface["NetworkInterfaceId"]
            recorded = run.memory["records"].get(name)
            if recorded is not None:
                yield self.change(run, interface, recorded)
            elif name in run.memory["isolated"]:
                yield Change(
                    name,
                    error=PolicyExecutionError(
                        "there is no record of its groups, it stays isolated: look into the mail "
                        f"of the isolation and say them, {by_hand(name, ['sg-...'])}"
                    ),
                )

    def change(self, run, interface, recorded):
        name, known = interface["NetworkInterfaceId"], run.memory["known"]
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
                "none of its groups exists any more, it stays isolated: say others, "
                f"{by_hand(name, ['sg-...'])}"
            )
        return change

    def put_on_record(self, run):
        """Say so first: from then on no guard takes the change of groups for somebody else's."""
        if run.changes and not run.memory.get("announced"):
            for group_id, sealed in seal.find(self.client(), self.resource_id(run)).items():
                seal.write(self.client(), group_id, self.resource_id(run), seal.releasing(sealed))
            self.tag(run, [{"Key": record.STATE, "Value": record.RELEASING}])
            run.memory["announced"] = True

    def remember(self, run):
        """Have the findings that the instance is released from not isolate it again.

        Before their marks are removed, and whatever becomes of the other reverts.
        """
        instance_id = self.resource_id(run)
        marks = [word.partition(":")[0] for word in record.from_tags(run.tags, NOTIFIED) or ()]
        first = run.tags.get(record.FINDING)
        findings = [record.short_id({"detail": {"id": first}})] if first else []
        findings += [mark for mark in marks[::-1] if SHORT_ID.fullmatch(mark)]
        try:
            who = self.client("sts").get_caller_identity()["Arn"].split(":", 5)[-1]
            seals = seal.find(self.client(), instance_id)
            groups = {*seals, *run.memory["forensic"]}
            if not groups:
                raise PolicyExecutionError("no forensic group is known to remember it on")
            for group_id in sorted(groups):
                begun = seals.get(group_id, {}).get(seal.BEGUN)
                judgement.remember_release(
                    self.client(), group_id, instance_id, who, findings, begun
                )
        except REFUSED as error:
            run.memory["stays"] = (
                "the release could not be remembered, so the next update of the finding isolates "
                f"the instance again ({describe(error)}): archive the finding in GuardDuty."
            )
        else:
            run.memory["remembered"] = bool(findings)

    def forget(self, run):
        """Remove record and state. The same keys are deleted everywhere, present or not."""
        self.remember(run)
        interfaces = run.view.interfaces
        keys = {
            *record.OF_THE_INCIDENT,
            *(key for key in run.tags if record.PART.sub("", key) in record.OF_THE_INCIDENT),
            *(key for i in interfaces for key in record.record_keys(i)),
            record.SEAL + self.resource_id(run),  # the claim, on the interfaces
        }
        self.client().delete_tags(
            Resources=[self.resource_id(run), *(i["NetworkInterfaceId"] for i in interfaces)],
            Tags=[{"Key": key} for key in sorted(keys)],
        )
        self.keep_what_was_isolated_again(run)

    def keep_what_was_isolated_again(self, run):
        """Write the record anew of what a guard, or a finding, has just isolated again."""
        instance = describe_instance(self.client(), self.resource_id(run))
        for interface in self.attached(instance) if run.changes else ():
            name, groups = interface["NetworkInterfaceId"], set(group_ids(interface))
            recorded = run.memory["records"].get(name)
            if recorded and not groups <= set(recorded):
                self.client().create_tags(
                    Resources=[name], Tags=record.as_tags(record.ORIGINAL_GROUPS + name, recorded)
                )
                run.errors[name] = NotReadBack(
                    "was isolated again while the release was on its way: run it again"
                )

    def plan(self, run):
        back = {name: ids for name, ids in run.memory["records"].items() if ids}
        return f"Would put back {'; '.join(seal.words_of(back)) or 'nothing'}."

    def tell(self, run):
        if not run.changes:
            return "No interface is isolated; what was left of the incident in the tags is removed."
        if not run.problems:
            stays = f" But {run.memory['stays']}" if "stays" in run.memory else ""
            return f"The recorded groups are back on every interface, as read back from EC2.{stays}"
        if self.is_over(run):
            return "Not everything could be put back."
        return "Not everything could be put back; the record is kept, the release can be run again."

    def more(self, run):
        rows = [
            {"id": i["NetworkInterfaceId"], "now": shown_groups(i)} for i in run.view.interfaces
        ]
        stays = {"stays": run.memory["stays"]} if "stays" in run.memory else {}
        return {
            "interfaces": rows if not self.dryrun else [],
            "passed": self.is_over(run),
            "remembered": run.memory.get("remembered", False),
            **stays,
        }


register("isolate-instance", IsolateInstance, "ec2")
register("release-instance", ReleaseInstance, "ec2")
