"""ec2-isolate-by-hand, run by a person: as ec2-isolate does it, to the named instance alone."""

import json
import re
from pathlib import Path

import pytest
import yaml
from c7n.config import Config
from c7n.exceptions import PolicyExecutionError
from c7n.loader import PolicyLoader
from c7n.resources import load_resources

import custom_actions  # noqa: F401 - registers the filter
from simulation import deploy, guardduty

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]
POLICY = "policies/ec2-isolate-by-hand.yml"
SAMPLE = Path(__file__).parents[1] / "findings" / "ec2-malicious-ip-caller-sample.json"


@pytest.fixture(scope="module")
def pack(stacks):
    return stacks


@pytest.fixture
def isolate(by_hand):
    """Run the policy as `make isolate` does; returns (succeeded, output)."""
    return lambda instance, finding="": by_hand(POLICY, instance=instance, finding=finding)


def told(pack):
    """The one mail: its headline and its text."""
    (message,) = pack.messages()
    return message["event"]["c7n:notice"]["headline"], message


def test_a_person_isolates_without_a_finding_and_releases(scene, pack, isolate, tmp_path):
    instance, neighbour = scene.instance(scene.groups, scene.groups[1:]), scene.instance()
    before = scene.interfaces(instance), scene.interfaces(neighbour)

    succeeded, output = isolate(instance)

    assert succeeded and scene.is_isolated(instance), output
    assert scene.interfaces(neighbour) == before[1]
    headline, message = told(pack)
    name = scene.tags(instance)["forensic:finding"]
    assert re.fullmatch(r"by-hand-\d{8}T\d{6}Z", name)
    who = f"arn:aws:sts::{ACCOUNT}:assumed-role/OrganizationAccountAccessRole/simulation"
    assert headline == (
        f"GuardDuty Remediation | ID: {name}: A person named an EC2 instance (Instance ID: "
        f"{instance}). All security groups have been removed and it has been isolated by {who} by "
        "hand. Please follow up with any additional remediation actions."
    )
    outcomes = {o["step"]: o for o in message["resources"][0]["c7n:response"]}
    assert "no remote address" in outcomes["block-remote-address"]["detail"]
    assert outcomes["preserve-evidence"]["status"] == "done"
    assert "c7n:by-hand" not in message["resources"][0]
    snapshots = scene.ec2.describe_snapshots(
        Filters=[{"Name": "tag:forensic:finding", "Values": [name]}]
    )["Snapshots"]
    assert snapshots

    deploy.release(scene.cloud, tmp_path, instance, ACCOUNT, REGION)
    assert scene.interfaces(instance) == before[0] and not scene.tags(instance)


def test_the_finding_is_asked_of_guardduty(scene, pack, isolate):
    instance = scene.instance()
    event = scene.finding(instance, "ec2-malicious-ip-caller-inbound")  # which does not isolate
    guardduty.keep(event)

    succeeded, output = isolate(instance, event["detail"]["id"])

    assert succeeded and scene.is_isolated(instance), output
    assert scene.tags(instance)["forensic:finding"] == event["detail"]["id"]
    headline, message = told(pack)
    assert f"ID: {event['detail']['id']}: GuardDuty discovered" in headline
    assert "isolated by arn:aws:sts::" in headline and " by hand. " in headline
    denied = message["resources"][0]["c7n:response"][2]
    assert (denied["step"], denied["status"]) == ("block-remote-address", "done")

    succeeded, output = isolate(instance)
    assert succeeded and "Nothing had to be changed" in output
    assert "It was isolated already when arn:" in told(pack)[0]


def test_one_instance_of_an_attack_sequence(scene, pack, isolate, tmp_path):
    """That was held back, or of a type that does not isolate: a person says so."""
    instance = scene.instance()
    event = json.loads((SAMPLE.parent / "iam-sequence-credentials.json").read_text())
    resources = event["detail"]["service"]["detection"]["sequence"]["resources"]
    resources[1]["uid"] = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}"
    resources.append(resources[1] | {"uid": "i-0aaaaaaaaaaaaaaa1"})
    guardduty.keep(event)

    succeeded, output = isolate(instance, event["detail"]["id"])

    assert succeeded and scene.is_isolated(instance), output
    headline, message = told(pack)
    assert f"an EC2 instance (Instance ID: {instance}): Potential credential" in headline
    assert len(message["resources"]) == 1
    other = scene.instance()
    succeeded, output = isolate(other, event["detail"]["id"])
    assert not succeeded and not scene.is_isolated(other)
    assert f"is about '{instance}', 'i-0aaaaaaaaaaaaaaa1', not {other}. Nothing was" in output


@pytest.fixture
def chosen(scene):
    """The filter of the shipped policy: `chosen(instance, finding)` raises or lets it pass."""
    load_resources(["aws.ec2"])

    def choose(instance_id, finding):
        text = (ROOT / POLICY).read_text().replace("{finding}", str(finding))
        config = Config.empty(account_id=ACCOUNT, region=REGION)
        (policy,) = PolicyLoader(config).load_data(yaml.safe_load(text), "memory://")
        manager = policy.resource_manager
        manager.session_factory = lambda **_: scene.cloud.session(ACCOUNT, REGION)
        return manager.filters[-1].process([{"InstanceId": instance_id}])

    return choose


def test_a_finding_is_about_this_instance_of_this_account_and_region(scene, chosen, tmp_path):
    instance, other = "i-0abc1234def567890", "i-0abc1234def567891"
    file = tmp_path / "finding.json"

    def refusal(finding):
        with pytest.raises(PolicyExecutionError) as refused:
            chosen(instance, finding)
        return str(refused.value)

    def event(**detail):
        file.write_text(json.dumps(scene.finding(instance, **detail)))
        return file

    name = guardduty.keep(scene.finding(other))["id"]
    assert f"about '{other}', not {instance}. Nothing was changed" in refusal(name)
    assert f"of account {ACCOUNT} in {REGION} has no finding {'0' * 32}" in refusal("0" * 32)
    scene.cloud.fail("GetFindings", "BadRequestException")
    assert f"asked for {name}: BadRequestException" in refusal(name)
    assert "finding f1 is of 444455556666 us-west-2; this is 111122223333 us-west-2" in refusal(
        event(id="f1", accountId="444455556666")
    )
    assert "is of 111122223333 eu-west-1" in refusal(event(region="eu-west-1"))
    assert "is not the id of a finding" in refusal(event(id="../own"))
    assert "f1 has no type" in refusal(event(id="f1", type=None))
    assert "is a sample" in refusal(SAMPLE)
    assert "neither the id of a finding" in refusal("nothing.json")
    file.write_text("[]")
    assert "an empty list" in refusal(file)
    (passed,) = chosen(instance, event(id="f1"))
    assert passed["c7n:by-hand"]["event"]["detail"]["id"] == "f1"


def test_what_is_refused_changes_nothing(scene, pack, isolate):
    exempt = scene.instance(tags={"forensic:exempt": "yes"})
    before = scene.interfaces(exempt), scene.tags(exempt)

    succeeded, output = isolate(exempt)

    assert not succeeded and "Nothing was changed" in output
    assert f"--region {REGION} --resources {exempt} --tags Key=forensic:exempt" in output
    succeeded, output = isolate("i-0abc1234def567890")
    assert succeeded and "count:0" in output  # make says that it is not there
    assert (scene.interfaces(exempt), scene.tags(exempt)) == before and pack.messages() == []


def test_what_is_not_complete_can_be_gone_on_with(scene, pack, isolate):
    instance = scene.instance()
    # into a group that was just made it is tried once more
    scene.cloud.fail("ModifyNetworkInterfaceAttribute", "UnauthorizedOperation", times=2)

    succeeded, output = isolate(instance)

    assert not succeeded and "UnauthorizedOperation" in output
    headline, message = told(pack)
    assert "tried to isolate it by hand. It was NOT isolated." in headline
    name = scene.tags(instance)["forensic:finding"]
    assert isolate(instance, name)[0] and scene.is_isolated(instance)
    assert scene.tags(instance)["forensic:finding"] == name
