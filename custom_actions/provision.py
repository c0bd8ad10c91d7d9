"""What a deploy does besides Custodian: version and autonomy of each function, the accounts that it
acts in, its brake, its evidence bucket; that it brings the pack along, that nothing is lost between
EventBridge and the function, that nothing is left of what somebody else has set on either, and that
versions of functions do not pile up.

Importing this module makes Custodian's Lambda modes do it; `custom_actions.__main__` does, and
nothing that runs in a function.
"""

import functools
import json
import logging

from c7n.exceptions import ClientError, PolicyExecutionError, PolicyValidationError
from c7n.mu import (
    LAMBDA_EMPTY_VALUES,
    CloudWatchEventSource,
    LambdaManager,
    PolicyLambda,
    normalize_arn,
)
from c7n.policy import LambdaMode
from c7n.utils import generate_arn, get_partition, local_session

from custom_actions import autonomy, case, central
from custom_actions.finding import mapping
from custom_actions.record import EVIDENCE_BUCKET, MAX_PER_HOUR
from custom_actions.response import error_code, ignoring
from custom_actions.version import VERSION, VERSION_TAG

log = logging.getLogger("custodian.serverless")

# EventBridge's own default, which is also the most that it does. Said, so that a look at the target
# shows it, and so that what somebody made less is put right by the next deploy.
# https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_RetryPolicy.html
RETRY_POLICY = {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 24 * 3600}

# Custodian leaves a function what the policy does not name: variables and layers, which run code of
# their own in the function. Said as empty, they are taken off. Which is empty, `delta_function` has
# to know of each.
UNNAMED = {"Environment": {"Variables": {}}, "Layers": []}
# Custodian's is that of the machine that deploys.
ARCHITECTURE = {"Architectures": ["x86_64"]}
LAMBDA_EMPTY_VALUES["Layers"] = UNNAMED["Layers"]

BRAKE, BRAKE_OF_POLICY = "max-per-hour", "policy"
EVIDENCE = "evidence-bucket"

custodian_provision = LambdaMode.provision
custodian_validate = LambdaMode.validate
custodian_publish = LambdaManager.publish
custodian_reserve = LambdaManager._update_concurrency
custodian_add_rule = CloudWatchEventSource.add
custodian_config = PolicyLambda.get_config
custodian_payload = CloudWatchEventSource.resolve_cloudtrail_payload


# Custodian publishes a version with each change, and nothing runs it: the newest is $LATEST. So
# many are kept to compare with.
VERSIONS, LATEST = 2, "$LATEST"

WAIT, TRIES = 5, 7  # seconds; calls


HANDLER = "custom_actions.handler.run"


def validate(mode):
    """Custodian's validation, and that a policy with anything of the pack brings the pack along.

    Raises PolicyValidationError, which says what to add.
    """
    custodian_validate(mode)
    manager, name, said = mode.policy.resource_manager, mode.policy.name, mode.policy.data["mode"]
    elements = [*manager.actions, *manager.iter_filters()]
    if not any(type(e).__module__.startswith("custom_actions.") for e in elements):
        return
    for there, line, why in (
        (
            said.get("role"),
            f"role: guardduty-response-{name}",
            "Lambda runs no function without one, and each has its own in infra/account.yml",
        ),
        (
            "custom_actions" in said.get("packages", ()),
            "packages: [custom_actions]",
            "without it the function has none of the pack's actions and filters",
        ),
        (
            said.get("handler") == HANDLER,
            f"handler: {HANDLER}",
            "Custodian's own takes a resource that is not there for a success",
        ),
    ):
        if not there:
            raise PolicyValidationError(f"policy {name}: add `{line}` to its mode: {why}")


def provision(mode):
    """Deploy the function of a policy; what `LambdaMode.provision` returns."""
    use_one_session(mode.policy)
    mode.policy.data["mode"].setdefault("tags", {})[VERSION_TAG] = VERSION
    deployed = functools.cache(functools.partial(deployed_tags, mode.policy))
    settle_autonomy(mode.policy, deployed)
    settle_member_role(mode.policy, deployed)
    settle_brake(mode.policy, deployed)
    settle_evidence(mode.policy, deployed)
    return custodian_provision(mode)


def use_one_session(policy):
    """Have the deploy of a policy use one session. Raises ClientError when there is none.

    Custodian makes several, each of which assumes the account's role. And where the first can't
    assume it, Custodian goes on as the caller: with the policy of one account in another.
    """
    session = local_session(policy.session_factory)
    session.events.register("needs-retry.lambda", wait_for_aws, unique_id="wait-for-aws")

    def sessions(assume=True, region=None):
        return session

    sessions.region = policy.options.region
    policy.session_factory = sessions


def wait_for_aws(response, attempts, **_):
    """Seconds until botocore sends a call to Lambda again, or None: for half a minute, while a role
    that was just made is not known everywhere, or an update of the function is not through.

    response: (HTTP response, parsed response), or None when there was none. Custodian waits after
    an update of the code, not after one of the configuration.
    https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html
    """
    message = response[1].get("Error", {}).get("Message", "") if response else ""
    soon = "cannot be assumed by Lambda" in message or "update is in progress" in message
    return WAIT if soon and attempts < TRIES else None


def publish(manager, func, *options, **more):
    """LambdaManager.publish. Raises PolicyExecutionError when all is deployed but the reserved
    concurrency, see `reserve`."""
    func.not_reserved = None
    deployed = custodian_publish(manager, func, *options, **more)
    trim_versions(manager.client, func.name)
    if func.not_reserved:
        raise PolicyExecutionError(
            f"{func.name} is deployed with its rule, but without reserved concurrency: "
            f"{func.not_reserved} Have Lambda's quota 'Concurrent executions' (L-B99A9384 in "
            "Service Quotas) raised in this account and region, then deploy again; or take the "
            "line `concurrency` out of the policy: then the other functions of the account can "
            "keep this one waiting."
        )
    return deployed


def trim_versions(client, name):
    """Delete the published versions of a function but the newest ones.

    All functions of an account and region together have 75 GB for code.
    IAM: lambda:ListVersionsByFunction, lambda:DeleteFunction of `<function>:*`.
    https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    """
    pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=name)
    found = [version["Version"] for page in pages for version in page["Versions"]]
    numbers = sorted(int(version) for version in found if version != LATEST)
    for number in numbers[:-VERSIONS]:
        client.delete_function(FunctionName=name, Qualifier=str(number))
    if len(numbers) > VERSIONS:
        log.info("%s: %d versions deleted", name, len(numbers) - VERSIONS)


def reserve(manager, existing, func):
    """LambdaManager._update_concurrency, which Custodian calls before it makes the rule.

    Lambda refuses when less than 100 executions (in new accounts: 10) would be left to all other
    functions. Then the function gets its rule all the same, and `publish` says it.
    IAM: lambda:PutFunctionConcurrency, lambda:DeleteFunctionConcurrency.
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
    """
    try:
        return custodian_reserve(manager, existing, func)
    except ClientError as error:
        if error_code(error) != "InvalidParameterValueException":
            raise
        func.not_reserved = error.response["Error"]["Message"]
        return None


def config(func):
    """PolicyLambda.get_config, with what the policy does not name as empty."""
    return UNNAMED | custodian_config(func) | ARCHITECTURE


def add_rule(source, func, existing):
    """CloudWatchEventSource.add, then `settle_permission` and `settle_target`."""
    added = custodian_add_rule(source, func, existing)
    settle_permission(source.session.client("lambda"), func)
    if queue := func.dead_letter_config.get("TargetArn"):
        settle_target(source.client, func, queue)
    return added


def payload(source, pattern):
    """CloudWatchEventSource.resolve_cloudtrail_payload, in one order each time.

    Custodian's is that of a set: each deploy would write the rule anew.
    """
    custodian_payload(source, pattern)
    pattern["detail"]["eventSource"].sort()


def settle_permission(client, func):
    """Make the rule's permission to invoke the function what it should be.

    Custodian adds it, and takes one of the same name that says something else for it.
    IAM: lambda:GetPolicy, lambda:AddPermission, lambda:RemovePermission.
    """
    permission = {
        "StatementId": func.event_name,
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
        "SourceArn": rule_arn(func),
    }
    if permission not in permissions_of(client, func.name):
        client.remove_permission(FunctionName=func.name, StatementId=func.event_name)
        client.add_permission(FunctionName=func.name, **permission)
        log.warning("%s: the permission of its rule was another, and was made anew", func.name)


def rule_arn(func):
    """The ARN of the function's rule, which has the function's name."""
    return normalize_arn(func.arn).replace(":lambda:", ":events:").replace(":function:", ":rule/")


def permissions_of(client, name):
    """The statements of a function's policy as AddPermission takes them, those that one source has.

    IAM: lambda:GetPolicy.
    """
    answer = ignoring("ResourceNotFoundException", client.get_policy, FunctionName=name)
    statements = json.loads(answer["Policy"])["Statement"] if answer else []
    return [
        {
            "StatementId": statement.get("Sid"),
            "Action": statement.get("Action"),
            "Principal": principal.get("Service") if isinstance(principal, dict) else principal,
            "SourceArn": statement.get("Condition", {}).get("ArnLike", {}).get("AWS:SourceArn"),
        }
        for statement in statements
        for principal in [statement.get("Principal")]
        if statement.get("Effect") == "Allow"
    ]


def settle_target(client, func, queue):
    """Make the function the only target of its rule, and have EventBridge keep what it cannot
    deliver in the function's own dead-letter queue (`dead_letter_config` of the policy's mode).

    Custodian sets neither queue nor retries, and leaves an existing target alone, one too that gets
    a constant (`Input`) in the place of the event. EventBridge does not try again when the function
    is gone or may not be invoked: without a queue the event is lost. The policy of the queue
    must allow it (infra/account.yml). Nothing is written when nothing differs. Raises
    PolicyExecutionError.
    IAM: events:ListTargetsByRule, events:PutTargets, events:RemoveTargets.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
    """
    rule = func.event_name
    wanted = target(func, queue)
    targets = client.list_targets_by_rule(Rule=rule)["Targets"]
    others = [target["Id"] for target in targets if target["Id"] != rule]
    if wanted not in targets:
        raise_for_failed(rule, "the target", client.put_targets(Rule=rule, Targets=[wanted]))
        log.info("%s: what cannot be delivered goes to %s", rule, queue)
    if others:
        raise_for_failed(rule, "other targets", client.remove_targets(Rule=rule, Ids=others))
        log.warning("%s: targets that are not the pack's were removed: %s", rule, others)


def target(func, queue):
    """The one target that a rule has."""
    return {
        "Id": func.event_name,
        "Arn": normalize_arn(func.arn),
        "DeadLetterConfig": {"Arn": queue},
        "RetryPolicy": RETRY_POLICY,
    }


def raise_for_failed(rule, what, answer):
    if answer["FailedEntryCount"]:
        raise PolicyExecutionError(
            f"{rule}: {what} could not be set: {answer['FailedEntries']}. Deploy again."
        )


def settle_autonomy(policy, deployed):
    """Replace the variable by its value, by what is deployed, or by observe; and tag it.

    deployed: `deployed_tags`, asked once. Raises PolicyExecutionError where the function does not
    tell: no deploy changes a mode that nobody has said.
    """
    mode = policy.data["mode"]
    options = mode.get("execution-options", {})
    if autonomy.OPTION not in options:
        return
    if options[autonomy.OPTION] == autonomy.UNSET:
        tags = deployed()
        if tags is None:
            log.info("policy:%s is new here, and observes; say MODE= for more", policy.name)
            tags = {autonomy.TAG: autonomy.OBSERVE}
        if autonomy.TAG not in tags:
            raise PolicyExecutionError(
                f"policy:{policy.name} the mode of {function_name(policy)} is not known, it has no "
                f"tag {autonomy.TAG}: say MODE=observe, ask or contain. Nothing was changed"
            )
        options[autonomy.OPTION] = tags[autonomy.TAG]
    word = autonomy.checked(options[autonomy.OPTION], f"policy:{policy.name}")
    remember(policy, autonomy.TAG, word)
    log.info("policy:%s autonomy:%s", policy.name, word)


def said(policy, option, tag, nothing, deployed):
    """What a deploy says by the variable `option`, else what the function was deployed with before,
    which its tag has; `nothing` where neither says anything.

    Taken out of the policy: the function does not read it there. deployed: `deployed_tags`.
    """
    value = policy.data["mode"].get("execution-options", {}).pop(option, nothing)
    return (deployed() or {}).get(tag, nothing) if value == f"{{{option}}}" else value


def remember(policy, tag, value):
    """Have the function keep what it is deployed with, for the next deploy."""
    policy.data["mode"].setdefault("tags", {})[tag] = str(value)


def settle_member_role(policy, deployed):
    """Have the function act in the member accounts as well, where the variable says by which role,
    or where the deployed function does (custom_actions/central.py); and tag it.

    A deploy without the variable leaves it as it is: else one forgotten word would take the
    response from all members. `none` ends it. deployed: as for `settle_autonomy`.
    """
    mode = policy.data["mode"]
    name = said(policy, central.OPTION, central.TAG, central.NONE, deployed)
    role = central.checked(name, policy.name)
    if role is None:
        return
    region = policy.options.region
    remember(policy, central.TAG, name)
    # the account stays open until there is an event
    mode[central.OPTION] = f"arn:{get_partition(region)}:iam::{{account_id}}:role/{role}"
    mapping(mode, "pattern", "detail").pop("accountId", None)
    for action in policy.data["actions"]:
        transport = action.get("transport", {}) if isinstance(action, dict) else {}
        if transport.get("type") == "sns" and not transport["topic"].startswith("arn:"):
            account_id, topic = policy.options.account_id, transport["topic"]
            transport["topic"] = generate_arn("sns", topic, account_id=account_id, region=region)
            action["assume_role"] = False
    log.info("policy:%s acts in members by %s", policy.name, mode[central.OPTION])


def settle_brake(policy, deployed):
    """Set the number of `isolate-instance` to the variable `max-per-hour`, or to what the deployed
    function has by a former deploy; and tag it. `policy` is the policy's own again. deployed: as
    for `settle_autonomy`. Raises PolicyValidationError."""
    number = said(policy, BRAKE, MAX_PER_HOUR, BRAKE_OF_POLICY, deployed)
    if number == BRAKE_OF_POLICY:
        return
    if isinstance(number, bool) or not str(number).isdecimal() or int(number) < 1:
        raise PolicyValidationError(
            f"policy:{policy.name} {BRAKE} {number!r} is neither a whole number from 1 on nor "
            f"{BRAKE_OF_POLICY}. Nothing was changed"
        )
    for action in actions(policy, "isolate-instance"):
        action[BRAKE] = int(number)
    remember(policy, MAX_PER_HOUR, number)
    log.info("policy:%s %s:%s", policy.name, BRAKE, number)


def settle_evidence(policy, deployed):
    """Have `write-case` write to the bucket of the variable `evidence-bucket`, or to that which the
    deployed function has by a former deploy; and tag it. `none` ends it. deployed: as for
    `settle_autonomy`. Raises PolicyValidationError."""
    if EVIDENCE not in policy.data["mode"].get("execution-options", {}):
        return  # the policy says a name itself, or has no such step
    name = said(policy, EVIDENCE, EVIDENCE_BUCKET, case.NONE, deployed)
    if name != case.NONE and not (isinstance(name, str) and case.BUCKET.fullmatch(name)):
        raise PolicyValidationError(
            f"policy:{policy.name} {EVIDENCE} {name!r} is neither the name of a bucket nor "
            f"{case.NONE}. Nothing was changed"
        )
    for action in actions(policy, "write-case"):
        action["bucket"] = name
    if name != case.NONE:
        remember(policy, EVIDENCE_BUCKET, name)
        log.info("policy:%s %s:%s", policy.name, EVIDENCE, name)


def actions(policy, step):
    """The arguments of a step in a policy, where it has any."""
    return [a for a in policy.data["actions"] if isinstance(a, dict) and a["type"] == step]


def function_name(policy):
    return policy.data["mode"].get("function-prefix", "custodian-") + policy.name


def deployed_tags(policy):
    """The tags of the function as it is deployed now; None where there is no function yet.

    Raises PolicyExecutionError where they are not to be read.

    IAM: lambda:GetFunction, and lambda:ListTags, without which it shows no tags.
    https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
    """
    client = policy.session_factory().client("lambda", region_name=policy.options.region)
    name = function_name(policy)
    deployed = ignoring("ResourceNotFoundException", client.get_function, FunctionName=name)
    if deployed is None:
        return None
    if error := deployed.get("TagsError"):
        raise PolicyExecutionError(
            f"policy:{policy.name} how {name} is deployed is not known, its tags are not to be "
            f"read ({error.get('Message')}): say MODE=observe, ask or contain, and MEMBER_ROLE=, "
            f"which is {central.NONE} but in GuardDuty's administrator account. Nothing was changed"
        )
    return deployed.get("Tags", {})


LambdaMode.provision = provision
LambdaMode.validate = validate
PolicyLambda.get_config = config
CloudWatchEventSource.add = add_rule
CloudWatchEventSource.resolve_cloudtrail_payload = payload
LambdaManager.publish = publish
LambdaManager._update_concurrency = reserve
