"""The mail of every outcome, made by the whole way: the policy's function, the queue, the mailer.

What each says first is asserted here; how it looks is for eyes. `make mails` keeps them as HTML.
"""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cloudtrail import api_call
from pack import ACCOUNT, REGION

from custom_actions.finding_file import read_finding
from simulation import deploy
from simulation.mail import Mailer
from simulation.smtp import MailSink

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
RUNBOOK_URL = "https://git.example.com/security/guardduty-response/blob/main/docs/runbook.md"
ANCHORS = {
    re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")
    for title in re.findall(r"^#+ (.*)", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
}
DENIED = {
    "code": "UnauthorizedOperation",
    "message": "You are not authorized to perform this operation.",
}


class Blocks(HTMLParser):
    """The text of a mail, a line for each paragraph."""

    def __init__(self, html):
        super().__init__()
        self.lines = [""]
        self.feed(html)
        self.lines = [" ".join(line.split()) for line in self.lines if line.strip()]

    def handle_starttag(self, tag, attrs):
        if tag in ("p", "td", "h2", "div", "br"):
            self.lines.append("")

    def handle_data(self, data):
        self.lines[-1] += data


@pytest.fixture(scope="module")
def sink():
    with MailSink() as sink:
        yield sink


@pytest.fixture
def show(pack, sink, tmp_path):
    """Have the messages of the queue mailed; returns the blocks of the last mail.

    `show(name, box, section)`: the verdict that it has to begin with, and the section of the
    runbook that it has to lead to; the file gets the name.
    """
    mailer = Mailer(pack.cloud, sink, ACCOUNT, REGION, pack.queue_url, runbook_url=RUNBOOK_URL)
    folder = Path(os.environ.get("MAILS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def show(name, box, section, of="Remediation"):
        sink.mails.clear()
        mailer.deliver_all()
        (mail,) = [m for m in sink.mails if f"GuardDuty {of} |" in m.subject][-1:]
        (folder / f"{name}.html").write_text(mail.body)
        lines = Blocks(mail.body).lines
        text = "\n".join(lines)
        assert box in lines[1], text
        linked = re.findall(rf"{re.escape(RUNBOOK_URL)}#([\w-]+)", text)
        assert linked == ([section] if section else []) and {section, None} <= ANCHORS | {None}
        assert "None" not in text and "{'" not in text and "undefined" not in text.lower()
        assert "Mailed" in lines
        return lines

    yield show
    mailer.loop.courier.close()


INVESTIGATE = "6-how-do-i-investigate"
WHAT_NOW = "5-it-was-not-isolated-or-not-everything-was-done-what-now"
WHICH = "1-which-mail-did-i-get"
TAGS = {"Name": "web-1", "Owner": "Ana <ana@example.com>", "OwnerContact": "on-call <b>7</b>"}


def test_the_instance_is_isolated_or_not(scene, pack, show):
    instance = scene.instance(scene.groups, scene.groups[:1], tags=TAGS)
    event = scene.finding(instance)
    pack.deliver(event)
    lines = show("isolated", "Isolated", INVESTIGATE)
    assert lines[lines.index("Owner") + 1] == "Ana <ana@example.com> (by its tag)"
    when = lines.index("When")
    assert lines[when + 1 : when + 9 : 2] == ["Detected", "Received", "Isolated", "Mailed"]
    assert re.fullmatch(r".* UTC, \d+\.\d s later", lines[when + 6])
    assert any("InstanceDetails:instanceId=" + instance in line for line in lines)
    assert sum("NetworkInterface:networkInterfaceId=eni-" in line for line in lines) == 2
    assert any("SnapshotDetails:snapshotId=snap-" in line for line in lines)
    assert any("$252Faws$252Flambda$252Fcustodian-ec2-isolate/log-events" in x for x in lines)

    instance = scene.instance(tags=TAGS)
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", **DENIED, times=None)
    pack.isolate(scene.finding(instance))
    lines = show("not-isolated", "NOT isolated", WHAT_NOW)
    text = "\n".join(lines)
    assert "every new connection" not in text and "No interface was read back as" in text
    assert "Nothing had to be changed" not in text and "serial console" not in text
    assert f"make isolate INSTANCE={instance}" in text and "make release INSTANCE=" in text
    scene.cloud.call_log.clear()

    instance = scene.instance(scene.groups, scene.groups[:1], tags=TAGS)
    kept = [*scene.interfaces(instance)][1]
    scene.cloud.fail(
        "ModifyNetworkInterfaceAttribute",
        **DENIED,
        times=None,
        when=lambda call: call.parameters.get("NetworkInterfaceId") == kept,
    )
    pack.isolate(scene.finding(instance))
    lines = show("partly-isolated", "NOT isolated", WHAT_NOW)
    assert any(
        "over the interfaces that are isolated, above; not over the others" in x for x in lines
    )
    scene.cloud.call_log.clear()

    instance = scene.instance(tags=TAGS)
    scene.cloud.fail("CreateSnapshots", **DENIED, times=None)
    pack.isolate(scene.finding(instance))
    show("not-complete", "Isolated", WHAT_NOW)


def test_it_is_left_alone(scene, pack, show):
    pack.isolate(scene.finding(scene.instance(tags=TAGS | {"forensic:exempt": "ask Ana"})))
    lines = show("exempt", "NOT isolated", WHAT_NOW)
    assert any('forensic:exempt ("ask Ana")' in line for line in lines)
    assert not any("make release" in line or "every new connection" in line for line in lines)

    instance = scene.instance()
    event = scene.finding(instance)
    scene.ec2.terminate_instances(InstanceIds=[instance])
    pack.isolate(event)
    show("terminated", "NOT isolated", WHAT_NOW)

    for _ in range(6):
        pack.isolate(scene.finding(scene.instance()))
    show("brake-held", "NOT isolated, held back on purpose", WHICH)


def test_the_finding(scene, pack, show):
    pack.deliver(scene.finding(scene.instance(tags=TAGS)))
    show("finding", "What happens next", "finding-e-mail", "Finding")
    pack.deliver(read("s3-bucket-anonymous-access"))
    show("finding-s3", "What happens next", "finding-e-mail", "Finding")
    pack.deliver(read("ec2-malicious-ip-caller-sample"))
    show("finding-sample", "Sample finding", None, "Finding")


def test_modes(scene, pack, show):
    for mode, box in (("observe", "OBSERVE ONLY"), ("ask", "ASK")):
        deploy.deploy(pack.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION, mode)
        pack.isolate(scene.finding(scene.instance(tags=TAGS)))
        show(mode, box, WHICH)
    deploy.deploy(pack.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION)


def test_the_release(scene, pack, show, release):
    instance = scene.instance(tags=TAGS)
    pack.isolate(scene.finding(instance))
    pack.messages()
    scene.cloud.fail("DeleteNetworkAclEntry", **DENIED, times=None)
    assert not release(instance)[0]
    show("release-not-complete", "The release is NOT complete", "7-how-do-i-release-it", "Release")
    scene.cloud.call_log.clear()
    assert release(instance)[0]
    show("release", "Released", "7-how-do-i-release-it", "Release")

    first, second = scene.instance(tags=TAGS), scene.instance(tags=TAGS)
    for one in (first, second):
        pack.isolate(scene.finding(one))
    pack.messages()
    assert release(first)[0]
    lines = show(
        "release-address-stays", "Released, but not all is", "7-how-do-i-release-it", "Release"
    )
    assert "stays" in lines[0] and "203.0.113.7" in lines[0]


def test_a_guard(scene, guarded, isolated, show):
    interface = next(iter(scene.interfaces(isolated)))

    def change():
        scene.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=interface, Groups=scene.groups
        )
        items = {"items": [{"groupId": group} for group in scene.groups]}
        parameters = {"networkInterfaceId": interface, "groupSet": items}
        return api_call("ModifyNetworkInterfaceAttribute", parameters)

    guarded.deliver(change())
    show("guard-put-right", "Put right", "guard-e-mail", "Guard")
    event = change()
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", **DENIED, times=None)
    guarded.cloud.invoke("custodian-isolation-guard", event, ACCOUNT, REGION)
    show("guard-not-put-right", "NOT put right", WHAT_NOW, "Guard")


def test_credentials(identities, show):
    invoke = identities.cloud.invoke
    revoke = "custodian-iam-role-revoke-sessions"
    invoke(revoke, identities.stolen(identities.role()), ACCOUNT, REGION)
    show("credentials-revoked", "Revoked", "remediation-e-mail")
    role = identities.role()
    identities.cloud.fail("PutRolePolicy", **DENIED, times=None)
    invoke(revoke, identities.stolen(role), ACCOUNT, REGION)
    show("credentials-not-revoked", "NOT revoked", "remediation-e-mail")
    identities.cloud.call_log.clear()
    user, (key, _) = identities.user()
    event = identities.misused(user, key)
    invoke("custodian-iam-user-deactivate-access-key", event, ACCOUNT, REGION)
    show("key-deactivated", "Deactivated", "remediation-e-mail")


def test_an_attack_sequence(scene, pack, show):
    event = read("ec2-sequence-instance-group")
    instances = [scene.instance(tags=TAGS | {"Name": f"web-{n}"}) for n in range(3)]
    sequence = event["detail"]["service"]["detection"]["sequence"]
    named = [r for r in sequence["resources"] if r["resourceType"] == "EC2_INSTANCE"]
    for resource, instance in zip(named, instances, strict=False):
        resource["uid"] = instance
    pack.isolate(event)
    show("sequence", "instances isolated", "an-attack-sequence")


def read(name):
    return read_finding(ROOT / "tests" / "findings" / f"{name}.json")
