"""`make demo`: findings go through the deployed pack, one after the other, and each story is told.

    python -m simulation.demo [FINDING.json | FOLDER ...] [--mode observe|ask|contain]
                              [--verbose] [--output FOLDER]

Exit code 0 when all went as the finding and the mode ask for: an instance that ec2-isolate took on
is isolated as read back here (of an attack sequence each that was not held back, and is there), no
neighbour has changed, each mail that was due has arrived, and after the release everything is as it
was. In observe and ask nothing has changed; in ask the command of the mail is then run, as a person
would. A finding that no policy acts on changes nothing. 1 when not, 2 when a file is no finding:
then nothing is played.

The playing is in simulation/playing.py, what happened in happened.py, what is compared in
judging.py, how a line looks in story.py. Processes that are forked for a deploy import this module
again, so it imports the cloud late.
"""

import argparse
import sys
from multiprocessing import forkserver
from pathlib import Path

from custom_actions import autonomy
from custom_actions.finding_file import NotAFinding, read_findings
from custom_actions.words import one_line

HERE = Path(__file__).parent
SCENARIO = HERE / "scenario.json"


def read(words):
    """[(name, event)] of all findings of files and folders; of a folder its *.json.

    words: as a person says them to make, which hands on several as one. What is no finding: all of
    it in one NotAFinding, a line each.
    """
    found, wrong = [], []
    for path in files(words):
        try:
            events = read_findings(path)
        except NotAFinding as error:
            wrong.append(one_line(error))
        except OSError as error:
            wrong.append(f"{path}: {error.strerror}")
        else:
            several = len(events) > 1
            found += [
                (f"{path.stem}-{number}" if several else path.stem, event)
                for number, event in enumerate(events, 1)
            ]
    if wrong or not found:
        raise NotAFinding("\n".join(wrong) or f"{' '.join(words)}: no file *.json in it")
    return found


def files(words):
    paths = []
    for word in words:
        paths += [Path(word)] if Path(word).exists() else [Path(one) for one in word.split()]
    for path in paths:
        yield from sorted(path.rglob("*.json")) if path.is_dir() else [path]


def main():
    parser = argparse.ArgumentParser(prog="python -m simulation.demo")
    parser.add_argument("findings", nargs="*", metavar="FINDING.json or FOLDER")
    parser.add_argument("--mode", choices=autonomy.WORDS, default=autonomy.CONTAIN)
    parser.add_argument("--verbose", action="store_true", help="every AWS call and all details")
    parser.add_argument("--output", type=Path, default=Path("output/demo"))
    arguments = parser.parse_args()
    try:
        found = read(arguments.findings or [str(SCENARIO)])
    except NotAFinding as error:
        print(error, file=sys.stderr)
        return 2
    # what a deploy is forked from imports Custodian, while this process imports moto
    forkserver.set_forkserver_preload(["simulation.preloaded"])
    own = not arguments.findings
    try:
        forkserver.ensure_running()
        from .playing import play_all

        return play_all(found, arguments.output, arguments.mode, arguments.verbose, new=own)
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing of it goes on running.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
