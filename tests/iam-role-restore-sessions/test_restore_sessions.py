"""iam-role-restore-sessions, run by a person: one finding's deny goes, nothing else does."""

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"


def revoke(identities, event):
    function = "custodian-iam-role-revoke-sessions"
    assert identities.cloud.invoke(function, event, ACCOUNT, REGION).error is None


@pytest.fixture
def restore(identities, tmp_path):
    """Run the policy as `make restore-sessions` does; returns (succeeded, output)."""

    def run(role, finding):
        (tmp_path / "vars.yml").write_text(f'role: "{role}"\nfinding: "{finding}"\n')
        arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", tmp_path / "output"]
        arguments += ["--vars-file", tmp_path / "vars.yml"]
        arguments += ["policies/iam-role-restore-sessions.yml"]
        try:
            return True, deploy.custodian(identities.cloud, arguments, ACCOUNT, REGION).stdout
        except RuntimeError as error:
            return False, str(error)

    return run


def test_one_finding_of_two_is_reverted(identities, restore):
    role = identities.role()
    first, second = identities.stolen(role), identities.stolen(role, "app-session")
    for event in (first, second):
        revoke(identities, event)
    ids = [event["detail"]["id"] for event in (first, second)]

    succeeded, output = restore(role["RoleName"], ids[0])

    assert succeeded and "status:done" in output
    assert list(identities.policies(role)) == [f"forensic-deny-sessions-{ids[1]}"]
    assert f"Other denies stay: forensic-deny-sessions-{ids[1]}" in output
    assert list(identities.tags(role)) == [f"forensic:notified:{ids[1]}"]

    assert restore(role["RoleName"], ids[1])[0]
    assert identities.policies(role) == {} and identities.tags(role) == {}


def test_nothing_to_revert_names_what_is_there(identities, restore):
    role = identities.role()
    event = identities.stolen(role)
    revoke(identities, event)

    succeeded, output = restore(role["RoleName"], "0" * 32)

    assert succeeded and "status:unchanged" in output
    assert f"forensic-deny-sessions-{event['detail']['id']}" in output
    assert len(identities.policies(role)) == 1


def test_a_role_that_does_not_exist(restore):
    succeeded, output = restore("nobody", "0" * 32)

    assert not succeeded and "NoSuchEntity" in output


@pytest.mark.parametrize("role, finding", [("a/b", "0" * 32), ("web", "../own"), ("web", "")])
def test_names_that_are_none(restore, role, finding):
    succeeded, output = restore(role, finding)

    assert not succeeded and "not well-formed" in output


def test_without_names_nothing_happens(identities):
    policy = "policies/iam-role-restore-sessions.yml"
    arguments = ["run", "--region", REGION, "-s", identities.cloud.folder / "restore", policy]

    with pytest.raises(RuntimeError, match="not well-formed"):
        deploy.custodian(identities.cloud, arguments, ACCOUNT, REGION)


def test_incident_after_the_restore_denies_and_mails_again(identities, restore):
    role = identities.role()
    event = identities.stolen(role)
    revoke(identities, event)
    restore(role["RoleName"], event["detail"]["id"])
    identities.pack.messages()

    revoke(identities, event)

    assert len(identities.policies(role)) == len(identities.pack.messages()) == 1
