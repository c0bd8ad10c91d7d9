"""`make infra`, `make infra-org`: the stacks of infra/, made or updated by change sets.

A change set is made for each stack, shown, and executed after a yes. What a stack's parameters are
stays, unless said anew. Without a change nothing is done.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
"""

import difflib
import sys
import uuid
from dataclasses import dataclass, field

import click
from botocore.exceptions import ClientError, WaiterError
from c7n.utils import generate_arn

from deployment import template
from deployment.errors import Refused
from deployment.everywhere import Result, attempt, everywhere
from deployment.table import show
from deployment.targets import targeted

# name on the command line: (stack, template). In the order in which they are made.
STACKS = {
    "mailer": ("guardduty-response-mailer", "mailer.yml"),
    "account": ("guardduty-response", "account.yml"),
    "alarms": ("guardduty-response-alarms", "alarms.yml"),
    "operators": ("guardduty-response-operators", "operators.yml"),
    "deploy-role": ("guardduty-response-deploy-role", "deploy-role.yml"),
    "member-role": ("guardduty-response-member-role", "member-role.yml"),
    "evidence": ("guardduty-response-evidence", "evidence.yml"),
    "heartbeat": ("guardduty-response-heartbeat", "heartbeat.yml"),
}
# roles that say which region's stack made them
MADE_IN = {
    "account": "guardduty-response-finding-notify",
    "mailer": "guardduty-response-mailer",
}
REGION_TAG = "guardduty-response:region"
# Three resources, one after the other, take half a minute; roles a little more.
PATIENCE = {"Delay": 5, "MaxAttempts": 240}
# what CloudFormation says of a change set without a change, as in `aws cloudformation deploy`
NO_CHANGE = ("didn't contain changes", "No updates are to be performed")
SAID_BY = {
    "MailQueueArn": "MAIL_QUEUE=arn:...",
    "AlarmTopicArn": "ALARM_TOPIC=arn:...",
    "OrganizationId": "ORGANIZATION=o-...",
}
STUCK = {
    "ROLLBACK_COMPLETE": "it could not be made: {delete}, then again",
    "ROLLBACK_FAILED": "it could not be made: {delete}, then again",
    "CREATE_FAILED": "it could not be made: {delete}, then again",
    "DELETE_FAILED": "it could not be deleted: {events}, then {delete}",
    "UPDATE_ROLLBACK_FAILED": (
        "neither the update nor the way back went through: mend what {events} names, then "
        "{continue}, then again"
    ),
    "UPDATE_FAILED": "{rollback}, then again",
}


@dataclass
class Plan:
    """What a change set would do; without one the stack is as it should be. changes: those of
    CloudFormation's ResourceChange."""

    stack: str
    stack_id: str = ""
    change_set: str = ""
    creates: bool = False
    changes: list = field(default_factory=list)


def described(session, stack):
    """The stack as CloudFormation describes it, None when there is none.

    IAM: cloudformation:DescribeStacks of the stack.
    """
    try:
        return session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def region_of_role(session, role):
    """Which region's stack made a role: None when there is no such role, "" when the role does not
    say. IAM: iam:GetRole."""
    iam = session.client("iam")
    try:
        tags = iam.get_role(RoleName=role)["Role"].get("Tags", [])
    except iam.exceptions.NoSuchEntityException:
        return None
    return {tag["Key"]: tag["Value"] for tag in tags}.get(REGION_TAG, "")


def is_global(key):
    """Whether a stack is of IAM alone: an account has it in one region."""
    resources = template.look(STACKS[key][1])["Resources"].values()
    kinds = {r["Type"] if isinstance(r, dict) else "a loop" for r in resources}
    return all(kind.startswith("AWS::IAM::") for kind in kinds)


def parameters_for(target, session, key, said, before, home, roles):
    """The parameters of a change set: what is said, else what the stack has, else the default.

    said: {name: value}; `{account_id}` and `{region}` in a value are those of the target. before:
    the stack as it is, or None. home, roles: as for `plan`.
    """
    declared = template.look(STACKS[key][1]).get("Parameters", {})
    values = {
        name: value.replace("{account_id}", target.account_id).replace("{region}", target.region)
        for name, value in said.items()
        if name in declared
    }
    has = {p["ParameterKey"]: p.get("ParameterValue") for p in (before or {}).get("Parameters", [])}
    kept = set(has)
    if "RoleRegion" in declared and "RoleRegion" not in kept | set(values):
        # a former version said CreateRole=no where another region had the roles
        if has.get("CreateRole") == "no":
            values["RoleRegion"] = roles or refuse_without_home(target, STACKS[key][0])
        elif not before:
            values["RoleRegion"] = home
    if "DetectorId" in declared and "DetectorId" not in kept | set(values):
        values["DetectorId"] = detector(target, session)
    known = kept | set(values)
    missing = [n for n in declared if n not in known and "Default" not in declared[n]]
    if missing:
        needs = " ".join(SAID_BY.get(name, f'PARAMETERS="{name}=..."') for name in missing)
        raise Refused(f"{STACKS[key][0]} needs {needs}.")
    return [
        {"ParameterKey": name, "ParameterValue": values[name]}
        if name in values
        else {"ParameterKey": name, "UsePreviousValue": True}
        for name in declared
        if name in known
    ]


def refuse_without_home(target, stack):
    raise Refused(
        f"{stack} in {target} is of a former version and takes the roles of another region "
        "(CreateRole=no), and they do not say of which: update the region that has them first, "
        "make infra REGION=<that one>, or say PARAMETERS=RoleRegion=<that one>."
    )


def detector(target, session):
    """GuardDuty's detector. Raises Refused without one. IAM: guardduty:ListDetectors."""
    found = session.client("guardduty").list_detectors()["DetectorIds"]
    if not found:
        raise Refused(f"GuardDuty is off in {target}.")
    return found[0]


def plan(target, session, key, said, home, roles):
    """Make the change set of one stack and read it; a Plan. Nothing is executed.

    home, roles: the region that shall make, and that has made, the roles of the account.
    IAM: cloudformation:DescribeStacks, CreateChangeSet, DescribeChangeSet, DeleteChangeSet, and
    DeleteStack for a stack that is not made after all.
    """
    stack, file = STACKS[key]
    before = described(session, stack)
    status = before["StackStatus"] if before else "REVIEW_IN_PROGRESS"
    refuse_stuck(target, stack, status)
    creates = status == "REVIEW_IN_PROGRESS"
    here = said.get("RoleRegion", target.region) == target.region
    if creates and key == "account" and roles in ("", target.region) and here:
        elsewhere = (
            ""
            if roles
            else "it is of a former version's stack in another region: update that one "
            "first, make infra REGION=<that one>, or say PARAMETERS=RoleRegion=<that one>. Or "
        )
        raise Refused(
            f"The role {MADE_IN[key]} exists and no stack {stack} in {target}: {elsewhere}it is of "
            "another stack, perhaps of a StackSet (make stackset), or somebody's own, and in the "
            "way."
        )
    cloudformation = session.client("cloudformation")
    made = cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=f"make-infra-{uuid.uuid4().hex[:12]}",
        ChangeSetType="CREATE" if creates else "UPDATE",
        TemplateBody=template.text(file),
        Parameters=parameters_for(
            target, session, key, said, None if creates else before, home, roles
        ),
        # the second for Fn::ForEach
        Capabilities=["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    planned = Plan(stack, made["StackId"], made["Id"], creates)
    name = {"ChangeSetName": made["Id"], "StackName": made["StackId"]}
    try:
        waiter = cloudformation.get_waiter("change_set_create_complete")
        waiter.wait(WaiterConfig=PATIENCE, **name)
    except WaiterError as error:
        discard(session, planned)
        why = error.last_response.get("StatusReason") or str(error)
        if any(words in why for words in NO_CHANGE):
            return Plan(stack)
        raise click.ClickException(
            f"CloudFormation makes no change set of {stack}: {why}"
        ) from error
    for page in cloudformation.get_paginator("describe_change_set").paginate(**name):
        planned.changes += [change["ResourceChange"] for change in page.get("Changes", [])]
    return planned


def refuse_stuck(target, stack, status):
    """Raises Refused where a stack takes no change, and says what to do."""
    aws = f"--region {target.region} --stack-name {stack}"
    commands = {
        "delete": f"`aws cloudformation delete-stack {aws}`",
        "events": f"`aws cloudformation describe-stack-events {aws}`",
        "continue": f"`aws cloudformation continue-update-rollback {aws}`",
        "rollback": f"`aws cloudformation rollback-stack {aws}`",
    }
    if status in STUCK:
        raise Refused(f"{stack} is in {status}: {STUCK[status].format(**commands)}.")
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        raise Refused(f"{stack} is in {status}: somebody else changes it. Wait, then again.")


def discard(session, planned):
    """Leave no change set behind, nor the empty stack that a first one makes."""
    cloudformation = session.client("cloudformation")
    cloudformation.delete_change_set(ChangeSetName=planned.change_set, StackName=planned.stack_id)
    if not planned.creates:
        return
    # somebody else may have made the stack meanwhile, by a change set of their own
    now = described(session, planned.stack_id)
    if now and now["StackStatus"] == "REVIEW_IN_PROGRESS":
        cloudformation.delete_stack(StackName=planned.stack_id)


def execute(session, planned):
    """Execute a plan and wait; {output: value} of the stack.

    Raises ClickException with the first resource that failed and AWS's reason. IAM:
    cloudformation:ExecuteChangeSet, DescribeStacks, DescribeStackEvents, and what the resources
    need: they are made as the caller.
    """
    cloudformation = session.client("cloudformation")
    stack = {"StackName": planned.stack_id}
    pages = cloudformation.get_paginator("describe_stack_events").paginate(**stack)
    before = {event["EventId"] for page in pages for event in page["StackEvents"]}
    cloudformation.execute_change_set(ChangeSetName=planned.change_set, **stack)
    waiter = "stack_create_complete" if planned.creates else "stack_update_complete"
    try:
        cloudformation.get_waiter(waiter).wait(WaiterConfig=PATIENCE, **stack)
    except WaiterError as error:
        new = [e for page in pages for e in page["StackEvents"] if e["EventId"] not in before]
        raise click.ClickException(first_failure(planned.stack, new) or str(error)) from error
    (now,) = cloudformation.describe_stacks(**stack)["Stacks"]
    return {o["OutputKey"]: o["OutputValue"] for o in now.get("Outputs", [])}


def first_failure(stack, new):
    """What failed first, in one line; None when nothing says so. new: events, the last first."""
    for event in reversed(new):
        why = event.get("ResourceStatusReason", "")
        # the others are cancelled because of it
        if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in why:
            what = f"{event['LogicalResourceId']} ({event['ResourceType']})"
            last = new[0]["ResourceStatus"]
            return f"{stack}: {what} {event['ResourceStatus']}: {why} The stack: {last}."
    return None


# What is shown


def rows(planned, where=()):
    """A plan for the table: removals and replacements first, and marked."""
    if not planned.change_set:
        return [(*where, planned.stack, "unchanged", "", "", "")]
    if not planned.changes:
        return [(*where, planned.stack, "change of outputs or tags alone", "", "", "")]
    return [
        (
            *where,
            planned.stack,
            {"Remove": "! REMOVE", "Modify": "change", "Add": "add"}.get(c["Action"], c["Action"])
            if c.get("Replacement", "False") == "False"
            else f"! REPLACE{'' if c['Replacement'] == 'True' else ' perhaps'}",
            c["LogicalResourceId"],
            c["ResourceType"],
            ", ".join(properties(c)),
        )
        for c in sorted(planned.changes, key=danger)
    ]


def danger(change):
    """Sorts what is taken away before what is replaced, changed, added."""
    if change["Action"] == "Remove":
        return 0
    order = {"True": 1, "Conditional": 2}
    return order.get(change.get("Replacement"), 3 if change["Action"] == "Modify" else 4)


def properties(change):
    """What of a resource changes: names of properties, or of Tags, Metadata ..."""
    found = (detail["Target"] for detail in change.get("Details", []))
    return dict.fromkeys(t.get("Name") or t["Attribute"] for t in found)


COLUMNS = ("stack", "change", "resource", "type", "what of it")


# The command


def answers(command):
    """The options that make infra and make stackset have in common."""
    for option in (
        click.option("--stacks", default="", help="of " + ",".join(STACKS) + "; else what is due"),
        click.option("--mail-queue", default="", help="ARN of the queue of the account that mails"),
        click.option("--alarm-topic", default="", help="ARN of the SNS topic that alarms tell"),
        click.option("--organization", default="", help="o-..., for parameters OrganizationId"),
        click.option("--parameter", "parameters", multiple=True, help="Key=Value of a template"),
        click.option("--yes", is_flag=True, help="do it without asking"),
    ):
        command = option(command)
    return command


@click.command()
@targeted
@answers
def infra(targets, stacks, mail_queue, alarm_topic, organization, parameters, yes):
    """Make or update the stacks of infra/, after showing what would change.

    Without --stacks: account, alarms where a topic is said, each other that is there already, and
    mailer where no other account or region is known to mail.
    """
    said = said_by(mail_queue, alarm_topic, organization, parameters)
    keys = wanted(stacks)
    only_declared(said, keys or STACKS)
    accounts = {}
    for target in targets:
        accounts.setdefault(target.account_id, []).append(target)
    done = apply(list(accounts.values()), keys, said, yes)
    outputs = [(str(o.target), *pair) for o in done if o.answer for pair in o.answer.items()]
    if outputs:
        show("Outputs", ("account and region", "name", "value"), outputs)
    failed = [(str(one.target), one.error) for one in done if one.error]
    if failed:
        show("Not done", ("account and region", "reason"), failed)
        sys.exit(1)


def said_by(mail_queue, alarm_topic, organization, parameters):
    """{parameter: value} of the options. Raises Refused for what is no Key=Value."""
    said = {
        "MailQueueArn": mail_queue,
        "AlarmTopicArn": alarm_topic,
        "OrganizationId": organization,
    }
    return {name: value for name, value in said.items() if value} | dict(map(pair, parameters))


def pair(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise Refused(f"PARAMETERS is Key=Value, not {text!r}.")
    return name, value


def wanted(stacks):
    """The keys that are said, in the order of STACKS. Raises Refused for an unknown one."""
    said = [key for key in stacks.replace(",", " ").split() if key]
    for key in said:
        if key not in STACKS:
            raise Refused(f"STACKS: {key!r} is none of {', '.join(STACKS)}.")
    return [key for key in STACKS if key in said]


def only_declared(said, keys):
    """Raises Refused for a parameter that none of the templates has."""
    declared = set().union(*(template.look(STACKS[key][1]).get("Parameters", ()) for key in keys))
    for name in said:
        if name not in declared:
            close = difflib.get_close_matches(name, declared, 1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise Refused(f"No template of {', '.join(keys)} has a parameter {name}.{meant}")


def apply(groups, keys, said, yes):
    """Plan, show, ask, execute; what was executed or failed, as Results.

    groups: the targets of each account. keys: None or empty for those that are due. Raises Refused
    when somebody says no, or nobody can be asked, or when one account alone fails.
    """
    found = [
        one
        for result in everywhere(plans, groups, keys, said, len(groups) == 1, doing="Reading")
        for one in result.answer or [Result(result.target[0], error=result.error)]
    ]
    failed = [one for one in found if one.error]
    planned = [one for one in found if not one.error]
    where = [(str(one.target),) if len(groups) > 1 or len(groups[0]) > 1 else () for one in planned]
    columns = ("account and region", *COLUMNS) if any(where) else COLUMNS
    lines = [row for one, at in zip(planned, where, strict=True) for row in rows(one.answer, at)]
    due = [one for one in planned if one.answer.change_set]
    if lines:
        first = groups[0][0]
        place = f": {first.label}, {first.region}" if len(columns) == len(COLUMNS) else ""
        show(f"Stacks{place}", columns, lines)
    if len(groups) == 1 and failed:
        throw_away(due)
        raise Refused(f"{failed[0].target}: {failed[0].error}")
    if due and not (yes or agreed()):
        throw_away(due)
        raise Refused("Not executed." if sys.stdin.isatty() else "Say YES=1 to execute this.")
    by_account = {}
    for one in due:
        by_account.setdefault(one.target.account_id, []).append(one)
    if not due:
        return failed
    executed = everywhere(executions, list(by_account.values()), doing="Changing")
    return failed + [
        one for r in executed for one in r.answer or [Result(r.target[0].target, error=r.error)]
    ]


def plans(targets, keys, said, alone):
    """The plans of one account, in all of its regions; a list of Results.

    alone: of the one account of this run, which mails for itself where it is told no queue.
    """
    session = targets[0].session()
    roles = region_of_role(session, MADE_IN["account"])
    mails = region_of_role(session, MADE_IN["mailer"])
    found = []
    for target in targets:
        session = target.session()
        due = keys or without_being_asked(session, said)
        own = dict(said)
        if "MailQueueArn" not in said and not described(session, STACKS["account"][0]):
            if alone and not mails and not keys:
                due = ["mailer", *(key for key in due if key != "mailer")]
                mails = target.region
            if mails:
                own["MailQueueArn"] = mail_queue_arn(target.account_id, mails)
        home = roles or targets[0].region
        for key in due:
            if is_global(key) and target.region != home and not described(session, STACKS[key][0]):
                continue
            found.append(attempt(plan, target, session, key, own, home, roles))
    if not found:
        raise Refused(f"{', '.join(keys)}: of IAM alone, and so in one region: {home}.")
    return found


def without_being_asked(session, said):
    """The stacks that every region has, and those that are there."""
    always = {"account"} | ({"alarms"} if "AlarmTopicArn" in said else set())
    return [key for key, (stack, _) in STACKS.items() if key in always or described(session, stack)]


def mail_queue_arn(account_id, region):
    """The queue of infra/mailer.yml in an account and region."""
    return generate_arn("sqs", "guardduty-response-mail", region=region, account_id=account_id)


def executions(planned):
    """Execute the plans of one account, one after the other; a list of Results."""
    return [attempt(executed, one.target, one.answer) for one in planned]


def executed(target, planned):
    return execute(target.session(), planned)


def throw_away(planned):
    for one in planned:
        discard(one.target.session(), one.answer)


def agreed():
    return sys.stdin.isatty() and click.confirm("Execute this?")
