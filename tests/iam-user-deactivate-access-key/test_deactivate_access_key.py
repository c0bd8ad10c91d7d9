"""iam-user-deactivate-access-key, deployed and run as in Lambda; and its revert."""

import json
from pathlib import Path

import pytest
import yaml

from custom_actions.finding_file import read_finding
from custom_actions.notify import NotifyOnceOfUser
from custom_actions.steps.access_key import DeactivateAccessKey
from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"
NAME = "iam-user-deactivate-access-key"
FUNCTION = f"custodian-{NAME}"
RECORD = "forensic:deactivated-keys"
HERE = Path(__file__).parent


def run(identities, event):
    return identities.cloud.invoke(FUNCTION, event, ACCOUNT, REGION)


def outcome(invocation):
    assert invocation.error is None, invocation.error
    (policy,) = invocation.result.values()
    return policy[0]


def error(invocation):
    return invocation.error["errorMessage"]


def told(pack):
    return [m for m in pack.messages() if m["policy"]["name"] == NAME]


def headline(messages):
    (message,) = messages
    return message["event"]["c7n:notice"]["headline"]


def by_function(call):
    return call.caller == FUNCTION


def changes(cloud):
    return [
        call.operation
        for call in cloud.call_log.by(FUNCTION)
        if call.service == "iam" and not call.operation.startswith(("Get", "List"))
    ]


def test_exactly_the_key_of_the_finding_is_deactivated(identities):
    user, (stolen, other) = identities.user()
    neighbour, _ = identities.user()
    event = identities.misused(user, stolen)

    report = outcome(run(identities, event))

    assert identities.keys(user) == {stolen: "Inactive", other: "Active"}
    assert set(identities.keys(neighbour).values()) == {"Active"}
    assert report["status"] == "done" and report["revoked"] and report["verified_at"]
    line = headline(told(identities.pack))
    assert line.startswith(f"GuardDuty Remediation | ID: {event['detail']['id']}: ")
    assert f"Access key {stolen} of user {user['UserName']} is deactivated, not deleted" in line
    assert identities.user_tags(user)[RECORD] == stolen


@pytest.mark.parametrize("path", sorted((HERE / "positive").glob("*.json")), ids=lambda p: p.stem)
def test_findings_that_deactivate(path, identities):
    (user, (key, _)), event = identities.user(), read_finding(path)
    details = {"userName": user["UserName"], "principalId": user["UserId"], "accessKeyId": key}
    event["detail"]["resource"]["accessKeyDetails"] |= details

    identities.pack.deliver(event)

    assert identities.keys(user)[key] == "Inactive" and len(told(identities.pack)) == 1


@pytest.mark.parametrize(
    "path",
    sorted(p for kind in ("negative", "sample") for p in (HERE / kind).glob("*.json")),
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_findings_that_deactivate_nothing(path, identities):
    event = read_finding(path)

    identities.pack.deliver(event)
    if event["account"] != event["detail"]["accountId"]:
        # the rule alone keeps out what is a member's: by hand it would be an error that says so
        assert identities.cloud.invocations == []
        return
    invocation = run(identities, event)

    assert invocation.error is None and isinstance(invocation.result[NAME], str)
    assert changes(identities.cloud) == [] and told(identities.pack) == []


@pytest.mark.parametrize(
    "mark", [{"additionalInfo": {"sample": True}}, {"archived": True}], ids=str
)
def test_a_marked_finding_of_a_real_key_deactivates_nothing(identities, mark):
    user, (key, _) = identities.user()
    event = identities.misused(user, key)
    event["detail"]["service"] |= mark

    assert run(identities, event).error is None

    assert set(identities.keys(user).values()) == {"Active"} and told(identities.pack) == []


def test_the_id_of_the_user_has_to_match(identities):
    user, (key, _) = identities.user()
    event = identities.misused({**user, "UserId": "AIDAEXAMPLEEXAMPLE001"}, key)

    assert "Nothing was changed" in error(run(identities, event))

    assert identities.keys(user)[key] == "Active"
    assert "The access key was NOT deactivated" in headline(told(identities.pack))


def test_a_key_of_another_user_is_not_touched(identities):
    (user, _), (other, (foreign, _)) = identities.user(), identities.user()

    report = outcome(run(identities, identities.misused(user, foreign)))

    assert report["status"] == "unchanged" and not report["revoked"]
    assert set(identities.keys(user).values()) == set(identities.keys(other).values()) == {"Active"}
    line = headline(told(identities.pack))
    assert "NOT deactivated" in line and "has no access key" in line


@pytest.mark.parametrize(
    "details, reason",
    [
        ({"accessKeyId": "ASIAEXAMPLEEXAMPLE03"}, "is a temporary key"),
        ({"accessKeyId": None}, "is not an access key id"),
        ({"accessKeyId": "AKIA*"}, "is not an access key id"),
        ({"userName": "../build"}, "is not the name of a user"),
        ({"userName": None}, "is not the name of a user"),
        ({"userName": "nobody"}, "IAM knows no such user"),
    ],
    ids=str,
)
def test_what_names_no_key_of_a_user_is_a_clear_error(identities, details, reason):
    user, (key, _) = identities.user()
    event = identities.misused(user, key)
    event["detail"]["resource"]["accessKeyDetails"] |= details

    invocation = run(identities, event)

    assert reason in error(invocation) and "Nothing was changed" in error(invocation)
    assert set(identities.keys(user).values()) == {"Active"}


def test_an_update_changes_nothing_and_mails_nothing(identities):
    user, (key, _) = identities.user()
    event = identities.misused(user, key)
    run(identities, event)
    tags = identities.user_tags(user)
    assert len(told(identities.pack)) == 1
    identities.cloud.call_log.clear()

    report = outcome(run(identities, event))

    assert report["status"] == "unchanged" and report["revoked"]
    assert changes(identities.cloud) == [] and told(identities.pack) == []
    assert identities.user_tags(user) == tags


def test_a_failure_is_mailed_once_and_mended_by_the_retry(identities):
    user, (key, _) = identities.user()
    identities.cloud.fail("UpdateAccessKey", "AccessDenied", status=403, times=2, when=by_function)

    identities.pack.deliver(identities.misused(user, key))

    assert identities.keys(user)[key] == "Inactive"
    lines = [m["event"]["c7n:notice"]["headline"] for m in told(identities.pack)]
    assert ["NOT deactivated" in line for line in lines] == [True, False]


def test_deactivated_is_said_only_when_it_was_read_back(identities):
    user, (key, _) = identities.user()

    def activate(call):
        identities.iam.update_access_key(
            UserName=user["UserName"], AccessKeyId=key, Status="Active"
        )

    identities.cloud.before("ListAccessKeys", activate, times=None, when=by_function)

    assert "does not show" in error(run(identities, identities.misused(user, key)))

    assert "NOT deactivated" in headline(told(identities.pack))


def test_a_record_that_fails_does_not_stop_it(identities):
    user, (key, _) = identities.user()
    identities.cloud.fail("TagUser", "AccessDenied", status=403, when=by_function)

    invocation = run(identities, identities.misused(user, key))

    assert identities.keys(user)[key] == "Inactive"
    assert f"access key {key} could not be recorded" in error(invocation)
    assert "NOT COMPLETE" in headline(told(identities.pack))


@pytest.fixture(scope="module")
def observing(credentials, tmp_path_factory):
    document = yaml.safe_load(Path(f"policies/opt-in/{NAME}.yml").read_text())
    document["policies"][0]["name"] = "observe-key"
    document["policies"][0]["mode"]["execution-options"] = {"dryrun": True}
    path = tmp_path_factory.mktemp("policy") / "observe-key.yml"
    path.write_text(json.dumps(document))
    deploy.deploy(credentials.cloud, [path], ACCOUNT, REGION)


def test_observing_changes_nothing(identities, observing):
    user, (key, _) = identities.user()
    event = identities.misused(user, key)

    report = outcome(identities.cloud.invoke("custodian-observe-key", event, ACCOUNT, REGION))

    assert report["status"] == "planned"
    assert identities.keys(user)[key] == "Active" and identities.user_tags(user) == {}
    (message,) = identities.pack.messages()
    assert message["event"]["c7n:notice"]["headline"].startswith("OBSERVE ONLY | ")


def test_permissions_are_the_calls_that_are_made(identities):
    user, (key, _) = identities.user()

    run(identities, identities.misused(user, key))

    calls = identities.cloud.call_log.by(FUNCTION)
    made = {f"{c.service}:{c.operation}" for c in calls if c.service != "sts"}
    custodian = {"iam:GetUser"}
    named = {*DeactivateAccessKey.permissions, *NotifyOnceOfUser.permissions}
    assert made == named | custodian
