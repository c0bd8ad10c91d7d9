"""Run a function in every account and region, and go on where one fails."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from c7n_org.cli import WORKER_COUNT
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployment.errors import reason

# A forked process has what this one has read and built; elsewhere each reads and builds anew.
FORK = multiprocessing.get_context("fork") if sys.platform == "linux" else None


@dataclass
class Result:
    """What came of it in one target: `answer` of the function, or the `error` in one line."""

    target: Any
    answer: Any = None
    error: str | None = None


def everywhere(function, targets, *arguments, doing="Working"):
    """Call `function(target, *arguments)` for each target, in c7n-org's number of processes.

    Returns a Result for each, in the order of the targets. The function and what it returns must
    be picklable. One target alone runs in this process. Progress is shown on a terminal.
    """
    if not targets:
        return []
    if len(targets) == 1:
        return [attempt(function, targets[0], *arguments)]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    console, results = Console(stderr=True), {}
    with ProcessPoolExecutor(min(WORKER_COUNT, len(targets)), FORK) as pool:
        pending = {
            pool.submit(attempt, function, target, *arguments): index
            for index, target in enumerate(targets)
        }
        # the bar has a thread: it begins when all processes have been forked
        bar = Progress(
            *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
        )
        with bar as progress:
            task = progress.add_task(doing, total=len(targets))
            for future in as_completed(pending):
                index = pending[future]
                try:
                    results[index] = future.result()
                except Exception as error:  # noqa: BLE001  a worker that died; the others go on
                    results[index] = Result(targets[index], error=reason(error))
                progress.advance(task)
    return [results[index] for index in range(len(targets))]


def attempt(function, target, *arguments):
    try:
        return Result(target, function(target, *arguments))
    except Exception as error:  # noqa: BLE001  becomes a row that a person reads
        return Result(target, error=reason(error))
