"""iam-role-revoke-sessions-by-hand, run by a person: as the function does it, for one finding."""

import pytest

from simulation import guardduty

POLICY = "policies/iam-role-revoke-sessions-by-hand.yml"


@pytest.fixture(scope="module")
def credentials(stacks):
    return stacks


@pytest.fixture
def pack(stacks):
    return stacks


def test_a_person_revokes_what_a_finding_of_any_type_names(identities, by_hand):
    role = identities.role()
    event = identities.stolen(role)
    event["detail"]["type"] = "Discovery:IAMUser/AnomalousBehavior"
    name = guardduty.keep(event)["id"]

    succeeded, output = by_hand(POLICY, finding=name)

    assert succeeded and list(identities.policies(role)) == [f"forensic-deny-sessions-{name}"]
    (message,) = identities.pack.messages()
    headline = message["event"]["c7n:notice"]["headline"]
    assert headline.startswith(f"GuardDuty Remediation | ID: {name}: ")
    assert "OrganizationAccountAccessRole/simulation responded by hand. Everything is" in headline
    assert message["event"]["c7n:notice"]["revoked"]


def test_use_by_an_affiliated_account_is_revoked_since_a_person_says_so(identities, by_hand):
    role = identities.role()
    event = identities.stolen(role)
    event["detail"]["type"] = "UnauthorizedAccess:IAMUser/InstanceCredentialExfiltration.InsideAWS"
    action = event["detail"]["service"]["action"]["awsApiCallAction"]
    action["remoteAccountDetails"] = {"accountId": "444455556666", "affiliated": True}
    name = guardduty.keep(event)["id"]

    assert by_hand(POLICY, finding=name)[0] and identities.policies(role)


def test_what_is_no_finding_about_a_role_changes_nothing(identities, by_hand):
    user, (key, _) = identities.user()
    name = guardduty.keep(identities.misused(user, key))["id"]

    for finding, reason in (
        (name, "the finding is about a 'IAMUser', not about an AssumedRole"),
        ("", "no finding is named. Say FINDING="),
    ):
        succeeded, output = by_hand(POLICY, finding=finding)
        assert not succeeded and reason in output
    assert identities.pack.messages() == []
