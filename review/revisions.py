"""Two revisions of this repository, each in a checkout of its own and recorded by its own code."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deployment.errors import Refused, printable
from deployment.targets import ROOT

from .findings import KINDS
from .record import FORMAT

FINDINGS = "tests"
FOLDERS = ("findings", *KINDS)


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


def git(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    """folder: of a checkout; ROOT by default. In a hook of git its variables would mean another."""
    return subprocess.run(  # noqa: S603
        ["git", "-C", str(folder or ROOT), *arguments],  # noqa: S607
        env={key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
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
    if not folder.exists():
        raise Refused(f"There is no finding in {' and '.join(map(str, sources))}.")


def start(root: Path, findings: Path, output: Path) -> subprocess.Popen:
    """Have a checkout record itself, by its own code, while this process goes on."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "review", "record", str(findings), str(output)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that it is ended with what it has started
    )


def end(process: subprocess.Popen) -> None:
    """End a process that has not, with what it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def answer(process: subprocess.Popen, revision: str, output: Path) -> dict:
    """The record of a revision. Raises Refused with what it said instead."""
    _, errors = process.communicate()
    if process.returncode:
        lines = errors.replace(Refused.UNTOUCHED, "").strip().splitlines() or ["it said nothing"]
        said = " ".join(lines if process.returncode == Refused.exit_code else lines[-1:])
        said = said.partition("Failed validating")[0]  # behind that stands Custodian's whole schema
        if "No module named review" in said:
            said = "it is older than make review: compare with a later one"
        raise Refused(f"{revision} could not be played: {printable(said).rstrip('. ')}.")
    record = json.loads(output.read_text())
    if record["format"] != FORMAT:
        raise Refused(f"{revision} records itself in another form than this review reads.")
    return record


def changed_files(before: Path, after: Path) -> list[str]:
    """The files that differ between two checkouts, those that git does not know left out."""
    shown = git("rev-parse", "HEAD", folder=before).stdout.strip()
    listed = git("diff", "--name-only", "-z", shown, folder=after).stdout
    new = git("ls-files", "--others", "--exclude-standard", "-z", folder=after).stdout
    return sorted(name for name in (listed + new).split("\0") if name)
