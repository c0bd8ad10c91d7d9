"""`make deploy MODE=observe`: the policy as shipped, told to change nothing."""

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"


@pytest.fixture(scope="module")
def observing(pack):
    deploy.deploy(pack.cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION, autonomy="observe")
    return pack


def test_nothing_is_changed_and_the_mail_says_so(observing, scene):
    instance = scene.instance(scene.groups, scene.groups[:1])
    before = scene.interfaces(instance), scene.tags(instance)
    groups = scene.ec2.describe_security_groups()["SecurityGroups"]
    scene.cloud.call_log.clear()

    invocation = observing.isolate(scene.finding(instance))

    assert invocation.error is None
    assert (scene.interfaces(instance), scene.tags(instance)) == before
    assert scene.ec2.describe_security_groups()["SecurityGroups"] == groups
    writes = [
        call.operation
        for call in scene.cloud.call_log.by("custodian-ec2-isolate")
        if not call.operation.startswith(("Describe", "List", "Get", "Assume"))
    ]
    assert writes == ["Publish"]
    (message,) = observing.messages()
    notice = message["event"]["c7n:notice"]
    assert notice["headline"].startswith("OBSERVE ONLY | GuardDuty Remediation | ID: ")
    assert "has been isolated" not in notice["headline"]
    assert notice["observe_only"] and not notice["isolated"]
    outcome = message["resources"][0]["c7n:response"][0]
    assert outcome["status"] == "planned" and len(outcome["interfaces"]) == 2


def test_an_exempt_instance_would_be_left_alone(observing, scene):
    instance = scene.instance(tags={"forensic:exempt": "yes"})

    observing.isolate(scene.finding(instance))

    (message,) = observing.messages()
    assert "forensic:exempt" in message["event"]["c7n:notice"]["headline"]
