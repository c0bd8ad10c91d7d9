"""make status, make status-org: what is deployed where, read back from AWS; nothing is changed.

IAM: the managed policy guardduty-response-status of infra/operators.yml.
"""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from c7n.utils import get_partition

from custom_actions.version import VERSION
from deployment.checks import Check, Checks, deploy
from deployment.deployed import Deployed, deployed, left_over
from deployment.everywhere import everywhere
from deployment.models import read_models
from deployment.policies import (
    FOLDER,
    build_archives,
    function_name,
    opt_ins,
    policies,
    wanted,
)
from deployment.surroundings import mail, surroundings
from deployment.table import show
from deployment.targets import Target, targeted

# IAM's calls are reported there alone, whatever regions the pack is in (docs/deploy.md).
# The regions of other partitions have a place of their own for them: there nothing is asked.
REGION_OF_IAM = "us-east-1"
GUARD_OF_ROLES = "response-guard"
SERVICES = ("cloudformation", "cloudtrail", "events", "guardduty", "iam", "lambda")
SERVICES += ("resourcegroupstaggingapi", "sns", "sqs", "sts")
DETAILS = ("Account", "Region", "Of", "What", "As it is", "What mends it")


@dataclass
class Status:
    """What there is in one account and region. shared: what all policies need. queue: the ARN of
    the mail queue, or None."""

    policies: list[Deployed]
    shared: list[Check]
    queue: str | None

    @property
    def checks(self):
        return [*self.shared, *(check for one in self.policies for check in one.checks)]

    @property
    def wrong(self):
        return [check for check in self.checks if not check.well]


@click.command()
@targeted
@click.option("--who", is_flag=True, help="ask CloudTrail who changed each function, well or not")
@click.option("--json", "as_json", is_flag=True, help="everything, as one JSON document")
@click.option("-p", "--policies", "named", multiple=True, help="names, by default all but opt-in/")
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER)
def status(targets, who, as_json, named, folder):
    """Whether the policies of a folder are deployed as this version has them, and what they need
    around them. Those of opt-in/ are judged where they are deployed.

    Exit code 0: all is well. 1: something is not, and each such line says what mends it.
    """
    chosen = wanted(folder, named)
    # before the processes are forked that need it
    read_models(SERVICES)
    build_archives(policies(folder).values())
    results = everywhere(look, targets, folder, chosen, who, doing="Looking")
    if GUARD_OF_ROLES in chosen and (elsewhere := for_roles(targets)):
        results += everywhere(look, elsewhere, folder, {GUARD_OF_ROLES}, who, True, doing="Looking")
    mails = central(results)
    if as_json:
        click.echo(json.dumps([*map(document, results), *map(document, mails)], indent=2))
    else:
        tables(results, mails)
    if any(one.error or one.answer.wrong for one in (*results, *mails)):
        sys.exit(1)


def for_roles(targets):
    """Where the guard of the roles has to be, besides the targets."""
    home = [Target(t.account, REGION_OF_IAM) for t in targets if get_partition(t.region) == "aws"]
    return [one for n, one in enumerate(home) if one not in targets and one not in home[:n]]


def look(target, folder, chosen, who, alone=False):
    """The Status of one account and region.

    chosen: the names of the policies that have to be there; opt-in ones may. alone: they are there
    without the others.
    """
    session = target.session()
    session.client("sts").get_caller_identity()  # a region that is off says so once, here
    found = []
    for name, policy in policies(folder).items():
        opt_in = name in opt_ins(folder) and name not in chosen
        if name in chosen or (opt_in and not alone):
            mend = deploy(target, name if alone or name in opt_ins(folder) else "")
            found.append(deployed(target, session, policy, mend, opt_in, who))
    found = [one for one in found if one]
    shared = Checks()
    queue = surroundings(shared, target, session, {one.kind for one in found})
    with shared.reading("left over"):
        left_over(shared, target, session, map(function_name, policies(folder).values()))
    return Status(found, shared, queue)


def central(results):
    """The mail queues that the topics feed, each looked at once, in its own account.

    That has to be one of the accounts that are looked at: else nobody here may read it.
    """
    accounts = {one.target.account_id: one.target.account for one in results}
    queues = sorted({one.answer.queue for one in results if one.answer and one.answer.queue})
    found = []
    for queue in queues:
        *_, region, account_id, _ = queue.split(":")
        if account_id in accounts:
            found += everywhere(look_at_mail, [Target(accounts[account_id], region)], queue)
        else:
            here = [o for o in results if o.answer and o.answer.queue == queue]
            unseen = f"{queue} is of an account that is not looked at here"
            for one in here:
                one.answer.shared.append(Check("mail queue", True, unseen))
    return found


def look_at_mail(target, queue):
    checks = Checks()
    mail(checks, target, target.session(), queue)
    return Status([], checks, queue)


def document(result):
    """A result for a machine; of the mail queue: without policies."""
    target, found = result.target, result.answer
    shown = {"account": target.account_id, "name": target.name, "region": target.region}
    if result.error:
        return shown | {"well": False, "error": result.error}
    return shown | {
        "well": not found.wrong,
        "version": VERSION,
        "policies": [one.as_json() for one in found.policies],
        "checks": [asdict(check) for check in found.shared],
    }


def tables(results, mails):
    if len({one.target.account_id for one in results}) == 1 and all(o.answer for o in results):
        of_one(results)
    else:
        of_all(results)
    rows = [
        (one.target.name, one.target.region, check.policy or "all", check.what, check.found, mend)
        for one in (*results, *mails)
        for check, mend in wrongs(one)
    ]
    if rows:
        click.echo()
        show("What is not well", DETAILS, rows)
    else:
        click.echo("All is well.")


def wrongs(result):
    """What is wrong, and what mends it."""
    if result.error:
        return [(Check("reachable", False, result.error), "")]
    return [(check, check.mend) for check in result.answer.wrong]


def of_one(results):
    """A row for each policy, of one account."""
    rows = [
        (
            result.target.region,
            one.policy,
            "yes" if one.well else "no",
            one.version or ("unknown" if one.modified else ""),
            one.mode,
            one.modified,
            one.by,
        )
        for result in results
        for one in result.answer.policies
    ]
    columns = ("Region", "Policy", "Well", "Version", "Mode", "Last modified", "By")
    show(f"Account {results[0].target.name}, beside version {VERSION}", columns, rows)


def of_all(results):
    """A row for each account and region."""
    rows = []
    for one in results:
        where = (one.target.account_id, one.target.name, one.target.region)
        if one.error:
            rows.append((*where, "no", "", "", "", one.error))
            continue
        policies = one.answer.policies
        well = sum(policy.well for policy in policies)
        number = len(one.answer.wrong)
        rows.append(
            (
                *where,
                "no" if number else "yes",
                f"{well} of {len(policies)}",
                counted(policy.version or "unknown" for policy in policies if policy.modified),
                counted(policy.mode for policy in policies if policy.mode),
                f"{number} below" if number else "",
            )
        )
    columns = ("Account", "Name", "Region", "Well", "Policies", "Version", "Mode", "Not well")
    show(f"What is deployed, beside version {VERSION}", columns, rows)


def counted(words):
    """Each word once, with its number where there are several words."""
    found = Counter(words)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{word} {number}" for word, number in found.most_common())
