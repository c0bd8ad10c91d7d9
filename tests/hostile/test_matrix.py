"""One call goes wrong, in each way: nothing is untrue, nothing is lost, the next run completes it.

A sample of the cells; all of them: `make hammer`.
"""

import matrix
import pytest
from clockwork import Trouble

FLOWS = (
    "swap",
    "isolate",
    "release",
    "isolation-guard",
    "forensic-group-guard",
    "iam-role-revoke-sessions",
    "iam-role-restore-sessions",
    "finding-notify",
)


@pytest.mark.parametrize("flow", FLOWS)
def test_whatever_happens_to_one_call_it_holds(theatre, flow):
    failures = [
        failure.text
        for cell in matrix.sample(theatre.flows[flow])
        for failure in theatre.flows[flow].play(cell)
    ]

    assert not failures, "\n\n".join(failures)


def test_every_flow_is_played(theatre):
    assert set(theatre.flows) == set(FLOWS)


def test_every_kind_of_trouble_strikes(theatre):
    """The matrix itself: each cell's trouble comes to the call that it is meant for."""
    flow = theatre.flows["swap"]
    for cell in flow.cells():
        trouble = Trouble(cell.at, cell.kind)
        flow.begin()
        flow.go(trouble)
        assert trouble.struck == flow.calls[cell.at], cell
