"""A field that is missing in an answer costs the part that needs it, never the step.

Every field of every answer that a step reads is left out once, wherever it stands in the answer.
"""

import contextlib

import pytest
import stages
from wire import is_read

PYTHON_ERRORS = ("KeyError", "TypeError", "AttributeError", "IndexError", "ValueError")

each_step = pytest.mark.parametrize(
    "stage",
    [stages.Evidence, stages.Service, stages.InstanceSessions, stages.FindingSessions],
    ids=lambda s: f"{s.step}-{s.kind}",
)


@contextlib.contextmanager
def answers(play, change):
    """Hand every answer of a read to `change(call, answer)` before the step sees it."""

    def after(model, parsed, **kw):
        if is_read(f":{model.name}"):
            change(model.name, parsed)

    events = play.wire.session.events
    events.register("after-call.*.*", after)
    try:
        yield
    finally:
        events.unregister("after-call.*.*", after)


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


def away(one):
    """Clear the stage away at once: so many of them make each look long."""
    getattr(one.stage, "teardown", lambda: None)()
    one.stage.teardown = lambda: None


def fields_of(one, run):
    """(call, field) of everything that the step read."""
    found = {}

    def note(call, answer):
        if call not in ("GetRolePolicy",):  # what is in a policy is text, not fields
            found.update({(call, key): None for key in keys(answer) if key != "ResponseMetadata"})

    with answers(one, note):
        run()
    return list(found)


@each_step
def test_a_missing_field_is_named_and_the_next_run_completes(play, stage):
    clean = play(stage)
    fields = fields_of(clean, clean.step)
    end = clean.state()
    away(clean)
    for call, field in fields:
        one = play(stage)

        def leave_out(name, answer, call=call, field=field):
            if name == call:
                without(answer, field)

        with answers(one, leave_out):
            report = one.step()

        where = f"{call} without {field}"
        told = f"{report['error']} {report['detail']}"
        assert not any(name in told for name in PYTHON_ERRORS), (where, report)
        again = one.step()
        assert again["error"] is None and one.state() == end, (where, report, again)
        away(one)


@each_step
def test_a_revert_copes_with_a_missing_field(play, stage):
    clean = play(stage)
    clean.step()
    fields = fields_of(clean, clean.revert)
    away(clean)
    for call, field in fields:
        one = play(stage)
        one.step()

        def leave_out(name, answer, call=call, field=field):
            if name == call:
                without(answer, field)

        with answers(one, leave_out):
            report = one.revert()

        where = f"{call} without {field}"
        told = f"{report['error']} {report['detail']}"
        assert not any(name in told for name in PYTHON_ERRORS), (where, report)
        assert one.revert()["error"] is None, where
        assert one.state() == one.began, (where, report)
        away(one)


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
    with answers(one, lambda name, answer: name == call and without(answer, field)):
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
