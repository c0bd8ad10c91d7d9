"""iam-user-deactivate-access-key-by-hand, run by a person: one key of the one user."""

import pytest

from simulation import guardduty

POLICY = "policies/opt-in/iam-user-deactivate-access-key-by-hand.yml"


@pytest.fixture(scope="module")
def credentials(stacks):
    return stacks


@pytest.fixture
def pack(stacks):
    return stacks


def test_a_person_deactivates_the_key_that_a_finding_names(identities, by_hand):
    user, (stolen, other) = identities.user()
    neighbour, _ = identities.user()
    name = guardduty.keep(identities.misused(user, stolen))["id"]

    succeeded, output = by_hand(POLICY, finding=name)

    assert succeeded and identities.keys(user) == {stolen: "Inactive", other: "Active"}, output
    assert set(identities.keys(neighbour).values()) == {"Active"}
    (message,) = identities.pack.messages()
    headline = message["event"]["c7n:notice"]["headline"]
    assert "responded by hand. Access key " in headline and "deactivated, not deleted" in headline

    (nobody, keys), name = identities.user(), "0" * 31 + "1"
    event = identities.misused(nobody | {"UserName": "nobody"}, keys[0])
    event["detail"]["id"] = name
    guardduty.keep(event)
    succeeded, output = by_hand(POLICY, finding=name)
    assert "count:0" in output and identities.pack.messages() == []  # make says so
