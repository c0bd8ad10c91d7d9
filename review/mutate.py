"""`make mutate`: does a test turn red when somebody breaks a policy?

Each way to break it (review/ablation.py) is written into a copy of the repository and the tests
that concern policies are run there, the cheap ones first, until one is red. The survivors are
listed. No test that only compares a generated page with its source counts.
"""

import concurrent.futures
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deployment import table
from deployment.errors import Refused
from deployment.targets import ROOT
from review.ablation import Ablation, ablations
from review.warm import NO_TEST, UNREAD

# What survives for a good reason: {(policy, what was done): the reason}.
ACCEPTED: dict[tuple[str, str], str] = {
    ("isolation-guard", "the steps keep-protections and keep-denied swapped"): (
        "neither needs the other, and both stand behind the groups"
    ),
}


@dataclass(frozen=True)
class Source:
    """A policy as it stands in a file. for_findings: whether GuardDuty's findings start it."""

    file: Path
    data: dict

    @property
    def for_findings(self) -> bool:
        return self.data.get("mode", {}).get("type") == "guard-duty"


@click.command()
@click.option("-p", "--policy", "named", multiple=True, help="Only this policy; repeatable.")
@click.option("--only", help="Only the ways whose sentence has this text.")
@click.option("--json", "as_json", is_flag=True, help="For a machine.")
def mutate(named: tuple[str, ...], only: str | None, as_json: bool):
    """Break each policy in the ways that people do, and list what no test notices."""
    every = sources(ROOT / "policies")
    if unknown := set(named) - set(every):
        raise Refused(
            f"There is no policy {', '.join(sorted(unknown))}. There are: {', '.join(every)}."
        )
    broken = [
        one
        for name in named or every
        for one in ablations(every[name].data)
        if (only or "") in one.what
    ]
    if not broken:
        raise Refused(f"No way to break these policies has the text {only!r}.")
    began = time.monotonic()
    found = hunt(every, broken)
    survivors = [one for one, red in found if red is None]
    bad = [one for one in survivors if (one.policy, one.what) not in ACCEPTED]
    if as_json:
        rows = [
            {"policy": o.policy, "broken": o.what, "red": red, "accepted": reason(o)}
            for o, red in found
        ]
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo(
            f"{len(found)} ways to break {len({one.policy for one in broken})} policies in "
            f"{time.monotonic() - began:.0f} s: {len(found) - len(survivors)} turn a test red, "
            f"{len(survivors)} do not."
        )
        if survivors:
            rows = [(one.policy, one.what, reason(one) or "no test tells") for one in survivors]
            table.show("Survivors", ("policy", "broken", "why"), rows)
    if bad:
        raise SystemExit(1)


def reason(one: Ablation) -> str | None:
    return ACCEPTED.get((one.policy, one.what))


def sources(folder: Path) -> dict[str, Source]:
    """The policies of a folder, those of opt-in/ too, as a person wrote them. Raises Refused."""
    found = {}
    for file in sorted(folder.rglob("*.yml")):
        try:
            for data in yaml.safe_load(file.read_text(encoding="utf-8"))["policies"]:
                found[data["name"]] = Source(file, data)
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            raise Refused(f"{file} holds no policies: {error}") from error
    return found


def hunt(every: dict[str, Source], broken: list[Ablation]) -> list[tuple[Ablation, str | None]]:
    """The first red test of each, None for a survivor; in as many processes as there are cores.

    A test that is red without a break too tells nothing: it is said, and what it found survives.
    """
    cores = min(os.cpu_count() or 1, len(broken))
    with ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(cores) as pool:
        free = queue.SimpleQueue()
        for _ in range(cores):
            free.put(stack.enter_context(copied()))

        def first_red(policy: str, data: dict, stages: Iterable[list[str]]) -> str | None:
            copy = free.get()
            try:
                return copy.first_red(every[policy].file, data, stages)
            finally:
                free.put(copy)

        jobs = {
            pool.submit(first_red, one.policy, one.broken, tests(every[one.policy])): one
            for one in broken
        }
        reds = {}
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        bar = Progress(
            *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
        )
        with bar as progress:
            task = progress.add_task("Breaking policies", total=len(jobs))
            for job in concurrent.futures.as_completed(jobs):
                reds[id(jobs[job])] = job.result()
                if job.result() is None:
                    console.print(f"survives: {jobs[job]}", markup=False, soft_wrap=True)
                progress.advance(task)
        for policy in dict.fromkeys(one.policy for one in broken):
            own = [id(one) for one in broken if one.policy == policy and reds[id(one)]]
            told = {reds[one] for one in own}
            while red := first_red(policy, every[policy].data, again(told)):
                if red not in told:
                    raise Refused(f"{red} is red for {policy} as it stands: mend that first.")
                click.echo(f"{red} is red for {policy} as it stands, and tells nothing.", err=True)
                told.remove(red)
                reds |= {one: None for one in own if reds[one] == red}
    return [(one, reds[id(one)]) for one in broken]


def again(told: set[str]) -> Iterator[list[str]]:
    """What pytest is told to run just these tests, and to read just these files."""
    if named := sorted(red for red in told if "::" in red):
        yield named
    if files := sorted(red.removesuffix(UNREAD) for red in told if red.endswith(UNREAD)):
        yield [*files, "--collect-only"]


def tests(policy: Source) -> Iterator[list[str]]:
    """What pytest is told, the quickest first: what holds for every policy, its findings, its
    permissions, its own folder."""
    name = policy.data["name"]
    about = f"({name} or not [) and not element and not action_names"
    yield ["tests/test_contract.py", "-k", about]
    if policy.for_findings:
        yield ["tests/test_findings.py", "tests/review/test_coverage.py", "-k", about]
    yield ["tests/test_policies.py"]
    yield ["tests/test_least_privilege.py", "-k", f"{name} and role_allows"]
    yield [f"tests/{name}"]
    if policy.for_findings:
        yield ["tests/test_findings.py"]  # what is played of it


class Indented(yaml.SafeDumper):
    """Lists stand further right than their key, as a person writes them here: some tests look for
    a line of a policy."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


class Copy:
    """The repository once more, and a process that runs tests in it."""

    def __init__(self, folder: Path, runner: subprocess.Popen):
        self.folder, self.runner = folder, runner

    def first_red(self, file: Path, data: dict, stages: Iterable[list[str]]) -> str | None:
        """Of the tests of the stages, with these data in the place of a policy."""
        here = self.folder / file.relative_to(ROOT)
        whole = here.read_text(encoding="utf-8")
        held = yaml.safe_load(whole)
        held["policies"] = [data if p["name"] == data.get("name") else p for p in held["policies"]]
        try:
            text = yaml.dump(held, Dumper=Indented, sort_keys=False, width=1000)
            here.write_text(text, encoding="utf-8")
            return next((red for red in map(self.run, stages) if red is not None), None)
        finally:
            here.write_text(whole, encoding="utf-8")

    def run(self, arguments: list[str]) -> str | None:
        self.runner.stdin.write(json.dumps(arguments) + "\n")
        self.runner.stdin.flush()
        answer = self.runner.stdout.readline()
        red = json.loads(answer) if answer else f"{NO_TEST} the process that runs them has died"
        if red and red.startswith(NO_TEST):
            raise Refused(f"The tests {' '.join(arguments)} could not be run: {red}.")
        return red


@contextmanager
def copied() -> Iterator[Copy]:
    """A copy of what git has or would take, for as long as the context."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise Refused(
            f"{ROOT} is no repository of git, which says what to copy: {error}."
        ) from error
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        folder = Path(name)
        for file in filter(None, files.split("\0")):
            if (ROOT / file).is_symlink() or (ROOT / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, folder / file, follow_symlinks=False)
        command = [sys.executable, "-m", "review.warm"]
        with subprocess.Popen(  # noqa: S603
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as runner:
            yield Copy(folder, runner)
            runner.stdin.close()
