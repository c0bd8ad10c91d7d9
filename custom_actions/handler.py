"""The Lambda entry point of the policies: `mode.handler: custom_actions.handler.run`.

Custodian's own entry point (c7n.handler.dispatch_event) does the same with three differences that
a response cannot live with: an instance that cannot be resolved is a warning and a success, an
event that is no finding is a KeyError, and each cold start asks STS for the account.
"""

import json
import logging
import re

from c7n import handler as custodian
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.policy import GuardDutyMode, PolicyCollection
from c7n.resources import load_resources
from c7n.structure import StructureParser

import custom_actions  # noqa: F401 - registers the actions
from custom_actions.response import OUTCOMES, describe

log = logging.getLogger("custodian.lambda")

INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
UNRESOLVED = "c7n:unresolved"


class FindingMode(GuardDutyMode):
    """Custodian's guard-duty mode, with a reason when the finding's resource is not there.

    `c7n.query.QueryResourceManager.get_resources` turns an unknown instance and a denied
    DescribeInstances alike into an empty list, and reads the tags of every instance of the region
    when this one has none. Here the policy's filters decide first whether the finding is meant
    at all (a sample is not), then a resource that could not be resolved is an error.
    """

    def resolve_resources(self, event):
        self.assume_member(event)
        resource_id = self.id_exprs[self.policy.resource_type].search(event)
        manager = self.policy.resource_manager
        try:
            if self.policy.resource_type == "ec2":
                self.check_instance(event["detail"]["accountId"], resource_id)
            resources = manager.source.get_resources([resource_id])
            if not resources:
                raise PolicyExecutionError("EC2 knows no such instance")
        except (ClientError, PolicyExecutionError) as error:
            id_key = manager.resource_type.id
            resources = [{id_key: str(resource_id), UNRESOLVED: describe(error)}]
        for resource in resources:
            resource.setdefault("Tags", [])
        return resources

    def check_instance(self, account_id, instance_id):
        """Refuse what EC2 could only answer wrongly; an id of another account it does not know."""
        if account_id != self.policy.options.account_id:
            raise PolicyExecutionError(f"the finding is of account {account_id}")
        if not isinstance(instance_id, str) or not INSTANCE_ID.fullmatch(instance_id):
            raise PolicyExecutionError(f"{instance_id!r} is not the id of an EC2 instance")

    def run_resource_set(self, event, resources):
        for resource in resources:
            if UNRESOLVED in resource:
                raise PolicyExecutionError(
                    f"policy:{self.policy.name} finding:{event['detail'].get('id')} "
                    f"resource:{resource[self.policy.resource_manager.resource_type.id]} "
                    f"could not be resolved in account {self.policy.options.account_id} "
                    f"{self.policy.options.region}: {resource[UNRESOLVED]}. Nothing was changed."
                )
        return super().run_resource_set(event, resources)


_loaded = None


def load(context):
    """The policies of the archive and Custodian's configuration, once for each container.

    The account comes from the function's own ARN, which saves a call to STS.
    """
    global _loaded
    if _loaded is None:
        with open("config.json") as f:
            data = json.load(f)
        data.setdefault("execution-options", {})["account_id"] = context.invoked_function_arn.split(
            ":"
        )[4]
        config = custodian.init_config(data)
        load_resources(StructureParser().get_resource_types(data))
        _loaded = data, config
    return _loaded


def run(event, context):
    """Run the policies of the archive on one GuardDuty finding, as EventBridge delivers it.

    Returns, for a person who invokes the function by hand, what each policy did. Raises when a
    response was not complete, or could not begin, so that Lambda tries again. Anything that is no
    finding is answered and nothing is done.
    """
    if (refusal := refuse(event)) is not None:
        log.warning("nothing to do: %s", refusal)
        return {"nothing to do": refusal}
    detail = event["detail"]
    log.info("finding:%s type:%s account:%s", detail.get("id"), detail["type"], detail["accountId"])
    data, config = load(context)
    answer = {}
    for policy in PolicyCollection.from_data(data, config):
        policy.validate()
        resources = FindingMode(policy).run(event, context)
        answer[policy.name] = [outcome for r in resources or () for outcome in r.get(OUTCOMES, ())]
        if not resources:
            answer[policy.name] = "the policy's filters leave this finding out"
    return answer


def refuse(event):
    """Why an event is nothing for a policy in guard-duty mode, or None."""
    if not isinstance(event, dict) or event.get("detail-type") != "GuardDuty Finding":
        kind = event.get("detail-type") if isinstance(event, dict) else type(event).__name__
        return f"not a GuardDuty finding as EventBridge delivers it (detail-type {kind!r})"
    detail = event.get("detail")
    missing = [
        key for key in ("type", "accountId") if not (isinstance(detail, dict) and detail.get(key))
    ]
    if missing:
        return f"a finding without {' and '.join('detail.' + key for key in missing)}"
    return None
