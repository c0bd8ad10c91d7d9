"""Keeps the forensic group without rules; `isolate-instance` keeps instances in it."""

from functools import partial

from c7n.exceptions import ClientError
from c7n.utils import type_schema

from custom_actions.forensic_group import MARK, describe_group, empty_forensic_group, is_empty
from custom_actions.registry import register
from custom_actions.response import Change, Step, error_code

# First, since AWS's own words about a refusal are long.
UNMARKED = (
    "{} has not the tag {Key}={Value}, without which the role may not change it: see whose it is, "
    "tag it so, then make empty-forensic-group GROUP={} REGION={}. "
)


class EmptyForensicGroup(Step):
    """Revokes every rule of a security group, both directions, and verifies that none is left.

    :example:

    .. code-block:: yaml

        policies:
          - name: keep-forensic-group-empty
            resource: security-group
            mode:
              type: cloudtrail
              role: guardduty-response-forensic-group-guard
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

    The filters alone decide which groups: without one it empties every group of the event. The role
    of infra/account.yml may change groups with the tag forensic:group=true alone; the error of
    another one says what to do. The
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

    def look(self, run):
        if run.view is None:
            return run.resource
        return describe_group(self.client(), self.resource_id(run))

    def changes(self, run):
        yield Change(
            self.resource_id(run),
            holds=is_empty(run.view),
            make=partial(self.empty, self.resource_id(run), MARK in run.view.get("Tags", ())),
            end="empty",
        )

    def empty(self, group_id, marked):
        try:
            empty_forensic_group(self.client(), group_id)
        except ClientError as error:
            if error_code(error) == "UnauthorizedOperation" and not marked:
                told = UNMARKED.format(group_id, group_id, self.manager.config.region, **MARK)
                error.response["Error"]["Message"] = told + error.response["Error"]["Message"]
            raise

    def plan(self, run):
        return f"Would revoke every rule of {self.resource_id(run)}."

    def tell(self, run):
        if not run.holding:
            return f"{self.resource_id(run)} still has rules."
        return f"{self.resource_id(run)} has no rule{' any more' if run.made else ''}."


register("empty-forensic-group", EmptyForensicGroup, "security-group")
