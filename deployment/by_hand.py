"""What a person does by hand: a policy without a mode, run on what the person names.

`custodian run --vars-file` runs these policies too. Here they are checked before anything is asked,
a step is a line, and nothing is written to a file, so that two at once never meet.

Exit codes: 0 it is so now; 1 it is not, or there was nothing to do it to; 2 refused, nothing was
changed. IAM: infra/operators.yml, Respond.
"""

import logging
import shutil
import sys
import textwrap

import click
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.structure import StructureParser
from c7n.utils import load_file, local_session

from custom_actions import builtin
from custom_actions.record import tags_of
from custom_actions.response import OUTCOMES, FailUnlessComplete
from deployment.errors import Refused, printable, reason
from deployment.isolated import look
from deployment.policies import FOLDER, wanted
from deployment.shapes import BUCKET, FINDING, GROUP, GROUPS, INSTANCE, NAME, RECORD
from deployment.table import show
from deployment.targets import current

log = logging.getLogger("deployment")

GLOBAL = "us-east-1"  # where IAM, which has no region, is asked
# what a person reads of each status of custom_actions/response.py
WORDS = {"unchanged": "no change", "planned": "would", "withheld": "held back", "failed": "FAILED"}


of_policy = click.argument("policy", type=click.Path(exists=True, dir_okay=False))
in_region = click.option("--region", required=True, help="of the current account")
of_finding = click.option("--finding", type=FINDING, default="", help="its id, or a file with it")
the_finding = click.option("--finding", type=FINDING, required=True, help="its id, or a file")
# {evidence-bucket} of a policy; without a name write-case asks which bucket the function has
to_bucket = click.option("--evidence-bucket", "bucket", type=BUCKET, default="")
dry_run = click.option("--dryrun", is_flag=True, help="say what would be done, and do nothing")


@click.command()
@of_policy
@in_region
@click.option("--instance", type=INSTANCE, required=True)
@of_finding
@to_bucket
@dry_run
def isolate(policy, region, instance, finding, bucket, dryrun):
    """Isolate one instance, for a finding or without one."""
    missing = f"instance {instance}"
    said = {"instance": instance, "finding": finding, "evidence-bucket": bucket}
    sys.exit(respond(region, policy, dryrun, missing, **said))


@click.command()
@of_policy
@in_region
@click.option("--instance", type=INSTANCE)
@click.option("--finding", type=FINDING, help="all instances that it isolated")
@click.option("--record", type=RECORD, default="", help="its word, as a release asks for it")
@click.option("--groups", type=GROUPS, default="", help="what no record has")
@click.option("--archive", is_flag=True, help="archive the finding too")
@to_bucket
@dry_run
def release(policy, region, instance, finding, dryrun, archive, bucket, **said):
    """Put an isolated instance back as it was, or all that one finding isolated."""
    if bool(instance) == bool(finding):
        raise Refused("say INSTANCE=... or FINDING=..., one of them.")
    if finding and any(said.values()):
        raise Refused("RECORD and GROUPS are of one instance: say INSTANCE=... with them.")
    target = current(region)
    instances = [instance] if instance else isolated_by(finding, target)
    said |= {"archive": "1" if archive else "", "evidence-bucket": bucket}
    codes = [
        respond(
            target,
            policy,
            dryrun,
            missing=f"instance {one}",
            nothing=f"{one} is not isolated, and nothing is on record of it",
            instance=one,
            **said,
        )
        for one in instances
    ]
    raise SystemExit(max(codes))


def isolated_by(finding, target):
    """The instances that are isolated for a finding. Raises Refused when there is none.

    By the tag forensic:finding, which whoever may tag an instance can change.
    """
    found = [row["instance"] for row in look(target) if row["finding"] == finding]
    if not found:
        raise Refused(f"no instance in {target} is isolated by finding {finding}.")
    return found


@click.command()
@of_policy
@in_region
@the_finding
@dry_run
def revoke_sessions(policy, region, finding, dryrun):
    """Revoke the role session that a finding names."""
    sys.exit(respond(region, policy, dryrun, finding=finding))


@click.command("empty-forensic-group")
@of_policy
@in_region
@click.option("--group", type=GROUP, required=True)
@dry_run
def empty_forensic_group(policy, region, group, dryrun):
    """Revoke every rule of a forensic group."""
    missing = f"group {group} with the tag forensic:group=true"
    sys.exit(respond(region, policy, dryrun, missing, group=group))


@click.command()
@of_policy
@click.option("--role", type=NAME, required=True)
@the_finding
@dry_run
def restore_sessions(policy, role, finding, dryrun):
    """Lift the deny that a finding about credentials put on a role."""
    nothing = f"no deny of finding {finding} is on role {role}"
    said = {"role": role, "finding": finding}
    sys.exit(respond(GLOBAL, policy, dryrun, nothing=nothing, **said))


@click.command()
@of_policy
@in_region
@the_finding
@dry_run
def deactivate_key(policy, region, finding, dryrun):
    """Deactivate the access key that a finding names."""
    missing = f"such user as {finding} names"
    sys.exit(respond(region, policy, dryrun, missing, finding=finding))


@click.command()
@of_policy
@click.option("--user-name", "user", type=NAME, required=True)
@click.option("--key", type=NAME, required=True)
@the_finding
@dry_run
def reactivate_key(policy, dryrun, **said):
    """Make an access key active again that this pack deactivated."""
    nothing = f"{said['key']} of {said['user']} is not on record as deactivated"
    sys.exit(respond(GLOBAL, policy, dryrun, nothing=nothing, **said))


@click.command("dryrun")
@in_region
def select(region):
    """Say what the policies would select; what they ask of an event does not apply."""
    target, rows, code = current(region), [], 0
    for name in sorted(wanted(FOLDER, ())):
        policy = load(target, FOLDER / f"{name}.yml")
        try:
            found = policy.resource_manager.resources()
            told = f"{len(found)} {policy.resource_type}"
        except Exception as error:  # noqa: BLE001  the other policies have their turn
            told, code = f"not read: {reason(error)}", 1
        rows.append((name, told))
    show(f"What the policies would select in {target}", ("policy", "resources"), rows)
    raise SystemExit(code)


def respond(region, file, dryrun, missing="resource", nothing=None, **said):
    """Run a policy on what it selects, say how each step went, and return the exit code.

    region: or the Target. file: the policy's. missing: what there is none of, where it selects
    nothing. nothing: what is said where there is nothing to put back; None where that is as good.
    said: Custodian's variables.
    """
    target = current(region) if isinstance(region, str) else region
    policy = load(target, file, dryrun, **said)
    try:
        resources = policy.resource_manager.resources()
        builtin.hold(policy.resource_manager)
        for action in policy.resource_manager.actions if resources else ():
            if not isinstance(action, FailUnlessComplete):  # the exit code says it
                action.process(resources)
    except Exception as error:  # noqa: BLE001  whatever it is, a person reads a line
        log.debug("", exc_info=True)
        return failed(f"{target}: {reason(error)}")
    if not resources:
        return failed(f"There is no {missing} in {target}. Nothing was changed.")
    outcomes = [outcome for resource in resources for outcome in resource[OUTCOMES]]
    statuses = {outcome["status"] for outcome in outcomes}
    if nothing and statuses <= {"unchanged", "skipped"}:
        return failed(f"{nothing} in {target}. Nothing was changed.")
    for resource in resources:
        tell(resource, policy.resource_manager.resource_type.id, target)
    if "failed" in statuses:
        return failed("NOT complete: what failed stands above. This can be run again.")
    if dryrun:
        click.echo("Nothing was changed. Without DRYRUN=1 it is done.")
        return 0
    for key in ("isolated", "revoked"):  # left alone, for a reason that stands above
        if any(outcome.get(key) is False for outcome in outcomes):
            return failed(f"NOT {key}: the reason stands above.")
    return 0


def failed(words):
    """Say it; the exit code."""
    click.echo(words, err=True)
    return 1


def load(target, file, dryrun=False, **said):
    """The policy of a file with its variables, for one account and region."""
    data = load_file(str(file))
    load_resources(StructureParser().get_resource_types(data))
    session = target.session()
    # Custodian keeps a session for each region, and takes it where there is one.
    local_session(lambda: session, target.region)
    config = Config.empty(
        region=target.region,
        account_id=target.account_id,
        output_dir="null",
        log_group="null",
        cache_period=0,
        dryrun=dryrun,
    )
    (policy,) = PolicyCollection.from_data(data, config)
    policy.expand_variables(policy.get_variables(said))
    policy.validate()
    return policy


def tell(resource, id_key, target):
    """Say how each step went with one resource."""
    name = tags_of(resource).get("Name", "")
    click.echo(printable(f"{resource[id_key]}{f' {name!r:.80}' if name else ''} in {target}"))
    width = max(shutil.get_terminal_size().columns, 60) if sys.stdout.isatty() else 200
    for outcome in resource[OUTCOMES]:
        status = WORDS.get(outcome["status"], outcome["status"])
        said = " ".join(filter(None, [outcome["error"], outcome["detail"]]))
        click.echo(
            textwrap.fill(
                printable(f"{status:<10} {outcome['step']}: {said}"),
                width,
                initial_indent="  ",
                subsequent_indent=" " * 13,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
