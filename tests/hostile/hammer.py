"""`make hammer`: the whole matrix and many schedules, with progress, a summary and an exit code."""

import argparse
import collections
import logging
import multiprocessing
import sys
import time

import matrix

PROCESSES = 2


def begin():
    """In each process: a theatre of its own, kept until the process ends."""
    global context, stage
    logging.disable(logging.CRITICAL)
    context = matrix.theatre()
    stage = context.__enter__()


def play(cell):
    try:
        return cell, stage.flows[cell.flow].play(cell)
    except Exception as error:  # noqa: BLE001 - told as any other failure
        logging.disable(logging.NOTSET)
        logging.getLogger().exception("%s", cell)
        return cell, [matrix.Failure("the test itself failed", f"{cell}: {error!r}")]


def cells_of(flows):
    with matrix.theatre() as one:
        return [cell for cell in matrix.whole(one) if not flows or cell.flow in flows]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flow", action="append", help="only this flow of the matrix")
    parser.add_argument("--kind", action="append", help="only this kind of trouble")
    parser.add_argument("--at", type=int, action="append", help="only the call of this number")
    parser.add_argument("--verbose", action="store_true", help="print each failure whole")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with multiprocessing.Pool(1) as pool:
        cells = pool.apply(cells_of, [asked.flow])
    cells = [c for c in cells if not asked.kind or c.kind in asked.kind]
    cells = [c for c in cells if not asked.at or c.at in asked.at]
    sys.exit(report(cells, asked))


def report(cells, asked):
    began, counts, failures = time.monotonic(), collections.Counter(), []
    with multiprocessing.Pool(PROCESSES, begin) as pool:
        for done, (cell, found) in enumerate(pool.imap_unordered(play, cells, 4), 1):
            counts[cell.flow, bool(found)] += 1
            failures += found
            for failure in found:
                print(failure.text if asked.verbose else first_line(failure.text), flush=True)
            if done % 50 == 0 or done == len(cells):
                took = time.monotonic() - began
                bad = sum(n for (_, is_bad), n in counts.items() if is_bad)
                print(f"{done}/{len(cells)} cells, {bad} failed, {took:.0f} s", flush=True)
    print()
    groups = collections.Counter(failure.what for failure in failures)
    for what, number in groups.most_common():
        print(f"{number} times: {what}")
    print()
    for flow in dict.fromkeys(flow for flow, _ in counts):
        print(f"{flow}: {counts[flow, False]} held, {counts[flow, True]} failed")
    return bool(failures)


def first_line(text):
    return text.partition("\n")[0][:400]


if __name__ == "__main__":
    main()
