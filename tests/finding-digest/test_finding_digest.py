"""finding-digest, deployed and run by its own schedule; the mail is made by the pack's mailer."""

import html
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from custom_actions.digest import MOST, ROWS
from deployment.deployed import deployed
from deployment.policies import policies
from deployment.targets import Target
from simulation import deploy, guardduty
from simulation.eventbridge import scheduled
from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"
MEMBER = "444455556666"
NAME = "finding-digest"
FUNCTION = f"custodian-{NAME}"
RULE = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{FUNCTION}"
FINDINGS = Path(__file__).parents[1] / "findings"
NOW = datetime.now(UTC).replace(microsecond=0)
PROBE = "Recon:EC2/PortProbeUnprotectedPort"
KEY = "UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom"


def at(**ago):
    return (NOW - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def known(name="ec2-port-probe", hours=1, severity=2, administrator=None, **fields):
    """Have GuardDuty have a finding that was updated so many hours ago; its id."""
    event = json.loads((FINDINGS / f"{name}.json").read_text())
    service = event["detail"]["service"] | {"eventLastSeen": at(hours=hours)}
    service |= {"count": fields.pop("count", 1), "archived": fields.pop("archived", False)}
    instance = fields.pop("instance", None)
    event["detail"] |= {"id": uuid.uuid4().hex, "severity": severity, "updatedAt": at(hours=hours)}
    event["detail"] |= fields | {"service": service}
    if instance:
        event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance
    return guardduty.keep(event, administrator)["id"]


@pytest.fixture(scope="module")
def digest(stacks, tmp_path_factory):
    """The policy as it is shipped, and one for GuardDuty's administrator that tells of each day."""
    shipped = Path(f"policies/opt-in/{NAME}.yml")
    (policy,) = yaml.safe_load(shipped.read_text())["policies"]
    policy["name"] = "digest-of-all"
    policy["mode"]["execution-options"]["member-role"] = "guardduty-response-member"
    policy["filters"][0]["all-clear"] = True
    path = tmp_path_factory.mktemp("policy") / "digest-of-all.yml"
    path.write_text(json.dumps({"policies": [policy]}))
    deploy.deploy(stacks.cloud, [shipped, path], ACCOUNT, REGION, "observe")
    return stacks


@pytest.fixture
def pack(digest):
    digest.restore()
    digest.dead_letters()
    yield digest
    guardduty.forget(ACCOUNT, REGION)


def due(pack, time=None):
    """The schedule's time has come; what the function was run with, its last try first."""
    pack.deliver(scheduled(RULE, time or at()))
    return pack.cloud.invocations[::-1]


def test_the_low_findings_of_a_day_are_in_one_mail_by_type(pack):
    for number in range(7):
        known(hours=number + 1, count=3, instance=f"i-{number:017x}")
    known("iam-user-malicious-ip-caller", hours=2, severity=3.9)
    known("ec2-malicious-ip-caller-sample", hours=3)
    for left_out in (
        {"severity": 4},  # finding-notify has mailed it
        {"severity": 8},
        {"archived": True},
        {"hours": 25},
        {"accountId": MEMBER, "administrator": ACCOUNT},
    ):
        known(type="Recon:EC2/LeftOut", **left_out)
    known(hours=24.05)  # just before the day begins: rather in two digests than in none

    with MailSink() as sink:
        mailer = Mailer(pack.cloud, sink, ACCOUNT, REGION, pack.queue_url)
        assert due(pack)[0].error is None
        mailer.deliver_all()
        (mail,) = sink.wait_for(1)

    headline = "GuardDuty Digest | 10 findings of 3 types below severity 4 in the last 24 hours."
    assert mail.subject == f"{headline} Nothing was changed."
    assert mail.recipients == ["security@example.com"]
    text = html.unescape(mail.body)
    assert text.index(PROBE) < text.index(KEY) < text.index("MaliciousIPCaller.Custom</b> (sample)")
    assert "8 findings, seen 22 times, last " + at(hours=1)[:10] in text
    # the five newest resources, and how many there are besides
    assert [f"i-{n:017x}" in text for n in range(7)] == [True] * 5 + [False] * 2
    assert "and 3 more" in text and "Low (3.9 of 10)" in text
    assert "LeftOut" not in text and MEMBER not in text
    calls = pack.cloud.call_log.by(FUNCTION)
    assert [c.operation for c in calls if c.service == "guardduty"] == [
        "ListDetectors",
        "ListFindings",
        "GetFindings",
    ]


def test_a_day_without_low_findings_brings_no_mail(pack):
    known(severity=5)

    (run,) = due(pack)

    assert run.error is None and pack.messages() == []
    assert "leave this event out" in run.result[NAME]
    # neither does an event of anybody else
    for event in ({}, {"detail-type": "GuardDuty Finding", "source": "aws.guardduty"}):
        run = pack.cloud.invoke(FUNCTION, event, ACCOUNT, REGION)
        assert "not an event of a schedule" in run.result[NAME] and pack.messages() == []


def test_a_retry_is_about_the_day_that_it_was_for_and_what_fails_is_kept(pack):
    known(hours=30)
    fail = ("ListFindings", "AccessDenied")
    pack.cloud.fail(*fail, status=403, times=3)

    last, *_ = due(pack, at(hours=12))

    wanted = f"policy:{NAME} account:{ACCOUNT} region:{REGION} the low findings could not be read"
    assert last.error["errorMessage"].startswith(wanted) and pack.messages() == []
    (letter,) = pack.dead_letters()
    # days later, as by `make dlq REPLAY=1`
    assert pack.cloud.invoke(FUNCTION, json.loads(letter["Body"]), ACCOUNT, REGION).error is None
    (message,) = pack.messages()
    assert message["resources"][0]["c7n:digest"]["findings"] == 1

    guardduty.forget(ACCOUNT, REGION)
    (detector,) = pack.cloud.client("guardduty", ACCOUNT, REGION).list_detectors()["DetectorIds"]
    pack.cloud.client("guardduty", ACCOUNT, REGION).delete_detector(DetectorId=detector)
    run = pack.cloud.invoke(FUNCTION, scheduled(RULE, at()), ACCOUNT, REGION)
    assert "GuardDuty is not enabled here" in run.error["errorMessage"]


@pytest.mark.slow
def test_what_is_too_much_for_a_mail_is_counted(pack):
    for number in range(MOST + 1):
        known(type=f"Recon:EC2/Type{number % (ROWS + 3)}", hours=1 + number / 1000)

    assert due(pack)[0].error is None

    (message,) = pack.messages()
    (found,) = [resource["c7n:digest"] for resource in message["resources"]]
    assert len(found["rows"]) == ROWS and found["others"] == 3 and found["more"] is True
    assert sum(row["findings"] for row in found["rows"]) < found["findings"] == MOST
    assert message["event"]["c7n:notice"]["headline"].startswith(
        f"GuardDuty Digest | more than {MOST} findings of {ROWS + 3} types"
    )


def test_the_administrator_has_those_of_its_members_where_a_deploy_says_so(pack):
    """And a quiet day is told, where the policy says that."""
    known()
    known(accountId=MEMBER, administrator=ACCOUNT)

    headlines = []
    for _ in range(2):
        event = scheduled(RULE, at())
        run = pack.cloud.invoke("custodian-digest-of-all", event, ACCOUNT, REGION)
        assert run.error is None
        (message,) = pack.messages()
        rows = message["resources"][0]["c7n:digest"]["rows"]
        headlines.append((message["event"]["c7n:notice"]["headline"], {r["account"] for r in rows}))
        guardduty.forget(ACCOUNT, REGION)

    (both, accounts), (none, nobody) = headlines
    assert accounts == {ACCOUNT, MEMBER} and "2 findings of 1 type below" in both
    assert none.startswith("GuardDuty Digest | no findings below severity 4") and not nobody


@pytest.mark.slow
def test_status_reads_the_schedule_back(pack):
    target = Target({"account_id": ACCOUNT, "name": ACCOUNT}, REGION)
    session = pack.cloud.session(ACCOUNT, REGION)

    def wrong():
        found = deployed(target, session, policies()[NAME], "make deploy", opt_in=True)
        return {check.what: (check.found, check.mend) for check in found.checks if not check.well}

    # what stands in the archive differs: the simulation's deploy says no tracer and other variables
    assert not {"rule", "target", "permission", "pattern", "schedule"} & set(wrong())
    pack.cloud.client("events", ACCOUNT, REGION).put_rule(
        Name=FUNCTION, ScheduleExpression="rate(30 days)"
    )
    found, mend = wrong()["schedule"]
    assert found.startswith("rate(30 days), not cron(") and mend == "make deploy"
    deploy.deploy(pack.cloud, [f"policies/opt-in/{NAME}.yml"], ACCOUNT, REGION, "observe")
    assert "schedule" not in wrong()
