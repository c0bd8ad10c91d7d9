"""response-guard: who stops or changes the response itself is told, and the rest put right.

The events are made by hand in the shape that CloudTrail documents; the simulation makes none.
"""

import copy
from pathlib import Path

import pytest
import yaml
from cloudtrail import MALLORY, api_call, headline

from simulation import deploy
from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]
GUARD = ROOT / "policies" / "response-guard.yml"
ISOLATE = "custodian-ec2-isolate"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{ISOLATE}"
TELL = f"arn:aws:iam::{ACCOUNT}:policy/guardduty-response-tell"
DEPLOY = "make deploy REGION=... MODE=<the mode that you had>"
SPELT = {
    "PutFunctionConcurrency": "20171031",
    "DeleteFunctionConcurrency": "20171031",
    "UpdateFunctionCode": "20150331v2",
    "UpdateFunctionConfiguration": "20150331v2",
    "AddPermission": "20150331v2",
    "RemovePermission": "20150331v2",
    "DeleteFunction": "20150331",
}


@pytest.fixture(scope="module")
def watched(pack, tmp_path_factory):
    """The guard; without rules, one that only observes and one that knows a reservation."""
    (data,) = yaml.safe_load(GUARD.read_text())["policies"]
    data["actions"][0] = "restore-response"  # what is reserved is the last one's
    observing = copy.deepcopy(data) | {"name": "observing"}
    observing["mode"]["execution-options"] = {"autonomy": "observe"}
    reserving = copy.deepcopy(data) | {"name": "reserving"}
    reserving["actions"][0] = {"type": "restore-response", "reserved": {ISOLATE: 4}}
    others = tmp_path_factory.mktemp("policies") / "others.yml"
    others.write_text(yaml.safe_dump({"policies": [data, observing, reserving]}))
    deploy.deploy(pack.cloud, [others], ACCOUNT, REGION)
    functions(pack).delete_function_concurrency(FunctionName=ISOLATE)
    for name in ("custodian-observing", "custodian-reserving"):
        events(pack).remove_targets(Rule=name, Ids=[name])
        events(pack).delete_rule(Name=name)
    return pack


@pytest.fixture
def guard(watched):
    watched.restore()
    yield watched
    watched.restore()
    watched.dead_letters()
    events(watched).enable_rule(Name=ISOLATE)
    functions(watched).delete_function_concurrency(FunctionName=ISOLATE)


def events(pack):
    return pack.cloud.client("events", ACCOUNT, REGION)


def functions(pack):
    return pack.cloud.client("lambda", ACCOUNT, REGION)


def of_rule(name, key="name", **options):
    return api_call(name, {key: ISOLATE}, service="events", **options)


def of_function(name, function=ISOLATE, **options):
    return api_call(name + SPELT[name], {"functionName": function}, service="lambda", **options)


def state(pack):
    return events(pack).describe_rule(Name=ISOLATE)["State"]


def reserved(pack):
    shown = functions(pack).get_function_concurrency(FunctionName=ISOLATE)
    return shown.get("ReservedConcurrentExecutions")


def test_a_disabled_rule_is_enabled_again_and_who_did_it_is_told(guard):
    events(guard).disable_rule(Name=ISOLATE)

    guard.deliver(of_rule("DisableRule"))

    assert state(guard) == "ENABLED"
    line = headline(guard.messages())
    assert line.startswith(f"GuardDuty Guard | {ISOLATE}: {MALLORY} called DisableRule on the resp")
    assert "It was put right and read back." in line


@pytest.mark.parametrize(
    "name",
    [ISOLATE, f"{ACCOUNT}:function:{ISOLATE}:7",
     ARN],
    ids=["name", "part of an ARN", "ARN"],
)  # fmt: skip
def test_a_throttle_of_zero_is_taken_off(guard, name):
    functions(guard).put_function_concurrency(FunctionName=ISOLATE, ReservedConcurrentExecutions=0)

    guard.deliver(of_function("PutFunctionConcurrency", name))

    assert reserved(guard) is None
    assert "It was put right and read back." in headline(guard.messages())


def test_a_reservation_of_the_deploy_is_set_again_and_others_stay(guard):
    functions(guard).put_function_concurrency(FunctionName=ISOLATE, ReservedConcurrentExecutions=1)
    event = of_function("PutFunctionConcurrency")
    guard.deliver(event)
    assert reserved(guard) == 1 and "Nothing had to be put right" in headline(guard.messages())

    guard.cloud.invoke("custodian-reserving", event, ACCOUNT, REGION)
    assert reserved(guard) == 4 and "put right and read back" in headline(guard.messages())

    functions(guard).delete_function_concurrency(FunctionName=ISOLATE)
    event = of_function("DeleteFunctionConcurrency")
    guard.cloud.invoke("custodian-reserving", event, ACCOUNT, REGION)
    assert reserved(guard) == 4 and "put right and read back" in headline(guard.messages())


@pytest.mark.parametrize(
    "event, words",
    [
        (of_function("UpdateFunctionCode"), "and look in CloudTrail what"),
        (
            of_function("UpdateFunctionConfiguration"),
            "and look in CloudTrail what",
        ),
        (of_function("RemovePermission"), f"Deploy again: {DEPLOY}"),
        (of_rule("RemoveTargets", "rule"), f"Deploy again: {DEPLOY}"),
        (of_rule("PutTargets", "rule"), f"Deploy again: {DEPLOY}"),
        (of_function("AddPermission"), "no deploy takes that off"),
        (
            api_call("TagResource20170331v2", {"resource": ARN}, service="lambda"),
            f"Deploy again: {DEPLOY}",
        ),
        (of_rule("PutRule"), f"Deploy again: {DEPLOY}"),
    ],
    ids=lambda value: value["detail"]["eventName"] if isinstance(value, dict) else "",
)
def test_what_only_a_deploy_can_put_right_is_told_and_not_undone(guard, event, words):
    guard.deliver(event)

    (invocation,) = guard.cloud.invocations
    assert invocation.error is None
    assert {c.operation for c in guard.cloud.call_log.by("custodian-response-guard")} <= {
        "DescribeRule", "GetFunctionConcurrency", "ListAccountAliases", "Publish", "AssumeRole",
    }  # fmt: skip
    line = headline(guard.messages())
    assert ISOLATE in line and "NOTHING was put right" in line and words in line


def test_a_rule_that_was_changed_and_disabled_at_once_is_enabled_and_the_rest_is_told(guard):
    rule = events(guard).describe_rule(Name=ISOLATE)
    events(guard).put_rule(Name=ISOLATE, EventPattern=rule["EventPattern"], State="DISABLED")

    guard.deliver(of_rule("PutRule"))

    line = headline(guard.messages())
    assert state(guard) == "ENABLED"
    assert "Only a part was put right" in line and "make deploy" in line


def test_what_is_gone_is_told_with_the_way_back(guard):
    """Of a function in the list that was never deployed here, nothing is there."""
    event = of_function("DeleteFunction", "custodian-guardduty-guard")

    guard.deliver(event)

    (invocation,) = guard.cloud.invocations
    assert invocation.error is None
    line = headline(guard.messages())
    assert "custodian-guardduty-guard" in line and "NOTHING was put right" in line
    assert f"it is gone: {DEPLOY}" in line


@pytest.mark.parametrize(
    "name, parameters, words",
    [
        ("DeleteRolePolicy", {"roleName": "web", "policyName": "forensic-deny-sessions-i-0"},
         "revoke again"),
        ("UpdateAssumeRolePolicy", {"roleName": "guardduty-response-ec2-isolate"}, "revoke again"),
        # a name that the guards know, of an account that has no such role
        ("CreateRole", {"roleName": "guardduty-response-member-ec2-isolate"}, "The guards leave"),
        ("CreatePolicyVersion", {"policyArn": TELL},
         "list-policy-versions"),
    ],
)  # fmt: skip
def test_a_deny_or_a_role_of_the_pack_that_is_changed_is_told(guard, name, parameters, words):
    guard.deliver(api_call(name, parameters, service="iam"))

    line = headline(guard.messages())
    assert "/".join(parameters.values()) in line and name in line and words in line


@pytest.mark.parametrize(
    "event",
    [
        of_rule("DisableRule", role="custodian-deploy"),
        of_function("DeleteFunctionConcurrency", role="guardduty-response-response-guard"),
        of_rule("DisableRule", errorCode="AccessDenied"),
        api_call("DisableRule", {"name": "custodian-somebody-elses"}, service="events"),
        api_call("DisableRule", {"name": f"{ISOLATE}-x"}, service="events"),
        api_call("DeleteRolePolicy", {"roleName": "web", "policyName": "own"}, service="iam"),
        api_call("DeletePolicy", {"policyArn": "arn:aws:iam::1:policy/own"}, service="iam"),
        api_call("CreateRole", {"roleName": "web"}, service="iam"),
        api_call(
            "CreateRole",
            {"roleName": "guardduty-response-member-ec2-isolate"},
            role="custodian-deploy",
            service="iam",
        ),
        api_call(
            "DeleteRolePolicy",
            {"roleName": "web", "policyName": "forensic-deny-sessions-i-0"},
            role="guardduty-response-iam-role-revoke-sessions",
            service="iam",
        ),
    ],
    ids=[
        "who deploys",
        "itself",
        "failed",
        "another's",
        "a longer name",
        "no deny",
        "own policy",
        "own role",
        "a stack by who deploys",
        "the pack",
    ],
)
def test_a_deploy_and_the_pack_itself_are_not_fought(guard, event):
    events(guard).disable_rule(Name=ISOLATE)

    guard.deliver(event)

    (invocation,) = guard.cloud.invocations
    assert invocation.error is None
    assert state(guard) == "DISABLED" and guard.messages() == []


def test_a_call_that_was_not_sent_by_aws_is_nobodys(guard):
    events(guard).disable_rule(Name=ISOLATE)
    forged = of_rule("DisableRule") | {"source": "mallory.example"}

    guard.deliver(forged)
    assert guard.cloud.invocations == []
    invocation = guard.cloud.invoke("custodian-response-guard", forged, ACCOUNT, REGION)

    assert "not sent by AWS" in invocation.result["response-guard"]
    assert state(guard) == "DISABLED" and guard.messages() == []


def test_what_cannot_be_put_right_is_told_and_fails(guard):
    events(guard).disable_rule(Name=ISOLATE)
    guard.cloud.fail("EnableRule", "AccessDeniedException", times=None)

    guard.deliver(of_rule("DisableRule"))

    messages = guard.messages()
    assert len(messages) == len(guard.cloud.invocations) == 3 and guard.dead_letters()
    assert headline(messages[:1]).endswith("It was NOT put right: restore-response failed.")
    outcomes = messages[0]["resources"][0]["c7n:response"]
    assert any("the rule: AccessDenied" in (o["error"] or "") for o in outcomes)


def test_unless_it_contains_it_puts_nothing_right_and_says_so(guard):
    events(guard).disable_rule(Name=ISOLATE)

    guard.cloud.invoke("custodian-observing", of_rule("DisableRule"), ACCOUNT, REGION)

    line = headline(guard.messages())
    assert state(guard) == "DISABLED"
    assert "OBSERVE ONLY" in line and "NOTHING was put right: Would put right: the rule." in line


def test_the_mail_names_the_function_and_escapes_the_call(guard):
    events(guard).disable_rule(Name=ISOLATE)
    guard.deliver(of_rule("DisableRule"))

    with MailSink() as sink:
        Mailer(guard.cloud, sink, ACCOUNT, REGION, guard.queue_url).deliver_all()
        (mail,) = sink.wait_for(1)

    assert mail.subject.startswith(f"GuardDuty Guard | {ISOLATE}: ")
    assert "&lt;script&gt;" in mail.body and "<script>" not in mail.body
    assert "end the isolation" not in mail.body and "make deploy MODE=observe" in mail.body


def test_in_us_east_1_it_tells_what_iam_reports_by_the_same_mail_queue(guard):
    """As the README says: no mailer there, no second roles."""
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:guardduty-response-mail"
    deploy.account_stack(guard.cloud, ACCOUNT, "us-east-1", queue, RoleRegion=REGION)
    deploy.deploy(guard.cloud, [GUARD], ACCOUNT, "us-east-1")
    call = api_call("DeletePolicy", {"policyArn": TELL}, service="iam")

    guard.deliver(call | {"region": "us-east-1"})

    assert TELL in headline(guard.messages())


def test_every_function_that_a_deploy_makes_is_guarded():
    """A policy that is added, or gets a reserved concurrency, has to be named there."""
    modes = {
        f"custodian-{policy['name']}": policy["mode"]
        for path in sorted((ROOT / "policies").glob("*.yml"))
        for policy in yaml.safe_load(path.read_text())["policies"]
        if "mode" in policy
    }
    (guard,) = yaml.safe_load(GUARD.read_text())["policies"]
    (functions,) = [f["functions"] for f in guard["filters"][1]["or"] if "functions" in f]
    restore = guard["actions"][0]
    named = restore.get("reserved", {}) if isinstance(restore, dict) else {}
    assert functions == sorted(modes)
    assert named == {f: mode["concurrency"] for f, mode in modes.items() if "concurrency" in mode}
