"""Each policy for findings against the findings of tests/, and a few through the deployed function.

A folder of tests/ has a policy's name; in it `positive` findings are acted on, `negative` and
`sample` ones are not (finding-notify mails samples, marked as such). What the rule and the filters
decide is worked out for all of them; what only a run can show is played.
"""

import copy
import json
from pathlib import Path

import pytest
from pack import ACCOUNT

from custom_actions.finding_file import read_finding
from deployment import policies
from review.coverage import functions_of, of_folder
from review.decision import decide
from review.findings import disagreements, findings, strangers, surprises

TESTS = Path(__file__).parent
POLICIES = of_folder(policies.FOLDER)
each_policy = pytest.mark.parametrize("policy", POLICIES)


def none(sentences):
    if said := "\n".join(sentences):
        pytest.fail(said, pytrace=False)


@each_policy
def test_a_policy_acts_on_what_its_folders_promise_and_on_nothing_else(policy):
    none(surprises(TESTS, policy, functions_of(POLICIES[policy])))


@each_policy
def test_a_rule_and_the_filters_behind_it_ask_the_same(policy):
    none(disagreements(policy, findings(TESTS), functions_of(POLICIES[policy])))


def test_something_is_expected_of_every_finding():
    none(strangers(TESTS, POLICIES))


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


def expect(event, acts, why=None, policy="ec2-isolate"):
    """What a policy decides about a finding; why: words of the reason why it does not act."""
    decision = decide(functions_of(POLICIES[policy])(event), event)
    said = decision.reason or "; ".join(map(str, decision.unmatched)) or "it acts"
    if decision.acts is not acts or (why and why not in said):
        wanted = "acts on it" if acts else f"leaves it alone: {why}"
        pytest.fail(f"A person expects that {policy} {wanted}. It says: {said}", pytrace=False)


@pytest.mark.parametrize("name", NOT_FOR_ISOLATION)
def test_a_marked_finding_never_isolates(name):
    why = "it is a sample" if name in SAMPLES else "it is archived"
    expect(NOT_FOR_ISOLATION[name], False, why)
    expect(NOT_FOR_ISOLATION[name], True, policy="finding-notify")


@pytest.mark.parametrize("name", FOR_ISOLATION)
def test_what_only_looks_like_a_mark_isolates(name):
    expect(FOR_ISOLATION[name], True)


@pytest.mark.parametrize(
    "finding_type",
    [
        "UnauthorizedAccess:EC2/SSHBruteForce",
        "UnauthorizedAccess:EC2/RDPBruteForce",
        "Impact:EC2/WinRMBruteForce",
    ],
)
@pytest.mark.parametrize("role, isolates", [("ACTOR", True), ("TARGET", False), (None, False)])
def test_the_role_decides_for_brute_force(finding_type, role, isolates):
    event = marked(detail={"type": finding_type}, service={"resourceRole": role})

    expect(event, isolates, None if isolates else "is not the one that acts")


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
def test_an_address_that_merely_knocks_takes_no_server_down(direction, role, isolates):
    event = marked(service={"resourceRole": role})
    connection = event["detail"]["service"]["action"]["networkConnectionAction"]
    connection["connectionDirection"] = direction

    expect(event, isolates, None if isolates else "began the connection, the instance did not")


EKS = "ec2-isolate/positive/eks-runtime-reverse-shell.json"


@pytest.mark.parametrize("kind", ["EKSCluster", "ECSCluster", "Container"])
def test_a_container_that_is_on_no_instance_isolates_none(kind):
    event = read_finding(TESTS / EKS)
    resource = event["detail"]["resource"]
    resource["resourceType"] = kind
    expect(event, True)
    for nothing in ({}, None):
        resource["instanceDetails"] = nothing
        expect(event, False, "it is about a container and names no instance")
    # what is there and is no id goes on, so that the function refuses it aloud
    resource["instanceDetails"] = {"instanceId": "x"}
    expect(event, True)
    # so does an instance that is not named
    resource["instanceDetails"], resource["resourceType"] = {}, "Instance"
    expect(event, True)


# Played: the rule on the bus, the function as it is deployed, the instance, the messages


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


ISOLATED = [
    "bare-ec2-malicious-ip-caller",  # as get-findings prints it
    "ec2-malicious-ip-caller-multi-eni",
    "ec2-dns-crypto",  # of no address
    "eks-runtime-reverse-shell",  # of the node of a cluster
]


@pytest.mark.parametrize("name", ISOLATED)
def test_what_is_decided_is_done(name, play):
    played = play(read_finding(TESTS / "ec2-isolate" / "positive" / f"{name}.json"))

    assert played.isolated
    mails = {message["policy"]["name"]: message["event"] for message in played.messages}
    assert len(mails) == len(played.messages) == 2
    assert mails["ec2-isolate"]["c7n:notice"]["isolated"]
    told = mails["finding-notify"]["c7n:notice"]
    assert told["headline"].startswith("GuardDuty Finding | ID: ") and not told["sample"]


LEFT_ALONE = {
    "ec2-malicious-ip-caller-sample": "it is a sample",
    "ec2-malicious-ip-caller-archived": "it is archived",
    "ec2-malicious-ip-caller-inbound": "began the connection, the instance did not",
    "fargate-runtime-crypto": "it is about a container and names no instance",
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_a_filter_stops_changes_nothing_and_is_mailed(name, play, pack):
    played = play(read_finding(TESTS / "findings" / f"{name}.json"))

    assert played.nothing_changed
    (invocation,) = (i for i in pack.cloud.invocations if "isolate" in i.function_name)
    assert "left out: " in invocation.log and LEFT_ALONE[name] in invocation.log
    (message,) = played.messages
    told = message["event"]["c7n:notice"]
    assert message["policy"]["name"] == "finding-notify"
    assert told["headline"].startswith("[SAMPLE] GuardDuty Finding | ID: ") is told["sample"]
    assert told["sample"] is name.endswith("-sample")


def test_what_nobody_knows_is_mailed_and_changes_nothing(play, pack):
    """A type of the future, of the least severity that is mailed; and a finding without one."""
    played = play(read_finding(TESTS / "findings" / "unknown-type.json"))
    pack.deliver(read_finding(TESTS / "findings" / "unknown-severity.json"))

    told = [m["event"]["c7n:notice"] for m in [*played.messages, *pack.messages()]]
    assert played.nothing_changed and len(told) == 2
    for notice in told:
        assert "The resource of type Mainframe may be compromised" in notice["headline"]
        assert notice["next"] == []


@pytest.mark.parametrize("name", ["ec2-port-probe", "ec2-malicious-ip-caller-of-a-member"])
def test_what_a_rule_does_not_match_starts_no_function(name, play, pack):
    """The second one on the bus of this account, as if it were GuardDuty's administrator's."""
    event = read_finding(TESTS / "findings" / f"{name}.json")
    if event["account"] != event["detail"]["accountId"]:
        event["account"], event["detail"]["accountId"] = ACCOUNT, event["account"]

    played = play(event)

    assert played.nothing_changed
    assert not played.messages and not pack.cloud.invocations and not pack.dead_letters()
