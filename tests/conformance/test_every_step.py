"""What holds for every step, whatever it does.

Steps and reverts are found in Custodian's registry; a new one without a stage fails the first
test. What is peculiar to one is in the tests of its policy.
"""

import pytest
from stages import STAGES
from wire import Died, Wire, is_read, points_of_death, refusing_write, registered

from custom_actions.response import Revert, Step

each_step = pytest.mark.parametrize(
    "stage",
    [
        pytest.param(s, id=f"{s.step}-{s.kind}", marks=[pytest.mark.slow] if s.slow else [])
        for s in STAGES
    ],
)
# Calls whose answer the step needs: to swallow them is not to lie about what was done.
ANSWERED = ("CreateSnapshots", "CreateSecurityGroup")


def test_every_registered_step_has_a_stage():
    steps = {(stage.kind, stage.step) for stage in STAGES}
    reverts = {(stage.revert_kind, stage.revert) for stage in STAGES if stage.revert}
    for (kind, name), action in registered(Step).items():
        known = reverts if issubclass(action, Revert) else steps
        assert (kind, name) in known, (
            f"{name} on {kind} has no stage: add one to tests/conformance/stages.py, and name the "
            "revert there"
        )


def test_every_step_has_a_revert_or_says_why_not():
    for stage in STAGES:
        if stage.revert is None:
            doc = registered(Step)[stage.kind, stage.step].__doc__
            assert "There is no revert" in doc, f"{stage.step} has no revert and does not say why"


@each_step
def test_it_does_what_it_says_and_twice_changes_nothing(play, stage):
    for variant in stage.variants:
        one = play(stage, **variant)

        first = one.step()

        assert first["status"] == "done" and first["error"] is None, first
        done = one.state()
        assert done != one.began
        again = one.step()
        assert again["status"] == "unchanged", again
        assert one.writes == [] and one.state() == done
        assert again["facts"] == first["facts"]


@each_step
def test_a_dry_run_writes_nothing(play, stage):
    one = play(stage)

    plan = one.step(dryrun=True)

    assert plan["status"] == "planned" and plan["detail"].startswith("Would "), plan
    assert one.writes == [] and one.state() == one.began


@each_step
def test_one_refusal_is_named_the_rest_is_done_and_the_next_run_completes_it(play, stage):
    clean = play(stage)
    clean.step()
    writes, end, extra = clean.writes, clean.state(), clean.extra()
    for number in range(len(writes)):
        if clean.is_record(writes[number]):
            continue
        one = play(stage)

        report = one.step(fault=refusing_write(number))

        assert report["status"] == "failed", (writes[number], report)
        assert "UnauthorizedOperation" in report["error"]
        if not stage.one_change:
            tried = [w for w in one.writes if not one.is_record(w)]
            possible = [w for w in writes if stage.follows.get(w) != writes[number]]
            assert sorted(tried) == sorted(w for w in possible if not one.is_record(w))
        assert one.step()["status"] == "done"
        assert (one.state(), one.extra()) == (end, extra), writes[number]


@each_step
def test_a_refused_record_is_named_and_all_is_done(play, stage):
    clean = play(stage)
    clean.step()
    if not any(map(clean.is_record, clean.writes)):
        pytest.skip("it needs no record")
    one = play(stage)

    report = one.step(fault=lambda _, call: "TagLimitExceeded" if one.is_record(call) else None)

    assert report["status"] == "failed" and "TagLimitExceeded" in report["error"]
    done = [w for w in clean.writes if not clean.is_record(w)]
    assert [w for w in one.writes if not one.is_record(w)] == done


@each_step
def test_a_write_that_is_answered_and_not_done_is_not_called_done(play, stage):
    one = play(stage)

    def swallow(_, call):
        lies = not is_read(call) and not one.is_record(call) and not call.endswith(ANSWERED)
        return Wire.SWALLOW if lies else None

    report = one.step(fault=swallow)

    assert report["status"] == "failed", report
    assert not report.get("isolated") and not report.get("revoked")


@each_step
def test_dying_after_any_call_is_completed_by_the_next_run_and_reverted(play, stage):
    # of the other variants only isolate-instance's makes other calls
    for variant in stage.variants[: 2 if stage.step == "isolate-instance" else 1]:
        clean = play(stage, **variant)
        clean.step()
        calls, end, extra = clean.calls, clean.state(), clean.extra()
        for last in points_of_death(calls):
            one = play(stage, **variant)
            with pytest.raises(Died):
                one.step(last=last)

            report = one.step()

            where = f"after {last}. {calls[last]}"
            assert report["error"] is None, (where, report)
            assert one.state() == end and one.extra() == extra, where
            if stage.revert:
                assert one.revert()["error"] is None, where
                assert one.state() == one.began, where


@each_step
def test_the_calls_of_the_step_are_its_permissions(play, stage):
    made = set()
    for variant in stage.variants:
        one = play(stage, **variant)
        one.step()
        made |= set(one.calls)
        one.step()
        made |= set(one.calls)

    assert made | set(stage.rare) == set(registered(Step)[stage.kind, stage.step].permissions)
