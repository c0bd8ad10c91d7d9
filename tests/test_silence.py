"""Nothing fails in silence: what a deploy sets so that no event is lost, and, whatever part of the
response is taken away, which alarm rings and where the event or the mail is kept."""

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from botocore.validate import ParamValidator

from simulation import deploy
from simulation.alarms import ringing
from simulation.mail import Mailer
from simulation.smtp import MailSink

ROOT = Path(__file__).parent.parent
ACCOUNT, SMALL, REGION = "111122223333", "444455556666", "us-west-2"
POLICIES = ["policies/finding-notify.yml", "policies/ec2-isolate.yml"]
ISOLATE, NOTIFY = "custodian-ec2-isolate", "custodian-finding-notify"
QUARTER = 15 * 60  # seconds
DETECTOR = "12abc34d567e8fa901bc2d34e56789f0"


@pytest.fixture(scope="module")
def alarms(pack):
    deploy.alarm_stack(pack.cloud, ACCOUNT, REGION)
    return lambda later=0: [
        name.removeprefix("guardduty-response-")
        for name in ringing(pack.cloud, ACCOUNT, REGION, later)
    ]


@pytest.fixture
def watched(alarms, pack, scene):
    """A scene in which all is well at first, and again afterwards."""
    pack.cloud.undelivered.clear()
    pack.cloud.functions.throttled.clear()
    pack.dead_letters()
    assert alarms() == []
    yield scene
    pack.dead_letters()


def deploy_again(pack):
    deploy.deploy(pack.cloud, POLICIES, ACCOUNT, REGION)


def client(scene, service):
    return scene.cloud.client(service, ACCOUNT, REGION)


def test_nothing_rings_when_all_is_well(watched, pack, alarms):
    instance = watched.instance()
    with MailSink() as sink:
        pack.deliver(watched.finding(instance))
        assert Mailer(pack.cloud, sink, ACCOUNT, REGION, pack.queue_url).deliver_all() == 2
    assert watched.is_isolated(instance)
    assert alarms() == alarms(later=QUARTER) == alarms(later=24 * 3600) == []


def test_a_function_that_is_gone_and_one_that_may_not_be_invoked(watched, pack, alarms):
    functions = client(watched, "lambda")
    functions.delete_function(FunctionName=ISOLATE)
    functions.remove_permission(FunctionName=NOTIFY, StatementId=NOTIFY)
    instance = watched.instance()

    pack.deliver(watched.finding(instance))

    assert alarms() == [
        "dead-letters",
        "ec2-isolate-FailedInvocations",
        "finding-notify-FailedInvocations",
    ]
    # what the runbook says: deploy again, give each event to its function by hand
    deploy_again(pack)
    kept = pack.dead_letters()
    assert len(kept) == 2
    for letter in kept:
        function = letter["MessageAttributes"]["TARGET_ARN"]["StringValue"].split(":")[6]
        event = json.loads(letter["Body"])
        assert pack.cloud.invoke(function, event, ACCOUNT, REGION).error is None
    assert watched.is_isolated(instance)
    assert len(pack.messages()) == 2


def test_a_dead_letter_queue_that_takes_nothing_rings_by_itself(watched, pack, alarms):
    client(watched, "lambda").delete_function(FunctionName=NOTIFY)
    sqs = client(watched, "sqs")
    url = sqs.get_queue_url(QueueName="guardduty-response-dlq")["QueueUrl"]
    policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    try:
        pack.deliver(watched.finding(watched.instance()))
    finally:
        sqs.set_queue_attributes(QueueUrl=url, Attributes=policy)
        deploy_again(pack)
    assert alarms() == [
        "finding-notify-FailedInvocations",
        "finding-notify-InvocationsFailedToBeSentToDlq",
    ]


def test_no_concurrency(watched, pack, alarms):
    client(watched, "lambda").put_function_concurrency(
        FunctionName=NOTIFY, ReservedConcurrentExecutions=0
    )
    event = watched.finding(watched.instance())

    pack.deliver(event)

    assert alarms() == ["dead-letters", "finding-notify-AsyncEventsDropped"]
    (kept,) = pack.dead_letters()
    assert json.loads(kept["Body"])["detail"] == event["detail"]
    with pytest.raises(Exception, match="Rate exceeded"):
        pack.cloud.invoke(NOTIFY, event, ACCOUNT, REGION)
    assert "finding-notify-Throttles" in alarms()
    deploy_again(pack)


def test_the_topic_is_gone_and_then_the_dead_letter_queue_too(watched, pack, alarms):
    sns, sqs = client(watched, "sns"), client(watched, "sqs")
    (subscription,) = sns.list_subscriptions()["Subscriptions"]
    topic, url = subscription["TopicArn"], f"{pack.queue_url[:-4]}dlq"
    sns.delete_topic(TopicArn=topic)
    try:
        instance = watched.instance()
        pack.deliver(watched.finding(instance))
        assert watched.is_isolated(instance)
        fails = ["AsyncEventsDropped", "Errors"]
        failing = [f"{name}-{fail}" for name in ("ec2-isolate", "finding-notify") for fail in fails]
        assert alarms() == ["dead-letters", *failing]
        assert len(pack.dead_letters()) == 2

        policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]
        sqs.delete_queue(QueueUrl=url)
        pack.deliver(watched.finding("i-99999999", "ec2-malicious-ip-caller-sample"))
        assert "finding-notify-DeadLetterErrors" in alarms()
    finally:
        if "policy" in locals():
            sqs.create_queue(QueueName="guardduty-response-dlq", Attributes=policy)
        sns.create_topic(Name="guardduty-response")
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=subscription["Endpoint"])


def test_a_mailer_that_is_gone_or_a_mail_server_that_is_down(watched, pack, alarms):
    pack.deliver(watched.finding("i-99999999", "ec2-malicious-ip-caller-sample"))
    assert alarms() == []
    assert alarms(later=QUARTER) == ["mail-late"]

    with MailSink() as sink:
        sink.down()
        mailer = Mailer(pack.cloud, sink, ACCOUNT, REGION, pack.queue_url)
        with pytest.raises(RuntimeError, match="NOT DELIVERED"):
            mailer.deliver_all()
        assert alarms(later=QUARTER) == ["mail-late"]
        sink.up()
        assert Mailer(pack.cloud, sink, ACCOUNT, REGION, pack.queue_url).deliver_all() == 1
    assert alarms(later=QUARTER) == []


def test_the_alarms_do_not_go_to_the_topic_that_is_mailed():
    pattern = re.search(r'AllowedPattern: "(.*)"', (ROOT / "infra/alarms.yml").read_text())[1]
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:"
    assert re.fullmatch(pattern, topic + "security-alarms")
    assert re.fullmatch(pattern, topic + "guardduty-response-alarms")
    assert not re.fullmatch(pattern, topic + "guardduty-response")
    assert not re.fullmatch(pattern, "security-alarms")


def target(cloud, account=ACCOUNT):
    events = cloud.client("events", account, REGION)
    (found,) = events.list_targets_by_rule(Rule=ISOLATE)["Targets"]
    return found


def concurrency(cloud, account=ACCOUNT):
    function = cloud.client("lambda", account, REGION).get_function(FunctionName=ISOLATE)
    return function.get("Concurrency", {}).get("ReservedConcurrentExecutions")


def layer(functions):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("python/custom_actions.py", "")
    made = functions.publish_layer_version(LayerName="x", Content={"ZipFile": archive.getvalue()})
    return made["LayerVersionArn"]


def test_what_eventbridge_cannot_deliver_is_kept_and_the_next_deploy_keeps_that(pack):
    cloud = pack.cloud
    shipped = target(cloud)
    assert shipped["DeadLetterConfig"] == {
        "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:guardduty-response-dlq"
    }
    assert shipped["RetryPolicy"] == {
        "MaximumRetryAttempts": 185,
        "MaximumEventAgeInSeconds": 86400,
    }
    assert concurrency(cloud) == 20

    cloud.call_log.clear()
    deploy.deploy(cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION)
    writes = [
        call.operation
        for call in cloud.calls
        if call.error_code is None
        and not call.operation.startswith(("Get", "List", "Describe", "Assume"))
    ]
    assert writes == []

    # as Custodian left it, with less than Custodian's, and silenced: by another event, beside
    # somebody else's target, and by code of their own
    events = cloud.client("events", ACCOUNT, REGION)
    changed = {"Id": shipped["Id"], "Arn": shipped["Arn"], "Input": "{}"}
    changed |= {"RetryPolicy": {"MaximumRetryAttempts": 0}}
    other = {"Id": "mallory", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:mallory"}
    events.put_targets(Rule=ISOLATE, Targets=[changed, changed | {"Id": "again"}, other])
    functions = cloud.client("lambda", ACCOUNT, REGION)
    functions.update_function_configuration(
        FunctionName=ISOLATE,
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/x"}},
        Layers=[layer(functions)],
    )
    functions.put_function_concurrency(FunctionName=ISOLATE, ReservedConcurrentExecutions=0)
    deploy.deploy(cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION)
    assert target(cloud) == shipped
    assert concurrency(cloud) == 20
    cleared = functions.get_function_configuration(FunctionName=ISOLATE)
    assert not cleared.get("Environment", {}).get("Variables") and not cleared.get("Layers")


def test_a_quota_that_is_too_small_costs_the_reservation_alone(cloud, monkeypatch):
    mailer = deploy.mailer_stack(cloud, SMALL, REGION)
    deploy.account_stack(cloud, SMALL, REGION, mailer["MailQueueArn"])
    monkeypatch.setenv("MOTO_LAMBDA_CONCURRENCY_QUOTA", "10")
    with pytest.raises(RuntimeError) as failed:
        deploy.deploy(cloud, ["policies/ec2-isolate.yml"], SMALL, REGION)
    said = str(failed.value)
    assert "custodian-ec2-isolate is deployed with its rule" in said
    assert "below its minimum value of [100]" in said and "L-B99A9384" in said
    assert target(cloud, SMALL)["DeadLetterConfig"]["Arn"].endswith("guardduty-response-dlq")
    assert concurrency(cloud, SMALL) is None

    monkeypatch.setenv("MOTO_LAMBDA_CONCURRENCY_QUOTA", "120")
    deploy.deploy(cloud, ["policies/ec2-isolate.yml"], SMALL, REGION)
    assert concurrency(cloud, SMALL) == 20


@pytest.fixture(scope="module")
def heartbeat(alarms, pack):
    """The stack that is off unless asked for, and its alarms; the last of this file, since they
    would ring in the other tests."""
    deploy.stack(
        pack.cloud,
        "heartbeat.yml",
        ACCOUNT,
        REGION,
        DetectorId=DETECTOR,
        AlarmTopicArn=deploy.alarm_topic(ACCOUNT, REGION),
        MailQueueName="guardduty-response-mail",
    )
    return alarms


def test_a_day_without_a_heartbeat(heartbeat, pack, scene):
    cloud, day = pack.cloud, 24 * 3600
    schedule = cloud.client("scheduler", ACCOUNT, REGION).get_schedule(
        Name="guardduty-response-heartbeat"
    )
    assert schedule["ScheduleExpression"] == "rate(1 day)"
    service, operation = schedule["Target"]["Arn"].split(":aws-sdk:")[1].split(":")
    asked = json.loads(schedule["Target"]["Input"])
    guardduty = cloud.client(service, ACCOUNT, REGION)
    model = guardduty.meta.service_model.operation_model(operation[0].upper() + operation[1:])
    assert not ParamValidator().validate(asked, model.input_shape).has_errors()
    assert asked["DetectorId"] == DETECTOR
    iam, role = cloud.client("iam", ACCOUNT, REGION), schedule["Target"]["RoleArn"].split("/")[-1]
    shown = iam.get_role_policy(RoleName=role, PolicyName="sample-finding")["PolicyDocument"]
    assert f"{service}:{model.name}" in str(shown)

    assert heartbeat() == ["heartbeat-finding-notify", "heartbeat-mailer"], "until the first came"
    sample = scene.finding("i-99999999", "ec2-malicious-ip-caller-sample")
    assert asked["FindingTypes"] == [sample["detail"]["type"]]
    with MailSink() as sink:
        mailer = Mailer(
            cloud, sink, ACCOUNT, REGION, pack.queue_url, sample_emails=["beat@example.com"]
        )
        pack.deliver(sample)
        assert heartbeat() == ["heartbeat-mailer"]
        assert mailer.deliver_all() == 1
        (mail,) = sink.wait_for(1)
    assert mail.subject.startswith("[SAMPLE] ") and mail.recipients == ["beat@example.com"]
    assert heartbeat(later=day) == []
    assert heartbeat(later=day + 2 * 3600) == ["heartbeat-finding-notify", "heartbeat-mailer"]

    # which nothing else would have told
    cloud.client("events", ACCOUNT, REGION).disable_rule(Name=NOTIFY)
    pack.deliver(sample)
    assert pack.messages() == []
    assert heartbeat(later=day + 2 * 3600) == ["heartbeat-finding-notify", "heartbeat-mailer"]


def test_every_deployed_policy_has_its_alarms_and_every_alarm_its_line_in_the_runbook(
    pack, heartbeat
):
    shown = pack.cloud.client("cloudwatch", ACCOUNT, REGION).describe_alarms()["MetricAlarms"]
    watched = {dimension["Value"] for alarm in shown for dimension in alarm["Dimensions"]}
    deployed = {
        f"custodian-{path.stem}"
        for path in (ROOT / "policies").glob("*.yml")
        if "mode" in yaml.safe_load(path.read_text())["policies"][0]
    }
    assert deployed <= watched
    runbook = (ROOT / "docs/runbook.md").read_text()
    (section,) = re.findall(r"^## An alarm rings\n(.*?)(?=^## |\Z)", runbook, re.S | re.M)
    for alarm in shown:
        assert alarm["AlarmDescription"].endswith("docs/runbook.md#an-alarm-rings"), alarm
        assert alarm["AlarmActions"] == [deploy.alarm_topic(ACCOUNT, REGION)]
        name = alarm["AlarmName"].removeprefix("guardduty-response-")
        kinds = {name, alarm["MetricName"]}
        assert any(f"| `{kind}` |" in section for kind in kinds), f"not in the runbook: {name}"
