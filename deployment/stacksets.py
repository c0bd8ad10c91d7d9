"""`make stackset`: the stacks of infra/ in all accounts of organisational units, new ones too.

By the API and not by a template with AWS::CloudFormation::StackSet: that would hold the other
template as text (or need a bucket), and show no account and no reason when one fails.

- Service-managed: no roles to make first, and accounts that come into a unit get the stacks.
- One parameter set for all: RoleRegion says in which region the roles are made, the first one.
- Stacks stay in an account that leaves the units: else whoever may move an account would switch off
  its response. What comes back needs `aws cloudformation import-stacks-to-stack-set`.
- A transform is not possible in service-managed StackSets, so loops are written out here.

CloudFormation does not deploy to the management account: `make infra` there.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stacksets-orgs-associate-stackset-with-org.html
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stacksets-orgs-manage-auto-deployment.html
"""

import json
import re
import sys
import time
from dataclasses import dataclass, field

import click
from botocore.exceptions import ClientError
from c7n_org.cli import comma_expand

from deployment import template
from deployment.errors import Refused, reason
from deployment.stacks import (
    SAID_BY,
    STACKS,
    agreed,
    answers,
    is_global,
    only_declared,
    said_by,
    wanted,
)
from deployment.table import show
from deployment.targets import current, known

# Of the others there is one alone (mailer), or each needs a parameter of its own (heartbeat).
EVERYWHERE = [key for key in STACKS if key not in ("mailer", "heartbeat")]
AUTOMATIC = {"Enabled": True, "RetainStacksOnAccountRemoval": True}
# A first deployment goes on past every account that fails. An update that many refuse is stopped:
# where it failed the stack is as before.
PREFERENCES = {
    "RegionConcurrencyType": "SEQUENTIAL",
    "MaxConcurrentPercentage": 25,
    "ConcurrencyMode": "SOFT_FAILURE_TOLERANCE",
}
TOLERANCE = {"create": 100, "update": 10}
POLL = 10  # seconds
PATIENCE = 6 * 3600  # seconds
RUNNING = ("RUNNING", "QUEUED", "STOPPING")


@dataclass
class Plan:
    """What is due for one StackSet. adds: [(units, regions)] that get stacks."""

    key: str
    name: str
    body: str
    parameters: list
    new: bool = False
    update: list = field(default_factory=list)
    adds: list = field(default_factory=list)

    def rows(self):
        if self.new:
            yield self.name, "new", "with automatic deployment to new accounts"
        for what in self.update:
            yield self.name, "update", what
        for units, regions in self.adds:
            yield self.name, "add stacks", f"{', '.join(units)}: {', '.join(regions)}"
        if not self.due:
            yield self.name, "unchanged", ""

    @property
    def due(self):
        return self.new or self.update or self.adds


@click.command()
@click.option("--organizational-units", required=True, help="ou-... or r-..., with commas")
@click.option("--regions", required=True, help="the first makes the roles and has the StackSets")
@click.option("--delegated", is_flag=True, help="run as a delegated administrator of StackSets")
@answers
def stackset(
    organizational_units,
    regions,
    delegated,
    stacks,
    mail_queue,
    alarm_topic,
    organization,
    parameters,
    yes,
):
    """Make or update the stacks of infra/ in organisational units by StackSets, and wait.

    Runs in the management account or, with --delegated, in an account that is registered for it.
    IAM: what the methods of StackSets name, of stackset/guardduty-response*.
    """
    units = comma_expand([organizational_units])
    for unit in units:
        if not re.fullmatch(r"(ou-[a-z0-9]{4,32}-[a-z0-9]{8,32}|r-[a-z0-9]{4,32})", unit):
            raise Refused(f"{unit!r} is not the id of an organisational unit or root.")
    regions = [known(region) for region in comma_expand([regions])]
    said = said_by(mail_queue, alarm_topic, organization, parameters)
    keys = wanted(stacks) or ["account", *(["alarms"] if "AlarmTopicArn" in said else [])]
    for key in keys:
        if key not in EVERYWHERE:
            raise Refused(f"{key} is for one account and region: make infra STACKS={key}.")
    only_declared(said, keys)
    here = current(regions[0])
    session = here.session()
    call_as = {"CallAs": "DELEGATED_ADMIN" if delegated else "SELF"}
    sets = StackSets(session.client("cloudformation"), call_as)
    try:
        plans = [plan(sets, key, units, regions, said) for key in keys]
    except ClientError as error:
        raise Refused(
            f"{reason(error)}. Is trusted access of StackSets on in the organisation, and is this "
            "the management account (else DELEGATED=1)?"
        ) from error
    title = f"StackSets: {here.label}, {here.region}"
    show(title, ("StackSet", "change", "of it"), [row for p in plans for row in p.rows()])
    due = [p for p in plans if p.due]
    if due and not (yes or agreed()):
        raise Refused("Not executed." if sys.stdin.isatty() else "Say YES=1 to execute this.")
    results = [row for p in due for row in sets.carry_out(p)]
    results.sort(key=lambda row: row[3] == "SUCCEEDED")
    if results:
        show("Results", ("StackSet", "account", "region", "status", "reason"), results)
    if any(row[3] != "SUCCEEDED" for row in results):
        sys.exit(1)


def plan(sets, key, units, regions, said):
    """What is due for one StackSet; a Plan. Changes nothing."""
    name, file = STACKS[key]
    before = sets.described(name)
    declared = template.look(file).get("Parameters", {})
    kept = {p["ParameterKey"]: p["ParameterValue"] for p in (before or {}).get("Parameters", [])}
    values = {n: v for n, v in (kept | said).items() if n in declared}
    if "RoleRegion" in declared and values.setdefault("RoleRegion", regions[0]) != regions[0]:
        made = values["RoleRegion"]
        raise Refused(f"The roles are made in {made}: say it first, REGIONS={made},...")
    body, values = body_of(file, values)
    missing = [n for n in declared if n not in values and "Default" not in declared[n]]
    missing = [n for n in missing if f'"Ref": "{n}"' in body or f"!Ref {n}" in body]
    if missing:
        needs = " ".join(SAID_BY.get(n, f'PARAMETERS="{n}=..."') for n in missing)
        raise Refused(f"{name} needs {needs}.")
    parameters = [{"ParameterKey": n, "ParameterValue": v} for n, v in values.items()]
    planned = Plan(key, name, body, parameters, new=before is None)
    regions = regions[:1] if is_global(key) else regions
    if before is None:
        planned.adds = [(units, regions)]
        return planned
    if before["TemplateBody"] != body:
        planned.update.append("template")
    planned.update += sorted(n for n in {**kept, **values} if kept.get(n) != values.get(n))
    if before.get("AutoDeployment") != AUTOMATIC:
        planned.update.append("automatic deployment")
    behind = [i for i in sets.instances(name) if i["Status"] != "CURRENT"]
    if behind:
        planned.update.append(f"{len(behind)} stacks that are {behind[0]['Status']}")
    old_units, old_regions = before.get("OrganizationalUnitIds", []), before.get("Regions", [])
    new_units = [unit for unit in units if unit not in old_units]
    new_regions = [region for region in regions if region not in old_regions]
    if new_regions and old_units:
        planned.adds.append((old_units, new_regions))
    if new_units:
        planned.adds.append((new_units, list(dict.fromkeys([*regions, *old_regions]))))
    return planned


def body_of(file, values):
    """(the template, the parameters it still has), for one set of parameters for all accounts.

    A value with `{region}` or `{account_id}` becomes part of the template, as Fn::Sub.
    """
    body = template.text(file)
    local = {n: v for n, v in values.items() if "{region}" in v or "{account_id}" in v}
    if not local and "AWS::LanguageExtensions" not in body:
        return body, values
    decoded = template.written_out(body, {n: v for n, v in values.items() if n not in local})
    decoded.pop("Transform", None)
    for name, value in local.items():
        del decoded["Parameters"][name]
        text = value.replace("{region}", "${AWS::Region}")
        text = text.replace("{account_id}", "${AWS::AccountId}")
        decoded = replaced(decoded, {"Ref": name}, {"Fn::Sub": text})
    body = json.dumps(decoded, separators=(",", ":"))
    if len(body) > template.INLINE:
        raise Refused(f"infra/{file} is too long with its loops: name fewer in a parameter.")
    return body, {n: v for n, v in values.items() if n not in local}


def replaced(element, old, new):
    """A part of a template with each `old` in it replaced."""
    if element == old:
        return new
    if isinstance(element, dict):
        return {key: replaced(value, old, new) for key, value in element.items()}
    if isinstance(element, list):
        return [replaced(value, old, new) for value in element]
    return element


class StackSets:
    """CloudFormation's StackSets, as the management account or its delegate."""

    def __init__(self, client, call_as):
        self.client, self.call_as = client, call_as

    def described(self, name):
        """The StackSet, None when there is none. IAM: cloudformation:DescribeStackSet."""
        try:
            return self.client.describe_stack_set(StackSetName=name, **self.call_as)["StackSet"]
        except self.client.exceptions.StackSetNotFoundException:
            return None

    def instances(self, name):
        """The stacks of a StackSet. IAM: cloudformation:ListStackInstances."""
        pages = self.client.get_paginator("list_stack_instances")
        return [
            one
            for page in pages.paginate(StackSetName=name, **self.call_as)
            for one in page["Summaries"]
        ]

    def carry_out(self, planned):
        """Do what is due, one operation after the other; rows of what came of it.

        IAM: cloudformation:CreateStackSet, UpdateStackSet, CreateStackInstances,
        DescribeStackSetOperation, ListStackSetOperationResults.
        """
        name = {"StackSetName": planned.name, **self.call_as}
        whole = {
            "TemplateBody": planned.body,
            "Parameters": planned.parameters,
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
            "PermissionModel": "SERVICE_MANAGED",
            "AutoDeployment": AUTOMATIC,
            "Description": f"infra/{STACKS[planned.key][1]} of the GuardDuty response policies",
        }
        if planned.new:
            self.client.create_stack_set(**name, **whole)
        if planned.update:
            done = self.client.update_stack_set(
                **name, **whole, OperationPreferences=preferences("update")
            )
            yield from self.results(planned.name, done["OperationId"])
        for units, regions in planned.adds:
            done = self.client.create_stack_instances(
                **name,
                DeploymentTargets={"OrganizationalUnitIds": units},
                Regions=regions,
                OperationPreferences=preferences("create") | {"RegionOrder": regions},
            )
            yield from self.results(planned.name, done["OperationId"])

    def results(self, name, operation):
        """Wait for an operation; (StackSet, account, region, status, reason) of each stack."""
        of_it = {"StackSetName": name, "OperationId": operation, **self.call_as}
        until = time.monotonic() + PATIENCE
        while True:
            now = self.client.describe_stack_set_operation(**of_it)["StackSetOperation"]
            if now["Status"] not in RUNNING:
                break
            if time.monotonic() > until:
                yield name, "", "", now["Status"], f"still, operation {operation}: look later"
                return
            time.sleep(POLL)
        pages = self.client.get_paginator("list_stack_set_operation_results").paginate(**of_it)
        rows = [
            (name, one["Account"], one["Region"], one["Status"], one.get("StatusReason", ""))
            for page in pages
            for one in page["Summaries"]
        ]
        yield from rows
        if now["Status"] != "SUCCEEDED" and all(row[3] == "SUCCEEDED" for row in rows):
            yield name, "", "", now["Status"], now.get("StatusReason", f"operation {operation}")


def preferences(kind):
    return PREFERENCES | {"FailureTolerancePercentage": TOLERANCE[kind]}
