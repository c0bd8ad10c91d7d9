"""One instance as EC2 describes it now, for every step that begins with it."""

from custom_actions.record import tags_of
from custom_actions.response import NothingToDo


def describe_instance(client, instance_id):
    """The instance with its current tags, volumes, interfaces and state.

    The resource that Custodian hands to an action is older than the steps before it, and on the
    command line it may come from Custodian's cache. Raises ClientError.
    """
    found = client.describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]


class OfInstance:
    """For a step or a revert: each look begins with the instance, and its tags are the record.

    `look_at(run, instance)` is the rest of the look. A terminated instance ends the step, unless
    `when_terminated` is None.
    """

    when_terminated = "The instance is terminated."

    def look(self, run):
        instance = describe_instance(self.client(), self.resource_id(run))
        run.tags = tags_of(instance)
        if self.when_terminated and instance["State"]["Name"] == "terminated":
            raise NothingToDo(self.when_terminated, status="skipped")
        return self.look_at(run, instance)
