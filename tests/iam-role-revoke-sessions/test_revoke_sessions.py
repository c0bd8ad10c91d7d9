"""iam-role-revoke-sessions, deployed and run as in Lambda: who is denied, and what is mailed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from custom_actions.finding_file import read_finding
from custom_actions.notify import NotifyOnceOfRole
from custom_actions.steps.sessions import RevokeFindingSessions
from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-iam-role-revoke-sessions"
INSTANCE, OTHER = "i-0abc1234def567890", "i-0fed4321cba098765"
POLICY = "policies/iam-role-revoke-sessions.yml"
HERE = Path(__file__).parent


def revoke(identities, event):
    """Invoke the policy once, as Lambda does for one try."""
    return identities.cloud.invoke(FUNCTION, event, ACCOUNT, REGION)


def outcome(invocation):
    assert invocation.error is None, invocation.error
    (policy,) = invocation.result.values()
    return policy[0]


def error(invocation):
    return invocation.error["errorMessage"]


def told(pack):
    return [m for m in pack.messages() if m["policy"]["name"] == "iam-role-revoke-sessions"]


def headline(messages):
    (message,) = messages
    return message["event"]["c7n:notice"]["headline"]


def by_function(call):
    return call.caller == FUNCTION


def changes(cloud):
    """What the function did to IAM that is not a read."""
    return [
        call.operation
        for call in cloud.call_log.by(FUNCTION)
        if call.service == "iam" and not call.operation.startswith(("Get", "List"))
    ]


def denied(policies, userid, issued=None):
    """Whether these inline policies deny everything to a request.

    userid: aws:userid of the request. issued: aws:TokenIssueTime of its credentials, now if None.
    """
    issued = issued or datetime.now(UTC)
    for document in policies.values():
        assert document["Version"] == "2012-10-17"
        for statement in document["Statement"]:
            condition = statement["Condition"]
            assert statement == {
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": condition,
            }
            ((operator, test),) = condition.items()
            ((key, value),) = test.items()
            if (operator, key) == ("StringEquals", "aws:userid"):
                hit = userid == value
            else:
                assert (operator, key) == ("DateLessThan", "aws:TokenIssueTime")
                hit = issued < datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            if hit:
                return True
    return False


# Who is denied


def test_a_session_that_names_its_instance_is_denied_alone(identities):
    role = identities.role()

    report = outcome(revoke(identities, identities.stolen(role)))

    policies = identities.policies(role)
    assert denied(policies, f"{role['RoleId']}:{INSTANCE}")
    assert denied(policies, f"{role['RoleId']}:{INSTANCE}", datetime(2099, 1, 1, tzinfo=UTC))
    for session in (OTHER, "app-session", INSTANCE[:-1], INSTANCE + "0"):
        assert not denied(policies, f"{role['RoleId']}:{session}")
    assert report["status"] == "done" and report["revoked"] and report["verified_at"]
    assert report["instance"] == INSTANCE and report["issued_before"] is None
    assert "other instances with the role go on" in report["detail"]


@pytest.mark.parametrize(
    "session",
    ["app-session", "i-0abc", "i-0ABC1234DEF567890", f"x{INSTANCE}", "a_b+=,.@-", "x" * 64],
)
def test_a_session_of_any_name_is_denied_alone(identities, session):
    role = identities.role()

    report = outcome(revoke(identities, identities.stolen(role, session)))

    policies = identities.policies(role)
    assert denied(policies, f"{role['RoleId']}:{session}")
    assert denied(policies, f"{role['RoleId']}:{session}", datetime(2099, 1, 1, tzinfo=UTC))
    for other in (INSTANCE, "somebody-else", session + "x", session[:-1], ""):
        assert not denied(policies, f"{role['RoleId']}:{other}", datetime(2020, 1, 1, tzinfo=UTC))
    assert report["session"] == session
    assert report["instance"] is None and report["issued_before"] is None
    assert f"named {session}; other names go on" in report["detail"]
    assert len(report["detail"]) <= 300  # what the mail shows of it


@pytest.mark.parametrize(
    "finding, member, words",
    [
        ("lambda", "lambdaDetails", "Lambda function"),
        ("ecs", "ecsClusterDetails", "ECS task"),
    ],
)
def test_of_a_function_or_a_task_its_own_sessions_are_denied_and_it_is_said_that_it_stands_still(
    identities, finding, member, words
):
    role = identities.role()
    event = identities.finding(f"iam-role-{finding}-credential-exfiltration")
    resource = event["detail"]["resource"]
    session = resource["accessKeyDetails"]["principalId"].partition(":")[2]
    resource["accessKeyDetails"] |= {
        "userName": role["RoleName"],
        "principalId": f"{role['RoleId']}:{session}",
    }

    report = outcome(revoke(identities, event))

    policies = identities.policies(role)
    assert denied(policies, f"{role['RoleId']}:{session}")
    assert not denied(policies, f"{role['RoleId']}:another-one")
    assert report["revoked"] and report["workload"] == words and report["instance"] is None
    hit = f"named {session}: that {words} is hit too; other names go on"
    assert hit in report["detail"] and hit in headline(told(identities.pack))

    # Which of the two it is is not said where the finding does not describe it, or another one.
    for odd in (None, {"functionName": "x", "taskDetails": {"arn": f"task/{session}x"}}):
        resource[member] = odd
        report = outcome(revoke(identities, event))
        assert f"{session}: that function or task is hit too" in report["detail"]


def test_without_a_session_it_is_denied_by_the_time_of_issue(identities):
    role, before = identities.role(), datetime.now(UTC)

    report = outcome(revoke(identities, identities.stolen(role, "")))

    policies, after = identities.policies(role), datetime.now(UTC)
    for anybody in ("app-session", "somebody-else", OTHER):
        assert denied(policies, f"{role['RoleId']}:{anybody}", before)
        # the half minute that AWS's own console allows for the change to spread
        assert denied(policies, f"{role['RoleId']}:{anybody}", before + timedelta(seconds=28))
        later = after + timedelta(seconds=31)
        assert not denied(policies, f"{role['RoleId']}:{anybody}", later)
    assert report["session"] is None and report["issued_before"]
    assert "EVERY session" in report["detail"] and report["issued_before"] in report["detail"]


INSIDE = "UnauthorizedAccess:IAMUser/InstanceCredentialExfiltration.InsideAWS"


def used_by(identities, role, finding_type=INSIDE, **remote):
    event = identities.stolen(role)
    event["detail"]["type"] = finding_type
    call = event["detail"]["service"]["action"]["awsApiCallAction"]
    call["remoteAccountDetails"] = {"accountId": "444455556666", **remote}
    return event


@pytest.mark.parametrize("affiliated", [True, "true"])
def test_use_by_an_affiliated_account_is_mailed_and_not_revoked(identities, affiliated):
    role = identities.role()

    report = outcome(revoke(identities, used_by(identities, role, affiliated=affiliated)))

    assert report["status"] == "skipped" and "444455556666" in report["detail"]
    assert identities.policies(role) == {}
    line = headline(told(identities.pack))
    assert "The sessions were NOT revoked." in line and "affiliated with this one" in line


@pytest.mark.parametrize(
    "options",
    [
        {"affiliated": False},
        {"affiliated": "false"},
        {"affiliated": None},
        {"affiliated": True, "finding_type": INSIDE.replace("Inside", "Outside")},
    ],
    ids=str,
)
def test_use_by_any_other_account_is_revoked(identities, options):
    role = identities.role()

    revoke(identities, used_by(identities, role, **options))

    assert denied(identities.policies(role), f"{role['RoleId']}:{INSTANCE}")


@pytest.mark.parametrize("path", sorted((HERE / "positive").glob("*.json")), ids=lambda p: p.stem)
def test_findings_that_revoke(path, identities):
    role, event = identities.role(), read_finding(path)
    details = event["detail"]["resource"]["accessKeyDetails"]
    session = details["principalId"].partition(":")[2]
    details |= {"userName": role["RoleName"], "principalId": f"{role['RoleId']}:{session}"}

    identities.pack.deliver(event)

    assert denied(identities.policies(role), f"{role['RoleId']}:{session}")
    assert headline(told(identities.pack)).startswith(
        f"GuardDuty Remediation | ID: {event['detail']['id']}: "
    )


@pytest.mark.parametrize(
    "path",
    sorted(p for kind in ("negative", "sample") for p in (HERE / kind).glob("*.json")),
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_findings_that_revoke_nothing(path, identities):
    event = read_finding(path)

    identities.pack.deliver(event)
    if event["account"] != event["detail"]["accountId"]:
        # the rule alone keeps out what is a member's: by hand it would be an error that says so
        assert identities.cloud.invocations == []
        return
    invocation = revoke(identities, event)

    assert invocation.error is None and isinstance(
        invocation.result["iam-role-revoke-sessions"], str
    )
    assert changes(identities.cloud) == [] and told(identities.pack) == []


@pytest.mark.parametrize(
    "mark",
    [
        {"additionalInfo": {"sample": True}},
        {"additionalInfo": {"sample": "True"}},
        {"additionalInfo": {"value": '{"sample": true}'}},
        {"archived": "true"},
    ],
    ids=str,
)
def test_a_marked_finding_of_a_real_role_revokes_nothing(identities, mark):
    role = identities.role()
    event = identities.stolen(role)
    event["detail"]["service"] |= mark

    assert revoke(identities, event).error is None

    assert identities.policies(role) == {} and told(identities.pack) == []


@pytest.mark.parametrize("kind", ["IAMUser", "Role", "Root", "FederatedUser", None])
def test_only_the_session_of_a_role_is_revoked(identities, kind):
    role = identities.role()

    invocation = revoke(identities, identities.stolen(role, userType=kind))

    assert invocation.error is None
    assert identities.policies(role) == {} and told(identities.pack) == []


# What is refused


def refused(identities, event, reason, role=None):
    """The run failed for that reason, changed no policy, and mailed that."""
    invocation = revoke(identities, event)
    assert reason in error(invocation)
    assert set(changes(identities.cloud)) <= {"TagRole"}
    if role:
        assert identities.policies(role) == {}
    messages = told(identities.pack)
    line = headline(messages)
    assert line.endswith("The sessions were NOT revoked. revoke-role-sessions failed.")
    (outcome,) = messages[0]["resources"][0]["c7n:response"]
    assert reason in outcome["error"]  # which the mail has below


def test_a_role_that_does_not_exist(identities):
    role = {"RoleName": "nobody", "RoleId": "AROAEXAMPLEEXAMPLE001"}
    refused(identities, identities.stolen(role), "IAM knows no role nobody")


def test_a_role_of_that_name_with_another_id(identities):
    role = identities.role()
    event = identities.stolen({**role, "RoleId": "AROAEXAMPLEEXAMPLE001"})
    refused(identities, event, "AROAEXAMPLEEXAMPLE001, but the role called", role)
    assert identities.tags(role) == {}  # not even the mark of the mail


@pytest.mark.parametrize(
    "details, reason",
    [
        ({"userName": "web/../admin"}, "is not the name of a role"),
        ({"userName": None}, "is not the name of a role"),
        ({"userName": ["web"]}, "is not the name of a role"),
        ({"principalId": "AIDAEXAMPLEEXAMPLE001:x"}, "is not a role id"),
        ({"principalId": "AROAEXAMPLEEXAMPLE001"}, "is not a role id"),
        ({"principalId": "AROA*:i-0abc1234def567890"}, "is not a role id"),
        ({"principalId": None}, "is not a role id"),
        ({"principalId": "AROAEXAMPLEEXAMPLE001:${aws:userid}"}, "is not the name of a session"),
        ({"principalId": "AROAEXAMPLEEXAMPLE001:*"}, "is not the name of a session"),
        ({"principalId": "AROAEXAMPLEEXAMPLE001:i-1:x"}, "is not the name of a session"),
        ({"principalId": "AROAEXAMPLEEXAMPLE001:\u00e9\u00e9"}, "is not the name of a session"),
    ],
    ids=str,
)
def test_malformed_details_of_the_credentials(identities, details, reason):
    role = identities.role()
    event = identities.stolen(role)
    event["detail"]["resource"]["accessKeyDetails"] |= details
    refused(identities, event, reason, role)


@pytest.mark.parametrize("finding_id", [None, "", "a/b", "x" * 65, 7, "forensic*"])
def test_a_finding_without_a_usable_id(identities, finding_id):
    role = identities.role()
    event = identities.stolen(role)
    event["detail"]["id"] = finding_id
    refused(identities, event, "is not the id of a finding", role)


def test_a_finding_of_another_account(identities):
    role = identities.role()
    event = identities.stolen(role)
    event["detail"]["accountId"] = "444455556666"
    refused(identities, event, "the finding is of account 444455556666", role)


@pytest.mark.parametrize(
    "path, reason",
    [
        ("/aws-service-role/ecs.amazonaws.com/", "is a service-linked role"),
        ("/aws-reserved/sso.amazonaws.com/", "belongs to IAM Identity Center"),
    ],
)
def test_a_role_that_nobody_can_edit(identities, path, reason):
    role = identities.role(path)
    refused(identities, identities.stolen(role), reason, role)


def test_a_role_that_iam_keeps_from_being_edited(identities):
    role = identities.role()
    identities.cloud.fail("PutRolePolicy", "UnmodifiableEntity", when=by_function)

    invocation = revoke(identities, identities.stolen(role))

    assert "UnmodifiableEntity" in error(invocation)
    (message,) = told(identities.pack)
    assert "Nobody but the service" in message["resources"][0]["c7n:response"][0]["detail"]
    assert not message["event"]["c7n:notice"]["revoked"]


def test_inline_policies_at_their_limit_are_one_mail_and_a_dead_letter(identities):
    role = identities.role()
    full = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::" + "x" * 10000}
    identities.put(role, "full", {"Version": "2012-10-17", "Statement": [full]})

    identities.pack.deliver(identities.stolen(role))

    tries = [i for i in identities.cloud.invocations if i.function_name == FUNCTION]
    assert len(tries) == 3 and all("LimitExceeded" in error(i) for i in tries)
    assert list(identities.policies(role)) == ["full"]
    (message,) = told(identities.pack)
    assert "10,240 characters" in message["resources"][0]["c7n:response"][0]["detail"]
    (letter,) = identities.pack.dead_letters()
    assert "LimitExceeded" in letter["MessageAttributes"]["ErrorMessage"]["StringValue"]


def test_revoked_is_said_only_when_it_was_read_back(identities):
    role = identities.role()
    event = identities.stolen(role)
    name = f"forensic-deny-sessions-{event['detail']['id']}"

    def remove(call):
        if name in identities.policies(role):
            identities.iam.delete_role_policy(RoleName=role["RoleName"], PolicyName=name)

    identities.cloud.before("GetRolePolicy", remove, times=None, when=by_function)

    invocation = revoke(identities, event)

    assert "IAM still shows" in error(invocation)
    assert "NOT revoked" in headline(told(identities.pack))


def test_eventual_consistency_of_the_read_back_is_waited_for(identities):
    role = identities.role()
    identities.cloud.fail("GetRolePolicy", "NoSuchEntity", status=404, skip=1, when=by_function)

    assert outcome(revoke(identities, identities.stolen(role)))["revoked"]


# Again and again


@pytest.mark.parametrize("session", [INSTANCE, "app-session", ""])
def test_an_update_of_the_finding_changes_nothing_and_mails_nothing(identities, session):
    role = identities.role()
    event = identities.stolen(role, session)
    revoke(identities, event)
    policies, tags = identities.policies(role), identities.tags(role)
    assert len(told(identities.pack)) == 1
    identities.cloud.call_log.clear()

    event["detail"]["service"]["count"] = 7
    report = outcome(revoke(identities, event))
    identities.pack.deliver(event)

    assert report["status"] == "unchanged" and report["revoked"]
    assert changes(identities.cloud) == [] and told(identities.pack) == []
    assert identities.policies(role) == policies and identities.tags(role) == tags


def test_the_time_of_a_finding_never_moves(identities):
    role = identities.role()
    event = identities.stolen(role, "")
    statement = {
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": "2026-11-23T09:00:00Z"}},
    }
    first = {"Version": "2012-10-17", "Statement": [statement]}
    identities.put(role, f"forensic-deny-sessions-{event['detail']['id']}", first)

    report = outcome(revoke(identities, event))

    assert list(identities.policies(role).values()) == [first]
    assert report["status"] == "unchanged" and report["issued_before"] == "2026-11-23T09:00:00Z"


def test_a_policy_that_somebody_has_changed_is_completed_and_loses_nothing(identities):
    role = identities.role()
    event = identities.stolen(role)
    revoke(identities, event)
    (name,) = identities.policies(role)
    changed = {"Effect": "Deny", "Action": "iam:*", "Resource": "*"}
    identities.put(role, name, {"Version": "2012-10-17", "Statement": changed})

    assert outcome(revoke(identities, event))["status"] == "done"

    statements = identities.policies(role)[name]["Statement"]
    assert statements[0] == changed
    assert statements[1]["Condition"]["StringEquals"]["aws:userid"].endswith(INSTANCE)


def test_two_findings_on_one_role_have_a_policy_and_a_mail_each(identities):
    role = identities.role()
    first, second = identities.stolen(role), identities.stolen(role, OTHER)

    for event in (first, second, first, second):
        assert revoke(identities, event).error is None

    policies = identities.policies(role)
    ids = [event["detail"]["id"] for event in (first, second)]
    assert set(policies) == {f"forensic-deny-sessions-{i}" for i in ids}
    assert denied(policies, f"{role['RoleId']}:{INSTANCE}")
    assert denied(policies, f"{role['RoleId']}:{OTHER}")
    assert len(told(identities.pack)) == 2
    assert set(identities.tags(role)) == {f"forensic:notified:{i}" for i in ids}


def test_a_failure_that_the_retry_mends_is_told(identities):
    role = identities.role()
    identities.cloud.fail("PutRolePolicy", "AccessDenied", status=403, when=by_function)

    identities.pack.deliver(identities.stolen(role))

    assert denied(identities.policies(role), f"{role['RoleId']}:{INSTANCE}")
    lines = [m["event"]["c7n:notice"]["headline"] for m in told(identities.pack)]
    assert ["NOT revoked" in line for line in lines] == [True, False]


def test_the_alias_of_the_account_is_decoration(identities):
    role = identities.role()
    identities.cloud.fail("ListAccountAliases", "AccessDenied", status=403, times=None)

    identities.pack.deliver(identities.stolen(role))

    assert identities.policies(role)
    assert "NOT" not in headline(told(identities.pack))


def test_a_message_that_sns_refused_is_sent_by_the_retry_once(identities):
    role = identities.role()
    identities.cloud.fail("sns:Publish", "AuthorizationError", status=403, when=by_function)

    identities.pack.deliver(identities.stolen(role))

    tries = [i for i in identities.cloud.invocations if i.function_name == FUNCTION]
    assert len(tries) == 2 and "AuthorizationError" in error(tries[0]) and tries[1].error is None
    assert f"sessions of {INSTANCE}" in headline(told(identities.pack))


def test_a_function_that_dies_before_the_message_sends_it_when_tried_again(identities):
    role = identities.role()
    identities.cloud.before(
        "ListAccountAliases",
        lambda call: identities.cloud.functions.kill(FUNCTION),
        when=by_function,
        skip=1,  # the first is Custodian reading the account
    )

    identities.pack.deliver(identities.stolen(role))

    assert denied(identities.policies(role), f"{role['RoleId']}:{INSTANCE}")
    assert len(told(identities.pack)) == 1


def test_the_mail_goes_out_though_its_mark_is_refused(identities):
    role = identities.role()
    identities.cloud.fail("TagRole", "AccessDenied", status=403, when=by_function)

    invocation = revoke(identities, identities.stolen(role))

    assert "notify-once" in error(invocation) and "AccessDenied" in error(invocation)
    assert len(told(identities.pack)) == 1


# Observe only, and least privilege


@pytest.fixture(scope="module")
def observing(credentials, tmp_path_factory):
    """The policy with `dryrun: true`, under another name."""
    document = yaml.safe_load(Path(POLICY).read_text())
    document["policies"][0]["name"] = "observe-sessions"
    document["policies"][0]["mode"]["execution-options"] = {"dryrun": True}
    path = tmp_path_factory.mktemp("policy") / "observe-sessions.yml"
    path.write_text(json.dumps(document))
    deploy.deploy(credentials.cloud, [path], ACCOUNT, REGION)


@pytest.mark.parametrize("session", [INSTANCE, "app-session", ""])
def test_observing_says_what_would_be_done_and_changes_nothing(identities, observing, session):
    role = identities.role()

    invocation = identities.cloud.invoke(
        "custodian-observe-sessions", identities.stolen(role, session), ACCOUNT, REGION
    )

    assert outcome(invocation)["status"] == "planned"
    assert identities.policies(role) == {} and identities.tags(role) == {}
    (message,) = identities.pack.messages()
    line = message["event"]["c7n:notice"]["headline"]
    assert line.startswith("OBSERVE ONLY | ") and "Would deny everything to" in line


def test_observing_what_is_denied_already_leaves_no_mark(identities, observing):
    role = identities.role()
    event = identities.stolen(role)
    revoke(identities, event)
    identities.iam.untag_role(
        RoleName=role["RoleName"], TagKeys=[f"forensic:notified:{event['detail']['id']}"]
    )

    invocation = identities.cloud.invoke("custodian-observe-sessions", event, ACCOUNT, REGION)

    assert outcome(invocation)["status"] == "unchanged"
    assert identities.tags(role) == {}


def test_permissions_are_the_calls_that_are_made(identities):
    revoke(identities, identities.stolen(identities.role()))

    calls = identities.cloud.call_log.by(FUNCTION)
    made = {f"{c.service}:{c.operation}" for c in calls if c.service != "sts"}
    assert made == {*RevokeFindingSessions.permissions, *NotifyOnceOfRole.permissions}
