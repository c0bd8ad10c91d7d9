"""One call goes wrong, in each way: nothing is untrue, nothing is lost, the next run completes it.

A sample of the cells; all of them: `make hammer`.
"""

import matrix
import pytest
from clockwork import Trouble

FLOWS = {
    "swap": 8,  # the isolation itself
    "isolate": 2,
    "release": 3,
    "isolation-guard": 2,
    "forensic-group-guard": 2,
    "iam-role-revoke-sessions": 2,
    "iam-role-restore-sessions": 2,
    "finding-notify": 2,
}


@pytest.mark.parametrize("flow", FLOWS)
def test_whatever_happens_to_one_call_it_holds(theatre, flow):
    failures = [
        failure.text
        for cell in matrix.sample(theatre.flows[flow], FLOWS[flow])
        for failure in theatre.flows[flow].play(cell)
    ]

    assert not failures, "\n\n".join(failures)


# What was lost once, by the name of the call: not left to the sample.
ONCE = [
    ("isolate", "ec2:CreateNetworkAclEntry", "cut"),  # the deny was made, and its mark taken back
    ("isolate", "ec2:CreateSecurityGroup", "missing"),  # the next run forgot what the first did
    ("isolation-guard", "ec2:DescribeSecurityGroups", "missing"),  # a KeyError in a filter
]


@pytest.mark.parametrize("flow, call, kind", ONCE)
def test_what_was_lost_once_is_not_lost_again(theatre, flow, call, kind):
    one = theatre.flows[flow]
    cells = [cell for cell in one.cells() if (one.calls[cell.at], cell.kind) == (call, kind)]

    failures = [failure.text for cell in cells for failure in one.play(cell)]

    assert cells and not failures, "\n\n".join(failures)


def test_every_flow_is_played(theatre):
    assert set(theatre.flows) == set(FLOWS)


@pytest.mark.slow
def test_every_kind_of_trouble_strikes(theatre):
    """The matrix itself: each trouble comes to the call that it is meant for."""
    flow = theatre.flows["swap"]
    for cell in matrix.sample(flow, 8):
        trouble = Trouble(cell.at, cell.kind)
        flow.begin()
        flow.go(trouble)
        assert trouble.struck == flow.calls[cell.at], cell


@pytest.mark.slow
def test_what_is_recalled_is_what_aws_would_answer(theatre):
    """The theatre itself: with and without memory a run makes the same calls and the same end."""
    flow, memory = theatre.flows["isolate"], theatre.wire.aws
    ends = []
    for forget in (False, True):
        flow.begin()
        if forget:
            memory.answers.clear()
        ran = flow.go()
        ends.append((theatre.wire.calls, ran.text, theatre.scene.state()))
    assert ends[0] == ends[1]
