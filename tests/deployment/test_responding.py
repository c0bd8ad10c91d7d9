"""What people look at, `make isolated`, `make dlq`, `make probe`, in one cloud."""

import base64
import json
import uuid
import zlib

import pytest
from click.testing import CliRunner
from moto.sqs.models import sqs_backends

from deployment.__main__ import main
from infra.permissions import BESIDES
from mailer.__main__ import main as mailer
from simulation import guardduty, mail
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
NOTIFY = "custodian-finding-notify"


@pytest.fixture
def run(scene, monkeypatch):
    person = scene.cloud.environment(ACCOUNT, REGION, session_name="responder")
    for name, value in person.items():
        monkeypatch.setenv(name, value)
    may = {"sts:GetCallerIdentity"}.union(*BESIDES.values())

    def run(command, *options):
        scene.cloud.call_log.calls.clear()
        result = CliRunner().invoke(main, [command, "--region", REGION, *options])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        made = {f"{c.service}:{c.operation}" for c in scene.cloud.call_log.by("responder")}
        made = {one.replace("lambda:Invoke", "lambda:InvokeFunction") for one in made}
        assert made <= may, "infra/operators.yml"
        return result.exit_code, result.stdout

    return run


@pytest.fixture
def listed(run):
    return lambda *options: run("isolated", *options)


def test_what_is_isolated_and_what_is_not_as_it_should_be(scene, pack, listed):
    assert listed() == (0, "0 isolated, or said to be, in 1 of 1 accounts and regions.\n")
    evil = "web \u202e\n1"
    instance = scene.instance(scene.groups[:1], scene.groups[1:], tags={"Name": evil})
    other, neighbour = scene.instance(), scene.instance()
    finding = scene.finding(instance)
    pack.isolate(finding)
    pack.isolate(scene.finding(other))
    scene.cloud.call_log.clear()

    code, told = listed()

    assert code == 0, told
    shown = next(block for block in told.split("\n\n") if block.startswith(instance))
    assert shown.splitlines()[0] == f"{instance} 'web 1' in {ACCOUNT} {REGION}"
    assert f", by finding {finding['detail']['id']}" in shown
    assert "EC2 shows running, all 2 interfaces in a forensic group" in shown
    assert "record    sealed" in shown and "denied    203.0.113.7" in shown
    command = f"make release INSTANCE={instance} REGION={REGION}"
    assert f"release   {command}" in shown.splitlines()[-1]
    assert neighbour not in told and "2 isolated" in told
    assert len(scene.cloud.calls) <= 7, "the calls do not grow with the instances"
    assert {c.operation[:8] for c in scene.cloud.calls} <= {"Describe", "GetCalle"}

    # somebody opens one interface, and somebody writes tags
    opened = next(iter(scene.interfaces(instance)))
    ec2 = scene.ec2
    ec2.modify_network_interface_attribute(NetworkInterfaceId=opened, Groups=scene.groups[:1])
    ec2.create_tags(Resources=[neighbour], Tags=[{"Key": "forensic:state", "Value": "isolated"}])
    ec2.delete_tags(Resources=[other], Tags=[{"Key": "forensic:state"}])
    ec2.create_tags(Resources=[other], Tags=[{"Key": "forensic:deny:192.0.2.9", "Value": "acl-1"}])

    code, told = listed("--json")

    assert code == 1
    answer = json.loads(told)
    by_id = {one["instance"]: one for one in answer["instances"]}
    assert set(by_id) == {instance, other, neighbour} and answer["failed"] == []
    assert by_id[instance]["problems"] == [f"OPEN: {opened} has {scene.groups[0]}"]
    assert by_id[instance]["is_isolated"] is False and by_id[instance]["release"] == command
    assert by_id[other]["is_isolated"] is True and by_id[other]["is_sealed"] is False
    (problem,) = by_id[other]["problems"]
    assert problem.startswith("not what was sealed: deny.")
    assert "NOT isolated" in listed()[1]
    assert by_id[neighbour]["problems"][0].startswith("OPEN: eni-")
    assert by_id[neighbour]["is_sealed"] is False

    # a rule in the forensic group, and a seal that is gone: EC2's groups still name the instance
    ec2.delete_tags(Resources=[neighbour], Tags=[{"Key": "forensic:state"}])
    ec2.delete_tags(Resources=[other], Tags=[{"Key": "forensic:deny:192.0.2.9"}])
    group = scene.forensic_group()
    ec2.delete_tags(Resources=[group], Tags=[{"Key": f"forensic:record:{other}"}])
    ec2.authorize_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    )

    code, told = listed("--json")

    by_id = {one["instance"]: one for one in json.loads(told)["instances"]}
    assert (code, set(by_id)) == (1, {instance, other})
    assert by_id[other]["is_isolated"] is False
    assert by_id[other]["problems"] == [
        f"OPEN: {group} has rules: make empty-forensic-group REGION={REGION} GROUP={group}",
        "the record was never sealed: the release will ask",
    ]

    for attribute in ("DisableApiTermination", "DisableApiStop"):
        ec2.modify_instance_attribute(InstanceId=instance, **{attribute: {"Value": False}})
    ec2.terminate_instances(InstanceIds=[instance])
    found = {one["instance"]: one for one in json.loads(listed("--json")[1])["instances"]}
    assert (found[instance]["state"], found[instance]["release"]) == ("terminated", None)
    assert found[instance]["problems"] == []


def test_a_region_that_cannot_be_read_is_named(scene, listed):
    scene.cloud.fail("DescribeSecurityGroups", "UnauthorizedOperation")
    code, told = listed("--json")
    assert code == 1
    (failed,) = json.loads(told)["failed"]
    assert (failed["account"], failed["region"]) == (ACCOUNT, REGION)
    assert "DescribeSecurityGroups: UnauthorizedOperation" in failed["error"]


DLQ = "guardduty-response-dlq"


@pytest.fixture
def letters(scene, pack):
    """What is in the dead-letter queue: {message id: (visible, body)}; `send` puts one there."""
    pack.dead_letters()
    sqs = scene.cloud.client("sqs", ACCOUNT, REGION)

    class Letters:
        @property
        def there(self):
            queue = sqs_backends[ACCOUNT][REGION].queues[DLQ]
            return {m.id: (m.visible, m.body) for m in queue._messages}

        def send(self, body, **attributes):
            return sqs.send_message(
                QueueUrl=sqs.get_queue_url(QueueName=DLQ)["QueueUrl"],
                MessageBody=body if isinstance(body, str) else json.dumps(body),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in attributes.items()
                },
            )["MessageId"]

        def age(self, days):
            for message in sqs_backends[ACCOUNT][REGION].queues[DLQ]._messages:
                message.sent_timestamp = int(message.sent_timestamp) - days * 86_400_000

    yield Letters()
    pack.dead_letters()


def test_what_failed_is_listed_and_done_again(scene, pack, letters, run):
    failing, unheard, neighbour = scene.instance(), scene.instance(), scene.instance()
    finding, other = scene.finding(failing), scene.finding(unheard)
    for event in (finding, other):
        guardduty.keep(event)
    before = scene.interfaces(neighbour)
    # a function that fails three times, and one that EventBridge may not invoke
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "UnauthorizedOperation", times=None)
    pack.deliver(finding)
    scene.cloud.call_log.clear()
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)
    (statement,) = json.loads(functions.get_policy(FunctionName=NOTIFY)["Policy"])["Statement"]
    functions.remove_permission(FunctionName=NOTIFY, StatementId=statement["Sid"])
    pack.deliver(other)
    functions.add_permission(
        FunctionName=NOTIFY,
        StatementId=statement["Sid"],
        Action=statement["Action"],
        Principal="events.amazonaws.com",
    )
    # what somebody else put there
    forged = scene.finding(neighbour)
    made_up = letters.send(
        forged, ErrorMessage="policy:ec2-isolate is not complete", ErrorCode="200"
    )
    foreign = letters.send(forged, TARGET_ARN=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:mine")
    garbage = letters.send("no \x1b[31m event", ErrorMessage="policy:finding-notify \u202e\n x")
    there = set(letters.there)

    code, told = run("dlq")

    assert code == 0 and "5 events that no function has dealt with, in 1 of 1" in told
    assert all(line.isprintable() for line in told.splitlines())
    assert "function  custodian-ec2-isolate" in told and f"function  {NOTIFY}" in told
    assert f"finding   {finding['detail']['id']}" in told and f"instance  {failing}" in told
    assert "why       200 policy:ec2-isolate is not complete: resource:" in told
    assert "UnauthorizedOperation" in told and "why       NO_PERMISSIONS" in told
    assert {id: visible for id, (visible, _) in letters.there.items()} == dict.fromkeys(there, True)
    one = json.loads(run("dlq", "--json", "--finding", other["detail"]["id"])[1])["letters"]
    assert [letter["function"] for letter in one] == [NOTIFY]
    assert not scene.is_isolated(failing) and scene.is_isolated(unheard)
    pack.messages()

    code, told = run("dlq", "--replay")

    assert code == 1, "three of five are kept"
    assert set(letters.there) == {made_up, foreign, garbage}
    assert all(visible for visible, _ in letters.there.values())
    assert scene.is_isolated(failing), told
    assert "isolate-instance done" in told and "GuardDuty of this account and region has no" in told
    policies = [message["policy"]["name"] for message in pack.messages()]
    assert sorted(policies) == ["ec2-isolate", "finding-notify"]
    assert "it does not say which function it was" in told and "no event. DROP=" in told
    assert scene.interfaces(neighbour) == before

    # not even when a person says which function
    assert run("dlq", "--replay", "--function", "custodian-ec2-isolate")[0] == 1
    code, told = run("dlq", "--replay", "--function", "custodian-mine")
    assert code == 2 and set(letters.there) == {made_up, foreign, garbage}
    assert scene.interfaces(neighbour) == before
    assert run("dlq", "--drop", uuid.uuid4().hex)[0] == 1
    assert run("dlq", "--drop", foreign)[0] == 0
    assert set(letters.there) == {made_up, garbage}

    # mails that SNS could not put on the mail queue, one of them of another topic
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:guardduty-response"
    pack.deliver(scene.finding(scene.instance()))
    (sent,) = [m for m in pack.messages() if m["policy"]["name"] == "finding-notify"]
    text = base64.b64encode(zlib.compress(json.dumps(sent).encode())).decode()
    envelope = {"Type": "Notification", "Message": text}
    letters.send(envelope | {"TopicArn": topic}, ErrorCode="AccessDenied")
    theirs = letters.send(envelope | {"TopicArn": topic.replace(ACCOUNT, "999999999999")})
    assert "type      a mail" in run("dlq")[1]
    code, told = run("dlq", "--replay")
    assert code == 1 and "published again" in told and set(letters.there) == {
        made_up, garbage, theirs
    }  # fmt: skip
    assert pack.messages() == [sent]


def test_what_is_old_or_still_fails_is_kept(scene, pack, letters, run):
    instance = scene.instance()
    finding = scene.finding(instance)
    guardduty.keep(finding)
    # a function that ran out of time: the error names no policy, its log has the request
    pack.isolate(scene.finding(instance, service={"archived": True}))
    request = scene.cloud.invocations[-1].request_id
    letter = letters.send(finding, RequestID=request, ErrorMessage="Task timed out")
    assert "custodian-ec2-isolate" in run("dlq")[1]

    letters.age(days=2)
    code, told = run("dlq", "--replay")
    assert (code, "older than a day" in told, scene.is_isolated(instance)) == (1, True, False)

    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "UnauthorizedOperation", times=None)
    code, told = run("dlq", "--replay", "--aged")
    assert code == 1 and "failed again: policy:ec2-isolate is not complete" in told
    assert letters.there[letter][0], "others can have it again"
    scene.cloud.call_log.clear()

    # archived meanwhile: what GuardDuty says now counts, not what the letter says
    client = scene.cloud.client("guardduty", ACCOUNT, REGION)
    (detector,) = client.list_detectors()["DetectorIds"]
    client.archive_findings(DetectorId=detector, FindingIds=[finding["detail"]["id"]])
    code, told = run("dlq", "--replay", "--aged")
    assert code == 1 and "nothing to do" in told and letter in letters.there
    assert not scene.is_isolated(instance)


def test_a_sample_goes_the_whole_way_or_the_station_is_named(scene, pack, run):
    """The last one: from here on the mailer empties the queue."""
    cloud, guard = scene.cloud, guardduty.guardduty_backends[ACCOUNT][REGION]
    guard.detectors.clear()
    guardduty._findings(guard).clear()
    rules = cloud.client("events", ACCOUNT, REGION)
    code, told = run("probe", "--timeout", "1")
    assert code == 2 and "CreateSampleFindings" not in {c.operation for c in cloud.calls}, told
    with MailSink() as sink:
        config = str(mail.settings(cloud, sink, REGION, pack.queue_url, mail.CONFIG))
        assert mailer(["deploy", "--config", config]) == 0

        def probe(timeout=30, config=config):
            code, told = run("probe", "--timeout", str(timeout), "--mailer", config)
            cloud.wait_idle()
            return code, told.splitlines()

        assert "is off in this region" in probe()[1][-1]
        cloud.client("guardduty", ACCOUNT, REGION).create_detector(Enable=True)
        cloud.call_log.clear()

        code, told = probe()

        assert code == 0, told
        (sample,) = guardduty._findings(guard)
        assert [one[9:].split(":")[0].strip() for one in told[:4]] == [
            "GuardDuty lists it",
            "finding-notify has mailed it",
            "ec2-isolate has left it out",
            "the mailer has delivered it",
        ]
        assert f"finding {sample}, new" in told[0] and "nothing to do" in told[2]
        seconds = [float(one.split()[0]) for one in told[1:4]]
        assert all(0 <= second < 30 for second in seconds) and seconds[0] <= seconds[2]
        assert told[4] == f"The sample has gone the whole way in {ACCOUNT} {REGION}."
        (delivered,) = sink.mails
        assert delivered.subject.startswith("[SAMPLE]") and sample in delivered.subject
        writes = {c.operation for c in cloud.calls if c.service == "ec2"}
        assert not [one for one in writes if not one.startswith("Describe")]

        # the second one is an update, which GuardDuty does not send at once
        code, told = probe(timeout=1)
        assert code == 1 and told[-1].startswith(
            f"FAILED in {ACCOUNT} {REGION} at 'finding-notify has mailed it': not in time. "
            "GuardDuty had this sample before"
        )

        guardduty._findings(guard).clear()
        rules.disable_rule(Name="custodian-finding-notify")
        code, told = probe(timeout=1)
        rules.enable_rule(Name="custodian-finding-notify")
        assert (code, "not in time" in told[1], "nothing to do" in told[2]) == (1, True, True)
        assert "at 'finding-notify has mailed it': not in time. make status" in told[-1]

        guardduty._findings(guard).clear()
        elsewhere = mail.settings(
            cloud, sink, REGION, pack.queue_url.replace(ACCOUNT, "444455556666"), mail.CONFIG
        )
        code, told = probe(config=str(elsewhere))
        assert code == 1 and "not seen: the mailer is in account 444455556666" in told[-1]

        # a suppression rule
        guardduty._findings(guard).clear()
        cloud.before("ListFindings", lambda _: archive_all(guard), skip=1)
        code, told = probe()
        assert code == 1 and "is archived: a suppression rule" in told[-1]


def archive_all(guard):
    for finding in guardduty._findings(guard).values():
        finding["service"]["archived"] = True
