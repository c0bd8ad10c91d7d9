"""A field that is missing in an answer costs the part that needs it, never the step.

Every field that the step's modules name is left out of each answer once, wherever it stands there.
"""

import contextlib
import inspect
import json
import re

import pytest
import stages
from wire import is_read, registered

from custom_actions import instance
from custom_actions.instance import OfInstance
from custom_actions.response import Step

LEFT_OUT = ("Ebs",)  # a device without it is an instance store
PYTHON_ERRORS = ("KeyError", "TypeError", "AttributeError", "IndexError", "ValueError")

pytestmark = pytest.mark.slow

each_step = pytest.mark.parametrize(
    "stage",
    [stages.Evidence, stages.Service, stages.InstanceSessions, stages.FindingSessions],
    ids=lambda s: f"{s.step}-{s.kind}",
)


@contextlib.contextmanager
def answers(play, change):
    """Hand every answer of a read to `change(call, answer)` before the step sees it."""

    play.wire.edit = lambda name, answer: change(name, answer) if is_read(f":{name}") else None
    try:
        yield
    finally:
        play.wire.edit = None


def keys(node):
    """All names of fields in an answer."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from keys(value)


def without(node, key):
    if isinstance(node, dict):
        node.pop(key, None)
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list):
            without(value, key)


def alike(state, end):
    """Whether two states are the same but for the order of words and a second set of snapshots."""
    return sorted(without_order(state)) == sorted(without_order(end))


def without_order(state):
    text = re.sub(r'"forensic:snapshots(:\d)?": "[^"]*"(, )?', "", json.dumps(state))
    return re.sub(r"#\d+", "", text)


def leaving_out(one, call, field):
    return answers(one, lambda name, answer: name == call and without(answer, field))


def fields_of(one, run):
    """(call, field) of everything that the step read."""
    found = {}
    step = registered(Step)[one.stage.kind, one.stage.step]
    modules = {inspect.getmodule(cls) for cls in step.__mro__ if issubclass(cls, OfInstance)}
    modules |= {inspect.getmodule(step), instance}
    sources = "".join(map(inspect.getsource, sorted(modules, key=str)))

    def note(call, answer):
        found.update({(call, key): None for key in keys(answer) if f'"{key}"' in sources})

    with answers(one, note):
        run()
    return [(call, field) for call, field in found if field not in LEFT_OUT]


@each_step
def test_a_missing_field_is_named_and_the_next_run_completes(play, stage):
    one = play(stage)  # one for all, which the revert brings back each time
    fields = fields_of(one, one.step)
    end = one.state()
    one.revert()
    for call, field in fields:
        with leaving_out(one, call, field):
            report = one.step()

        where = f"{call} without {field}"
        told = f"{report['error']} {report['detail']}"
        assert not any(name in told for name in PYTHON_ERRORS), (where, report)
        again = one.step()
        assert again["error"] is None and alike(one.state(), end), (where, report, again)
        assert one.revert()["error"] is None and one.state() == one.began, where


@each_step
def test_a_revert_copes_with_a_missing_field(play, stage):
    one = play(stage)
    one.step()
    for call, field in fields_of(one, one.revert):
        one.step()
        with leaving_out(one, call, field):
            report = one.revert()

        where = f"{call} without {field}"
        told = f"{report['error']} {report['detail']}"
        assert not any(name in told for name in PYTHON_ERRORS), (where, report)
        assert one.revert()["error"] is None and one.state() == one.began, (where, report)


@pytest.mark.parametrize(
    "call, field",
    [
        ("DescribeTargetGroups", "TargetType"),
        ("DescribeTargetHealth", "TargetHealth"),
        ("DescribeLoadBalancers", "LoadBalancerDescriptions"),
        ("DescribeLoadBalancers", "Instances"),
        ("DescribeInstances", "VpcId"),
        ("DescribeAutoScalingGroups", "SuspendedProcesses"),
    ],
)
def test_the_group_is_left_whatever_the_load_balancers_answer(play, call, field):
    one = play(stages.Service)
    with leaving_out(one, call, field):
        one.step()

    assert not one.state()["member"]


def test_one_odd_target_group_does_not_lose_the_others(play):
    one = play(stages.Service)
    stage = one.stage
    odd = stage.elbv2.create_target_group(
        Name="odd", Protocol="HTTP", Port=80, VpcId=stage.shared["vpc"]
    )["TargetGroups"][0]["TargetGroupArn"]

    def make_odd(name, answer):
        for group in answer.get("TargetGroups", ()):
            if group["TargetGroupName"] == "odd":
                del group["TargetType"]

    with answers(one, make_odd):
        report = one.step()
    stage.elbv2.delete_target_group(TargetGroupArn=odd)

    assert report["status"] == "failed" and "target group odd: UnexpectedAnswer" in report["error"]
    assert one.state()["targets"] == []


@pytest.mark.parametrize("call", ["DescribeInstanceAttribute", "DescribeSnapshots"])
def test_evidence_is_kept_whatever_one_answer_lacks(play, call):
    one = play(stages.Evidence)
    with answers(one, lambda name, answer: name == call and answer.clear()):
        one.step()

    assert one.extra() == 2 and not any(deleted for _, deleted in one.state()["volumes"])
