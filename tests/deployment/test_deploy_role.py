"""infra/deploy-role.yml: who may take it, and that it has just the calls of its commands."""

import json

import pytest
import yaml
from click.testing import CliRunner

from infra import permissions as shipped
from simulation import deploy
from simulation.iam import enforcing

CENTRAL, MEMBER, REGION = "111122223333", "444455556666", "us-west-2"
ROLE = "custodian-deploy"
DEPLOYER = f"arn:aws:iam::{CENTRAL}:role/{ROLE}"
PROVIDER = f"arn:aws:iam::{CENTRAL}:oidc-provider/token.actions.githubusercontent.com"
# What a first deploy does not call, or the simulation does not see as a call:
# tests/test_shipped_roles.py has a further deploy, as a person, by the same managed policy.
UNSEEN = {
    "iam:PassRole",
    "events:RemoveTargets",
    "lambda:DeleteFunctionConcurrency",
    "lambda:ListTags",
    "lambda:TagResource",
    "lambda:UntagResource",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
}
FREE = {"sts:GetCallerIdentity"}


@pytest.fixture(scope="module")
def roles(quick_cloud):
    """The role in the account that deploys and in another, with the same parameters."""
    said = {
        "DeployerArn": DEPLOYER,
        "OidcProviderArn": PROVIDER,
        "OidcSubject": "repo:org/repo:environment:production",
    }
    queue = deploy.mailer_stack(quick_cloud, CENTRAL, REGION)["MailQueueArn"]
    for account in (CENTRAL, MEMBER):
        deploy.stack(quick_cloud, "operators.yml", account, REGION)
        deploy.stack(quick_cloud, "deploy-role.yml", account, REGION, **said)
    deploy.account_stack(quick_cloud, MEMBER, REGION, queue)
    return quick_cloud


def trusted(cloud, account):
    role = cloud.client("iam", account, REGION).get_role(RoleName=ROLE)["Role"]
    document = role["AssumeRolePolicyDocument"]
    return json.loads(document) if isinstance(document, str) else document


def test_each_account_trusts_one_role_and_the_central_one_the_ci_system_too(roles):
    deployer = {
        "Sid": "Deployer",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{CENTRAL}:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnEquals": {"aws:PrincipalArn": DEPLOYER}},
    }
    assert trusted(roles, MEMBER)["Statement"] == [deployer]
    own, ci = trusted(roles, CENTRAL)["Statement"]
    assert own == deployer
    assert ci["Principal"] == {"Federated": PROVIDER}
    assert ci["Action"] == "sts:AssumeRoleWithWebIdentity"
    issuer = "token.actions.githubusercontent.com"
    assert ci["Condition"] == {
        "StringEquals": {
            f"{issuer}:sub": "repo:org/repo:environment:production",
            f"{issuer}:aud": "sts.amazonaws.com",
        }
    }
    iam = roles.client("iam", MEMBER, REGION)
    assert iam.list_role_policies(RoleName=ROLE)["PolicyNames"] == []


def test_an_external_id_is_asked_for_where_one_is_said(quick_cloud):
    account = "777788889999"
    deploy.stack(quick_cloud, "operators.yml", account, REGION)
    said = {"DeployerArn": DEPLOYER, "ExternalId": "seven"}
    deploy.stack(quick_cloud, "deploy-role.yml", account, REGION, **said)
    (statement,) = trusted(quick_cloud, account)["Statement"]
    assert statement["Condition"]["StringEquals"] == {"sts:ExternalId": "seven"}


def called_by(cloud, commands):
    """What the role of the member called while each of these ran: {command: {action}}.

    commands: {name: function}. They run as the central role, which assumes the other's, and IAM
    refuses what either may not do.
    """
    found = {}
    for name, command in commands.items():
        cloud.call_log.clear()
        with enforcing({ROLE}):
            command()
        found[name] = {
            f"{call.service}:{call.operation}"
            for call in cloud.calls
            if call.account_id == MEMBER and call.error_code != "AccessDenied"
        } - FREE
        refused = [str(call) for call in cloud.calls if "AccessDenied" in str(call.error_code)]
        assert not refused, name
    return found


def allowed():
    """What the managed policies of the role allow."""
    (role,) = (
        r for r in shipped.resources("deploy-role.yml").values() if r["Type"] == "AWS::IAM::Role"
    )
    names = [arn.rpartition("/")[2] for arn in role["Properties"]["ManagedPolicyArns"]]
    policies = {
        r["Properties"]["ManagedPolicyName"]: key
        for key, r in shipped.resources("operators.yml").items()
    }
    return set().union(
        *(shipped.allowed(shipped.managed("operators.yml", policies[n])) for n in names)
    )


def test_it_has_just_the_calls_of_the_commands_that_run_as_it(roles, monkeypatch, tmp_path):
    accounts = tmp_path / "accounts.yml"
    arn = f"arn:aws:iam::{MEMBER}:role/{ROLE}"
    listed = [{"account_id": MEMBER, "name": "member", "role": arn, "regions": [REGION]}]
    for name, value in roles.environment(CENTRAL, REGION, ROLE).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(shipped.ROOT)

    def c7n_org(mode, *policies):
        """A deploy in this process (--debug), as `make deploy-org` does it in others."""
        import c7n_org.cli

        accounts.write_text(yaml.safe_dump({"accounts": listed, "vars": {"autonomy": mode}}))
        for policy in policies:
            arguments = ["run", "-c", str(accounts), "-s", str(tmp_path / "output"), "--debug"]
            done = CliRunner().invoke(c7n_org.cli.cli, [*arguments, "-u", str(policy)])
            assert done.exit_code == 0, done.output

    called = called_by(
        roles,
        {
            "deploy": lambda: c7n_org("observe", "policies/ec2-isolate.yml"),
            # Here come the other commands that run as this role: status-org, undeploy-org, and
            # deploy-org itself once it is a command of this package.
        },
    )
    functions = roles.client("lambda", MEMBER, REGION).list_functions()["Functions"]
    assert [f["FunctionName"] for f in functions] == ["custodian-ec2-isolate"]
    everything = set().union(*called.values())
    assert everything - allowed() == set() and allowed() - everything == UNSEEN
