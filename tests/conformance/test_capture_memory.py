"""capture-memory, of several instances of one finding."""

import json
from types import SimpleNamespace

import stages
from c7n.config import Config
from c7n.policy import PolicyCollection

from custom_actions import deadline, timeline
from custom_actions.response import OUTCOMES
from custom_actions.steps import capture_memory
from simulation import ssm

SEND, ASK = "ssm:SendCommand", "ssm:GetCommandInvocation"


class Three(stages.Memory):
    """The command of the second is over soon, those of the others never are."""

    def setup(self):
        self.instances = [self.launch() for _ in range(3)]
        for number, instance in enumerate(self.instances):
            ssm.agent(stages.ACCOUNT, stages.REGION, instance, looks=2 if number == 1 else None)

    def resources(self):
        shown = self.ec2.describe_instances(InstanceIds=self.instances)["Reservations"]
        return [{"Tags": [], **each["Instances"][0]} for each in shown]


def test_several_instances_are_waited_for_together(aws, monkeypatch):
    """Else each would delay the isolation of all by a deadline of its own; and never too long."""
    now = [1000.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(capture_memory, "time", clock)
    stage, wire = Three(aws.client), aws.wire
    actions = [{"type": "capture-memory", "deadline": 60, **stage.data()}]
    policy = {"name": "three", "resource": "ec2", "actions": actions}
    options = Config.empty(account_id=stages.ACCOUNT, region=stages.REGION, output_dir="/dev/shm")
    (loaded,) = PolicyCollection.from_data({"policies": [policy]}, options, wire.factory)
    (action,) = loaded.resource_manager.actions
    resources = stage.resources()
    wire.calls = []
    timeline.begin()

    # of which a minute is the mail's, and two the isolation's: 20 s are left
    deadline.begin(SimpleNamespace(get_remaining_time_in_millis=lambda: 200_000))
    action.process(resources, stage.event)
    deadline.begin(None)

    sent = [number for number, call in enumerate(wire.calls) if call == SEND]
    assert len(sent) == 3 and wire.calls.index(ASK) > sent[-1]
    outcomes = [resource[OUTCOMES][0] for resource in resources]
    assert [one["status"] for one in outcomes] == ["skipped", "done", "skipped"]
    assert {one["delayed"] for one in outcomes} == {20} and now[0] == 1020
    assert "DescribeInstances" not in " ".join(wire.calls)
    for instance in stage.instances:  # each in its own case record
        sent_to = [c for c in timeline.of(instance) if c["operation"] == "SendCommand"]
        assert [c["parameters"]["InstanceIds"] for c in sent_to] == [[instance]]
    json.dumps(resources, default=str)  # as notify does
    assert not any(capture_memory.BEGUN in resource for resource in resources)

    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(action, "wait", broken)
    again = stage.resources()
    action.process(again, stage.event)
    assert [one[OUTCOMES][0]["status"] for one in again] == ["failed"] * 3
