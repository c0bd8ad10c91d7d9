"""capture-memory before isolate-instance: the isolation follows, whatever becomes of it."""

import json
from types import SimpleNamespace

import pytest

from custom_actions.response import OUTCOMES
from simulation import deploy, ssm
from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-remember"
DOCUMENT = "CaptureMemory"
SLOW = pytest.mark.slow
SWAP, SEND, ASK = "ModifyNetworkInterfaceAttribute", "SendCommand", "GetCommandInvocation"

POLICY = """
policies:
  - name: remember
    resource: ec2
    mode:
      type: guard-duty
      role: guardduty-response-ec2-isolate
      packages: [custom_actions]
      handler: custom_actions.handler.run
      runtime: python3.13
      memory: 1769
      timeout: 300
      pattern:
        detail:
          type: ["Trojan:EC2/Example"]
    actions:
      - type: capture-memory
        document: CaptureMemory
        parameters:
          key: ["memory/<instance>/<finding>", "as it is"]
      - type: isolate-instance
        max-per-hour: 1
      - type: notify-once
        template: remediation.html
        to: [account-emails]
        transport: {type: sns, topic: guardduty-response}
      - fail-unless-complete
"""


@pytest.fixture(scope="module")
def pack(stacks):
    return stacks  # no other policy is needed


@pytest.fixture(scope="module")
def deployed(cloud, pack, tmp_path_factory):
    content = {"schemaVersion": "2.2", "description": "x", "mainSteps": []}
    cloud.client("ssm", ACCOUNT, REGION).create_document(
        Name=DOCUMENT, Content=json.dumps(content), DocumentType="Command"
    )
    path = tmp_path_factory.mktemp("policies") / "remember.yml"
    path.write_text(POLICY)
    deploy.deploy(cloud, [path], ACCOUNT, REGION)


@pytest.fixture
def remember(scene, deployed):
    """Invoke the policy once with a finding; the outcome of the step, and what was called."""

    def run(event):
        scene.cloud.call_log.clear()
        invocation = scene.cloud.invoke(FUNCTION, event, ACCOUNT, REGION)
        calls = [c.operation for c in scene.cloud.call_log.by(FUNCTION)]
        (message, *_) = scene.pack.messages() or [None]
        outcomes = message["resources"][0][OUTCOMES] if message else [None]
        return SimpleNamespace(
            outcome=outcomes[0], calls=calls, error=invocation.error, message=message
        )

    return run


def sent(instance):
    return ssm.commands(ACCOUNT, REGION, instance)


def test_the_command_ends_and_the_instance_is_isolated_then(scene, remember):
    instance = scene.instance()
    ssm.agent(ACCOUNT, REGION, instance, looks=3)
    event = scene.finding(instance)

    first = remember(event)

    assert first.error is None and scene.is_isolated(instance)
    assert first.outcome["status"] == "done" and 6 <= first.outcome["delayed"] <= 20
    assert f"delayed by {first.outcome['delayed']} s" in first.outcome["detail"]
    swapped = first.calls.index(SWAP)
    assert first.calls.index(SEND) < first.calls.index(ASK) < swapped
    assert ASK not in first.calls[swapped:]
    (command,) = sent(instance)
    finding = event["detail"]["id"]
    assert command.parameters == {"key": [f"memory/{instance}/{finding}", "as it is"]}
    # an update of the finding: not again, nothing waits, nothing is mailed
    again = remember(event)
    assert again.error is None and again.message is None and SEND not in again.calls
    # another finding of what is isolated
    other = remember(scene.finding(instance))
    assert other.outcome["status"] == "skipped" and "isolated already" in other.outcome["detail"]
    assert len(sent(instance)) == 1 and ASK not in other.calls


def test_what_is_not_over_at_the_deadline_is_left_and_told_once(scene, remember):
    instance = scene.instance()
    ssm.agent(ACCOUNT, REGION, instance, looks=None)
    event = scene.finding(instance)
    with MailSink() as sink:
        mailer = Mailer(scene.cloud, sink, ACCOUNT, REGION, scene.pack.queue_url)
        scene.cloud.invoke(FUNCTION, event, ACCOUNT, REGION)
        mailer.deliver_all()
        (mail,) = sink.wait_for(1)

    assert scene.is_isolated(instance)
    assert "has been isolated. Please follow up" in mail.subject
    assert "The memory was NOT captured" in mail.body and "not over at the deadline" in mail.body
    told = mail.body.split("The isolation was delayed by ")[1]
    assert 60 <= int(told.split(" s.")[0]) <= 70
    assert len(scene.tags(instance)["forensic:memory"]) < 256
    again = remember(event)
    assert again.message is None and ASK not in again.calls and len(sent(instance)) == 1


@pytest.mark.parametrize(
    "trouble, status, reason",
    [
        ({}, "skipped", "Systems Manager does not manage the instance"),
        ({"ends": "Failed"}, "skipped", "the command ended as Failed"),
        ({"code": "ThrottlingException"}, "failed", "ThrottlingException"),
        pytest.param({"code": "AccessDeniedException"}, "failed", "AccessDenied", marks=SLOW),
        pytest.param({"code": "InvalidDocument"}, "failed", "InvalidDocument", marks=SLOW),
    ],
    ids=lambda value: str(value)[:30],
)
def test_whatever_goes_wrong_the_isolation_follows(scene, remember, trouble, status, reason):
    instance = scene.instance()
    if trouble:
        ssm.agent(ACCOUNT, REGION, instance, ends=trouble.get("ends", "Success"))
    if "code" in trouble:
        scene.cloud.fail(SEND, trouble["code"], times=None)
    event = scene.finding(instance)

    scene.cloud.invoke(FUNCTION, event, ACCOUNT, REGION)

    (message,) = scene.pack.messages()
    first = message["resources"][0][OUTCOMES][0]
    assert scene.is_isolated(instance)
    assert first["status"] == status and reason in (first["error"] or first["detail"])
    assert "The isolation was delayed by" in first["detail"] and first["delayed"] < 15
    if status == "skipped":
        assert remember(event).message is None  # an update tells nothing new


@pytest.mark.parametrize("which", ["exempt", "stopped", "released"])
def test_nobody_waits_for_what_is_not_isolated_now(scene, remember, release, which):
    instance = scene.instance(tags={"forensic:exempt": "yes"} if which == "exempt" else {})
    ssm.agent(ACCOUNT, REGION, instance)
    event = scene.finding(instance)
    if which == "stopped":
        scene.ec2.stop_instances(InstanceIds=[instance])
    if which == "released":
        assert remember(event).outcome["status"] == "done"
        assert release(instance)[0]
        assert "forensic:memory" not in scene.tags(instance)
        scene.pack.restore()

    run = remember(event)

    assert SEND not in run.calls and ASK not in run.calls and run.outcome["delayed"] == 0
    assert run.outcome["status"] == "skipped"
    assert scene.is_isolated(instance) is (which == "stopped")


def test_what_the_brake_holds_back_was_captured_all_the_same(scene, remember):
    first, second = scene.instance(), scene.instance()
    for instance in (first, second):
        ssm.agent(ACCOUNT, REGION, instance)
    remember(scene.finding(first))

    held = remember(scene.finding(second))

    assert held.outcome["status"] == "done" and not scene.is_isolated(second)
    assert held.message["event"]["c7n:notice"]["headline"].startswith("BRAKE HELD")
