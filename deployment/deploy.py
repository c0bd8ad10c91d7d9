"""Deploy the policies to every target, or say what a deploy would change."""

import copy
import logging
import tempfile
from pathlib import Path

import click
from botocore.exceptions import BotoCoreError, ClientError
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.structure import StructureParser
from c7n.utils import local_session
from c7n_org.utils import account_tags, environ

from custom_actions import autonomy
from custom_actions.response import ignoring
from deployment.checks import infra
from deployment.errors import Refused, reason
from deployment.everywhere import everywhere
from deployment.functions import refusal, remove_all, tagged
from deployment.models import read_models
from deployment.policies import FOLDER, build_archives, function_name, policies, wanted
from deployment.report import Done, report
from deployment.targets import targeted
from deployment.writes import Writes

# what a deploy makes clients of
SERVICES = ("events", "iam", "lambda", "resourcegroupstaggingapi", "sns", "sqs", "sts")
NO_QUEUE = "AWS.SimpleQueueService.NonExistentQueue"


def deploying(command):
    """The options of a deploy and of its plan."""
    for option in (
        targeted,
        click.option(
            "--mode", type=click.Choice(autonomy.WORDS), help="with -c: refused where it is another"
        ),
        click.option("--member-role", help="with --region: see custom_actions/central.py"),
        click.option("--max-per-hour", help="with --region: a number, or `policy` for its own"),
        click.option("--evidence-bucket", help="with --region: a name, or `none`"),
        click.option("--prune", is_flag=True, help="remove the pack's functions without a policy"),
        click.option(
            "-p", "--policies", "named", multiple=True, help="names, by default all but opt-in/"
        ),
        click.option("--folder", type=click.Path(path_type=Path), default=FOLDER),
    ):
        command = option(command)
    return click.command(command)


@deploying
def deploy(targets, **options):
    """Deploy the policies of a folder to every target.

    All policies go to a target in one run, finding-notify first. A target that fails stops no
    other, a policy that fails no other. Exit code 1 when one failed.
    """
    results = roll_out(targets, plan=False, **options)
    report("Deploy", results, how_to_act(results))


@deploying
def plan(targets, **options):
    """Say what `deploy` would change, and change nothing."""
    results = roll_out(targets, plan=True, **options)
    report("Plan, nothing was changed", results, how_to_act(results))


def how_to_act(results):
    """A line where functions observe, as those of a first deploy do; else none."""
    observing = [
        result.target
        for result in results
        if any(done.mode == autonomy.OBSERVE for done in (result.answer or {}).values())
    ]
    if not observing:
        return ""
    listed = any(target.listed for target in observing)
    how = "`autonomy: contain` in accounts.yml" if listed else "MODE=contain"
    return f"observe: it mails what it would do, and changes nothing. {how} acts."


def roll_out(targets, plan, prune, named, folder, mode, **more):
    every, chosen = policies(folder), wanted(folder, named)
    keep = {function_name(policy) for policy in every.values()} if prune else None
    said = {key.replace("_", "-"): value for key, value in more.items()} | {autonomy.OPTION: mode}
    said = {key: value for key, value in said.items() if value}
    refuse_another_than_listed(targets, said)
    here = [policy for name, policy in every.items() if name in chosen]
    read_models(SERVICES)
    build_archives(here)
    doing = "Planning" if plan else "Deploying"
    return everywhere(deploy_here, targets, here, said, keep, plan, doing=doing)


def refuse_another_than_listed(targets, said):
    """Raises Refused for what accounts.yml decides. The mode may be said as it stands there: so
    `MODE=observe` reaches no account that acts."""
    listed = [target for target in targets if target.listed]
    mode = said.get(autonomy.OPTION)
    others = [key for key in said if key != autonomy.OPTION]
    place = "said in accounts.yml, `vars` of an account or of all"
    if listed and others:
        raise Refused(f"{', '.join(others)}: {place}.")
    differ = {t.name for t in listed if t.account.get("vars", {}).get(autonomy.OPTION) != mode}
    if mode and differ:
        names = ", ".join(sorted(differ))
        raise Refused(f"{autonomy.OPTION}: {place}, and there it is not {mode} for {names}.")


def deploy_here(target, policies, said, keep, plan):
    """Deploy, or plan, the policies in one target: {function: Done}.

    said: Custodian's variables besides those of the account. keep: the names of functions that
    stay, the pack's others are removed; None removes none.

    What c7n-org's `run_account` does for each policy is done here, since that one writes errors
    into the log alone and gives up the account's other policies when AWS refuses one.
    IAM: infra/operators.yml, Deploy.
    """
    logging.getLogger("custodian.output").setLevel(logging.CRITICAL)  # traces; the table has it
    session = target.session()
    refuse_unprepared(target, session, policies)
    writes = Writes(session, target, plan)
    done = {}
    account = target.account
    with tempfile.TemporaryDirectory() as output, environ(**account_tags(account)):
        # Custodian keeps a session for each region, and takes it where there is one.
        local_session(lambda: session, target.region)
        config = Config.empty(
            region=target.region,
            account_id=target.account_id,
            output_dir=output,
            cache_period=0,
            tracer=None,  # as `custodian run`: with c7n-org's the archive would be another
        )
        data = {"policies": copy.deepcopy(policies)}
        load_resources(StructureParser().get_resource_types(data))  # a spawned process has none
        for policy in PolicyCollection.from_data(data, config):
            done[function_name(policy.data)] = attempt(policy, account, said, writes)
        if keep is not None:
            done |= prune(session, keep, plan)
    return done


def attempt(policy, account, said, writes):
    """What was changed, an error, the mode: a Done."""
    variables = {**account.get("vars", {}), **said}
    error = None
    try:
        policy.conditions.env_vars["account"] = account
        policy.expand_variables(policy.get_variables(variables))
        policy.validate()
        policy.run()
    except Exception as caught:  # noqa: BLE001  the other policies go on; it becomes a row
        error = reason(caught)
    mode = policy.data["mode"].get("execution-options", {}).get(autonomy.OPTION, autonomy.CONTAIN)
    return Done(writes.take(), error, "" if error else mode)


def prune(session, keep, plan):
    """Remove the pack's functions that are not among `keep`; as `deploy_here`."""
    try:
        names = [name for name in tagged(session) if name not in keep]
        if plan:
            done = {name: Done(error=refusal(session, name)) for name in names}
        else:
            done = remove_all(session, names)
    except (BotoCoreError, ClientError) as error:
        return {"functions without a policy": Done(error=reason(error))}
    gone = Done("removed: no policy has this name")
    return {name: one if one.error else gone for name, one in done.items()}


def refuse_unprepared(target, session, policies):
    """Raise Refused unless the roles, the topic and the queues that policies name are there.

    Without them a deploy would succeed, an instance be isolated, and every mail fail.
    IAM: iam:GetRole, sns:GetTopicAttributes, sqs:GetQueueUrl.
    """
    iam, sns, sqs = (session.client(service) for service in ("iam", "sns", "sqs"))
    topics, queues, roles = set(), set(), set()
    for policy in policies:
        roles.add(policy["mode"]["role"].rpartition("/")[2])
        queue = policy["mode"].get("dead_letter_config", {}).get("TargetArn", "")
        queues.add(queue.rpartition(":")[2])
        transports = [
            a["transport"] for a in policy["actions"] if isinstance(a, dict) and "transport" in a
        ]
        topics |= {t["topic"] for t in transports if t["type"] == "sns"}
    missing = []
    for topic in sorted(topics):
        arn = target.arn("sns", topic)
        if not ignoring("NotFound", sns.get_topic_attributes, TopicArn=arn):
            missing.append(f"topic {topic}")
    for queue in sorted(queues - {""}):
        if not ignoring(NO_QUEUE, sqs.get_queue_url, QueueName=queue):
            missing.append(f"queue {queue}")
    for role in sorted(roles):
        if not ignoring("NoSuchEntity", iam.get_role, RoleName=role):
            missing.append(f"role {role}")
    if missing:
        raise Refused(
            f"{', '.join(missing)}: not there. Make them first: {infra(target)}, or make stackset."
        )
