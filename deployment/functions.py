"""The functions that were deployed from this pack, found by their tag; and their removal."""

from botocore.exceptions import BotoCoreError, ClientError
from c7n.mu import CloudWatchEventSource, LambdaFunction, LambdaManager

from custom_actions.version import VERSION_TAG
from deployment.errors import reason
from deployment.report import Done

HANDLER = "custom_actions.handler.run"


def tagged(session, known=()):
    """The names of the functions of an account and region that have the pack's tag, sorted.

    By the tag: `custodian-` is in front of the names of every team's functions. The list of tags
    may lag behind a deploy or a removal, so of the names in `known` Lambda itself is asked.
    IAM: tag:GetResources; lambda:GetFunction, lambda:ListTags.
    https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/API_GetResources.html
    """
    pages = (
        session.client("resourcegroupstaggingapi")
        .get_paginator("get_resources")
        .paginate(TagFilters=[{"Key": VERSION_TAG}], ResourceTypeFilters=["lambda:function"])
    )
    listed = {r["ResourceARN"].split(":")[6] for p in pages for r in p["ResourceTagMappingList"]}
    lambdas = LambdaManager(lambda: session)
    asked = {name: lambdas.get(name) or {} for name in set(known) - listed}
    return sorted(
        listed | {n for n, shown in asked.items() if VERSION_TAG in shown.get("Tags", {})}
    )


def refusal(session, name):
    """Why a function is not removed though it has the tag, or None.

    Whoever may tag functions could have another team's removed. IAM: lambda:GetFunction.
    """
    found = LambdaManager(lambda: session).get(name)
    if found and found["Configuration"]["Handler"] != HANDLER:
        handler = found["Configuration"]["Handler"]
        return f"it has the pack's tag {VERSION_TAG} but runs {handler}: left alone"
    return None


def remove_all(session, names):
    """{function: Done} of `remove` for each."""
    done = {}
    for name in names:
        try:
            error = refusal(session, name)
            if not error:
                remove(session, name)
        except (BotoCoreError, ClientError) as caught:
            error = reason(caught)
        done[name] = Done(error=error) if error else Done("removed")
    return done


def remove(session, name):
    """Remove a function, and before it its rule with all targets; what is gone already is no error.

    Its log group stays: it is what an investigator reads. IAM: lambda:DeleteFunction,
    events:DescribeRule, events:ListTargetsByRule, events:RemoveTargets, events:DeleteRule.
    """
    words = dict.fromkeys(("handler", "memory_size", "timeout", "role", "runtime", "description"))
    rule = CloudWatchEventSource({}, lambda: session)
    function = LambdaFunction({**words, "name": name, "events": [rule]}, None)
    LambdaManager(lambda: session).remove(function)
