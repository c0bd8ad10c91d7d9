"""What a deploy changes: told as it happens, or, for a plan, without its happening.

A plan is the deploy itself, whose writing calls are answered here instead of being sent. So it
cannot say anything else than the deploy would do.
"""

import json
from types import SimpleNamespace

from c7n.mu import LambdaManager

from custom_actions import autonomy
from custom_actions.provision import permissions_of
from custom_actions.version import VERSION_TAG
from deployment.report import UNCHANGED

READS = ("Get", "List", "Describe")
FUNCTION, RULE = "function", "rule"
MADE = "made"
# what every function is made with
WITH_IT = RULE_MADE, PERMISSION, TARGET, RESERVED = (
    "rule made", "permission", "target", "reserved concurrency",
)  # fmt: skip
# tags of a function that say more than their key
MEANS = {autonomy.TAG: "mode", VERSION_TAG: "version"}

# What Custodian's deploy reads of a function or rule that the plan alone has made.
ANSWERS = {
    "GetFunction": {"Configuration": {"State": "Active", "LastUpdateStatus": "Successful"}},
    "GetFunctionConfiguration": {"State": "Active", "LastUpdateStatus": "Successful"},
    "ListVersionsByFunction": {"Versions": []},
    "ListTargetsByRule": {"Targets": []},
}


class Writes:
    """The writing calls to Lambda and EventBridge of one session, in words.

    session: boto3's, of `target`. plan: whether they are answered instead of being sent.

    Limit: a plan does not see the version that the deploy would publish, and then trim an old one
    for.
    """

    def __init__(self, session, target, plan=False):
        self.session, self.target, self.plan = session, target, plan
        self.words = []
        self.shown = {}  # what AWS last showed of each: {(kind, name): answer}
        self.made = set()  # (kind, name) of what exists in the plan alone
        self.permissions = {}  # the policies of functions as the plan has made them
        for service in ("lambda", "eventbridge"):
            session.events.register(f"before-parameter-build.{service}", self.keep)
            session.events.register(f"before-call.{service}", self.answer)
            session.events.register(f"after-call.{service}", self.see)

    def take(self):
        """What has been written since this was last asked: "made", or "changed: ..." with each
        thing once, in order, or "unchanged"."""
        words, self.words = list(dict.fromkeys(self.words)), []
        if MADE in words:
            others = [word for word in words if word not in (MADE, *WITH_IT)]
            return ", ".join([MADE, *others])
        return f"changed: {', '.join(words)}" if words else UNCHANGED

    @staticmethod
    def keep(params, context, **_):
        context["said"] = params

    def answer(self, model, context, **_):
        """What botocore takes for AWS's answer; None has the call sent."""
        said, operation = context["said"], model.name
        if not self.plan:
            return None
        if operation == "GetPolicy" and said["FunctionName"] in self.permissions:
            return answered({"Policy": json.dumps(self.permissions[said["FunctionName"]])})
        if operation.startswith(READS):
            return answered(ANSWERS[operation]) if subject(said) in self.made else None
        if operation == "AddPermission":
            if self.is_permitted(said):
                return answered({"Error": {"Code": "ResourceConflictException"}}, 409)
            self.permissions[said["FunctionName"]] = policy_of(said)
        if operation in ("CreateFunction", "RemovePermission"):
            self.permissions[said["FunctionName"]] = {"Statement": []}
        if operation in ("CreateFunction", "PutRule") and subject(said) not in self.shown:
            self.made.add(subject(said))
        kind, name = subject(said)
        of = ("events", f"rule/{name}") if kind == RULE else ("lambda", f"function:{name}")
        arn = self.target.arn(*of)
        return answered({"FunctionArn": arn, "RuleArn": arn, "FailedEntryCount": 0})

    def is_permitted(self, said):
        permissions = permissions_of(self.session.client("lambda"), said["FunctionName"])
        return said["StatementId"] in [one["StatementId"] for one in permissions]

    def see(self, http_response, parsed, model, context, **_):
        if http_response.status_code >= 300:
            return
        said, operation = context["said"], model.name
        if operation in ("GetFunction", "DescribeRule") and "Qualifier" not in said:
            self.shown[subject(said)] = parsed
        elif not operation.startswith(READS):
            self.words += words(operation, said, self.shown.get(subject(said)))


def subject(said):
    """(kind, name) of what a call is about; said: its parameters."""
    if "Resource" in said:  # the ARN of a function, of TagResource
        return FUNCTION, said["Resource"].split(":")[6]
    if "FunctionName" in said:
        return FUNCTION, said["FunctionName"]
    return RULE, said.get("Rule") or said["Name"]


def policy_of(said):
    """A function's policy as Lambda shows it, with what AddPermission was asked for."""
    statement = {
        "Sid": said["StatementId"],
        "Effect": "Allow",
        "Action": said["Action"],
        "Principal": {"Service": said["Principal"]},
        "Condition": {"ArnLike": {"AWS:SourceArn": said["SourceArn"]}},
    }
    return {"Statement": [statement]}


def answered(parsed, status=200):
    return SimpleNamespace(status_code=status, headers={}), parsed


def words(operation, said, shown):
    """What a call changes; shown: its function or rule as AWS showed it before, or None."""
    if operation == "UpdateFunctionConfiguration":
        new = {key: value for key, value in said.items() if key != "FunctionName"}
        keys = LambdaManager.delta_function(shown["Configuration"], new)
        return [f"configuration ({', '.join(sorted(keys))})"]
    if operation == "PutRule":
        if shown is None:
            return [RULE_MADE]
        keys = [key for key in ("State", "EventPattern") if said.get(key) != shown.get(key)]
        return [f"rule ({', '.join(keys)})"]
    if operation == "TagResource":
        old = shown.get("Tags", {})
        return [
            f"{MEANS.get(key, f'tag {key}')} ({old.get(key, 'none')} -> {new})"
            for key, new in said["Tags"].items()
        ]
    if operation == "UntagResource":
        return [f"tag {key} off" for key in said["TagKeys"]]
    return [WORDS.get(operation, operation)]


WORDS = {
    "CreateFunction": MADE,
    "UpdateFunctionCode": "code",
    "DeleteFunction": "old versions off",
    "PutFunctionConcurrency": RESERVED,
    "DeleteFunctionConcurrency": "reserved concurrency off",
    "AddPermission": PERMISSION,
    "RemovePermission": PERMISSION,
    "PutTargets": TARGET,
    "RemoveTargets": "targets of others off",
}
