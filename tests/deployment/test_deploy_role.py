"""infra/deploy-role.yml: who may take it, and that it has just the calls of its commands."""

import json
import shutil

import pytest
import yaml

from infra import permissions as shipped
from simulation import deploy
from simulation.iam import enforcing

CENTRAL, MEMBER, REGION = "111122223333", "444455556666", "us-west-2"
ROLE = "custodian-deploy"
DEPLOYER = f"arn:aws:iam::{CENTRAL}:role/{ROLE}"
PROVIDER = f"arn:aws:iam::{CENTRAL}:oidc-provider/token.actions.githubusercontent.com"
JOBS = [f"repo:org/repo:environment:{name}" for name in ("observe", "production")]
# What the simulation does not see as a call, and what puts right what is not wrong here:
# tests/test_shipped_roles.py and tests/deployment/test_organization.py
UNSEEN = {
    "iam:ListAccountAliases",  # accounts.yml has the name
    "iam:PassRole",
    "lambda:DeleteFunctionConcurrency",
    "lambda:RemovePermission",
    "lambda:TagResource",
    "lambda:UntagResource",
}
FREE = {"sts:GetCallerIdentity"}


@pytest.fixture(scope="module")
def roles(quick_cloud):
    """The role in the account that deploys and in another, with the same parameters."""
    said = {
        "DeployerArn": DEPLOYER,
        "OidcProviderArn": PROVIDER,
        "OidcSubject": ",".join(JOBS),
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
            f"{issuer}:sub": JOBS,
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
            if call.account_id == MEMBER and call.caller == ROLE
        } - FREE
        refused = [str(call) for call in cloud.calls if "AccessDenied" in str(call.error_code)]
        assert not refused, name
    return found


def allowed(*names):
    """What managed policies of infra/operators.yml allow, by default those of the role."""
    if not names:
        (role,) = (
            r
            for r in shipped.resources("deploy-role.yml").values()
            if r["Type"] == "AWS::IAM::Role"
        )
        names = [arn.rpartition("-")[2].title() for arn in role["Properties"]["ManagedPolicyArns"]]
    return set().union(*(shipped.allowed(shipped.managed("operators.yml", n)) for n in names))


def test_it_has_just_the_calls_of_the_commands_that_run_as_it(roles, tmp_path):
    accounts, folder = tmp_path / "accounts.yml", tmp_path / "policies"
    folder.mkdir()
    shutil.copy(shipped.ROOT / "policies/ec2-isolate.yml", folder)
    (data,) = yaml.safe_load((folder / "ec2-isolate.yml").read_text())["policies"]
    arn = f"arn:aws:iam::{MEMBER}:role/{ROLE}"
    listed = [{"account_id": MEMBER, "name": "member", "role": arn, "regions": [REGION]}]
    accounts.write_text(yaml.safe_dump({"accounts": listed, "vars": {"autonomy": "observe"}}))

    def run(command, *options, code=0, memory=1769):
        data["mode"]["memory"] = memory
        (folder / "ec2-isolate.yml").write_text(yaml.safe_dump({"policies": [data]}))
        arguments = [command, "-c", accounts, *options]
        if command != "undeploy":
            arguments += ["--folder", folder]
        done = deploy.deployment(roles, arguments, CENTRAL, REGION, ROLE)
        assert done.returncode == code and "AccessDenied" not in done.stdout, done.stdout

    def deploy_org():
        for memory in (1769, 1770, 1771, 1772):  # more versions than are kept
            run("deploy", "--prune", memory=memory)

    called = called_by(
        roles,
        {
            "deploy-org": deploy_org,
            # what is not well here: no GuardDuty, no trail
            "status-org": lambda: run("status", code=1, memory=1772),
            "undeploy-org": lambda: run("undeploy", "--yes"),
        },
    )
    assert roles.client("lambda", MEMBER, REGION).list_functions()["Functions"] == []
    everything = {
        f"tag:{action.partition(':')[2]}" if action.startswith("resourcegroups") else action
        for action in set().union(*called.values())
    }
    assert everything - allowed() == set()
    # the rest of Status is asked of what is not here: tests/deployment/test_status.py
    assert allowed() - everything - allowed("Status") == UNSEEN
