"""make infra, make infra-org: the stacks of infra/ by change sets."""

import json
import shutil

import pytest
import yaml
from click.testing import CliRunner
from moto.cloudformation.models import cloudformation_backends

from deployment import stacks, template

ACCOUNT, REGION, SECOND = "111122223333", "us-west-2", "eu-west-1"
TOPIC = "arn:aws:sns:{region}:{account_id}:security-alarms"
PEOPLE = "arn:aws:iam::111122223333:role/responder"
MAILER, PACK = "guardduty-response-mailer", "guardduty-response"
HERE = ("--region", REGION, "--yes")
QUEUE = "arn:aws:sqs:us-west-2:999988887777:guardduty-response-mail"


@pytest.fixture
def infra(cloud, monkeypatch):
    """`infra(*arguments)`: exit code and output of the command, in ACCOUNT."""
    cloud.reset()
    for name, value in cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)

    def run(*arguments, answer=None):
        done = CliRunner().invoke(stacks.infra, list(arguments), input=answer)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, " ".join(done.output.split())

    return run


def named(cloud, region=REGION, account_id=ACCOUNT):
    """{name: stack as CloudFormation describes it}."""
    cloudformation = cloud.client("cloudformation", account_id, region)
    return {s["StackName"]: s for s in cloudformation.describe_stacks()["Stacks"]}


def parameters(stack):
    return {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]}


def test_both_are_shown_made_with_the_arn_passed_on_and_a_second_run_changes_nothing(infra, cloud):
    code, said = infra("--region", REGION)
    assert code == 2 and "Say YES=1" in said and "│ add │ Ec2Isolate │ AWS::IAM::Role" in said
    assert f"Stacks: {ACCOUNT}, {REGION} " in said
    assert named(cloud) == {}

    def made_by_another(call):
        names = {key: call.parameters[key] for key in ("ChangeSetName", "StackName")}
        cloud.client("cloudformation", ACCOUNT, REGION).execute_change_set(**names)

    cloud.call_log.before("DeleteChangeSet", made_by_another)
    assert infra("--region", REGION)[0] == 2
    assert [stack["StackStatus"] for stack in named(cloud).values()] == ["CREATE_COMPLETE"]

    assert infra(*HERE)[0] == 0

    made = named(cloud)
    assert {name: stack["StackStatus"] for name, stack in made.items()} == {
        MAILER: "CREATE_COMPLETE",
        PACK: "CREATE_COMPLETE",
    }
    outputs = {o["OutputKey"]: o["OutputValue"] for o in made[MAILER]["Outputs"]}
    (subscription,) = cloud.client("sns", ACCOUNT, REGION).list_subscriptions()["Subscriptions"]
    assert subscription["Endpoint"] == outputs["MailQueueArn"]
    cloud.call_log.clear()
    code, said = infra(*HERE)
    assert code == 0 and said.count("unchanged") == 2 and "add" not in said
    called = [call.operation for call in cloud.calls]
    assert "ExecuteChangeSet" not in called and called.count("DeleteChangeSet") == 2


def test_what_was_said_stays_and_what_goes_stands_first(infra, cloud, monkeypatch, tmp_path):
    infra(*HERE, "--mail-queue", QUEUE, "--parameter", f"PublisherArns={PEOPLE}")
    shutil.copytree(template.INFRA, tmp_path / "infra")
    account = tmp_path / "infra" / "account.yml"
    text = account.read_text().replace("QueueName: guardduty-response-dlq", "QueueName: other")
    text = text.replace("                  - events:EnableRule\n", "")
    start, end = text.index("  GuarddutyGuard:\n"), text.index("  ResponseGuard:\n")
    account.write_text(text[:start] + text[end:])
    monkeypatch.setattr(template, "INFRA", tmp_path / "infra")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)

    code, said = infra("--region", REGION, answer="n\n")

    assert code == 2 and "Not executed. Nothing was changed." in said
    remove, replace, change = (said.index(w) for w in ("! REMOVE", "! REPLACE", "change │ Res"))
    assert said.index("GuarddutyGuard") > remove and remove < replace < change
    assert "QueueName" in said and "MailSubscription" not in said
    code, said = infra("--region", REGION, answer="y\n")
    assert code == 0, said
    roles = {r["RoleName"] for r in cloud.client("iam", ACCOUNT, REGION).list_roles()["Roles"]}
    assert "guardduty-response-guardduty-guard" not in roles
    steps = cloud.client("iam", ACCOUNT, REGION).get_role_policy(
        RoleName="guardduty-response-response-guard", PolicyName="steps"
    )["PolicyDocument"]
    assert "events:EnableRule" not in json.dumps(steps)
    now = parameters(named(cloud)[PACK])
    assert (now["MailQueueArn"], now["PublisherArns"]) == (QUEUE, PEOPLE)


def test_a_second_region_takes_roles_and_mail_queue_of_the_first(infra, cloud):
    infra(*HERE)
    infra(*HERE, "--stacks", "operators")

    code, said = infra("--region", SECOND, "--yes")

    assert code == 0, said
    made = named(cloud, SECOND)
    assert set(made) == {PACK}
    now = parameters(made[PACK])
    assert now["RoleRegion"] == REGION and f":{REGION}:{ACCOUNT}:guardduty-" in now["MailQueueArn"]
    code, said = infra("--region", SECOND, "--yes", "--stacks", "operators")
    assert code == 2 and f"in one region: {REGION}" in said
    # what is there is kept up without being asked for by name
    assert infra(*HERE)[1].count("unchanged") == 3
    assert infra("--region", SECOND, "--yes")[1].count("unchanged") == 1


def test_a_second_region_of_a_former_version_makes_no_roles(infra, cloud):
    """It said CreateRole=no, and the roles did not say of which region they are."""
    iam, role = cloud.client("iam", ACCOUNT, REGION), "guardduty-response-finding-notify"
    iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    code, said = infra("--region", "eu-central-1", "--yes", "--mail-queue", QUEUE)
    assert code == 2 and "PARAMETERS=RoleRegion=" in said and "a former version's stack" in said
    cloud.client("cloudformation", ACCOUNT, SECOND).create_stack(
        StackName=PACK,
        TemplateBody=json.dumps(
            {
                "Parameters": {n: {"Type": "String"} for n in ("CreateRole", "MailQueueArn")},
                "Resources": {"Other": {"Type": "AWS::SNS::Topic"}},
            }
        ),
        Parameters=[
            {"ParameterKey": "CreateRole", "ParameterValue": "no"},
            {"ParameterKey": "MailQueueArn", "ParameterValue": QUEUE},
        ],
    )

    code, said = infra("--region", SECOND, "--yes")
    assert code == 2 and "update the region that has them first" in said
    assert "PARAMETERS=RoleRegion=" in said

    iam.tag_role(RoleName=role, Tags=[{"Key": "guardduty-response:region", "Value": REGION}])
    code, said = infra("--region", SECOND, "--yes")

    assert code == 0 and "AWS::IAM::Role" not in said, said
    assert parameters(named(cloud, SECOND)[PACK])["RoleRegion"] == REGION
    assert len(iam.list_roles()["Roles"]) == 1


@pytest.mark.slow
def test_alarms_come_with_their_topic_and_stay_with_the_region(infra, cloud):
    assert infra(*HERE, "--mail-queue", QUEUE, "--alarm-topic", TOPIC)[0] == 0

    assert set(named(cloud)) == {PACK, "guardduty-response-alarms"}
    cloudwatch = cloud.client("cloudwatch", ACCOUNT, REGION)
    (alarm, *others) = cloudwatch.describe_alarms()["MetricAlarms"]
    assert alarm["AlarmActions"] == [f"arn:aws:sns:{REGION}:{ACCOUNT}:security-alarms"]
    assert infra(*HERE)[1].count("unchanged") == 2
    code, said = infra(*HERE, "--parameter", "Policies=ec2-isolate,finding-notify")
    assert code == 0 and "! REMOVE │ Functionguarddutyguard" in said
    assert len(cloudwatch.describe_alarms()["MetricAlarms"]) < len(others)


def test_what_fails_is_named_with_the_reason_and_what_to_do(infra, cloud):
    iam = cloud.client("iam", ACCOUNT, REGION)
    iam.create_role(RoleName="guardduty-response-ec2-isolate", AssumeRolePolicyDocument="{}")

    code, said = infra(*HERE, "--mail-queue", QUEUE)
    assert code == 1 and "Ec2Isolate (AWS::IAM::Role) CREATE_FAILED: " in said
    assert "already exists" in said and "cancelled" not in said and "ROLLBACK_COMPLETE" in said
    code, said = infra(*HERE, "--mail-queue", QUEUE)
    assert code == 2 and f"delete-stack --region {REGION} --stack-name {PACK}`, then again" in said

    (stack,) = cloudformation_backends[ACCOUNT][REGION].stacks.values()
    stack.status = "UPDATE_ROLLBACK_FAILED"
    assert "continue-update-rollback --region" in infra(*HERE)[1]
    stack.status = "UPDATE_IN_PROGRESS"
    assert "somebody else changes it" in infra(*HERE)[1]


def test_what_is_not_understood_changes_nothing(infra, cloud):
    for arguments, words in (
        (["--parameter", "PublisherArn=x"], "Did you mean PublisherArns?"),
        (["--parameter", "PublisherArns"], "is Key=Value, not 'PublisherArns'"),
        (["--stacks", "acount"], "'acount' is none of mailer, account"),
        (["--stacks", "account"], "guardduty-response needs MAIL_QUEUE=arn:..."),
        (["--stacks", "heartbeat", "--alarm-topic", "x"], "GuardDuty is off"),
        (["--stacks", "deploy-role"], 'needs PARAMETERS="DeployerArn=..."'),
    ):
        code, said = infra(*HERE, *arguments)
        assert code == 2 and words in said and "Traceback" not in said, said
        assert named(cloud) == {}
    cloud.client("iam", ACCOUNT, REGION).create_role(
        RoleName="guardduty-response-finding-notify", AssumeRolePolicyDocument="{}"
    )
    code, said = infra(*HERE)
    assert code == 2 and "guardduty-response-finding-notify exists and no stack" in said


def test_accounts_that_fail_do_not_keep_the_others(infra, cloud, tmp_path):
    accounts = {"sandbox": ACCOUNT, "production": "444455556666", "lost": "777788889999"}
    role, chief = "arn:aws:iam::{}:role/custodian-deploy", "arn:aws:iam::{}:role/chief"
    file = tmp_path / "accounts.yml"
    listed = [
        {"account_id": id_, "name": name, "role": role.format(id_), "regions": [REGION, SECOND]}
        for name, id_ in accounts.items()
    ]
    file.write_text(yaml.safe_dump({"accounts": listed}))
    lost = chief.format(accounts["lost"])
    cloud.fail(
        "AssumeRole", "AccessDenied", when=lambda c: c.parameters["RoleArn"] == lost, times=9
    )

    code, said = infra("-c", str(file), "--mail-queue", QUEUE, "--yes", "--role", "chief")

    assert code == 1 and "AccessDenied" in said.split("Not done")[1]
    assert "777788889999 (lost)" in said.split("Not done")[1]
    for name in ("sandbox", "production"):
        for region in (REGION, SECOND):
            now = parameters(named(cloud, region, accounts[name])[PACK])
            assert (now["RoleRegion"], now["MailQueueArn"]) == (REGION, QUEUE)
    assert named(cloud, REGION, accounts["lost"]) == {}


def test_every_template_is_short_enough_to_be_sent(tmp_path, monkeypatch):
    for file in template.INFRA.glob("*.yml"):
        template.text(file.name)
    (tmp_path / "long.yml").write_text("#" * 51_201)
    monkeypatch.setattr(template, "INFRA", tmp_path)
    with pytest.raises(template.Refused, match="51201 bytes"):
        template.text("long.yml")
