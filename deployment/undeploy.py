"""Remove what deploys of this pack have made."""

import click

from deployment.everywhere import everywhere
from deployment.functions import refusal, remove_all, tagged
from deployment.policies import function_name, policies, short
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
    known = [function_name(policy) for policy in policies().values()]
    found = everywhere(functions, targets, known, doing="Looking")
    there = [result for result in found if result.answer]
    if there:
        rows = [
            (*where(r.target), f"{short(name)}: {why}" if why else short(name))
            for r in there
            for name, why in r.answer.items()
        ]
        show("To be removed", ("account", "region", "function"), rows)
        if not yes:
            click.confirm("Remove all of these?", abort=True)
    shown = {str(result.target): list(result.answer) for result in there}
    removed = everywhere(remove_here, [r.target for r in there], shown, doing="Removing")
    report("Removal", removed + [result for result in found if result.error])
    if not there:
        place = f"in {', '.join(where(targets[0]))}" if len(targets) == 1 else "there"
        click.echo(f"No function of the pack is {place}.")


def functions(target, known):
    """{function: why it is not removed, or None}. IAM: infra/operators.yml, Undeploy."""
    session = target.session()
    return {name: refusal(session, name) for name in tagged(session, known)}


def remove_here(target, shown):
    """{function: Done} of those that were shown."""
    return remove_all(target.session(), shown[str(target)])
