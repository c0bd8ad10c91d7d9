"""The function of a policy as it is deployed, beside what a deploy from here would make.

IAM: lambda:GetFunction, lambda:ListTags, lambda:GetPolicy, events:DescribeRule,
events:ListTargetsByRule, and cloudtrail:LookupEvents for who changed it. Four calls a function;
up to three more where one differs.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError
from c7n.mu import LambdaManager

from custom_actions import autonomy, case, central, provision
from custom_actions.record import EVIDENCE_BUCKET, MAX_PER_HOUR
from custom_actions.version import VERSION, VERSION_TAG
from deployment.checks import Checks, deploy, there, unless
from deployment.errors import reason
from deployment.expected import expected
from deployment.functions import tagged
from deployment.policies import function_name

ABSENT = ("ResourceNotFoundException",)
# What changes a function's time of modification, as CloudTrail spells it.
# https://docs.aws.amazon.com/lambda/latest/dg/logging-using-cloudtrail.html
CHANGES = (
    "UpdateFunctionConfiguration20150331v2",
    "UpdateFunctionCode20150331v2",
    "CreateFunction20150331",
)
UNKNOWN = "unknown"


@dataclass
class Deployed:
    """What is there of one policy.

    kind: of its mode, as guard-duty. version, mode, modified (ISO 8601) and by: "" where there is
    no function, or nobody asked.
    """

    policy: str
    kind: str
    checks: Checks
    version: str = ""
    mode: str = ""
    modified: str = ""
    by: str = ""

    @property
    def well(self):
        return all(check.well for check in self.checks)

    def as_json(self):
        shown = {k: v for k, v in vars(self).items() if k != "checks"}
        return shown | {"well": self.well, "checks": [asdict(check) for check in self.checks]}


def deployed(target, session, policy, mend, opt_in=False, who=False):
    """The Deployed of one policy (its data); None for an opt-in one that is not deployed.

    mend: the command that deploys it. who: ask CloudTrail also where nothing differs.
    """
    checks = Checks(policy["name"])
    found = Deployed(policy["name"], policy["mode"]["type"], checks)
    name = function_name(policy)
    client, function = session.client("lambda"), None
    with checks.reading("function"):
        function = unless(ABSENT, client.get_function, FunctionName=name)
        if function is None and opt_in:
            return None
        if function is None:
            checks.say("function", False, f"{name} is not there", anew(target, mend))
    if function is None:
        return found
    found.version = function.get("Tags", {}).get(VERSION_TAG, "")
    found.modified = function["Configuration"]["LastModified"]
    if autonomy.OPTION in policy["mode"].get("execution-options", {}):
        found.mode = compare_mode(checks, target, function, mend)
    tags = function.get("Tags", {})
    said = {
        autonomy.OPTION: found.mode or autonomy.OBSERVE,
        central.OPTION: tags.get(central.TAG, central.NONE),
        provision.BRAKE: tags.get(MAX_PER_HOUR, provision.BRAKE_OF_POLICY),
        provision.EVIDENCE: tags.get(EVIDENCE_BUCKET, case.NONE),
    }
    wanted = expected(target, session, policy, said)
    wanted.func.arn = target.arn("lambda", f"function:{name}")
    compare(checks, wanted, function, mend)
    with checks.reading("permission"):
        permission(checks, client, target, wanted, mend)
    with checks.reading("rule"):
        rule(checks, session.client("events"), wanted, mend)
    if who or not found.well:
        found.by = changed_by(session.client("cloudtrail"), name, found.modified)
    return found


def anew(target, mend):
    """The command that deploys what has no mode yet. That of an account is said in accounts.yml."""
    return mend if target.listed else f"{mend} MODE=<observe, ask or contain>"


def compare_mode(checks, target, function, mend):
    """How far the function may go by itself; "" where that is not to be read."""
    word = function.get("Tags", {}).get(autonomy.TAG)
    wanted = target.account.get("vars", {}).get(autonomy.OPTION)
    if word not in autonomy.WORDS:
        error = (function.get("TagsError") or {}).get("Message", f"is {word!r}")
        found = f"the tag {autonomy.TAG} is not to be read: {error}"
        checks.say("mode", False, found, anew(target, mend))
        return ""
    differs = wanted and wanted != word
    found = f"{word}; accounts.yml says {wanted}" if differs else word
    checks.say("mode", not differs, found, mend)
    return word


def compare(checks, wanted, function, mend):
    """The function's code, configuration, tags and concurrency."""
    config = function["Configuration"]
    checks.say("function", True, config["FunctionArn"])
    version = function.get("Tags", {}).get(VERSION_TAG)
    if wanted.has_code(config["CodeSha256"]):
        checks.say("code", True, f"of {VERSION}")
    elif version and version != VERSION:
        checks.say("code", False, f"of {version}; here is {VERSION}", mend)
    else:
        # the version is the same, or unknown
        found = (
            "not what a deploy from here uploads: changed by hand, or deployed with other "
            "variables, files or Python"
        )
        checks.say("code", False, found, mend)
    ours = {k: v for k, v in wanted.config.items() if k not in ("Tags", "Architectures")}
    differs = LambdaManager.delta_function(config, ours)
    if config.get("Architectures", ["x86_64"]) != wanted.config["Architectures"]:
        differs.append("Architectures")
    said = "; ".join(
        # variables of others may be secrets
        f"{key} is not empty"
        if key == "Environment"
        else f"{key} is {brief(config.get(key))}, not {brief(ours.get(key))}"
        for key in sorted(differs)
    )
    checks.say("configuration", not differs, said or "as deployed", mend)
    reserved = function.get("Concurrency", {}).get("ReservedConcurrentExecutions", "none")
    ours = "none" if wanted.func.concurrency is None else wanted.func.concurrency
    said = f"{reserved} reserved" + ("" if reserved == ours else f", not {ours}")
    checks.say("concurrency", reserved == ours, said, mend)


def brief(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 100 else f"{text[:97]}..."


def permission(checks, client, target, wanted, mend):
    """EventBridge may invoke the function for its rule, and nobody else for anything.

    A deploy makes its own statement anew, whose name is the rule's, and leaves those of others.
    """
    name = wanted.func.event_name
    source = target.arn("events", f"rule/{name}")
    answer = unless(ABSENT, client.get_policy, FunctionName=wanted.name)
    statements = json.loads(answer["Policy"])["Statement"] if answer else []
    others = [s.get("Sid", "") for s in statements if s.get("Sid") != name]
    if not any(is_for_rule(s, source) for s in statements if s.get("Sid") == name):
        checks.say("permission", False, f"{source} may not invoke it", mend)
    elif not others:
        checks.say("permission", True, source)
    for other in others:
        remove = f"aws lambda remove-permission --region {target.region} --function-name {name}"
        found = f"others may invoke it by {other}"
        mend = f"{remove} --statement-id {other}{there(target)}"
        checks.say("permission", False, found, mend)


def is_for_rule(statement, source):
    condition = {
        key.lower(): value
        for operator in ("ArnLike", "ArnEquals")
        for key, value in statement.get("Condition", {}).get(operator, {}).items()
    }
    return (
        statement["Effect"] == "Allow"
        and statement["Principal"] == {"Service": "events.amazonaws.com"}
        and statement["Action"] == "lambda:InvokeFunction"
        and condition == {"aws:sourcearn": source}
    )


def rule(checks, client, wanted, mend):
    """The rule is enabled, with the pattern of this version, and has one target, as
    `provision.settle_target` sets it."""
    name = wanted.func.event_name
    there = unless(ABSENT, client.describe_rule, Name=name)
    if there is None:
        checks.say("rule", False, f"{name} is not there: no event reaches the function", mend)
        return
    # https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html State
    enabled = there["State"].startswith("ENABLED")
    found = f"{name} is {there['State']}" + ("" if enabled else ": no event reaches the function")
    checks.say("rule", enabled, found, mend)
    same = normal(json.loads(there.get("EventPattern", "{}"))) == normal(wanted.pattern)
    checks.say("pattern", same, "of here" if same else "not that of here", mend)
    said = there.get("ScheduleExpression")
    if said or wanted.schedule:
        found = said or "none: it never runs"
        found += "" if said == wanted.schedule else f", not {wanted.schedule or 'none'}"
        checks.say("schedule", said == wanted.schedule, found, mend)
    targets = client.list_targets_by_rule(Rule=name)["Targets"]
    ours = [one for one in targets if one["Arn"] == wanted.func.arn]
    queue = wanted.func.dead_letter_config.get("TargetArn")
    if not ours:
        checks.say("target", False, "the function is none: no event reaches it", mend)
    elif len(targets) > 1:
        named = ", ".join(one["Arn"] for one in targets if one not in ours)
        checks.say("target", False, f"others too: {named or 'twice'}", mend)
    elif ours[0].get("DeadLetterConfig") != {"Arn": queue}:
        checks.say("target", False, f"what cannot be delivered does not go to {queue}", mend)
    elif ours != [provision.target(wanted.func, queue)]:
        checks.say("target", False, f"not as deployed: {brief(ours[0])}", mend)
    else:
        checks.say("target", True, f"{wanted.func.arn}, else {queue}")


def normal(pattern):
    """A pattern in which the order of alternatives does not count."""
    if isinstance(pattern, dict):
        return {key: normal(value) for key, value in pattern.items()}
    if isinstance(pattern, list):
        return sorted(json.dumps(normal(one), sort_keys=True) for one in pattern)
    return pattern


def changed_by(client, name, modified):
    """Who made the last change of a function, by CloudTrail's event history of 90 days; "unknown"
    where it does not say, with the reason where it was not to be asked.

    CloudTrail takes two such calls a second in an account and region; botocore waits. Its events
    come some minutes late.
    https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
    """
    at = datetime.fromisoformat(modified)
    around = timedelta(minutes=5)
    makers = []
    for change in CHANGES:
        try:
            events = client.lookup_events(
                LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": change}],
                StartTime=at - around,
                EndTime=at + around,
            )["Events"]
        except (BotoCoreError, ClientError) as error:
            return f"{UNKNOWN}: {reason(error)}"
        for event in events:
            detail = json.loads(event["CloudTrailEvent"])
            of = (detail.get("requestParameters") or {}).get("functionName", "")
            if of.split(":")[-1] == name and "errorCode" not in detail:
                who = detail["userIdentity"].get("arn") or event.get("Username", UNKNOWN)
                makers.append((abs(event["EventTime"] - at), who))
    return min(makers)[1] if makers else UNKNOWN


def left_over(checks, target, session, known):
    """Functions with the pack's tag that no policy of the folder makes any more.

    known: the names of those that one does. One that is gone can still be listed for a short while.
    """
    for name in sorted(set(tagged(session)) - set(known)):
        found = f"{name}: no policy of the folder makes it"
        checks.say("left over", False, found, f"{deploy(target)} PRUNE=1")
