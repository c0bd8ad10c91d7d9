"""How an event becomes resources: Custodian's execution modes, with reasons where it has none.

`c7n.query.QueryResourceManager.get_resources` turns an unknown resource and a denied describe alike
into an empty list, that is, into a success. A response cannot live with that.
"""

import functools

from c7n.cwe import CloudWatchEvents
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.filters.core import BooleanGroupFilter, EventFilter
from c7n.policy import CloudTrailMode, GuardDutyMode, LambdaMode, PeriodicMode
from c7n.utils import chunks

from custom_actions import builtin, clients, seal
from custom_actions.finding import (
    ACCOUNT_ID,
    INSTANCE_ID,
    is_sequence,
    named_instances,
    text,
    user_key,
)
from custom_actions.instance import including_managed
from custom_actions.response import UNRESOLVED, describe

# As many resources as an attack sequence can have.
MOST = 400
# In an error.
SHOWN = 10


# Why an event that is well-formed has no resource for a policy, where a mode knows nothing better.
LEFT_OUT = "the policy's filters leave this event out"


class FindingMode(GuardDutyMode):
    """Custodian's guard-duty mode; a finding's resource that is not there is an error.

    The policy's filters decide first whether the finding is meant at all (a sample is not).
    Custodian's own mode also reads the tags of every instance of the region when this one has
    none; here nothing is added to what DescribeInstances shows.

    An attack sequence may name many instances. Each is a resource of its own, and so are those that
    are not there: every step leaves them alone, and the mail names them. It is an error where there
    is none of them.

    unmeant: why an event that is well-formed has no resource for the policy.
    """

    unmeant = LEFT_OUT

    @staticmethod
    def refusal(event):
        """Why an event is nothing for a policy in this mode, or None."""
        if event.get("detail-type") != "GuardDuty Finding":
            kind = event.get("detail-type")
            return f"not a GuardDuty finding as EventBridge delivers it (detail-type {kind!r})"
        missing = _missing(event, "type", "accountId")
        if missing is None and not ACCOUNT_ID.fullmatch(str(event["detail"]["accountId"])):
            return f"detail.accountId {event['detail']['accountId']!r:.99} is not an account"
        return missing

    def resolve_resources(self, event):
        if self.policy.resource_type == "ec2" and is_sequence(event):
            return self.resolve_sequence(event)
        resource_id = self.id_exprs[self.policy.resource_type].search(event)
        manager = self.policy.resource_manager
        account_id = self.policy.options.account_id
        try:
            if self.policy.resource_type == "ec2":
                self.check_instance(event["detail"]["accountId"], resource_id)
            elif self.policy.resource_type == "iam-user":
                key = user_key(event, account_id)
            resources = described(manager, [resource_id])
            if not resources:
                known = "EC2 knows no such instance"
                if self.policy.resource_type == "iam-user":
                    known = "IAM knows no such user"
                raise PolicyExecutionError(known)
            if self.policy.resource_type == "iam-user":
                # A list, as Custodian's actions expect it; Custodian itself puts a mapping here.
                resources[0]["c7n:AccessKeys"] = [{"AccessKeyId": key.key_id}]
        except (ClientError, PolicyExecutionError) as error:
            id_key = manager.resource_type.id
            resources = [{id_key: str(resource_id), UNRESOLVED: describe(error)}]
        for resource in resources:
            resource.setdefault("Tags", [])
        return resources

    def resolve_sequence(self, event):
        """The instances that an attack sequence names, each once, in its order."""
        reasons = {}
        for named in named_instances(event):
            why = self.not_here(event, named)
            if len(reasons) >= MOST and named.instance_id not in reasons:
                why = f"the finding names more than {MOST} instances"
            # what one entry says of another place another one may say of this place
            if why is None or named.instance_id not in reasons:
                reasons[named.instance_id] = why
        here = [instance_id for instance_id, why in reasons.items() if why is None]
        reasons |= dict.fromkeys(here, "EC2 knows no such instance")
        shown = {}
        try:
            if here:
                found = described(self.policy.resource_manager, here)
                shown = {instance["InstanceId"]: instance for instance in found}
        except ClientError as error:
            reasons |= dict.fromkeys(here, describe(error))
        if not reasons:
            self.unmeant = "the attack sequence names no EC2 instance"
        resources = [
            shown.get(instance_id) or {"InstanceId": instance_id, UNRESOLVED: why}
            for instance_id, why in reasons.items()
        ]
        for resource in resources:
            resource.setdefault("Tags", [])
        return resources

    def not_here(self, event, named):
        """Why an instance of an attack sequence is none of this account and region, or None."""
        if not INSTANCE_ID.fullmatch(named.instance_id):
            return "it is not the id of an EC2 instance"
        options = self.policy.options
        account_id = named.account_id or event["detail"]["accountId"]
        region = named.region or text(event["detail"], "region") or options.region
        if (account_id, region) != (options.account_id, options.region):
            return f"it is in account {account_id:.40}, region {region:.40}"
        return None

    def check_instance(self, account_id, instance_id):
        """Refuse what EC2 could only answer wrongly; an id of another account it does not know."""
        if account_id != self.policy.options.account_id:
            raise PolicyExecutionError(f"the finding is of account {account_id}")
        if not isinstance(instance_id, str) or not INSTANCE_ID.fullmatch(instance_id):
            raise PolicyExecutionError(f"{instance_id!r} is not the id of an EC2 instance")

    def run_resource_set(self, event, resources):
        if all(UNRESOLVED in resource for resource in resources):
            id_key = self.policy.resource_manager.resource_type.id
            ids = [f"{resource[id_key]:.99}" for resource in resources]
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            reasons = dict.fromkeys(resource[UNRESOLVED] for resource in resources)
            raise PolicyExecutionError(
                f"policy:{self.policy.name} finding:{event['detail'].get('id')} "
                f"resource:{','.join(ids[:SHOWN])}{more} "
                f"could not be resolved in account {self.policy.options.account_id} "
                f"{self.policy.options.region}: {'; '.join([*reasons][:SHOWN])}. "
                "Nothing was changed."
            )
        builtin.hold(self.policy.resource_manager)
        return super().run_resource_set(event, resources)


class ApiCallMode(CloudTrailMode):
    """Custodian's cloudtrail mode, for API calls on instances and on what they are attached to.

    The ids that `mode.events` finds may be those of interfaces: the resource is then the instance
    that one is attached to. Or those of network ACLs: then the instances in its subnets that have a
    seal (custom_actions/seal.py). Ids of anything else, which one call can name beside them, are
    left out. A resource that no longer exists is nothing to act on; any other error is raised.

    What the policy's filters ask of the event alone (`event`, also inside `and`, `or`, `not`) is
    decided before anything is asked of AWS: a rule cannot tell the tags of the pack from others, or
    its functions, and an account makes many such calls.
    """

    unmeant = LEFT_OUT

    @staticmethod
    def refusal(event):
        """Why an event is nothing for a policy in this mode, or None."""
        if event.get("detail-type") != "AWS API Call via CloudTrail":
            kind = event.get("detail-type")
            return f"not an API call as CloudTrail reports it (detail-type {kind!r})"
        if not str(event.get("source")).startswith("aws."):
            # anybody with events:PutEvents may send the rest, under any other source
            return f"not sent by AWS (source {event.get('source')!r})"
        missing = _missing(event, "eventName", "eventID", "userIdentity")
        if missing is None and event["detail"].get("errorCode"):
            return f"the call failed: {event['detail']['errorCode']}"
        return missing

    def resolve_resources(self, event):
        if not self.is_meant(event):
            return []
        ids = CloudWatchEvents.get_ids(event, self.policy.data["mode"])
        manager = self.policy.resource_manager
        try:
            if self.policy.resource_type == "ec2":
                ids = self.instances(ids)
            resources = described(manager, ids) if ids else []
        except ClientError as error:
            if error.response["Error"]["Code"].endswith(".NotFound"):
                return []
            raise
        for resource in resources:
            resource.setdefault("Tags", [])
        return resources

    def run_resource_set(self, event, resources):
        builtin.hold(self.policy.resource_manager)
        return super().run_resource_set(event, resources)

    def is_meant(self, event):
        """Whether the filters that ask the event alone let it pass, for whatever resource."""
        manager = self.policy.resource_manager
        probe = [{manager.resource_type.id: "any"}]
        return all(f.process(probe, event) for f in manager.filters if asks_event_alone(f))

    def instances(self, ids):
        """The instances that are meant by ids of instances, interfaces and network ACLs."""
        ec2 = clients.client(self.policy.resource_manager.session_factory, "ec2")
        of = {kind: [i for i in ids if str(i).startswith(kind)] for kind in ("i-", "eni-", "acl-")}
        found = of["i-"]
        for some in chunks(of["eni-"], 200):
            shown = ec2.describe_network_interfaces(
                Filters=[{"Name": "network-interface-id", "Values": some}],
                **including_managed(ec2, "DescribeNetworkInterfaces"),
            )
            attachments = [i.get("Attachment", {}) for i in shown["NetworkInterfaces"]]
            found += [a["InstanceId"] for a in attachments if "InstanceId" in a]
        if of["acl-"]:
            found += self.sealed_behind(ec2, of["acl-"])
        return list(dict.fromkeys(found))

    def sealed_behind(self, ec2, acl_ids):
        """The instances with a seal that have an interface in a subnet of these ACLs."""
        acls = ec2.describe_network_acls(Filters=[{"Name": "network-acl-id", "Values": acl_ids}])
        subnets = {a["SubnetId"] for acl in acls["NetworkAcls"] for a in acl["Associations"]}
        if not subnets:
            return []
        sealed = seal.instances_in(ec2, {acl["VpcId"] for acl in acls["NetworkAcls"]})
        return [
            instance["InstanceId"]
            for instance in known(ec2, sealed)
            if subnets & {i["SubnetId"] for i in instance["NetworkInterfaces"]}
        ]


class ScheduledMode(PeriodicMode):
    """Custodian's periodic mode, for policies on the account: a schedule of EventBridge runs it.

    Custodian's own hands no event on, by which a run knows the day that it is about when it is
    tried again later, and does nothing where the policy may change nothing; a mail changes nothing.
    """

    unmeant = LEFT_OUT

    @staticmethod
    def refusal(event):
        """Why an event is nothing for a policy in this mode, or None."""
        if event.get("detail-type") != "Scheduled Event" or event.get("source") != "aws.events":
            kind = event.get("detail-type")
            return f"not an event of a schedule of EventBridge (detail-type {kind!r})"
        return None

    def run(self, event, lambda_context):
        return LambdaMode.run(self, event, lambda_context)

    def resolve_resources(self, event):
        return described(self.policy.resource_manager, [self.policy.options.account_id])


def asks_event_alone(element):
    """Whether a filter, or a block of filters, looks at the event and at no resource."""
    if isinstance(element, BooleanGroupFilter):
        return all(map(asks_event_alone, element.filters))
    return isinstance(element, EventFilter)


def described(manager, ids):
    """The resources with these ids, as Custodian shows them. Raises ClientError.

    Instances and security groups are asked for here: Custodian's own query has a retry around
    botocore's, and makes a client each time where the session keeps none.
    """
    ec2 = functools.partial(clients.client, manager.session_factory, "ec2")
    if manager.type == "ec2" and len(ids) > 1:
        return list(known(ec2(), ids))
    if manager.type == "ec2":
        shown = ec2().describe_instances(
            InstanceIds=ids, **including_managed(ec2(), "DescribeInstances")
        )
        return [i for i in instances_of(shown) if i["InstanceId"] in ids]
    if manager.type == "account":
        # Custodian asks IAM for the alias of the account, which is decoration
        return [{"account_id": manager.config.account_id, "account_name": ""}]
    if manager.type == "security-group":
        # One call can name a thousand, some of them gone by now: as for instances, by filters.
        return [
            group
            for some in chunks(ids, 200)
            for group in ec2().describe_security_groups(
                Filters=[{"Name": "group-id", "Values": some}]
            )["SecurityGroups"]
        ]
    return manager.source.get_resources(ids)


def known(ec2, ids):
    """Those of the instances that EC2 still knows, as Custodian shows them.

    One call or finding can name hundreds, some of them gone by now, and EC2 refuses a list with one
    that is gone: asked by filters, which take 200 values.
    """
    for some in chunks(ids, 200):
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-id", "Values": some}],
            **including_managed(ec2, "DescribeInstances"),
        )
        for page in pages:
            yield from instances_of(page)


def instances_of(page):
    """The instances of one answer of DescribeInstances."""
    for reservation in page["Reservations"]:
        for instance in reservation["Instances"]:
            yield instance | {"ReservationId": reservation["ReservationId"]}


def _missing(event, *keys):
    detail = event.get("detail")
    missing = [key for key in keys if not (isinstance(detail, dict) and detail.get(key))]
    if missing:
        return f"an event without {' and '.join('detail.' + key for key in missing)}"
    return None
