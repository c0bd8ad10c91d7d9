"""What a deploy to many accounts prints stays short; to one, it has a line for each policy."""

import pytest

from deployment.everywhere import Result
from deployment.report import Done, report
from deployment.targets import Target

MODE = "changed: code, mode (observe -> contain)"
UNCHANGED = dict.fromkeys(("custodian-a", "custodian-b", "custodian-c"), Done(mode="observe"))
MIXED = UNCHANGED | {
    "custodian-b": Done(MODE, mode="contain"),
    "custodian-c": Done("changed: code", "PutRule: AccessDenied: no"),
    "custodian-d": Done("made", mode="observe"),
}


REFUSED = {"custodian-a": Done(error="no"), "custodian-b": Done(error="no")}
BOTH = REFUSED | {"custodian-a": Done("changed: code", error="no")}


def result(number, answer=None, error=None):
    account = {"account_id": str(number) * 12, "name": f"name-{number}", "role": "a role"}
    return Result(Target(account, "us-west-2"), answer, error)


def told(capsys, *results):
    with pytest.raises(SystemExit):
        report("Deploy", results, "the end")
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("│")] for line in lines]


def test_what_is_alike_is_one_line(capsys):
    lines = told(capsys, result(1, UNCHANGED), result(2, MIXED), result(3, error="no role"))
    assert lines[3:8] == [
        ["111111111111 (name-1)", "us-west-2", "observe", "all 3 unchanged"],
        ["222222222222 (name-2)", "us-west-2", "observe", f"b {MODE}"],
        ["", "", "contain: b", "c changed: code"],
        ["", "", "", "d made"],
        ["", "", "", "1 unchanged, 1 FAILED"],
    ]  # fmt: skip
    assert ["222222222222 (name-2)", "us-west-2", "c", "PutRule: AccessDenied: no"] in lines
    assert ["333333333333 (name-3)", "us-west-2", "all", "no role"] in lines
    assert lines[-1] == ["the end"]


def test_in_one_account_each_policy_has_its_line(capsys):
    lines = [" ".join(line[0].split()) for line in told(capsys, result(2, MIXED))]
    assert lines == [
        "Deploy: 222222222222 (name-2), us-west-2",
        "a observe unchanged",
        "b contain changed: code, mode (observe -> contain)",
        "c changed: code; FAILED: PutRule: AccessDenied: no",
        "d observe made",
        "the end",
    ]
    lines = [" ".join(line[0].split()) for line in told(capsys, result(3, error="no role"))]
    assert lines[:2] == ["Deploy: 333333333333 (name-3), us-west-2", "all FAILED: no role"]


def test_what_failed_was_not_left_as_it_was_and_a_reason_that_all_share_is_said_once(capsys):
    odd = result(1, {**REFUSED, "custodian-c": Done()})
    odd.target.account["name"] = "[red]odd\x1b[31m"
    with pytest.raises(SystemExit):
        report("Deploy", [odd, result(2, REFUSED), result(3, BOTH), result(4, UNCHANGED)])
    said = capsys.readouterr()
    lines = [[cell.strip() for cell in line.split("│")] for line in said.out.splitlines()]
    name, there = "111111111111 ([red]odd?[31m)", "us-west-2"
    assert [name, there, "", "1 unchanged, 2 FAILED"] in lines
    assert [[name, there, each, "no"] in lines for each in ("a", "b", "all")] == [1, 1, 0]
    assert ["222222222222 (name-2)", there, "", "2 FAILED"] in lines
    assert ["222222222222 (name-2)", there, "all", "no"] in lines
    assert said.err == "3 of 4 failed.\n"
    assert odd.target.label == name
    several = {"custodian-a": Done(error="no"), "custodian-b": Done(error="nor this")}
    lines = [" ".join(line[0].split()) for line in told(capsys, result(2, several))]
    assert lines[1:3] == ["a FAILED: no", "b FAILED: nor this"]
    lines = [" ".join(line[0].split()) for line in told(capsys, result(2, REFUSED))]
    assert lines[1:2] == ["all FAILED: no"]
    lines = [" ".join(line[0].split()) for line in told(capsys, result(2, BOTH))]
    assert lines[1:3] == ["a changed: code; FAILED: no", "b FAILED: no"]
