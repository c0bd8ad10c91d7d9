"""Which accounts and regions a command works in."""

import pytest
import yaml

from deployment.errors import Refused
from deployment.targets import Target, listed

HERE, OTHER = "111122223333", "444455556666"
ROLE = "arn:aws:iam::{}:role/custodian-deploy"


@pytest.fixture
def file(tmp_path):
    def written(*accounts):
        path = tmp_path / "accounts.yml"
        path.write_text(yaml.safe_dump({"accounts": list(accounts)}))
        return path

    return written


def account(number, **more):
    return {"account_id": number, "role": ROLE.format(number), "regions": ["us-west-2"], **more}


def places(targets):
    return [(target.account_id, target.region) for target in targets]


def test_accounts_are_chosen_by_name_id_and_all_of_several_tags(file):
    two = file(
        account(HERE, name="sandbox", tags=["a:1", "b:2"]),
        account(OTHER, tags=["a:1"], regions=["us-west-2", "eu-west-1"]),
    )

    assert places(listed(two, tags=["a:1,b:2"])) == [(HERE, "us-west-2")]
    assert places(listed(two, accounts=[OTHER])) == [(OTHER, "us-west-2"), (OTHER, "eu-west-1")]
    assert places(listed(two, accounts=["sandbox"], regions=["eu-west-1"])) == [(HERE, "eu-west-1")]
    (target, *_) = listed(two, role="responder")
    assert target.account["role"] == f"arn:aws:iam::{HERE}:role/responder"


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"regions": ["all"]}, "needs its `regions`"),
        ({"regions": []}, "needs its `regions`"),
        ({"regions": ["us-west-22"]}, "not a region"),
        ({"role": 7}, "not c7n-org's list"),
    ],
)
def test_what_c7n_org_would_leave_out_or_guess_is_refused(file, wrong, said):
    with pytest.raises(Refused, match=said):
        listed(file(account(HERE) | wrong))


@pytest.mark.parametrize("role", [ROLE.format(OTHER), []])
def test_a_role_of_another_account_than_the_file_says_is_refused(cloud, monkeypatch, role):
    """`[]` is none: c7n-org would go on as the caller."""
    for name, value in cloud.environment(OTHER, "us-west-2").items():
        monkeypatch.setenv(name, value)
    target = Target(account(HERE, name="sandbox", provider="aws") | {"role": role}, "us-west-2")

    with pytest.raises(Refused, match=f"sandbox.* is of account {OTHER}"):
        target.session()
