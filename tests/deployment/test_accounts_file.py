"""make accounts: accounts.yml from AWS Organizations."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from deployment.accounts import accounts
from deployment.targets import ROOT, listed

CHIEF, REGION = "111122223333", "us-west-2"
ROLE = "arn:aws:iam::{}:role/custodian-deploy"


@pytest.fixture(scope="module")
def organization(quick_cloud):
    """Accounts by name, in units /Prod/Web and /Test; one of them is closed."""
    client = quick_cloud.client("organizations", CHIEF, "us-east-1")
    client.create_organization(FeatureSet="ALL")
    root = client.list_roots()["Roots"][0]["Id"]
    make = client.create_organizational_unit
    prod = make(ParentId=root, Name="Prod")["OrganizationalUnit"]["Id"]
    web = make(ParentId=prod, Name="Web")["OrganizationalUnit"]["Id"]
    test = make(ParentId=root, Name="Test")["OrganizationalUnit"]["Id"]
    ids = {}
    for name, unit in (
        ("shop", web),
        ("../Lab & Play", test),
        ("closed", web),
        ("shop ", test),
    ):
        tags = {"environment": unit == web and "prod" or "test", "autonomy": "contain"}
        id_ = client.create_account(
            AccountName=name,
            Email="somebody@example.com",
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )["CreateAccountStatus"]["AccountId"]
        client.move_account(AccountId=id_, SourceParentId=root, DestinationParentId=unit)
        ids[name] = id_
    client.close_account(AccountId=ids["closed"])
    return client, ids


@pytest.fixture
def run(quick_cloud, organization, monkeypatch, tmp_path):
    """`run(*arguments)`: exit code, output, the file."""
    for name, value in quick_cloud.environment(CHIEF, REGION).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION")
    file = tmp_path / "accounts.yml"

    def make(*arguments):
        done = CliRunner().invoke(accounts, [*arguments, "-c", str(file)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, " ".join(done.output.split()), file

    make.file = file
    return make


def entries(file):
    return {a["account_id"]: a for a in yaml.safe_load(file.read_text())["accounts"]}


def test_active_accounts_with_units_tags_and_regions_but_no_var_that_is_not_meant(
    run, organization
):
    _, ids = organization
    code, said, file = run("--regions", f"{REGION},us-east-1")

    assert code == 0
    found = entries(file)
    assert set(found) == {ids["shop"], ids["../Lab & Play"], ids["shop "]}
    shop = found[ids["shop"]]
    assert shop["role"] == ROLE.format(ids["shop"]) and shop["regions"] == [REGION, "us-east-1"]
    assert {"path:/Prod", "path:/Prod/Web", "environment:prod", "autonomy:contain"} == set(
        shop["tags"]
    )
    assert shop["vars"] == {"environment": "prod"}, "a tag would set the autonomy"
    assert yaml.safe_load(file.read_text())["vars"] == {"autonomy": "observe"}
    # one word each, and no two the same
    names = {entry["name"] for entry in found.values()}
    assert names == {"shop", "Lab-Play", f"shop-{ids['shop ']}"}
    assert CHIEF not in found and f"{CHIEF} is the management account, and left out" in said
    assert {t.region for t in listed(file)} == {REGION, "us-east-1"}
    linter = [Path(sys.executable).with_name("yamllint"), "--strict", "-c", ROOT / ".yamllint"]
    subprocess.run([*linter, file], check=True)


def test_what_people_wrote_stays_and_what_is_gone_goes(run, organization):
    client, ids = organization
    shop, closed, foreign = ids["shop"], ids["closed"], "999988887777"
    run()
    text = run.file.read_text()
    written = f"""\
# of the team
vars: {{autonomy: ask}}
accounts:
  - account_id: "{shop}"   # by hand
    name: the-shop
    role: arn:aws:iam::{shop}:role/other
    external_id: "7"
    regions: [eu-west-1]
    vars: {{environment: live, autonomy: contain}}
  - account_id: "{closed}"
    name: closed
    role: {ROLE.format(closed)}
  # a partner's
  - account_id: "{foreign}"
    name: partner
    role: {ROLE.format(foreign)}
    tags: [kept]
"""
    run.file.write_text(written.replace("name: closed\n", "name: closed\n    org_id: o-1\n"))

    code, said, file = run("--regions", REGION, "--tag", "environment:prod")

    assert code == 0 and "closed │ ! REMOVED" in said and "the-shop │ changed: " in said
    found = entries(file)
    assert set(found) == {shop, foreign}
    assert {k: found[shop][k] for k in ("name", "role", "external_id", "regions", "vars")} == {
        "name": "the-shop",
        "role": f"arn:aws:iam::{shop}:role/other",
        "external_id": "7",
        "regions": ["eu-west-1"],
        "vars": {"environment": "live", "autonomy": "contain"},
    }
    assert "path:/Prod/Web" in found[shop]["tags"] and found[shop]["email"]
    assert file.read_text().startswith("# of the team\nvars: {autonomy: ask}\n")
    assert f'  - account_id: "{foreign}"\n    name: partner\n' in file.read_text()
    before = file.read_text()
    assert "0 of them changed" in run("--regions", REGION, "--tag", "environment:prod")[1]
    assert file.read_text() == before != text


def test_units_tags_and_the_management_account_are_chosen(run, organization):
    _, ids = organization
    assert set(entries(run("--ou", "/Prod")[2])) == {ids["shop"]}
    code, said, file = run("--ou", "/", "--ou", "/Test", "--management", "--vars", "autonomy")
    found = entries(file)
    assert set(found) == {CHIEF, ids["shop"], ids["../Lab & Play"], ids["shop "]}
    assert found[ids["shop"]]["vars"]["autonomy"] == "contain", "it was meant"
    before = file.read_text()
    for arguments, words in (
        (["--ou", "/Nowhere"], "No OU named:'/Nowhere'"),
        (["--tag", "environment:none"], "No active account in / has environment:none"),
        (["--regions", "us-west-9"], "Did you mean us-west-"),
    ):
        code, said, _ = run(*arguments)
        assert code == 2 and words in said and file.read_text() == before


def test_without_an_organisation_the_reason_is_told(run, quick_cloud):
    quick_cloud.fail("DescribeOrganization", "AWSOrganizationsNotInUseException")
    code, said, file = run()
    assert code == 2 and "AWSOrganizationsNotInUseException" in said and not file.exists()
