"""What the hostile tests play on, made once for each process."""

import logging

import matrix
import pytest
import schedules


@pytest.fixture(scope="module")
def quiet():
    """What fails on purpose is logged with its traceback, thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def theatre(quiet):
    with matrix.theatre() as one:
        yield one


@pytest.fixture(scope="module")
def troupe(quiet):
    with schedules.troupe() as one:
        yield one
