"""`make hammer`: the whole matrix and many schedules, with progress, a summary and an exit code.

A failure names its flow, call and trouble, or its plot and seed: what plays it again is said there.
"""

import argparse
import collections
import contextlib
import logging
import multiprocessing
import random
import sys
import time

import matrix
import schedules

PROCESSES = 2
stages = contextlib.ExitStack()
made = {}


def stage(make):
    """The theatre or the troupe of this process; only one of them is there at a time."""
    if make not in made:
        logging.disable(logging.CRITICAL)
        stages.close()
        made.clear()
        made[make] = stages.enter_context(make())
    return made[make]


def play(task):
    """What is wrong: with a cell, or with a plot and its seed."""
    try:
        if isinstance(task, matrix.Cell):
            return task, stage(matrix.theatre).flows[task.flow].play(task)
        return task, schedules.play(stage(schedules.troupe), *task)
    except Exception as error:  # noqa: BLE001 - told as any other failure
        logging.disable(logging.NOTSET)
        logging.getLogger().exception("%s", task)
        return task, [matrix.Failure("the test itself failed", f"{task}: {error!r}")]


def cells():
    return matrix.whole(stage(matrix.theatre))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flow", action="append", help="only this flow of the matrix")
    parser.add_argument("--kind", action="append", help="only this kind of trouble")
    parser.add_argument("--at", type=int, action="append", help="only the call of this number")
    parser.add_argument("--plot", action="append", help="only this plot")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--seeds", type=int, default=20, help="how many of each plot")
    parser.add_argument("--verbose", action="store_true", help="print each failure whole")
    sys.exit(report(parser.parse_args()))


def tasks(asked):
    found = []
    if not (asked.plot or asked.seed is not None):
        with multiprocessing.Pool(1) as pool:
            found += [
                cell
                for cell in pool.apply(cells)
                if (not asked.flow or cell.flow in asked.flow)
                and (not asked.kind or cell.kind in asked.kind)
                and (not asked.at or cell.at in asked.at)
            ]
    if not (asked.flow or asked.kind or asked.at):
        seeds = range(asked.seeds) if asked.seed is None else [asked.seed]
        found += [(plot, seed) for plot in asked.plot or schedules.PLOTS for seed in seeds]
    # of everything something soon; but first all of the matrix, since a process has one stage
    random.Random(0).shuffle(found)
    return sorted(found, key=lambda task: not isinstance(task, matrix.Cell))


def report(asked):
    """Play all of it; whether anything failed."""
    began, every = time.monotonic(), tasks(asked)
    held, failed, broken = collections.Counter(), collections.Counter(), collections.Counter()
    with multiprocessing.Pool(PROCESSES) as pool:
        for done, (task, failures) in enumerate(pool.imap_unordered(play, every, 4), 1):
            (failed if failures else held)[task[0]] += 1
            broken.update({failure.what for failure in failures})
            for failure in failures:
                print(failure.text if asked.verbose else shortened(failure.text), flush=True)
            if done % 50 == 0 or done == len(every):
                took = time.monotonic() - began
                print(f"{done}/{len(every)}, {failed.total()} failed, {took:.0f} s", flush=True)
    print()
    for name in dict.fromkeys(task[0] for task in every):
        print(f"{name}: {held[name]} held, {failed[name]} failed")
    for what, number in broken.most_common():
        print(f"{number} times: {what}")
    return bool(failed)


def shortened(text):
    return text.partition("\n")[0][:400]


if __name__ == "__main__":
    main()
