"""What a mail calls an account and who gets it: accounts.yml, AWS Organizations, neither."""

import pytest
import yaml

from mailer.accounts import Accounts
from mailer.config import HERE, ConfigError, load
from simulation.organizations import organization

ACCOUNT, OTHER, REGION = "111122223333", "444455556666", "us-west-2"


def listed(post, sink, content, **changes):
    """A mailer.yml of `post` with this accounts.yml beside it."""
    (post.folder / "accounts.yml").write_text(yaml.safe_dump(content))
    return post.config(sink, accounts="accounts.yml", **changes)


def accounts(*emails, **changes):
    """The first account, with these `emails`, and what changes in it."""
    account = {
        "account_id": ACCOUNT,
        "name": "production",
        "role": "r",
        "tags": ["environment:prod", "path:/"],
        "vars": {"Owner": "Team <b>", "charge_code": 1} | ({"emails": [*emails]} if emails else {}),
    }
    return {"vars": {"autonomy": "observe"}, "accounts": [account | changes]}


def test_name_environment_owner_and_recipients_of_an_account(post, sink):
    content = accounts("b@team.example", "a@team.example")
    emails = {"default": ["d@example.com"], ACCOUNT: ["a@team.example"]}
    config = load(listed(post, sink, content, account_emails=emails))
    assert config["accounts"] == {
        ACCOUNT: {"name": "production", "environment": "prod", "owner": "Team <b>"}
    }
    # those who are named twice once, and who is named in one place alone is not lost
    assert config["account_emails"][ACCOUNT] == ["a@team.example", "b@team.example"]
    assert config["account_emails"]["default"] == ["d@example.com"]
    # an account's own value goes before that of all
    content["vars"] |= {"emails": ["all@team.example"], "environment": "all", "owner": "all"}
    content["accounts"].append({"account_id": OTHER, "name": "sandbox", "role": "r"})
    config = load(listed(post, sink, content))
    assert config["accounts"][OTHER] == {"name": "sandbox", "environment": "all", "owner": "all"}
    assert config["account_emails"][OTHER] == ["all@team.example"]
    assert config["account_emails"][ACCOUNT] == ["b@team.example", "a@team.example"]
    assert config["accounts"][ACCOUNT]["owner"] == "Team <b>"


@pytest.mark.parametrize(
    "content, says",
    [
        ([], "no list of accounts"),
        ({"accounts": {}}, "no list of accounts"),
        ({"accounts": ["x"]}, "accounts.0: not an account"),
        (accounts(account_id=111122223333), "accounts.0.account_id: must be 12 digits, in quotes"),
        (accounts(tags="a:b"), "accounts.0.tags: must be a list of texts"),
        (accounts(vars=[]), "accounts.0.vars: must be a mapping"),
        (accounts("x"), "accounts.0.vars.emails: 'x' is not an e-mail address"),
        (accounts(vars={"emails": "a@b.example"}), "accounts.0.vars.emails: must be a list"),
        (accounts() | {"vars": {"emails": []}}, "vars.emails: must be a list of at least one"),
    ],
)
def test_what_is_wrong_with_accounts_yml_is_named(post, sink, content, says):
    path = listed(post, sink, content)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert f"{path}: accounts: {path.with_name('accounts.yml')}: {says}" in str(error.value)


def test_every_mail_says_it_where_the_account_stands_and_escapes_it(post, sink):
    listed(post, sink, accounts("b@team.example"))
    names = ["finding", "remediation", "release", "guard", "credentials"]
    for name in names:
        post.send(finding=name, to=["account-emails"], template=f"{name}.html")
    post.templates = HERE / "templates"
    loop = post.loop(sink, accounts="accounts.yml")
    loop.once()
    assert loop.kept == {} and len(sink.mails) == len(names)
    said = f"{ACCOUNT} (production; environment: prod; owner: Team "
    for mail in sink.mails:
        assert mail.recipients == ["b@team.example"]
        text = " ".join(mail.text.split())
        assert f"Account: {said}<b>)" in text
        assert f"{said}&lt;b&gt;)" in mail.body and "<b>)" not in mail.body


def test_organizations_is_asked_for_others_once_and_a_refusal_costs_no_mail(cloud, caplog):
    session = cloud.session("999988887777", REGION)
    named = Accounts({"describe_accounts": True, "accounts": {OTHER: {"name": "listed"}}}, session)
    assert named.about(ACCOUNT) == {}, "no organisation"
    assert "does not tell about 111122223333" in caplog.text

    organization(cloud, "999988887777", {ACCOUNT: "production", OTHER: "another"})
    tags = [{"Key": "Environment", "Value": "prod"}, {"Key": "owner", "Value": "team-b"}]
    client = cloud.client("organizations", "999988887777", "us-east-1")
    client.tag_resource(ResourceId=ACCOUNT, Tags=tags)
    assert named.about(ACCOUNT) == {}, "asked again, at every mail"
    named = Accounts({"describe_accounts": True, "accounts": {OTHER: {"name": "listed"}}}, session)
    cloud.call_log.clear()
    for _ in range(2):
        assert named.about(ACCOUNT) == {
            "name": "production", "environment": "prod", "owner": "team-b",
        }  # fmt: skip
        assert named.about(OTHER) == {"name": "listed"}
        assert named.about("1111'") == named.about(["x"]) == {}
    asked = [call.operation for call in cloud.calls]
    assert asked == ["DescribeAccount", "ListTagsForResource"]
    cloud.fail("ListTagsForResource", "AccessDeniedException")
    assert Accounts({"describe_accounts": True}, session).about(OTHER) == {"name": "another"}
    assert Accounts({}, session).about(ACCOUNT) == {}
