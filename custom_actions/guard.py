"""Keeps the forensic group without rules; `isolate-instance` keeps instances in it."""

from c7n.utils import type_schema

from custom_actions.forensic_group import empty_forensic_group, is_empty
from custom_actions.registry import register
from custom_actions.response import ResponseAction


class EmptyForensicGroup(ResponseAction):
    """Revokes every rule of a security group, both directions, and verifies that none is left.

    :example:

    .. code-block:: yaml

        policies:
          - name: keep-forensic-group-empty
            resource: security-group
            mode:
              type: cloudtrail
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
              events:
                - source: ec2.amazonaws.com
                  event: AuthorizeSecurityGroupIngress
                  ids: requestParameters.groupId
            filters:
              - tag:forensic:group: "true"
            actions:
              - empty-forensic-group
              - fail-unless-complete

    The filters alone decide which groups: without one it empties every group of the event. The
    built-in `remove-permissions` of c7n.resources.vpc revokes as well, but reads nothing back.
    There is no revert: nobody but an attacker wants a rule of this group back, and the mail names
    the call that made it.
    """

    schema = type_schema("empty-forensic-group")
    permissions = (
        "ec2:DescribeSecurityGroups",
        "ec2:RevokeSecurityGroupIngress",
        "ec2:RevokeSecurityGroupEgress",
    )

    def respond(self, group, event):
        group_id = group["GroupId"]
        if is_empty(group):
            return self.outcome("unchanged", f"{group_id} has no rule.", facts=[group_id])
        if self.dryrun:
            return self.outcome("planned", f"Would revoke every rule of {group_id}.")
        empty_forensic_group(self.client(), group_id)
        return self.outcome("done", f"{group_id} has no rule any more.", facts=[group_id])


register("empty-forensic-group", EmptyForensicGroup, "security-group")
