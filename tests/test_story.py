"""From the finding on the bus to two e-mails in the inbox: every part real but AWS itself."""

import pytest

from simulation.mail import Mailer
from simulation.smtp import MailSink

ACCOUNT, REGION = "111122223333", "us-west-2"


@pytest.fixture
def inbox(pack):
    with MailSink() as sink:
        yield sink, Mailer(pack.cloud, sink, ACCOUNT, REGION, pack.queue_url)


def test_two_mails_reach_the_account_and_the_owner(scene, pack, inbox):
    sink, mailer = inbox
    instance = scene.instance(tags={"Name": "web <1>", "OwnerEmail": "owner@example.com"})
    event = scene.finding(instance)

    pack.deliver(event)
    mailer.deliver_all()

    finding, remediation = sorted(sink.wait_for(2), key=lambda mail: "Remediation" in mail.subject)
    identifier = event["detail"]["id"]
    assert finding.subject == (
        f"GuardDuty Finding | ID: {identifier}: The EC2 instance {instance} may be compromised "
        "and should be investigated"
    )
    assert finding.recipients == ["security@example.com"]
    assert sorted(remediation.recipients) == ["owner@example.com", "security@example.com"]
    assert remediation.subject == (
        f"GuardDuty Remediation | ID: {identifier}: GuardDuty discovered an EC2 instance "
        f"(Instance ID: {instance}) that is communicating outbound with an IP Address on a threat "
        "list that you uploaded. All security groups have been removed and it has been isolated. "
        "Please follow up with any additional remediation actions."
    )
    assert scene.groups[0] in remediation.body and scene.forensic_group() in remediation.body
    assert "web &lt;1&gt;" in remediation.body and "<1>" not in remediation.body


def test_an_update_and_a_duplicate_bring_no_second_remediation_mail(scene, pack, inbox):
    sink, mailer = inbox
    instance = scene.instance()
    event = scene.finding(instance)
    finding = event["detail"]["id"]
    update = scene.finding(instance, "ec2-malicious-ip-caller-update", id=finding)
    for again in (event, event, update):
        pack.deliver(again)
    mailer.deliver_all()

    subjects = [mail.subject for mail in sink.wait_for(3)]
    assert len([s for s in subjects if "GuardDuty Remediation" in s]) == 1
    assert len([s for s in subjects if "(seen 7 times)" in s]) == 1


def test_a_sample_is_mailed_as_such_and_nothing_else_happens(scene, pack, inbox):
    sink, mailer = inbox
    event = scene.finding("i-99999999", "ec2-malicious-ip-caller-sample")
    pack.dead_letters()  # of the tests before

    pack.deliver(event)
    mailer.deliver_all()

    (mail,) = sink.wait_for(1)
    assert mail.subject.startswith("[SAMPLE] GuardDuty Finding | ID: ")
    assert pack.dead_letters() == []
