"""Plays run in this process; their functions are forked from the server that all tests use."""

from multiprocessing import forkserver

import pytest


@pytest.fixture(scope="session", autouse=True)
def the_server_of_all_tests():
    forkserver.ensure_running()
