"""The Lambda entry point of the policies: `mode.handler: custom_actions.handler.run`.

Custodian's own entry point (c7n.handler.dispatch_event) does the same, but an event of another
kind is a KeyError there, each cold start asks STS for the account, and a resource that cannot be
resolved is a success (custom_actions/modes.py).
"""

import functools
import json
import logging
import os
from collections import Counter

from c7n import handler as custodian
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.structure import StructureParser

import custom_actions  # noqa: F401 - registers the actions
from custom_actions import autonomy, central, deadline, timeline
from custom_actions.clients import FunctionSessions, client
from custom_actions.finding import mapping
from custom_actions.modes import ApiCallMode, FindingMode, ScheduledMode
from custom_actions.response import MISSHAPEN, OUTCOMES, readable

log = logging.getLogger("custodian.lambda")

MODES = {"guard-duty": FindingMode, "cloudtrail": ApiCallMode, "periodic": ScheduledMode}


@functools.cache
def load():
    """The policies of the archive, Custodian's configuration and sessions, once for each container.

    The account is that of the function's role, which saves a call to STS. The EC2 client is made
    as well: that takes as long as the calls up to the isolation.
    """
    with open("config.json") as f:
        data = json.load(f)
    role = data["policies"][0]["mode"]["role"]  # an ARN, as it was deployed
    data.setdefault("execution-options", {})["account_id"] = role.split(":")[4]
    config = custodian.init_config(data)
    config.autonomy = autonomy.at_runtime(data["policies"][0]["mode"].get("execution-options", {}))
    config.dryrun = config.dryrun is True or config.autonomy != autonomy.CONTAIN
    if not config.output_dir.startswith("s3"):
        # Custodian would write resources and log of each event to /tmp, where nobody reads them
        config.output_dir = "null"
        config.log_group = config.log_group or "null"
    load_resources(StructureParser().get_resource_types(data))
    sessions = FunctionSessions(
        config.region, config.profile, config.assume_role, config.external_id, config.session_policy
    )
    if any(policy["resource"] == "ec2" for policy in data["policies"]):
        client(sessions, "ec2")
    return data, config, sessions


if "LAMBDA_TASK_ROOT" in os.environ:
    load()  # while the function starts, not while it handles the event


def run(event, context):
    """Run the policies of the archive on one event, as EventBridge delivers it.

    Returns, for a person who invokes the function by hand, what each policy did. Raises when a
    response was not complete, or could not begin, so that Lambda tries again. An event that is
    nothing for the policy is answered and nothing is done.
    """
    data, config, sessions = load()
    deadline.begin(context)
    timeline.begin()
    config, sessions = central.of_event(event, data["policies"][0]["mode"], config, sessions)
    answer = {}
    for policy in PolicyCollection.from_data(data, config, sessions):
        policy.validate()
        mode = MODES[policy.data["mode"]["type"]](policy)
        refusal = mode.refusal(event) if isinstance(event, dict) else "not an event"
        if refusal is not None:
            log.warning("policy:%s nothing to do: %s", policy.name, refusal)
            answer[policy.name] = f"nothing to do: {refusal}"
            continue
        try:
            resources = mode.run(event, context)
        except MISSHAPEN as error:  # of a mode, a filter, or Custodian's own notify
            raise readable(error) from error
        answer[policy.name] = outcomes_of(resources or (), policy.resource_manager.resource_type.id)
        if not resources:
            answer[policy.name] = f"nothing to do: {mode.unmeant}"
        log.info(
            "policy:%s finding:%r ended: %s",
            policy.name,
            subject(event),
            ended(answer[policy.name]),
        )
    return answer


def outcomes_of(resources, id_key):
    """The outcomes of all steps; of several resources each with the id of its `resource`."""
    return [
        {"resource": resource.get(id_key)} | outcome if len(resources) > 1 else outcome
        for resource in resources
        for outcome in resource.get(OUTCOMES, ())
    ]


def subject(event):
    """The id of the finding, or of the API call, that a line of the log is found by; the schedule's
    event has an id of its own."""
    detail = mapping(event, "detail")
    return detail.get("id") or detail.get("eventID") or event.get("id")


def ended(answer):
    """An answer in some words."""
    if isinstance(answer, str):
        return answer
    counted = Counter(f"{outcome['step']} {outcome['status']}" for outcome in answer)
    words = [words if number == 1 else f"{number} x {words}" for words, number in counted.items()]
    return ", ".join(words) or "done"
