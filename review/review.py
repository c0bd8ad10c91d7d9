"""`make review`: what a change does, as Markdown for a pull request.

Both revisions are played in a checkout of their own, by their own code, with the findings of both.
What they say is compared; nothing goes to AWS.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import click

from .compare import compared
from .report import markdown
from .revisions import answer, changed_files, checkout, collect, start

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
