"""make stackset: infra/ in all accounts of organisational units."""

import json

import pytest
from click.testing import CliRunner

from deployment.stacksets import stackset

CHIEF, HOME, SECOND = "111122223333", "us-west-2", "us-east-1"
QUEUE = f"arn:aws:sqs:us-west-2:{CHIEF}:guardduty-response-mail"
SET = "guardduty-response"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


@pytest.fixture(scope="module")
def organization(quick_cloud):
    """A unit with two accounts, and one with one."""
    client = quick_cloud.client("organizations", CHIEF, "us-east-1")
    client.create_organization(FeatureSet="ALL")
    root = client.list_roots()["Roots"][0]["Id"]
    units, ids = {}, {}
    for name, unit in (("shop", "Prod"), ("bank", "Prod"), ("lab", "Test")):
        if unit not in units:
            made = client.create_organizational_unit(ParentId=root, Name=unit)
            units[unit] = made["OrganizationalUnit"]["Id"]
        made = client.create_account(AccountName=name, Email="somebody@example.com")
        ids[name] = made["CreateAccountStatus"]["AccountId"]
        client.move_account(
            AccountId=ids[name], SourceParentId=root, DestinationParentId=units[unit]
        )
    return units, ids


@pytest.fixture
def run(quick_cloud, organization, monkeypatch):
    for name, value in quick_cloud.environment(CHIEF, HOME).items():
        monkeypatch.setenv(name, value)
    units, _ = organization

    def make(*arguments, regions=f"{HOME},{SECOND}", unit="Prod"):
        arguments = [
            "--organizational-units",
            units.get(unit, unit),
            "--regions",
            regions,
            *arguments,
        ]
        done = CliRunner().invoke(stackset, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, " ".join(done.output.split())

    return make


def role(cloud, account_id, name="finding-notify"):
    iam = cloud.client("iam", account_id, HOME)
    try:
        return iam.get_role(RoleName=f"guardduty-response-{name}")["Role"]
    except iam.exceptions.NoSuchEntityException:
        return None


def test_units_and_regions_get_the_stacks_by_one_set_of_parameters(run, quick_cloud, organization):
    units, ids = organization
    aws = quick_cloud.client("cloudformation", CHIEF, HOME)
    assert run()[0] == 2 and "needs MAIL_QUEUE=arn:..." in run()[1]
    code, said = run("--mail-queue", QUEUE)
    assert code == 2 and "automatic deployment to new accounts" in said and "YES=1" in said
    assert f"StackSets: {CHIEF}, {HOME} " in said
    assert aws.list_stack_sets()["Summaries"] == []
    # somebody's own policy of that name, of the first resource, in one account
    iam = quick_cloud.client("iam", ids["bank"], HOME)
    own = iam.create_policy(PolicyName="guardduty-response-tell", PolicyDocument=json.dumps(POLICY))

    code, said = run("--mail-queue", QUEUE, "--yes")

    assert code == 1 and said.count("SUCCEEDED") == 3
    failed = said.split("Results")[1].split("SUCCEEDED")[0]
    assert f"{ids['bank']} │ {HOME} │ FAILED" in failed and "already exists" in failed
    made = role(quick_cloud, ids["shop"])
    assert made["Tags"] == [{"Key": "guardduty-response:region", "Value": HOME}]
    for region in (HOME, SECOND):
        sqs = quick_cloud.client("sqs", ids["shop"], region)
        assert sqs.get_queue_url(QueueName="guardduty-response-dlq")
    assert role(quick_cloud, CHIEF) is None, "no stack is deployed to the management account"
    (call,) = [c for c in quick_cloud.calls if c.operation == "CreateStackSet"]
    assert call.parameters["PermissionModel"] == "SERVICE_MANAGED"
    assert call.parameters["AutoDeployment"] == {
        "Enabled": True,
        "RetainStacksOnAccountRemoval": True,
    }
    (call,) = [c for c in quick_cloud.calls if c.operation == "CreateStackInstances"]
    assert call.parameters["OperationPreferences"]["RegionOrder"] == [HOME, SECOND]

    # the second run mends what failed, and a third finds nothing to do
    iam.delete_policy(PolicyArn=own["Policy"]["Arn"])
    code, said = run("--yes")
    assert "1 stacks that are OUTDATED" in said and code == 0, said
    assert role(quick_cloud, ids["bank"], "ec2-isolate")
    assert "unchanged" in run("--yes")[1]

    # another parameter keeps the others; another unit is added to those that are there
    code, said = run("--yes", "--parameter", "DeactivateAccessKeys=yes", unit="Test")
    assert code == 0 and f"add stacks │ {units['Test']}: {HOME}, {SECOND}" in said
    assert role(quick_cloud, ids["lab"])
    shown = aws.describe_stack_set(StackSetName=SET)["StackSet"]
    now = {p["ParameterKey"]: p["ParameterValue"] for p in shown["Parameters"]}
    assert now["MailQueueArn"] == QUEUE and now["RoleRegion"] == HOME


def test_what_is_not_for_all_is_refused(run, quick_cloud):
    for arguments, words in (
        ({"unit": "prod"}, "'prod' is not the id of an organisational unit"),
        ({"regions": "us-west-9"}, "Did you mean"),
    ):
        code, said = run("--yes", **arguments)
        assert code == 2 and words in said
    code, said = run("--yes", "--stacks", "mailer")
    assert code == 2 and "make infra STACKS=mailer" in said
    quick_cloud.fail("DescribeStackSet", "AccessDenied")
    code, said = run("--yes", "--delegated")
    assert code == 2 and "DELEGATED=1" in said
    (call,) = [c for c in quick_cloud.calls if c.error_code == "AccessDenied"]
    assert call.parameters["CallAs"] == "DELEGATED_ADMIN"


@pytest.mark.slow
def test_alarms_go_out_without_their_loops_each_with_the_topic_of_its_region(
    run, quick_cloud, organization
):
    _, ids = organization
    topic = "arn:aws:sns:{region}:{account_id}:security-alarms"
    code, said = run("--yes", "--stacks", "alarms", "--alarm-topic", topic)
    assert code == 0, said
    aws = quick_cloud.client("cloudformation", CHIEF, HOME)
    body = json.loads(
        aws.describe_stack_set(StackSetName=f"{SET}-alarms")["StackSet"]["TemplateBody"]
    )
    assert "Transform" not in body and "Fn::ForEach" not in str(body)
    (alarm, *_) = quick_cloud.client("cloudwatch", ids["shop"], SECOND).describe_alarms()[
        "MetricAlarms"
    ]
    assert alarm["AlarmActions"] == [f"arn:aws:sns:{SECOND}:{ids['shop']}:security-alarms"]
