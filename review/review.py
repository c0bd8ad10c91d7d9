"""`make review`: what a change does, as Markdown for a pull request.

Both revisions are played in a checkout of their own, by their own code, with the findings of both.
What they say is compared; nothing goes to AWS.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import click

from .compare import compared
from .report import markdown
from .revisions import answer, changed_files, checkout, collect, end, start

TREE = "the working tree"


@click.command()
@click.option("--base", required=True, help="A revision of git.")
@click.option("--head", help="Another one; the files as they lie here by default.")
@click.option(
    "--findings",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder, instead of tests/.",
)
@click.option("--json", "as_json", is_flag=True)
def review(base, head, findings, as_json):
    """What a change does to the findings of tests/, as Markdown."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that all is tidied up
    with tempfile.TemporaryDirectory(prefix="review-") as name:
        folder = Path(name)
        with checkout(base, folder / "base") as before, checkout(head, folder / "head") as after:
            collect(folder / "findings", [findings] if findings else [before, after])
            records = recorded(
                {base: before, head or TREE: after}, folder / "findings", folder / "record"
            )
            files = changed_files(before, after)
            found = compared(*records)
            if files:
                found["missing"] = missing(after, folder / "contract.xml")
    found |= {
        "reach": reach(found["policies"], records[1], files),
        "unjudged": unjudged(found["policies"], files),
        "files": files,
    }
    click.echo(json.dumps(found, indent=2) if as_json else markdown(found))


def recorded(roots: dict[str, Path], findings: Path, output: Path) -> list[dict]:
    """The records of revisions, made at the same time: {name of the revision: its checkout}."""
    asked = []
    try:
        for number, (revision, root) in enumerate(roots.items()):
            to = output.with_suffix(f".{number}")
            asked.append((start(root, findings, to), revision, to))
        return [answer(*one) for one in asked]
    finally:
        for process, *_ in asked:
            end(process)


def reach(policies: list[dict], head: dict, files: list[str]) -> list[dict]:
    """[{account, region, mode, policies}]: where the next deploy brings something new, as
    accounts.yml has it. policies: see `compare.changed_policies`."""
    new = [
        one["policy"]
        for one in policies
        if one["deployed"] and not one["opt_in"] and one["what"] != "removed"
    ]
    if any(file.startswith("custom_actions/") for file in files):
        new = [
            name
            for name, policy in head["policies"].items()
            if "mode" in policy["data"] and not policy["opt_in"]
        ]
    return [target | {"policies": new} for target in head["targets"]] if new else []


def missing(root: Path, report: Path) -> list[str]:
    """What the contract of a checkout finds missing, a sentence each: a step without a way back, a
    policy without a section of the runbook or a test, and whatever else tests/test_contract.py asks
    of all policies and steps; and what no finding shows."""
    run = partial(
        subprocess.run,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        text=True,
        capture_output=True,
    )
    pytest = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts="]
    said = run([*pytest, f"--junit-xml={report}", CONTRACT]).stdout
    found = []
    if report.exists():
        tree = ElementTree.parse(report)  # noqa: S314  of a process that could do worse
        for kind in ("failure", "error"):
            found += [first_line(one.get("message", "")) for one in tree.iter(kind)]
    else:
        found.append(f"{CONTRACT} could not be run: {last_line(said)}")
    shown = run([sys.executable, "-m", "review", "coverage", "--json"])
    if not shown.stdout:
        return [*found, f"make coverage could not be run: {last_line(shown.stderr)}"]
    for policy, parts in json.loads(shown.stdout)["not exercised"].items():
        found += [
            f"{policy}: {part['broken']}: no finding of tests/ tells; wanted: {part['wanted']}"
            for part in parts
        ]
    return found


def first_line(text: str) -> str:
    return text.partition("\n")[0].removeprefix("AssertionError: ")


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


CONTRACT = "tests/test_contract.py"
CANNOT_JUDGE = {
    "custom_actions/": "custom_actions/ changed: a function was run once for each finding, alone, "
    "with a quiet EC2; faults, races and retries are for the tests",
    "infra/": "infra/ changed: roles are compared by what they say, and not enforced; see "
    "tests/test_iam_language.py",
    "simulation/": "simulation/ changed: what differs may be the simulation's doing",
    "requirements": "the requirements changed: both were played with what is installed here",
    "deployment/": "deployment/ changed: deploys are not played here, see tests/deployment",
    "mailer/": "mailer/ changed: mails are composed, and not sent, see tests/mailer",
}


def unjudged(policies: list[dict], files: list[str]) -> list[str]:
    """What the play of findings cannot show of changed policies, and of changes to these files."""
    found = [said for top, said in CANNOT_JUDGE.items() if any(f.startswith(top) for f in files)]
    others = [one["policy"] for one in policies if not one["played"] and one["what"] != "removed"]
    if others:
        found.append(f"{', '.join(others)}: not for findings, so not played; see their tests")
    return found
