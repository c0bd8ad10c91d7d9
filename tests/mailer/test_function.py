"""The mailer as a Lambda function: the archive that `deploy` uploads, fed by the queue."""

import collections
import json
import threading
from pathlib import Path

import pytest
from moto.awslambda.models import lambda_backends

from mailer.__main__ import main
from mailer.deploy import archive
from simulation import deploy
from simulation.alarms import ringing
from simulation.calls import ApiError
from simulation.mail import deploy_mailer
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
OTHER = "444455556666"
NAME = "guardduty-response-mailer"
MAILER = Path(__file__).parents[2] / "mailer"
TO = ("first@example.com", "second@example.com")


@pytest.fixture(scope="module")
def server():
    with MailSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def deployed(cloud, stack, server):
    """What the command said."""
    cloud.client("iam", ACCOUNT, REGION).create_account_alias(AccountAlias="acme-mail")
    return deploy_mailer(cloud, server, ACCOUNT, REGION, stack).stdout


@pytest.fixture(scope="module")
def function(cloud, deployed):
    return cloud.client("lambda", ACCOUNT, REGION)


@pytest.fixture
def fed(function, post, server, cloud):
    """The function at work, and a way to wait until the queue is empty."""
    server.mails.clear()
    server.fail = lambda what: None
    cloud.invocations.clear()
    yield post
    server.fail = lambda what: None


def settle(post, dead=0, held=0):
    """Wait until nothing is on the queue but `held` messages that wait for their next try, and so
    many are on the dead-letter queue."""
    pause = threading.Event()
    for _ in range(200):
        if post.count()[0] == 0 and post.waiting() == held and post.dead == dead:
            return
        pause.wait(0.05)
    raise TimeoutError(f"queue {post.count()}, dead letters {post.dead}")


def ended(cloud):
    """The one invocation, which ends a moment after the queue is empty."""
    pause = threading.Event()
    for _ in range(200):
        if cloud.invocations:
            (invocation,) = cloud.invocations
            return invocation
        pause.wait(0.05)
    raise TimeoutError("no function has ended")


def test_the_deploy_says_what_it_made_and_where(deployed):
    assert f"deployed: {NAME} in {ACCOUNT} (alias acme-mail), {REGION}, fed by arn:" in deployed


def test_a_message_is_delivered_with_nothing_but_the_archive(fed, server, cloud):
    fed.send(finding="f-1", template="finding.html")
    (mail,) = server.wait_for(1)
    settle(fed)
    assert mail.recipients == ["security@example.com"]
    invocation = ended(cloud)
    assert invocation.error is None
    assert invocation.result == {"batchItemFailures": []}
    assert "delivered: policy=a-policy finding=f-1" in invocation.log


def test_only_what_failed_stays(fed, server):
    fed.send("garbage")
    fed.send(finding="f-2", template="finding.html")
    server.wait_for(1)
    settle(fed, dead=1)
    assert len(server.mails) == 1


def test_a_refused_recipient_costs_the_others_nothing(fed, server):
    server.fail = lambda what: "550 no such user" if what == TO[1] else None
    fed.send(to=TO, finding="f-3", template="finding.html")
    settle(fed, dead=1)
    assert [mail.recipients for mail in server.mails] == [[TO[0]]]


def test_a_server_that_is_down_for_a_while(fed, server, cloud):
    tried = threading.Event()
    leave = cloud.functions.subscribe(lambda invocation: tried.set())
    server.down()
    fed.send(finding="f-4", template="finding.html")
    assert tried.wait(10)
    leave()
    (call,) = [c for c in cloud.calls if c.operation == "ChangeMessageVisibility"]
    assert call.parameters["VisibilityTimeout"] == 5
    server.up()
    cloud.functions.discard_warm()  # the container remembers for a second that it was down
    fed.time_out()
    server.wait_for(1)
    settle(fed)


def test_no_time_left_is_left_to_the_next_invocation(fed, function, cloud):
    function.update_function_configuration(FunctionName=NAME, Timeout=70)
    try:
        event = {"Records": [record("1", fed.pack(fed.message()))]}
        invocation = cloud.invoke(NAME, event, ACCOUNT, REGION)
    finally:
        function.update_function_configuration(FunctionName=NAME, Timeout=120)
    assert invocation.result == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert "no time left" in invocation.log


def record(name, body):
    return {
        "messageId": name,
        "receiptHandle": "r",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1700000000000",
            "SenderId": "AROAEXAMPLE:person",
        },
        "messageAttributes": {},
    }


def test_the_function_is_as_infra_and_lambda_want_it(function, stack, cloud):
    config = function.get_function_configuration(FunctionName=NAME)
    assert config["Role"] == stack["MailerRoleArn"]
    (mapping,) = function.list_event_source_mappings(FunctionName=NAME)["EventSourceMappings"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 2}
    loop = function.get_function_recursion_config(FunctionName=NAME)
    assert loop["RecursiveLoop"] == "Allow", "Lambda would stop what waits for a mail server"
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    queue = sqs.get_queue_attributes(QueueUrl=stack["MailQueueUrl"], AttributeNames=["All"])
    assert int(queue["Attributes"]["VisibilityTimeout"]) >= 6 * config["Timeout"]
    assert json.loads(queue["Attributes"]["RedrivePolicy"])["maxReceiveCount"] == 5
    (made,) = [
        f for f in lambda_backends[ACCOUNT][REGION].list_functions() if f.function_name == NAME
    ]
    assert len(made.code_bytes) < 5e6


def test_the_archive_holds_every_module_and_template_of_the_mailer():
    made = archive({"queue_url": "x"}, MAILER / "templates")
    wanted = {
        f"mailer/{path.relative_to(MAILER).as_posix()}"
        for ending in ("*.py", "*.j2")
        for path in MAILER.rglob(ending)
    }
    assert "mailer/transports/smtp.py" in wanted
    held = {name for name in made.get_filenames() if name.startswith("mailer/")}
    assert held == wanted | {"mailer/config.json"}


def test_deploying_again_changes_nothing(function, server, cloud, stack):
    before = function.get_function_configuration(FunctionName=NAME)
    cloud.call_log.clear()
    deploy_mailer(cloud, server, ACCOUNT, REGION, stack)
    changed = {c.operation for c in cloud.calls if c.service == "lambda"}
    assert not {o for o in changed if o.startswith(("Create", "UpdateFunction"))}
    assert (
        function.get_function_configuration(FunctionName=NAME)["CodeSha256"]
        == (before["CodeSha256"])
    )
    assert len(function.list_event_source_mappings()["EventSourceMappings"]) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"role": None}, "role: missing"),
        ({"smtp_username": "x", "smtp_password": "env:X"}, "smtp_password: env: does not work"),
        ({"timeout": 900}, "timeout: 900 seconds are more than the visibility timeout"),
    ],
)
def test_what_cannot_work_as_a_function_is_not_deployed(
    post, server, monkeypatch, caplog, changes, says
):
    for name, value in post.cloud.environment(ACCOUNT, REGION).items():
        monkeypatch.setenv(name, value)
    assert main(["deploy", "--config", str(post.config(server, **changes))]) == 2
    assert says in caplog.text


def test_what_the_role_needs_is_what_it_may(fed, server, cloud, stack):
    """Every call that the function, and Lambda in its name, made is allowed by infra/mailer.yml."""
    cloud.call_log.clear()
    server.fail = lambda what: "450 busy" if what == TO[1] else None
    fed.send(to=TO, finding="f-9", template="finding.html")  # goes back as a copy
    fed.send("garbage")
    server.wait_for(1)
    settle(fed, dead=1, held=1)
    used = {f"sqs:{c.operation}" for c in cloud.calls if c.service == "sqs" and c.caller == NAME}
    iam = cloud.client("iam", ACCOUNT, REGION)
    policy = iam.get_role_policy(RoleName=NAME, PolicyName="mail-queue")["PolicyDocument"]
    allowed = {a for s in policy["Statement"] for a in s["Action"] if a.startswith("sqs:")}
    assert used <= allowed
    # Lambda demands this one when the queue becomes the event source.
    assert allowed - used == {"sqs:GetQueueAttributes"}
    assert all(s["Resource"] != "*" for s in policy["Statement"])


def test_the_optional_parts_of_the_stack(cloud):
    arn = f"arn:aws:sns:eu-west-1:{ACCOUNT}:x"
    names = ("SesIdentityArn", "SecretArn", "KmsKeyArn", "TopicArn")
    parameters = dict.fromkeys(names, arn)
    deploy.stack(cloud, "mailer.yml", OTHER, REGION, "full", **parameters)
    policies = cloud.client("iam", OTHER, REGION).list_role_policies(RoleName=NAME)
    assert set(policies["PolicyNames"]) >= {"send-with-ses", "read-secret", "decrypt", "publish"}


def test_a_function_that_dies_repeats_one_message_not_its_batch(fed, server, cloud):
    """Killed in the middle of a batch, after the second mail and before its acknowledgement."""
    function_name = {"when": lambda call: call.caller == NAME}

    def kill(call):
        cloud.functions.kill(NAME)
        return ApiError("Gone")

    cloud.before("DeleteMessage", kill, skip=1, **function_name)
    mapping = cloud.client("lambda", ACCOUNT, REGION).list_event_source_mappings()
    uuid = mapping["EventSourceMappings"][0]["UUID"]
    switch = cloud.client("lambda", ACCOUNT, REGION).update_event_source_mapping
    switch(UUID=uuid, Enabled=False)
    for number in range(4):
        fed.send(finding=f"killed-{number}", template="finding.html")
    ended = threading.Event()
    leave = cloud.functions.subscribe(lambda invocation: ended.set())
    switch(UUID=uuid, Enabled=True)
    assert ended.wait(10)
    leave()
    assert cloud.invocations[0].error["errorType"] == "Runtime.ExitError"
    fed.time_out()
    server.wait_for(5)
    settle(fed)
    subjects = collections.Counter(mail.subject for mail in server.mails)
    assert sorted(subjects.values()) == [1, 1, 1, 2]


def test_the_functions_log_hides_the_password(cloud, stack, function, post):
    """The last test but one: it deploys the function anew, with a login that is refused."""
    password = "s3cret-of-the-mail-server"
    manager = cloud.client("secretsmanager", ACCOUNT, REGION)
    manager.create_secret(Name="smtp", SecretString=password)
    with MailSink(login=("somebody", "another")) as sink:
        sink.fail = lambda what: f"535 {password} is wrong" if what == "AUTH" else None
        login = {"smtp_username": "somebody", "smtp_password": "secretsmanager:smtp"}
        deploy_mailer(cloud, sink, ACCOUNT, REGION, stack, **login)
        body = post.pack(post.message(finding="hidden", template="finding.html"))
        invocation = cloud.invoke(NAME, {"Records": [record("1", body)]}, ACCOUNT, REGION)
    assert invocation.result == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert "535 (hidden) is wrong" in invocation.log
    assert password not in invocation.log


def test_without_its_function_a_message_stays_on_the_queue_and_the_alarm_rings(
    fed, function, server, cloud
):
    """The last test here: it removes the function."""
    function.delete_function(FunctionName=NAME)
    fed.empty()
    fed.send(finding="later", template="finding.html")
    late = ["guardduty-response-mail-late"]
    assert ringing(cloud, ACCOUNT, REGION) == []
    assert ringing(cloud, ACCOUNT, REGION, later=900) == late
    assert fed.count() == (1, 0) and server.mails == []
