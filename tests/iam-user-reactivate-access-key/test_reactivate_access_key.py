"""iam-user-reactivate-access-key, run by a person."""

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"


def deactivate(identities, event):
    function = "custodian-iam-user-deactivate-access-key"
    assert identities.cloud.invoke(function, event, ACCOUNT, REGION).error is None


@pytest.fixture
def reactivate(identities, tmp_path):
    """Run the policy as `make reactivate-key` does; returns (succeeded, output)."""

    def run(user, key, finding):
        lines = {"user": user, "key": key, "finding": finding}
        (tmp_path / "vars.yml").write_text("".join(f'{k}: "{v}"\n' for k, v in lines.items()))
        arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", tmp_path / "output"]
        arguments += ["--vars-file", tmp_path / "vars.yml"]
        arguments += ["policies/opt-in/iam-user-reactivate-access-key.yml"]
        try:
            return True, deploy.custodian(identities.cloud, arguments, ACCOUNT, REGION).stdout
        except RuntimeError as error:
            return False, str(error)

    return run


def test_the_key_is_active_again_and_the_record_is_gone(identities, reactivate):
    user, (first, second) = identities.user()
    events = [identities.misused(user, key) for key in (first, second)]
    for event in events:
        deactivate(identities, event)
    ids = [event["detail"]["id"] for event in events]

    succeeded, output = reactivate(user["UserName"], first, ids[0])

    assert succeeded and "status:done" in output
    assert identities.keys(user) == {first: "Active", second: "Inactive"}
    tags = identities.user_tags(user)
    assert set(tags) == {"forensic:deactivated-keys", f"forensic:notified:{ids[1]}"}
    assert tags["forensic:deactivated-keys"] == second

    assert reactivate(user["UserName"], second, ids[1])[0]
    assert set(identities.keys(user).values()) == {"Active"}
    assert identities.user_tags(user) == {}


def test_a_key_that_a_person_deactivated_stays_inactive(identities, reactivate):
    user, (key, _) = identities.user()
    identities.iam.update_access_key(UserName=user["UserName"], AccessKeyId=key, Status="Inactive")
    event = identities.misused(user, key)
    deactivate(identities, event)

    succeeded, output = reactivate(user["UserName"], key, event["detail"]["id"])

    assert succeeded and "status:unchanged" in output and "Nothing to revert" in output
    assert identities.keys(user)[key] == "Inactive"


@pytest.mark.parametrize("user, key", [("a/b", "AKIAEXAMPLEEXAMPLE01"), ("build", "x"), ("", "")])
def test_names_that_are_none(reactivate, user, key):
    succeeded, output = reactivate(user, key, "0" * 32)

    assert not succeeded and "not well-formed" in output
