"""The filter of the guard: which instances this pack keeps isolated."""

from c7n.filters import Filter
from c7n.utils import type_schema

from custom_actions import clients, seal
from custom_actions.registry import register


class Isolated(Filter):
    """Passes instances that this pack has isolated and nobody is releasing.

    It goes by the seal on the forensic group (custom_actions/seal.py), not by the instance's own
    tags: an intruder on the instance could write those, to blind a guard (`forensic:state:
    releasing`, or none) or to have it take a healthy instance down (`isolated`).

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-what-is-isolated
            resource: ec2
            filters:
              - isolated

    No arguments. One call for each instance: ec2:DescribeSecurityGroups.

    Limits: an instance whose record could not be sealed does not pass; the mail of its isolation
    says so.
    """

    schema = type_schema("isolated")
    schema_alias = False
    permissions = ("ec2:DescribeSecurityGroups",)

    def process(self, resources, event=None):
        client = clients.client(self.manager.session_factory, "ec2")
        return [r for r in resources if self.is_isolated(client, r["InstanceId"])]

    def is_isolated(self, client, instance_id):
        seals = seal.find(client, instance_id).values()
        return any(seal.RELEASING not in s and not seal.is_claim(s) for s in seals)


register("isolated", Isolated, "ec2")
