"""Runs tests of the folder it is started in, each time in a process that has imported all already.

Importing Custodian, moto and the pack takes longer than most tests. `python -m review.warm` reads a
JSON list of pytest's arguments from each line of its input, and answers with a line: the JSON text
of the first test that is red, null when none is; it begins with NO_TEST when no test could be run,
and ends with UNREAD when it is a file that could not be imported.
"""

import gc
import importlib
import json
import multiprocessing
import os
import sys

# seconds that the tests of a policy never take; what takes longer is red
TOO_LONG = 600
NO_TEST = "pytest:"
UNREAD = " (cannot be read)"
IMPORTED = (
    "_pytest.assertion.rewrite",
    "pytest",
    "simulation.deploy",
    "simulation.preloaded",
    "custom_actions.__main__",
    "deployment.__main__",
    "infra.permissions",
)


class FirstRed:
    """A plugin of pytest that keeps the first test or file that is red."""

    found = None

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.found = self.found or report.nodeid

    def pytest_collectreport(self, report):
        if report.failed:
            self.found = self.found or f"{report.nodeid}{UNREAD}"


def play(arguments: list[str], answers) -> None:
    """Run pytest here, silently, and send the first red test."""
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    first = FirstRed()
    code = pytest.main([*arguments, "-x", "-n", "0", "-p", "no:cacheprovider"], plugins=[first])
    quiet = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    answers.send(None if quiet else first.found or f"{NO_TEST} {code.name.lower()}")


def main() -> None:
    """Answer until the input ends."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # what was imported is there to stay: pytest looks for garbage after each run
    context = multiprocessing.get_context("fork")
    for line in sys.stdin:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=play, args=(json.loads(line), sender))
        child.start()
        sender.close()
        try:
            answer = receiver.recv() if receiver.poll(TOO_LONG) else f"more than {TOO_LONG} s"
        except EOFError:
            answer = f"{NO_TEST} its process died"
        child.join(1)
        child.kill()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
