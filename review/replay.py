"""`make replay`: what the policies do with findings, played on this machine.

Takes EventBridge events and findings as `aws guardduty get-findings` prints them, one or many in a
file, or a folder of such files. Exit code 1 when a file holds no finding, or a function failed; 2
when there is no finding at all.
"""

import itertools
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from custom_actions import autonomy
from custom_actions.finding_file import NotAFinding, read_findings
from deployment.errors import Refused, printable
from deployment.targets import ROOT
from simulation import in_place

EACH = 4  # findings that are worth a process of their own
LONGEST = 400  # characters of the parameters of a call, on a terminal


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--mode", type=click.Choice(autonomy.WORDS), default=autonomy.CONTAIN)
@click.option("--calls", is_flag=True, help="List the calls to AWS of many findings too.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for machines.")
def replay(path, mode, calls, as_json):
    """Play a finding, or all of a folder, through every policy. Never touches AWS."""
    told = replayed(path, ROOT, mode)
    if not any("policies" in one for one in told):
        said = "\n".join(one["problem"] for one in told)
        raise Refused(said or f"{path} has no file *.json.")
    if as_json:
        click.echo(json.dumps(told, indent=2, default=str))
    else:
        show(told, calls or len(told) == 1)
    failed = [one for one in told if one["problem"] or errors(one)]
    raise SystemExit(1 if failed else 0)


def replayed(path: Path, root: Path = ROOT, mode: str = autonomy.CONTAIN) -> list[dict]:
    """What `Stage.play` returns for each finding of a file or of the *.json of a folder, with
    `finding`, its name: the path of its file, in the folder, and its number among several there.

    A file that holds no finding has `finding` and `problem`, a sentence, alone. root: see Stage.
    """
    found = read(path)
    played = play([one["event"] for one in found if "event" in one], root, mode)
    return [
        {"finding": one["finding"]} | (next(played) if "event" in one else one) for one in found
    ]


def read(path: Path) -> list[dict]:
    """What a file or the *.json of a folder hold: {finding, event} or {finding, problem}."""
    found = []
    for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
        name = file.relative_to(path).as_posix() if path.is_dir() else str(file)
        try:
            events = read_findings(file)
        except NotAFinding as error:
            found.append({"finding": name, "problem": str(error)})
            continue
        except OSError as error:
            found.append({"finding": name, "problem": f"{file}: {error.strerror}."})
            continue
        for number, event in enumerate(events, 1):
            several = f" [{number}]" if len(events) > 1 else ""
            found.append({"finding": name + several, "event": event})
    return found


def play(events: list[dict], root: Path, mode: str) -> Iterator[dict]:
    """What `Stage.play` returns for each, in their order."""
    if not events:
        return
    processes = min(os.cpu_count() or 1, -(-len(events) // EACH))
    if processes == 1:
        yield from _play_some(events, root, mode)
        return
    shares = [events[number::processes] for number in range(processes)]
    # Forked before there is a thread or a server; dealt out in turn: what is alike takes as long.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, fork) as pool:
        answers = pool.map(partial(_play_all, root=root, mode=mode), shares)
        for turn in itertools.zip_longest(*answers):
            yield from (told for told in turn if told is not None)


def _play_all(events: Iterable[dict], root: Path, mode: str) -> list[dict]:
    return list(_play_some(events, root, mode))


def _play_some(events: Iterable[dict], root: Path, mode: str) -> Iterator[dict]:
    in_place.start_server()
    from .play import Stage  # half of the time of one finding; the server imports meanwhile

    with Stage(root, mode) as stage:
        for event in events:
            yield stage.play(event)


def errors(told: dict) -> list[str]:
    """What failed: functions, and mails that somebody does not get."""
    return [
        *(f"{name}: {of['error']}" for name, of in told.get("policies", {}).items() if of["error"]),
        *(
            f"{name}: not mailed: {problem}"
            for name, of in told.get("policies", {}).items()
            for mail in of["mails"]
            for problem in mail["problems"]
        ),
    ]


# On a terminal


def show(plays: list[dict], calls: bool) -> None:
    """A table for each finding; with all calls, or their number."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for told in plays:
        console.print()
        console.rule(_text(told["finding"], "bold"), align="left")
        if told["problem"]:
            console.print(_text(told["problem"], "red"))
        if not told.get("policies"):
            continue
        console.print(_text(f"{told['type']}, account {told['account']} {told['region']}"))
        console.print(_text(verdict(told), "bold"))
        for oddity in told["oddities"]:
            console.print(_text(f"not as GuardDuty writes it: {oddity}", "yellow"))
        console.print(_table(told["policies"], console.is_terminal))
        if calls:
            for name, of in told["policies"].items():
                if of["calls"]:
                    console.print(_calls(name, of["calls"]))
    console.print()
    console.print(_text(SIMULATED, "dim"))


SIMULATED = (
    "Played in the simulation: nothing was asked of AWS. What that cannot show: docs/review.md."
)


def verdict(told: dict) -> str:
    """The end of it in a sentence."""
    mails = sum(bool(mail["to"]) for of in told["policies"].values() for mail in of["mails"])
    said = f"Isolated: {', '.join(told['isolated'])}." if told["isolated"] else "Nothing isolated."
    others = sorted(set(told["regrouped"]) - set(told["isolated"]))
    said += f" Groups changed: {', '.join(others)}." if others else ""
    said += f" {mails} mail{'' if mails == 1 else 's'}."
    return " ".join([said, *(f"FAILED: {error}" for error in errors(told))])


def _table(policies: dict, is_terminal: bool) -> Table:
    table = Table(**({} if is_terminal else {"box": box.ASCII}), show_lines=True)
    for column in ("policy", "rule", "filters", "actions", "mails"):
        table.add_column(column, overflow="fold")
    for name, of in policies.items():
        if of["unmatched"]:
            table.add_row(_text(name), _text("no: " + "\n".join(of["unmatched"]), "dim"))
            continue
        stopped = _text(f"stopped: {of['stopped']}", "yellow") if of["stopped"] else _text("passed")
        table.add_row(
            _text(name), _text("matches"), stopped, Group(*_actions(of)), Group(*_mails(of))
        )
    return table


def _actions(of: dict) -> Iterator[Text]:
    for resource, steps in itertools.groupby(of["steps"], lambda one: one.get("resource")):
        if resource:
            yield _text(resource, "bold")
            yield from _in_short([*steps])
            continue
        for outcome in steps:
            yield _step(outcome)
            yield Padding(_text(outcome["error"] or outcome["detail"], "dim"), (0, 0, 0, 2))
    if of["error"]:
        yield _text(f"FAILED: {of['error']}", "red")
    if of["calls"]:
        yield _text(f"{len(of['calls'])} calls to AWS", "dim")


def _in_short(steps: list[dict]) -> Iterator[Text]:
    """Of one resource of several: what failed, and what the first step says for all of them."""
    first, *others = steps
    for outcome in (first, *(one for one in others if one["status"] != first["status"])):
        yield _step(outcome)
        if outcome is first or outcome["error"]:
            yield Padding(_text(outcome["error"] or outcome["detail"], "dim"), (0, 0, 0, 2))


def _step(outcome: dict) -> Text:
    style = "red" if outcome["status"] == "failed" else "green"
    return _text(f"{outcome['step']}: {outcome['status']}", style)


def _mails(of: dict) -> Iterator[Text]:
    for mail in of["mails"]:
        yield _text(mail["subject"])
        if mail["to"]:
            yield Padding(_text("to " + ", ".join(mail["to"]), "dim"), (0, 0, 0, 2))
        for problem in mail["problems"]:
            yield _text(f"not mailed: {problem}", "red")


def _calls(name: str, calls: list[dict]) -> Table:
    table = Table(title=escape(name), title_justify="left", show_edge=False, box=None)
    table.add_column("", justify="right", style="dim")
    table.add_column("call")
    table.add_column("with", overflow="fold")
    for number, call in enumerate(calls, 1):
        error = f" {call['error']}" if call["error"] else ""
        table.add_row(
            str(number),
            _text(call["call"] + error, "red" if error else ""),
            _text(parameters(call), "dim"),
        )
    return table


def parameters(call: dict) -> str:
    """The parameters of a call on one line, cut where they are long."""
    said = json.dumps(call["parameters"], default=str)[1:-1]
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."


def _text(words: object, style: str = "") -> Text:
    """Words that an attacker may have written: never markup, nothing that a terminal obeys."""
    return Text(printable(words), style)
