"""Whether all went as the finding and the mode ask for: what EC2, the functions and the SMTP server
of a simulated cloud have, compared with what was to happen."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.utils import load_file

from custom_actions import autonomy
from custom_actions.finding_file import account_and_region
from custom_actions.headline import fate

from .story import sentence

NOTIFY, ISOLATE, REVOKE = (
    f"custodian-{name}" for name in ("finding-notify", "ec2-isolate", "iam-role-revoke-sessions")
)
MAILER = "guardduty-response-mailer"
FORENSIC = "ForensicSecurityGroup"
POLICIES = Path(__file__).parents[1] / "policies"
WORD = {autonomy.ASK: "ASK |", autonomy.OBSERVE: "OBSERVE ONLY |"}
ON_PURPOSE = ("withheld", "skipped", "exempt")  # nothing to do to it, or not to it


@dataclass
class Verdict:
    """problems: what did not go as it should, a line each. became: what became of the finding, in
    some words. isolated: the instances that are, as read back by the function and here.
    read_back: when the function did, of the last one. planned: those that the mode only tells of.
    may_change_nothing: whether all has to be as it was."""

    problems: list[str] = field(default_factory=list)
    became: str = ""
    isolated: list[str] = field(default_factory=list)
    read_back: str = ""
    planned: list[str] = field(default_factory=list)
    may_change_nothing: bool = True


def judge(cloud, sink, world, event, before, after, mode):
    """The Verdict about a finding that has gone through the deployed pack.

    before, after: snapshots of the world.
    """
    verdict = Verdict()
    problems = verdict.problems
    invoked = {i.function_name: i for i in cloud.invocations}  # the last try of each
    answers = answered(invoked, problems)
    subjects = [mail.subject for mail in sink.mails]
    findings = sum("GuardDuty Finding |" in subject for subject in subjects)
    remediations = [subject for subject in subjects if "GuardDuty Remediation |" in subject]
    if NOTIFY in answers and findings != 1:
        problems.append(f"{findings} finding mails instead of one")
    isolations = {
        outcome.get("resource", world.target): outcome
        for outcome in steps(answers, ISOLATE)
        if outcome["step"] == "isolate-instance"
    }
    revoked = [outcome for outcome in steps(answers, REVOKE) if "revoked" in outcome]
    touched = [i for i in before if differs(before[i], after.get(i, {}))]
    problems += [f"neighbour {i} changed" for i in touched if i in world.neighbours]
    if any(invoked[name].error for name in (ISOLATE, REVOKE) if name in invoked):
        verdict.may_change_nothing = False
        isolated = [i for i in world.targets if world.is_isolated(i, FORENSIC)]
        problems += [f"{i} is NOT isolated" for i in world.targets if i not in isolated]
        return verdict
    if not isolations and not revoked:
        problems += [f"{i} changed though no policy acts on this finding" for i in touched]
        problems += [
            f"{one['policy']} is to act on this finding by its filters, and its rule did not match"
            for one in followed(event)
            if acts(one) and f"custodian-{one['policy']}" not in invoked
        ]
        verdict.became = nothing_done(event, answers, findings)
        return verdict
    verdict.planned = [i for i, of in isolations.items() if of["status"] == "planned"]
    if len(remediations) != 1:
        problems.append(f"{len(remediations)} remediation mails instead of one")
    if mode != autonomy.CONTAIN:
        problems += [f"{i} changed in mode {mode}" for i in touched if i in world.targets]
        word = WORD[mode]
        problems += [f"a mail does not say {word}" for s in remediations if word not in s]
        verdict.became = f"mailed, nothing changed, on purpose: the mode is {mode}"
        return verdict
    verdict.may_change_nothing = False
    left = []
    for instance_id, outcome in isolations.items():
        if outcome["isolated"] and world.is_isolated(instance_id, FORENSIC):
            verdict.isolated.append(instance_id)
            verdict.read_back = outcome["verified_at"]
        elif outcome["status"] in ON_PURPOSE and instance_id not in touched:
            said = fate([outcome]) if len(isolations) > 1 else sentence(outcome["detail"])
            left.append(said.removeprefix("not done here: ").rstrip("."))
        else:
            problems.append(f"{instance_id} is not isolated: {outcome['detail']}")
    problems += [f"not revoked: {o['detail']}" for o in revoked if not o["revoked"]]
    said = []
    if verdict.isolated:
        number = len(isolations)
        some = f"{len(verdict.isolated)} of {number} " if number > 1 else ""
        said.append(f"{some}isolated, {len(world.neighbours)} neighbours untouched")
    if left:
        several = f"{len(left)} " if len(isolations) > 1 else ""
        said.append(f"{several}left alone, on purpose: {'; '.join(dict.fromkeys(left))}")
    if any(outcome["revoked"] for outcome in revoked):
        said.append("the stolen sessions are denied everything")
    verdict.became = f"as it should be: {'; '.join(said)}"
    return verdict


def answered(invoked, problems):
    """{function: its answer}; those that ended in an error go to the problems."""
    answers = {}
    for name, invocation in invoked.items():
        if invocation.error:
            problems.append(f"{name} ended in an error: {invocation.error['errorMessage']}")
        elif name != MAILER:
            (answers[name],) = invocation.result.values()
    return answers


def steps(answers, function):
    """The outcomes of a function; none where it left the finding out, or was not invoked."""
    answer = answers.get(function, [])
    return [] if isinstance(answer, str) else answer


def differs(before, after):
    return any(before[key] != after.get(key) for key in ("interfaces", "tags"))


def nothing_done(event, answers, findings):
    """What became of a finding that no policy has acted on."""
    if not answers:
        why = unmailed(event)
        return "no rule matches this finding: nothing happens, on purpose" + (why and f": {why}")
    why = unanswered(event, answers)
    if findings:
        return f"mailed, nothing changed, on purpose: {why}"
    return f"nothing mailed, nothing changed, on purpose: {unmailed(event)}; {why}"


def unmailed(event):
    """Why finding-notify does not mean a finding, or nothing where it knows no reason."""
    policy = finding_notify(event)
    reasons = [element.refusal(event) for element in policy.resource_manager.filters]
    return next((f"{policy.name}: {reason}" for reason in reasons if reason), "")


def unanswered(event, answers):
    """Why no policy acts on a finding, as the finding mail says it."""
    reasons = []
    for one in followed(event):
        answer = answers.get(f"custodian-{one['policy']}", "")
        if acts(one):
            reasons.append(f"{one['policy']}: {answer.removeprefix('nothing to do: ')}")
        elif one["refusal"]:
            reasons.append(f"{one['policy']}: {one['refusal']}")
        else:
            reasons.append(f"{one['policy']} would act, but is opt-in and not deployed")
    return "; ".join(reasons) or "no policy acts on findings of this type"


def followed(event):
    """What follows a finding by each policy for its type, as the finding mail has it."""
    headline, *_ = finding_notify(event).resource_manager.actions
    return list(headline.followed(event))


def acts(one):
    return not one["refusal"] and not one["opt-in"]


def finding_notify(event):
    load_resources(("aws.account",))
    account_id, region = account_and_region(event)
    data = load_file(str(POLICIES / "finding-notify.yml"))
    config = Config.empty(account_id=account_id, region=region)
    (policy,) = PolicyCollection.from_data(data, config)
    return policy


def describe_everything(world):
    """All that the steps may change, as AWS shows it; snapshots and mails are meant to stay."""
    if not world.instances:
        return {}
    ec2, elb = world.client("ec2"), world.client("elbv2")
    shown = {
        "instances": ec2.describe_instances(InstanceIds=world.instances)["Reservations"],
        "interfaces": ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": world.instances}]
        )["NetworkInterfaces"],
        "network ACLs": ec2.describe_network_acls()["NetworkAcls"],
        "targets": {
            group["TargetGroupName"]: elb.describe_target_health(
                TargetGroupArn=group["TargetGroupArn"]
            )["TargetHealthDescriptions"]
            for group in elb.describe_target_groups()["TargetGroups"]
        },
        "protection": [
            ec2.describe_instance_attribute(InstanceId=instance, Attribute=attribute)
            for instance in world.instances
            for attribute in (
                "disableApiTermination",
                "disableApiStop",
                "instanceInitiatedShutdownBehavior",
            )
        ],
    }
    iam = world.client("iam")
    shown["role policies"] = {
        role["RoleName"]: iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        for role in iam.list_roles()["Roles"]
    }
    return json.loads(json.dumps(shown, default=str, sort_keys=True), object_hook=without_metadata)


def without_metadata(mapping):
    mapping.pop("ResponseMetadata", None)
    # moto lists targets in the order of their registration
    for key, value in mapping.items():
        if isinstance(value, list) and all(isinstance(v, dict) for v in value):
            mapping[key] = sorted(value, key=lambda v: json.dumps(v, sort_keys=True))
    return mapping
