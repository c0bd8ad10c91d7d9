"""One instance as EC2 describes it now."""

from custom_actions.response import retry


def describe_instance(client, instance_id):
    """The instance with its current tags, volumes, interfaces and state.

    The resource that Custodian hands to an action is older than the steps before it, and on the
    command line it may come from Custodian's cache. Raises ClientError.
    """
    found = retry(client.describe_instances, InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]
