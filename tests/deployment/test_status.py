"""make status and make status-org: each thing that is not well is found, and says what mends it."""

import io
import json
import re
import shlex
import zipfile

import pytest
import yaml
from click.testing import CliRunner
from moto.sns.models import sns_backends

from custom_actions.version import VERSION, VERSION_TAG
from deployment.__main__ import main
from infra import permissions
from simulation import deploy, guardduty

ACCOUNT, REGION, FIRST = "111122223333", "us-west-2", "us-east-1"
GUARD = "policies/response-guard.yml"
FILES = ["policies/iam-role-revoke-sessions.yml", "policies/finding-notify.yml", GUARD]
POLICIES = ["-p", "finding-notify", "-p", "iam-role-revoke-sessions", "-p", "response-guard"]
NOTIFY, REVOKE, RESPONSE = (
    f"custodian-{name}" for name in ("finding-notify", "iam-role-revoke-sessions", "response-guard")
)
EMPTY = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}
SERVICES = {"resourcegroupstaggingapi": "tag"}


@pytest.fixture(scope="module")
def account(cloud):
    """An account in which all is well."""
    return Account(cloud)


@pytest.fixture(autouse=True)
def environment(cloud, monkeypatch):
    for name, value in cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)


class Account:
    def __init__(self, cloud):
        self.cloud = cloud
        self.mail = deploy.mailer_stack(cloud, ACCOUNT, REGION)
        for region, more in ((REGION, {}), (FIRST, {"RoleRegion": REGION})):
            deploy.account_stack(cloud, ACCOUNT, region, self.mail["MailQueueArn"], **more)
        deploy.deploy(cloud, [GUARD], ACCOUNT, FIRST)
        self.deploy()
        self.s3 = self.client("s3")
        self.s3.create_bucket(
            Bucket="trail", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self.client("cloudtrail").create_trail(
            Name="all", S3BucketName="trail", IsMultiRegionTrail=True
        )
        self.client("cloudtrail").start_logging(Name="all")
        self.detector = self.client("guardduty").create_detector(
            Enable=True, FindingPublishingFrequency="FIFTEEN_MINUTES"
        )["DetectorId"]
        guardduty.threat_list(ACCOUNT, REGION, "known")
        self.function("guardduty-response-mailer")
        self.mapping = self.client("lambda").create_event_source_mapping(
            EventSourceArn=self.mail["MailQueueArn"], FunctionName="guardduty-response-mailer"
        )["UUID"]

    def deploy(self):
        deploy.deploy(self.cloud, FILES, ACCOUNT, REGION)

    def client(self, service):
        return self.cloud.client(service, ACCOUNT, REGION)

    def function(self, name, **more):
        """A function that is not of a policy here."""
        return self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=f"arn:aws:iam::{ACCOUNT}:role/guardduty-response-mailer",
            Handler="x.y",
            Code={"ZipFile": zipped()},
            **more,
        )


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.py", "")
    return file.getvalue()


def run(*options):
    """What the command says as JSON, and its exit code."""
    finished = CliRunner().invoke(main, ["status", "--json", *options])
    assert finished.exit_code in (0, 1), finished.output
    return json.loads(finished.stdout), finished.exit_code


def look():
    """The checks that are not well: {(region, policy, what): (as it is, what mends it)}."""
    found, code = run("--region", REGION, *POLICIES)
    assert not [one["error"] for one in found if "error" in one]
    wrong = {
        (one["region"], check["policy"], check["what"]): (check["found"], check["mend"])
        for one in found
        for of in [one, *one["policies"]]
        for check in of["checks"]
        if not check["well"]
    }
    assert code == (1 if wrong else 0)
    return wrong, {(one["region"], of["policy"]): of for one in found for of in one["policies"]}


def here(policy, what):
    return REGION, policy, what


def called(calls):
    return {f"{SERVICES.get(c.service, c.service)}:{c.operation}" for c in calls}


def test_all_is_well_and_a_table_says_so(account):
    cloud = account.cloud
    before = len(cloud.calls)

    wrong, policies = look()

    assert wrong == {}
    assert {name: of["mode"] for name, of in policies.items()} == {
        (REGION, "iam-role-revoke-sessions"): "contain",
        (REGION, "finding-notify"): "contain",
        (REGION, "response-guard"): "contain",
        (FIRST, "response-guard"): "contain",
    }
    # 32 of the roles, 15 in the region where their guard has to be as well, 4 for each function
    assert len(cloud.calls) - before == 85
    told = CliRunner().invoke(main, ["status", "--region", REGION, "--who", *POLICIES])
    assert (told.exit_code, told.output.count("contain")) == (0, 4)
    assert "All is well." in told.output and "OrganizationAccountAccessRole" in told.output
    allowed = permissions.allowed(permissions.managed("operators.yml", "Status"))
    assert called(cloud.calls[before:]) - {"sts:GetCallerIdentity"} <= allowed


def test_what_somebody_changed_is_found_and_a_deploy_mends_what_it_can(account):
    cloud = account.cloud
    events, functions, iam = (account.client(name) for name in ("events", "lambda", "iam"))
    events.disable_rule(Name=NOTIFY)
    events.remove_targets(Rule=REVOKE, Ids=[REVOKE])
    functions.remove_permission(FunctionName=RESPONSE, StatementId=RESPONSE)
    functions.add_permission(
        FunctionName=NOTIFY, StatementId="other", Action="lambda:*", Principal="444455556666"
    )
    functions.update_function_configuration(
        FunctionName=REVOKE, Timeout=3, Environment={"Variables": {"KEY": "secret"}}
    )
    functions.put_function_concurrency(FunctionName=REVOKE, ReservedConcurrentExecutions=1)
    functions.update_function_code(FunctionName=RESPONSE, ZipFile=zipped())
    tags = {VERSION_TAG: "0.0.1"}
    account.function("custodian-renamed", Tags=tags)
    account.function("custodian-of-others")
    events.put_rule(Name=RESPONSE, EventPattern='{"source": ["aws.ec2"]}', State="ENABLED")
    role = {"RoleName": "guardduty-response-iam-role-revoke-sessions"}
    iam.put_role_policy(**role, PolicyName="more", PolicyDocument=json.dumps(EMPTY))
    tell = f"arn:aws:iam::{ACCOUNT}:policy/guardduty-response-tell"
    iam.detach_role_policy(**role, PolicyArn=tell)
    sns, topic = account.client("sns"), f"arn:aws:sns:{REGION}:{ACCOUNT}:guardduty-response"
    (subscription,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    subscription = {"SubscriptionArn": subscription["SubscriptionArn"]}
    redrive = sns.get_subscription_attributes(**subscription)["Attributes"]["RedrivePolicy"]
    for name, value in (
        ("RawMessageDelivery", "true"),
        ("FilterPolicy", '{"a": ["b"]}'),
        ("RedrivePolicy", "{}"),
    ):
        sns.set_subscription_attributes(**subscription, AttributeName=name, AttributeValue=value)

    wrong, policies = look()

    again = f"make deploy REGION={REGION}"
    found = {key: mend for key, (_, mend) in wrong.items()}
    revert = found.pop(here("", "roles"))
    other = found.pop(here("finding-notify", "permission"))
    delivery = found.pop(here("", "subscription"))
    assert found == {
        here("finding-notify", "rule"): again,
        here("iam-role-revoke-sessions", "target"): again,
        here("iam-role-revoke-sessions", "configuration"): again,
        here("iam-role-revoke-sessions", "concurrency"): again,
        here("response-guard", "permission"): again,
        here("response-guard", "pattern"): again,
        here("response-guard", "code"): again,
        here("", "left over"): f"{again} PRUNE=1",
    }
    assert "REVERT_DRIFT" in revert and "remove-permission" in other and "other" in other
    assert re.findall(r"--attribute-name (\w+) --attribute-value (\S+)", delivery) == [
        ("RawMessageDelivery", "false;"),
        ("FilterPolicy", "'{}';"),
        ("RedrivePolicy", f"'{redrive.replace(' ', '')}'"),
    ]
    assert "DISABLED" in wrong[here("finding-notify", "rule")][0]
    assert "custodian-renamed" in wrong[here("", "left over")][0]
    changed = wrong[here("iam-role-revoke-sessions", "configuration")][0]
    assert "Timeout is 3, not 300" in changed and "secret" not in changed
    assert policies[REGION, "response-guard"]["by"].endswith("OrganizationAccountAccessRole/x")
    assert not policies[FIRST, "response-guard"]["by"]

    functions.remove_permission(FunctionName=NOTIFY, StatementId="other")
    for name, value in (
        ("RawMessageDelivery", "false"),
        ("FilterPolicy", "{}"),
        ("RedrivePolicy", redrive),
    ):
        sns.set_subscription_attributes(**subscription, AttributeName=name, AttributeValue=value)
    for name in ("custodian-renamed", "custodian-of-others"):
        functions.delete_function(FunctionName=name)
    iam.delete_role_policy(**role, PolicyName="more")
    iam.attach_role_policy(**role, PolicyArn=tell)
    account.deploy()
    assert look()[0] == {}
    cloud.call_log.clear()


def test_an_account_or_region_that_cannot_be_seen_is_a_row_and_the_others_go_on(account, tmp_path):
    cloud, other, off = account.cloud, "444455556666", "eu-west-1"
    role = "arn:aws:iam::{}:role/custodian-deploy"
    of = [
        {"account_id": ACCOUNT, "name": "security", "regions": [REGION, off]},
        {"account_id": other, "name": "production", "regions": [REGION]},
    ]
    listed = {
        "accounts": [{**one, "role": role.format(one["account_id"])} for one in of],
        "vars": {"autonomy": "observe"},
    }
    accounts = tmp_path / "accounts.yml"
    accounts.write_text(yaml.safe_dump(listed))
    cloud.fail("AssumeRole", "AccessDenied", times=None, when=lambda c: other in str(c.parameters))
    cloud.fail(
        "GetCallerIdentity", "InvalidClientTokenId", times=None, when=lambda c: c.region == off
    )

    found, code = run("-c", str(accounts), "-p", "finding-notify")

    seen, unseen, refused, mail = found
    assert code == 1 and [one["region"] for one in found] == [REGION, off, REGION, REGION]
    assert "not enabled" in unseen["error"] and "AccessDenied" in refused["error"]
    wrong = [c for one in seen["policies"] for c in one["checks"] if not c["well"]]
    assert [(c["what"], c["found"], c["mend"]) for c in wrong] == [
        (
            "mode",
            "contain; accounts.yml says observe",
            f"make deploy-org ACCOUNTS=111122223333 REGION={REGION}",
        )
    ]
    assert all(check["well"] for check in (*seen["checks"], *mail["checks"]))
    unknown = CliRunner().invoke(main, ["status", "-c", str(accounts), "-p", "finding-notfy"])
    assert unknown.exit_code == 2 and "has no policy finding-notfy" in unknown.stderr
    told = CliRunner().invoke(main, ["status", "-c", str(accounts), "-a", "production"])
    assert told.exit_code == 1 and "AccessDenied" in told.output and "production" in told.output
    cloud.call_log.clear()


def test_what_is_missing_is_found(account):
    events, functions, iam = (account.client(name) for name in ("events", "lambda", "iam"))
    functions.delete_function(FunctionName=REVOKE)
    arn = functions.get_function(FunctionName=NOTIFY)["Configuration"]["FunctionArn"]
    events.put_targets(Rule=NOTIFY, Targets=[{"Id": NOTIFY, "Arn": arn}])
    events.remove_targets(Rule=RESPONSE, Ids=[RESPONSE])
    events.delete_rule(Name=RESPONSE)
    functions.untag_resource(Resource=arn, TagKeys=["forensic:autonomy"])
    functions.update_event_source_mapping(UUID=account.mapping, Enabled=False)
    (subscription,) = sns_backends[ACCOUNT][REGION].subscriptions.values()
    subscription.arn = "PendingConfirmation"  # as SNS lists one; moto has none
    detector = account.client("guardduty")
    detector.update_detector(
        DetectorId=account.detector, Enable=False, FindingPublishingFrequency="SIX_HOURS"
    )
    guardduty.threat_list(ACCOUNT, REGION, "known", "INACTIVE")
    account.client("cloudtrail").stop_logging(Name="all")
    sqs = account.client("sqs")
    dead = sqs.get_queue_url(QueueName="guardduty-response-dlq")["QueueUrl"]
    sqs.send_message(QueueUrl=dead, MessageBody="lost")
    isolate = f"arn:aws:iam::{ACCOUNT}:policy/guardduty-response-isolate"
    iam.create_policy_version(
        PolicyArn=isolate, PolicyDocument=json.dumps(EMPTY), SetAsDefault=True
    )
    # in the other region all is of an older version
    first = account.cloud.client("lambda", ACCOUNT, FIRST)
    older = first.update_function_code(FunctionName=RESPONSE, ZipFile=zipped())["FunctionArn"]
    first.tag_resource(Resource=older, Tags={VERSION_TAG: "0.0.1"})
    account.cloud.client("cloudformation", ACCOUNT, FIRST).update_stack(
        StackName="guardduty-response",
        TemplateBody=(deploy.INFRA / "account.yml").read_text() + "# older",
        Parameters=[
            {"ParameterKey": key, "UsePreviousValue": True}
            for key in ("MailQueueArn", "RoleRegion")
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )

    wrong, _ = look()

    assert {key[1:] for key in wrong if key[0] == REGION} == {
        ("iam-role-revoke-sessions", "function"),
        ("finding-notify", "target"),
        ("finding-notify", "mode"),
        ("finding-notify", "code"),
        ("response-guard", "rule"),
        ("", "mailer"),
        ("", "subscription"),
        ("", "guardduty"),
        ("", "frequency"),
        ("", "threat lists"),
        ("", "trail"),
        ("", "dead letters"),
        ("", "roles"),
    }
    assert {key[1:] for key in wrong if key[0] == FIRST} == {
        ("", "trail"),
        ("", "stack"),
        ("response-guard", "code"),
    }
    assert wrong[FIRST, "", "stack"][1] == f"make infra REGION={FIRST}"
    assert wrong[FIRST, "response-guard", "code"] == (
        f"of 0.0.1; here is {VERSION}",
        f"make deploy REGION={FIRST} POLICY=response-guard",
    )
    said = {key[1:]: value for key, value in wrong.items()}
    assert "MODE=" in said["iam-role-revoke-sessions", "function"][1]
    pending, mend = said["", "subscription"]
    assert "pending" in pending and "make infra" not in mend
    assert f"--notification-endpoint {account.mail['MailQueueArn']} " in mend
    attributes = json.loads(shlex.split(mend)[-1])
    dead_letters = f"arn:aws:sqs:{REGION}:{ACCOUNT}:guardduty-response-dlq"
    assert json.loads(attributes["RedrivePolicy"]) == {"deadLetterTargetArn": dead_letters}
    assert "--enable" in said["", "guardduty"][1] and "FIFTEEN" in said["", "frequency"][1]
    assert said["", "mailer"][1] == "make deploy-mailer"
    assert "guardduty-response-isolate v2" in said["", "roles"][0]
    assert said["", "dead letters"] == (
        "1 in guardduty-response-dlq",
        f"make dlq REGION={REGION}",
    )
    # what a StackSet, domains, a trail that logs, and tags that may be seen take is not seen here
    allowed = permissions.allowed(permissions.managed("operators.yml", "Status"))
    assert allowed - called(account.cloud.calls) == {
        "cloudformation:DescribeStackResources",
        "cloudtrail:GetEventSelectors",
        "guardduty:GetThreatEntitySet",
        "lambda:ListTags",
    }
