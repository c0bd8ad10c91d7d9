"""Custodian's own actions beside the pack's: withheld, reported; nothing behind them is lost."""

from pathlib import Path

import pytest
from c7n.config import Config
from c7n.loader import PolicyLoader
from c7n.resources import load_resources

from custom_actions import builtin
from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"
ROOT = Path(__file__).parents[2]
FUNCTION = "custodian-ec2-isolate"
NOTICE = "c7n:notice"
BUILT_IN = "ModifyInstanceMetadataOptions"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """ec2-isolate with a built-in action between its steps, and one that is spelt as a word."""
    path = tmp_path_factory.mktemp("policies") / "ec2-isolate.yml"
    shipped = (ROOT / "policies" / "ec2-isolate.yml").read_text()
    added = "      - {type: set-metadata-access, tokens: required}\n      - stop\n"
    path.write_text(shipped.replace("      - leave-service\n", f"{added}      - leave-service\n"))
    return path


@pytest.fixture(scope="module")
def contain(pack, policy):
    deploy.deploy(pack.cloud, [policy], ACCOUNT, REGION)


@pytest.fixture(scope="module")
def observe(pack, policy):
    deploy.deploy(pack.cloud, [policy], ACCOUNT, REGION, autonomy="observe")


def told(scene, step):
    """The outcome of a step in the one mail, and its headline."""
    (message,) = scene.pack.messages()
    outcomes = {o["step"]: o for o in message["resources"][0]["c7n:response"]}
    assert "preserve-evidence" in outcomes
    return outcomes[step], message["event"][NOTICE]["headline"]


def calls(scene):
    return [c.operation for c in scene.cloud.call_log.by(FUNCTION)]


def test_it_runs_where_the_pack_contains_and_not_on_an_exempt_instance(contain, scene):
    instance, exempt = scene.instance(), scene.instance(tags={"forensic:exempt": "yes"})

    assert scene.pack.isolate(scene.finding(instance)).error is None

    assert calls(scene).count(BUILT_IN) == 1 and "StopInstances" in calls(scene)
    assert told(scene, "set-metadata-access")[0]["status"] == "done"

    scene.cloud.call_log.clear()
    assert scene.pack.isolate(scene.finding(exempt)).error is None
    assert BUILT_IN not in calls(scene) and "StopInstances" not in calls(scene)
    assert told(scene, "stop")[0]["status"] == "exempt"


def test_one_that_is_refused_is_named_and_the_steps_behind_it_run(contain, scene):
    instance = scene.instance()
    scene.cloud.fail(BUILT_IN, "UnauthorizedOperation")

    invocation = scene.pack.isolate(scene.finding(instance))

    assert "step:set-metadata-access error:UnauthorizedOperation" in str(invocation.error)
    assert scene.is_isolated(instance) and "CreateSnapshots" in calls(scene)
    outcome, headline = told(scene, "set-metadata-access")
    assert outcome["status"] == "failed"
    assert "UnauthorizedOperation" in outcome["error"]
    assert "NOT COMPLETE: set-metadata-access failed." in headline


def test_what_tells_stops_nothing_behind_it_and_fails_the_run_in_every_mode(pack, policy, scene):
    """A topic that is gone, before all steps: the instance is isolated, and its mail names it."""
    gone = "{type: notify, to: [a@example.com], transport: {type: sns, topic: gone}}"
    path = policy.with_name("telling.yml")
    first = "      - type: isolate-instance\n"
    text = policy.read_text().replace("name: ec2-isolate\n", "name: telling\n")
    path.write_text(text.replace(first, f"      - {gone}\n{first}"))
    for mode, isolates in (("observe", False), ("contain", True)):
        deploy.deploy(pack.cloud, [path], ACCOUNT, REGION, autonomy=mode)
        instance = scene.instance()

        event = scene.finding(instance)
        invocation = scene.cloud.invoke("custodian-telling", event, ACCOUNT, REGION)

        assert "step:notify error:NotFound" in str(invocation.error), mode
        assert scene.is_isolated(instance) is isolates
        assert told(scene, "notify")[0]["status"] == "failed"


def test_it_is_planned_where_the_pack_observes(observe, scene):
    instance = scene.instance()

    assert scene.pack.isolate(scene.finding(instance)).error is None

    assert not {BUILT_IN, "StopInstances"} & set(calls(scene))
    outcome, headline = told(scene, "stop")
    assert (outcome["status"], outcome["detail"]) == ("planned", "Would run stop.")
    assert headline.startswith("OBSERVE ONLY | ")


def test_what_it_raised_is_a_failed_run_without_fail_unless_complete_too():
    load_resources(["aws.ec2"])
    actions = ["isolate-instance", "stop"]
    data = {"policies": [{"name": "short", "resource": "ec2", "actions": actions}]}
    config = Config.empty(account_id=ACCOUNT, region=REGION)
    (policy,) = PolicyLoader(config).load_data(data, "memory://")
    manager = policy.resource_manager

    for _ in range(2):
        builtin.hold(manager)
        assert [a.type for a in manager.actions] == [*actions, "fail-unless-complete"]
