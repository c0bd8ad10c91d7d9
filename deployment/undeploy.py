"""Remove what deploys of this pack have made."""

import click

from deployment.everywhere import everywhere
from deployment.functions import deployed, remove_all
from deployment.policies import short
from deployment.report import report, where
from deployment.table import show
from deployment.targets import targeted


@click.command()
@targeted
@click.option("--yes", is_flag=True, help="do not ask")
def undeploy(targets, yes):
    """Remove the functions and rules of this pack from every target, after showing the list.

    They are found by their tag, whatever their names. The stacks of infra/ stay, and so do the
    logs, the queues with what is in them, and whatever is isolated: release that first.
    """
    found = everywhere(functions, targets, doing="Looking")
    there = [result for result in found if result.answer]
    if there:
        rows = [(*where(r.target), ", ".join(map(short, r.answer))) for r in there]
        show("To be removed", ("account", "region", "functions"), rows)
        if not yes:
            click.confirm("Remove all of these?", abort=True)
    removed = everywhere(remove_here, [r.target for r in there], doing="Removing") if there else []
    report("Removed", removed + [result for result in found if result.error])
    if not there:
        click.echo("No function of the pack is there.")


def functions(target):
    return sorted(deployed(target.session()))


def remove_here(target):
    """{function: (what was changed, error)}. IAM: infra/operators.yml, Undeploy."""
    session = target.session()
    return remove_all(session, sorted(deployed(session)))
