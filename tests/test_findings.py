"""Each policy against the findings in its folder, through the rule and the function as deployed.

A folder of tests/ has a policy's name; in it `positive` findings are acted on, `negative` and
`sample` ones are not (finding-notify mails samples, marked as such).
"""

import copy
import json
from pathlib import Path

import pytest

from custom_actions.finding_file import read_finding

TESTS = Path(__file__).parent


def findings(policy, *kinds):
    return [
        pytest.param(path, id=f"{kind}/{path.stem}")
        for kind in kinds
        for path in sorted((TESTS / policy / kind).glob("*.json"))
    ]


class Played:
    """A finding that went through the bus: its instance before and after, and the messages."""

    def __init__(self, scene, pack, event):
        self.scene = scene
        details = event["detail"]["resource"].get("instanceDetails") or {}
        interfaces = [scene.groups[:1] for _ in details.get("networkInterfaces") or [None]]
        self.instance, self.neighbour = scene.instance(*interfaces), scene.instance()
        if details and details["instanceId"] != "i-99999999":
            details["instanceId"] = self.instance
        self.before = self.shown()
        pack.deliver(event)
        self.messages = pack.messages()

    def shown(self):
        return [
            (self.scene.interfaces(instance), self.scene.tags(instance))
            for instance in (self.instance, self.neighbour)
        ]

    @property
    def nothing_changed(self):
        return self.shown() == self.before

    @property
    def isolated(self):
        """The instance is, the neighbour is as it was."""
        return self.scene.is_isolated(self.instance) and self.shown()[1] == self.before[1]


@pytest.fixture
def play(scene, pack):
    return lambda event: Played(scene, pack, copy.deepcopy(event))


def of(policy, messages):
    return [message for message in messages if message["policy"]["name"] == policy]


@pytest.mark.parametrize("path", findings("ec2-isolate", "positive"))
def test_ec2_isolate_isolates(path, play):
    played = play(read_finding(path))

    assert played.isolated
    (message,) = of("ec2-isolate", played.messages)
    assert message["event"]["c7n:notice"]["isolated"]


@pytest.mark.parametrize("path", findings("ec2-isolate", "negative", "sample"))
def test_ec2_isolate_changes_nothing(path, play, pack):
    played = play(read_finding(path))

    assert played.nothing_changed
    assert of("ec2-isolate", played.messages) == []
    assert all(i.error is None for i in pack.cloud.invocations)
    assert pack.dead_letters() == []


@pytest.mark.parametrize("path", findings("finding-notify", "positive"))
def test_finding_notify_tells(path, play):
    messages = play(read_finding(path)).messages

    (message,) = of("finding-notify", messages)
    notice = message["event"]["c7n:notice"]
    assert notice["headline"].startswith("GuardDuty Finding | ID: ")
    assert not notice["sample"]


@pytest.mark.parametrize("path", findings("finding-notify", "sample"))
def test_finding_notify_marks_a_sample(path, play):
    messages = play(read_finding(path)).messages

    (message,) = of("finding-notify", messages)
    notice = message["event"]["c7n:notice"]
    assert notice["headline"].startswith("[SAMPLE] GuardDuty Finding | ID: ") and notice["sample"]


@pytest.mark.parametrize("path", findings("finding-notify", "negative"))
def test_finding_notify_is_silent(path, play):
    messages = play(read_finding(path)).messages

    assert of("finding-notify", messages) == []


# Every marking of a sample or an archived finding on one that would isolate; and what is none

MALICIOUS = "ec2-isolate/positive/ec2-malicious-ip-caller.json"


def marked(**changes):
    event = read_finding(TESTS / MALICIOUS)
    event["detail"] |= changes.pop("detail", {})
    event["detail"]["service"] |= changes.pop("service", {})
    event["detail"]["service"]["additionalInfo"] = changes.pop("additionalInfo", {})
    return event


SAMPLES = {
    "sample true": marked(additionalInfo={"sample": True}),
    "sample in words": marked(additionalInfo={"sample": "True"}),
    "sample in the JSON text": marked(additionalInfo={"value": '{"sample":true}'}),
    "sample in words in the JSON text": marked(
        additionalInfo={"value": '{"a": 1, "sample": "True"}'}
    ),
    "sample in a mapping": marked(additionalInfo={"value": {"sample": True}}),
    "sample in the title": marked(detail={"title": "[SAMPLE] EC2 instance"}),
    "sample deep in the JSON text": marked(additionalInfo={"value": '{"a":{"sample":true}}'}),
    "sample in a list in the JSON text": marked(additionalInfo={"value": '[{"sample":true}]'}),
    "JSON text that goes on": marked(additionalInfo={"value": '{"sample":true} and more'}),
}
ARCHIVED = {
    "archived": marked(service={"archived": True}),
    "archived in words": marked(service={"archived": "true"}),
}
NOT_FOR_ISOLATION = SAMPLES | ARCHIVED
FOR_ISOLATION = {
    "no sample": marked(additionalInfo={"sample": False, "value": '{"sample": false}'}),
    "no additional info": marked(),
    "not archived": marked(service={"archived": "false"}),
    "the word in a string": marked(additionalInfo={"value": json.dumps({"x": '{"sample": true}'})}),
    "the word in the title": marked(detail={"title": "talks to [SAMPLE].example"}),
    "no role": marked(service={"resourceRole": ""}),
}


def says_sample(played):
    """Whether the finding mail says so; if it does not, a person expects a remediation mail."""
    (message,) = of("finding-notify", played.messages)
    notice = message["event"]["c7n:notice"]
    assert notice["headline"].startswith("[SAMPLE] ") is notice["sample"]
    return notice["sample"]


@pytest.mark.parametrize("name", NOT_FOR_ISOLATION)
def test_a_marked_finding_never_isolates(name, play, pack):
    played = play(NOT_FOR_ISOLATION[name])

    assert played.nothing_changed
    assert of("ec2-isolate", played.messages) == []
    (invocation,) = (i for i in pack.cloud.invocations if "isolate" in i.function_name)
    assert f"left out: it is {'a sample' if name in SAMPLES else 'archived'}" in invocation.log
    assert says_sample(played) is (name in SAMPLES)


@pytest.mark.parametrize("name", FOR_ISOLATION)
def test_what_only_looks_like_a_mark_isolates(name, play):
    played = play(FOR_ISOLATION[name])

    assert played.isolated
    assert not says_sample(played)


@pytest.mark.parametrize(
    "finding_type, isolates",
    {
        "UnauthorizedAccess:EC2/TorClient": True,
        "UnauthorizedAccess:EC2/TorRelay": True,
        "Backdoor:EC2/C&CActivity.B!DNS": True,
        "Backdoor:EC2/DenialOfService.Tcp": True,
        "CryptoCurrency:EC2/BitcoinTool.B": True,
        "Trojan:EC2/DropPoint": True,
        "Trojan:EC2/DNSDataExfiltration": True,
        "Recon:EC2/Portscan": True,
        "Impact:EC2/PortSweep": True,
        "Recon:EC2/PortProbeEMRUnprotectedPort": False,
        "Behavior:EC2/NetworkPortUnusual": False,
        "DefenseEvasion:EC2/UnusualDNSResolver": False,
        "Policy:S3/BucketPublicAccessGranted": False,
    }.items(),
)
def test_the_type_decides(finding_type, isolates, play):
    assert play(marked(detail={"type": finding_type})).isolated is isolates


@pytest.mark.parametrize(
    "finding_type",
    [
        "UnauthorizedAccess:EC2/SSHBruteForce",
        "UnauthorizedAccess:EC2/RDPBruteForce",
        "Impact:EC2/WinRMBruteForce",
    ],
)
@pytest.mark.parametrize("role, isolates", [("ACTOR", True), ("TARGET", False), (None, False)])
def test_the_role_decides_for_brute_force(finding_type, role, isolates, play):
    event = marked(detail={"type": finding_type}, service={"resourceRole": role})

    assert play(event).isolated is isolates


@pytest.mark.parametrize(
    "direction, role, isolates",
    [
        ("OUTBOUND", "TARGET", True),
        ("INBOUND", "TARGET", False),
        ("INBOUND", None, False),
        ("INBOUND", "ACTOR", True),
        ("UNKNOWN", "TARGET", True),
        (None, "TARGET", True),
    ],
)
def test_an_address_that_merely_knocks_takes_no_server_down(direction, role, isolates, play, pack):
    event = marked(service={"resourceRole": role})
    connection = event["detail"]["service"]["action"]["networkConnectionAction"]
    connection["connectionDirection"] = direction

    played = play(event)

    assert played.isolated is isolates
    if not isolates:
        assert played.nothing_changed
        assert [m["policy"]["name"] for m in played.messages] == ["finding-notify"]
        (invocation,) = (i for i in pack.cloud.invocations if "isolate" in i.function_name)
        assert "began the connection, the instance did not" in invocation.log


def test_only_what_goes_either_way_is_decided_by_the_direction(play):
    """A relay of the Tor network takes connections of other relays: that is what it is for."""
    event = marked(detail={"type": "UnauthorizedAccess:EC2/TorRelay"})
    connection = event["detail"]["service"]["action"]["networkConnectionAction"]
    connection["connectionDirection"] = "INBOUND"

    assert play(event).isolated
