"""The functions that were deployed from this pack, found by their tag; and their removal."""

from botocore.exceptions import BotoCoreError, ClientError
from c7n.mu import CloudWatchEventSource, LambdaFunction, LambdaManager

from custom_actions.version import VERSION_TAG
from deployment.errors import reason

HANDLER = "custom_actions.handler.run"


def deployed(session):
    """{name: tags} of the functions of an account and region that a deploy of the pack has made.

    By the tag alone: `custodian-` is in front of the names of every team's functions.
    IAM: tag:GetResources.
    https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/API_GetResources.html
    """
    pages = (
        session.client("resourcegroupstaggingapi")
        .get_paginator("get_resources")
        .paginate(TagFilters=[{"Key": VERSION_TAG}], ResourceTypeFilters=["lambda:function"])
    )
    return {
        found["ResourceARN"].split(":")[6]: {tag["Key"]: tag["Value"] for tag in found["Tags"]}
        for page in pages
        for found in page["ResourceTagMappingList"]
    }


def remove_all(session, names):
    """{function: (what was changed, error)} of `remove` for each."""
    done = {}
    for name in names:
        try:
            remove(session, name)
            done[name] = ["removed"], None
        except (BotoCoreError, ClientError, ValueError) as error:
            done[name] = [], reason(error)
    return done


def remove(session, name):
    """Remove a function, and before it its rule with all targets; what is gone already is no error.

    Whoever may tag functions could have another team's function removed: one that does not run the
    pack's handler is refused (ValueError). Its log group stays: it is what an investigator reads.
    IAM: lambda:GetFunction, lambda:DeleteFunction, events:DescribeRule, events:ListTargetsByRule,
    events:RemoveTargets, events:DeleteRule.
    """
    manager = LambdaManager(lambda: session)
    found = manager.get(name)
    if found and found["Configuration"]["Handler"] != HANDLER:
        handler = found["Configuration"]["Handler"]
        raise ValueError(f"{name} has the pack's tag {VERSION_TAG} but runs {handler}: left alone")
    words = dict.fromkeys(("handler", "memory_size", "timeout", "role", "runtime", "description"))
    rule = CloudWatchEventSource({}, lambda: session)
    manager.remove(LambdaFunction({**words, "name": name, "events": [rule]}, None))
