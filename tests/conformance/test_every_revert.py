"""What holds for every revert, whatever it puts back. Its step is run before it."""

import pytest
from stages import STAGES
from wire import Died, Wire, is_read, points_of_death, refusing_write, registered

from custom_actions.response import Step

each_revert = pytest.mark.parametrize(
    "stage",
    [stage for stage in STAGES if stage.revert],
    ids=lambda s: f"{s.revert}-{s.revert_kind}",
)


@each_revert
def test_the_revert_puts_back_exactly_what_was(play, stage):
    for variant in stage.variants:
        one = play(stage, **variant)
        one.step()

        report = one.revert()

        assert report["status"] == "done", report
        assert one.state() == one.began


@each_revert
def test_a_revert_without_a_record_changes_nothing(play, stage):
    one = play(stage)

    report = one.revert()

    assert report["status"] == "unchanged", report
    assert one.writes == [] and one.state() == one.began


@each_revert
def test_a_dry_run_of_the_revert_writes_nothing(play, stage):
    one = play(stage)
    one.step()
    done = one.state()

    plan = one.revert(dryrun=True)

    assert plan["status"] == "planned" and plan["detail"].startswith("Would "), plan
    assert one.writes == [] and one.state() == done


@each_revert
def test_a_refused_revert_is_named_keeps_the_record_and_can_be_run_again(play, stage):
    clean = play(stage)
    clean.step()
    clean.revert()
    writes = clean.writes
    for number in range(len(writes)):
        one = play(stage)
        one.step()

        report = one.revert(fault=refusing_write(number))

        if "UnauthorizedOperation" in (report.get("stays") or ""):
            continue  # all is back, but for what the report says
        assert report["status"] == "failed", (writes[number], report)
        assert "UnauthorizedOperation" in report["error"]
        assert one.revert()["status"] == "done", writes[number]
        assert one.state() == one.began, writes[number]


@each_revert
def test_a_revert_that_dies_after_any_call_is_completed_by_the_next_run(play, stage):
    clean = play(stage)
    clean.step()
    clean.revert()
    calls = clean.calls
    for last in points_of_death(calls):
        one = play(stage)
        one.step()
        with pytest.raises(Died):
            one.revert(last=last)

        report = one.revert()

        where = f"after {last}. {calls[last]}"
        assert report["error"] is None, (where, report)
        assert one.state() == one.began, where


@each_revert
def test_a_revert_that_is_answered_and_not_done_keeps_the_record(play, stage):
    one = play(stage)
    one.step()

    def swallow(_, call):
        return Wire.SWALLOW if not is_read(call) and not one.is_record(call) else None

    report = one.revert(fault=swallow)

    assert report["status"] == "failed", report
    assert one.revert()["status"] == "done"
    assert one.state() == one.began


@each_revert
def test_the_calls_of_the_revert_are_its_permissions(play, stage):
    made = set()
    for variant in stage.variants:
        one = play(stage, **variant)
        one.step()
        one.revert()
        made |= set(one.calls)

    assert made == set(registered(Step)[stage.revert_kind, stage.revert].permissions)
