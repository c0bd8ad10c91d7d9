"""One instance as EC2 describes it now, for every step that begins with it."""

from custom_actions import record
from custom_actions.record import tags_of
from custom_actions.response import NothingToDo, ReleasedMeanwhile, UnexpectedAnswer


def describe_instance(client, instance_id):
    """The instance with its current tags, volumes, interfaces and state.

    The resource that Custodian hands to an action is older than the steps before it, and on the
    command line it may come from Custodian's cache. Raises ClientError, and UnexpectedAnswer when
    EC2 shows another instance or none.
    """
    found = client.describe_instances(InstanceIds=[instance_id])
    shown = [i for reservation in found["Reservations"] for i in reservation["Instances"]]
    if [instance.get("InstanceId") for instance in shown] != [instance_id]:
        raise UnexpectedAnswer(f"EC2 does not show {instance_id}")
    return shown[0]


def is_released(resource, instance):
    """Whether an instance, as EC2 shows it now, has left the forensic groups it was brought into.

    Goes by the groups of its interfaces, not by its tags: those could be written by the intruder,
    to keep evidence from being taken.
    """
    forensic = (resource.get(record.INCIDENT) or {}).get(record.GROUPS, ())
    return bool(forensic) and any(
        group["GroupId"] not in forensic
        for interface in instance.get("NetworkInterfaces") or ()
        for group in interface["Groups"]
    )


class OfInstance:
    """For a step or a revert: each look begins with the instance, and its tags are the record.

    `look_at(run, instance)` is the rest of the look. A terminated instance ends the step, unless
    `when_terminated` is None, and so does one that was released since `isolate-instance`.
    """

    when_terminated = "The instance is terminated."

    def look(self, run):
        instance = describe_instance(self.client(), self.resource_id(run))
        run.tags = tags_of(instance)
        if self.when_terminated and instance["State"]["Name"] == "terminated":
            raise NothingToDo(self.when_terminated, status="skipped")
        if is_released(run.resource, instance):
            raise ReleasedMeanwhile(
                "the instance was released, or opened, since it was isolated a moment ago"
            )
        return self.look_at(run, instance)

    def read_tags(self, run):
        return tags_of(describe_instance(self.client(), self.resource_id(run)))
