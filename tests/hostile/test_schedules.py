"""Several invocations at once, call by call. A few seeds; hundreds of them: `make hammer`."""

import pytest
import schedules

SEEDS = range(1)


@pytest.mark.parametrize("plot", schedules.PLOTS)
def test_in_whatever_order_the_calls_come_it_holds(troupe, plot):
    failures = [failure.text for seed in SEEDS for failure in schedules.play(troupe, plot, seed)]

    assert not failures, "\n\n".join(failures)


def test_a_seed_decides_the_order(troupe):
    """The schedules themselves: a seed that failed fails again, and another one is another."""

    def order(seed):
        troupe.wire.aws.thaw(troupe.clean)
        plot = schedules.PLOTS["two findings of one instance"]
        return schedules.together(troupe.wire, plot.invocations(troupe), seed) and [
            *troupe.wire.order
        ]

    assert order(1) == order(1) != order(2)
