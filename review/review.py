"""`make review`: what a change does, as Markdown for a pull request.

Both revisions are played in a checkout of their own, by their own code, with the findings of both.
What they say is compared; nothing goes to AWS.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import click
import jinja2

from deployment.errors import Refused, printable
from deployment.targets import ROOT

from .compare import compared
from .findings import KINDS
from .record import FORMAT

TEMPLATE = Path(__file__).parent / "templates" / "review.md.j2"
MOST = 40  # rows of findings, and mails
LARGEST = 60_000  # characters; GitHub takes 65,536 in a comment
FINDINGS = "tests"
TREE = "the working tree"


@click.command()
@click.option("--base", required=True, help="A revision of git.")
@click.option("--head", help="Another one; the files as they lie here by default.")
@click.option("--findings", type=click.Path(path_type=Path), help="A folder, instead of tests/.")
@click.option("--json", "as_json", is_flag=True)
def review(base, head, findings, as_json):
    """What a change does to the findings of tests/, as Markdown."""
    with tempfile.TemporaryDirectory(prefix="review-") as folder:
        folder = Path(folder)
        with checkout(base, folder / "base") as before, checkout(head, folder / "head") as after:
            collect(folder / "findings", [findings] if findings else [before, after])
            asked = [start(one, folder / "findings") for one in (before, after)]
            records = [answer(*one) for one in zip(asked, (base, head or TREE), strict=True)]
            files = changed_files(before, after)
            found = compared(*records)
            if files:
                found["missing"] = missing(after, folder / "contract.xml")
    found |= {"reach": reach(*records), "unjudged": unjudged(files), "files": files}
    click.echo(json.dumps(found, indent=2) if as_json else markdown(found))


# The two revisions


@contextlib.contextmanager
def checkout(revision: str | None, folder: Path) -> Iterator[Path]:
    """A checkout of a revision; None: the files as they lie here. Raises Refused."""
    if revision is None:
        yield ROOT
        return
    # a name that begins with a dash is none of a revision, and an option of git
    named = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if named.returncode:
        raise Refused(f"git knows no revision {revision!r} here: fetch it, or name another.")
    made = git("worktree", "add", "--detach", "--quiet", str(folder), named.stdout.strip())
    if made.returncode:
        raise Refused(f"git made no checkout of {revision}: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def git(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), *arguments],  # noqa: S607
        capture_output=True,
        text=True,
    )


def collect(folder: Path, sources: list[Path]) -> None:
    """Copy all findings of the sources into a folder: of the same path the later one's.

    A source is a checkout, of which it is tests/, or a folder of findings. Links are left out, they
    are findings again; and what is no finding, of which tests/ has some.
    """
    for source in sources:
        top = source / FINDINGS if (source / FINDINGS).is_dir() else source
        for file in sorted(top.rglob("*.json")):
            if not file.is_symlink() and (source == top or file.parent.name in FOLDERS):
                to = folder / file.relative_to(top)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)


FOLDERS = ("findings", *KINDS)


def start(root: Path, findings: Path) -> subprocess.Popen:
    """Have a checkout record itself, by its own code, while this process goes on."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "review", "record", str(findings)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen, revision: str) -> dict:
    """The record of a revision. Raises Refused with what it said instead."""
    told, errors = process.communicate()
    if process.returncode:
        lines = errors.replace(Refused.UNTOUCHED, "").strip().splitlines() or ["it said nothing"]
        said = " ".join(lines if process.returncode == Refused.exit_code else lines[-1:])
        if "No module named review" in said:
            said = "it is older than make review: compare with a later one"
        raise Refused(f"{revision} could not be played: {printable(said).rstrip('. ')}.")
    record = json.loads(told)
    if record["format"] != FORMAT:
        raise Refused(f"{revision} records itself in another form than this review reads.")
    return record


def changed_files(before: Path, after: Path) -> list[str]:
    """The files that differ between two checkouts, those that git does not know left out."""
    shown = git("rev-parse", "HEAD", folder=before).stdout.strip()
    listed = git("diff", "--name-only", "-z", shown, folder=after).stdout
    new = git("ls-files", "--others", "--exclude-standard", "-z", folder=after).stdout
    return sorted(name for name in (listed + new).split("\0") if name)


# What else a reviewer wants to know


def reach(base: dict, head: dict) -> list[dict]:
    """[{account, region, mode, policies}]: where the next deploy brings changed policies, as
    accounts.yml has it."""
    changed = [
        one["policy"]
        for one in compared(base, head)["policies"]
        if one["deployed"] and not one["opt_in"]
    ]
    return [target | {"policies": changed} for target in head["targets"]] if changed else []


def missing(root: Path, report: Path) -> list[str]:
    """What the contract of a checkout finds missing, a sentence each: a step without a way back, a
    policy without a section of the runbook or a test, and whatever else tests/test_contract.py asks
    of all policies and steps; and what no finding shows."""
    run = partial(subprocess.run, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, text=True)
    pytest = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts="]
    run([*pytest, f"--junit-xml={report}", CONTRACT], capture_output=True)
    tree = ElementTree.parse(report)  # noqa: S314  of a process that could do worse
    told = [failure.get("message", "") for failure in tree.iter("failure")]
    found = [text.partition("\n")[0].removeprefix("AssertionError: ") for text in told]
    shown = run([sys.executable, "-m", "review", "coverage", "--json"], capture_output=True).stdout
    of = json.loads(shown or "{}").get("not exercised", {})
    found += [f"{policy}: {part['broken']}: no finding of tests/ tells; wanted: {part['wanted']}"
              for policy, parts in of.items() for part in parts]  # fmt: skip
    return found


CONTRACT = "tests/test_contract.py"
CANNOT_JUDGE = {
    "infra/": "infra/ changed: roles are compared by the names of actions, not by resources and "
    "conditions; see tests/test_iam_language.py",
    "simulation/": "simulation/ changed: what differs may be the simulation's doing",
    "requirements": "the requirements changed: both were played with what is installed here",
    "deployment/": "deployment/ changed: deploys are not played here, see tests/deployment",
    "mailer/": "mailer/ changed: mails are composed, and not sent, see tests/mailer",
}
GUARDS = re.compile(r"policies/.*(-guard|-by-hand|release|restore|reactivate|empty).*\.yml")


def unjudged(files: list[str]) -> list[str]:
    """What the play of findings cannot show of a change to these files."""
    found = [said for top, said in CANNOT_JUDGE.items() if any(f.startswith(top) for f in files)]
    others = [file for file in files if GUARDS.fullmatch(file)]
    if others:
        found.append(f"{', '.join(others)}: not for findings, so not played; see their tests")
    return found


# Markdown


def markdown(found: dict) -> str:
    """The review. What comes from findings, mails and policies is code, or without any markup: a
    pull request can come from anybody."""
    environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    environment.filters |= {"cell": code, "cells": codes, "words": words, "fenced": fenced}
    template = environment.from_string(TEMPLATE.read_text())
    text = template.render(found, most=MOST, marks=marks).strip()
    if len(text) > LARGEST:
        text = (
            text[:LARGEST].rpartition("\n")[0] + "\n\nCut here: it is longer than a comment may be."
        )
    return text


def marks(one: dict) -> str:
    if one["isolates"]:
        return "**newly isolates**" if one["isolates"] > 0 else "**no longer isolates**"
    if one["mails"]:
        return "newly mailed" if one["mails"] > 0 else "no longer mailed"
    return "**changes another instance**" if one["regrouped"] else ""


def code(text: object) -> str:
    """A span of code in a cell of a table."""
    plain = " ".join(printable(text).replace("`", "'").replace("|", "\\|").split())
    return f"`{plain}`" if plain else ""


def codes(texts: list) -> str:
    return ", ".join(map(code, texts))


def words(text: object) -> str:
    """Words in a cell: no markup, no HTML, no mention of anybody."""
    plain = " ".join(printable(text).split())
    return re.sub(r"[\\`*_\[\]#|<>~&@]", lambda found: f"&#{ord(found[0])};", plain)


def fenced(text: str) -> str:
    """A block of code that its content cannot end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}diff\n{printable(text)}\n{fence}"
