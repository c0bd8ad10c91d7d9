"""One instance and its interfaces as EC2 describes them now, for every step that begins with it."""

from functools import partial

from custom_actions import central, record
from custom_actions.record import tags_of
from custom_actions.response import (
    REFUSED,
    NothingToDo,
    ReleasedMeanwhile,
    UnexpectedAnswer,
    error_code,
)


def describe_instance(client, instance_id):
    """The instance with its current tags, volumes, interfaces and state.

    The resource that Custodian hands to an action is older than the steps before it, and on the
    command line it may come from Custodian's cache. Raises ClientError, and UnexpectedAnswer when
    EC2 shows another instance or none.
    """
    found = client.describe_instances(
        InstanceIds=[instance_id], **including_managed(client, "DescribeInstances")
    )
    shown = [i for reservation in found["Reservations"] for i in reservation["Instances"]]
    if [instance.get("InstanceId") for instance in shown] != [instance_id]:
        raise UnexpectedAnswer(f"EC2 does not show {instance_id}")
    return shown[0]


GONE = "InvalidNetworkInterfaceID.NotFound"


def including_managed(client, operation):
    """The argument by which EC2 shows what AWS services operate, where an account hides it.

    Nodes of EKS Auto Mode and ECS Managed Instances. Nothing where boto3 does not know it yet.
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
    """
    known = client.meta.service_model.operation_model(operation).input_shape.members
    return {"IncludeManagedResources": True} if "IncludeManagedResources" in known else {}


def is_released(resource, instance):
    """Whether an instance, as EC2 shows it now, has left the forensic groups it was brought into.

    Goes by the groups of its interfaces, not by its tags: those could be written by the intruder,
    to keep evidence from being taken.
    """
    forensic = (resource.get(record.INCIDENT) or {}).get(record.FORENSIC_GROUPS, ())
    return bool(forensic) and any(
        group["GroupId"] not in forensic
        for interface in instance.get("NetworkInterfaces") or ()
        for group in interface["Groups"]
    )


def attached_interfaces(client, instance):
    """The interfaces attached to an instance now, with their tags, as EC2 describes them.

    instance: as DescribeInstances has just shown it. The interfaces are asked for by the ids that
    it names: in an account with very many, a filter by attachment alone is refused, and paging
    through all of them takes long. One that EC2 does not find any more costs the others nothing;
    one that is attached elsewhere by now is left out.
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html

    IAM: ec2:DescribeNetworkInterfaces.
    """
    ids = [i["NetworkInterfaceId"] for i in instance.get("NetworkInterfaces") or ()]
    instance_id = instance["InstanceId"]
    describe_interfaces = partial(
        client.describe_network_interfaces,
        **including_managed(client, "DescribeNetworkInterfaces"),
    )
    if ids:
        try:
            shown = describe_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"]
        except REFUSED as error:
            if error_code(error) != GONE:
                raise
            shown = [i for each in ids for i in found_interfaces(describe_interfaces, each)]
    else:
        pages = client.get_paginator("describe_network_interfaces").paginate(
            Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}],
            **including_managed(client, "DescribeNetworkInterfaces"),
        )
        shown = [i for page in pages for i in page["NetworkInterfaces"]]
    return [i for i in shown if (i.get("Attachment") or {}).get("InstanceId") == instance_id]


def found_interfaces(describe_interfaces, interface_id):
    try:
        return describe_interfaces(NetworkInterfaceIds=[interface_id])["NetworkInterfaces"]
    except REFUSED as error:
        if error_code(error) != GONE:
            raise
        return []


class OfInstance:
    """For a step or a revert: each look begins with the instance, and its tags are the record.

    `look_at(run, instance)` is the rest of the look. A step that should not be done twice has
    `waits`: it lets another deployment that was there before finish. One that contains does not
    wait. A terminated instance ends the step, unless
    `when_terminated` is None, and so does one that was released since `isolate-instance`.
    """

    when_terminated = "The instance is terminated."
    waits = False

    def look(self, run):
        instance = {}

        def look():
            instance.update(describe_instance(self.client(), self.resource_id(run)))
            return tags_of(instance)

        if self.waits:
            run.tags = central.once_another_is_done(self, run.resource, run.event, look)
        else:
            run.tags = look()
        if self.when_terminated and instance["State"]["Name"] == "terminated":
            raise NothingToDo(self.when_terminated, status="skipped")
        if (run.resource.get(record.INCIDENT) or {}).get(record.RELEASING):
            raise NothingToDo("A person is releasing the instance.", status="skipped")
        if is_released(run.resource, instance):
            raise ReleasedMeanwhile(
                "the instance was released, or opened, since it was isolated a moment ago"
            )
        return self.look_at(run, instance)

    def read_tags(self, run):
        return tags_of(describe_instance(self.client(), self.resource_id(run)))
