"""The first line of each mail, which is its subject too, as plain text on one line.

It is made here and not in a template, because no mailer makes a subject by one. Policies hand it on
in `event["c7n:notice"]`, from where subject and template take it.
"""

import jmespath
from c7n.actions import EventAction
from c7n.exceptions import PolicyValidationError
from c7n.filters import EventFilter
from c7n.utils import type_schema

from custom_actions import autonomy
from custom_actions.finding import (
    FindingFilter,
    direction,
    instance_ids,
    is_sample,
    mapping,
    text,
)
from custom_actions.record import FINDING, ISOLATED_AT, STATE, case_id
from custom_actions.registry import register

NOTICE = "c7n:notice"

# For Custodian's stock mailer, which renders a subject: a constant, since text of a finding inside
# it would be run as a template. This pack's mailer takes the headline as it stands.
SUBJECT = '{{ event["c7n:notice"].headline }}'

# The type of the scenario, and how its mail goes on after "that". The sentence of an outbound
# connection is given.
THREAT_LIST = "UnauthorizedAccess:EC2/MaliciousIPCaller.Custom"
COMMUNICATES = {
    "OUTBOUND": "is communicating outbound with",
    "INBOUND": "received an inbound connection from",
    "UNKNOWN": "is communicating (who began it is not known) with",
}
FOLLOW_UP = "Please follow up with any additional remediation actions."

LONGEST = 900  # characters; mail servers refuse header lines of more than 998


def one_line(text, longest=LONGEST):
    """Text that an attacker may have written, fit for a header and safe to read.

    No line break and no control character; web addresses are spelt so that mail programs do not
    make links of them.
    """
    text = str(text or "").replace("://", "[:]//").replace("www.", "www[.]")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def finding_headline(event):
    """`GuardDuty Finding | ID: ...: The EC2 instance ... may be compromised ...`."""
    finding = mapping(event, "detail")
    count = mapping(finding, "service").get("count")
    what, kind = subject(finding), one_line(finding.get("type"), 128)
    if kind.startswith("Policy:") or what.startswith(STORED):
        told = (
            f"GuardDuty reports {kind or 'a finding'} about the {what}; it should be investigated"
        )
    else:
        told = f"The {what} may be compromised and should be investigated"
    line = f"GuardDuty Finding | ID: {one_line(finding.get('id'), 64) or '(none)'}: {told}"
    if isinstance(count, int) and count > 1:
        line += f" (seen {count} times)"
    return one_line(f"[SAMPLE] {line}" if is_sample(event) else line)


# What a finding is about: its resourceType, that in words, and where its names stand.
# https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-summary.html
# The resourceType of the findings of Malware Protection for Backup is not documented: what is not
# here by its type is known by the first of these that the finding has the names of.
RESOURCES = {
    "Instance": ("EC2 instance", "resource.instanceDetails.instanceId"),
    "S3Object": ("S3 object", "resource.s3BucketDetails[].s3ObjectDetails[].[objectArn || key][]"),
    "S3Bucket": ("S3 bucket", "resource.s3BucketDetails[].name"),
    "EKSCluster": ("EKS cluster", "resource.eksClusterDetails.name"),
    "ECSCluster": ("ECS cluster", "resource.ecsClusterDetails.name"),
    "Lambda": ("Lambda function", "resource.lambdaDetails.functionName"),
    "RDSDBInstance": ("RDS database", "resource.rdsDbInstanceDetails.dbInstanceIdentifier"),
    "RDSLimitlessDB": (
        "RDS Limitless database",
        "resource.rdsLimitlessDbDetails.dbShardGroupIdentifier",
    ),
    "Container": ("container", "resource.containerDetails.name"),
    "EBSSnapshot": ("EBS snapshot", "resource.ebsSnapshotDetails.snapshotArn"),
    "EC2Image": ("machine image", "resource.ec2ImageDetails.imageArn"),
    "RecoveryPoint": ("recovery point", "resource.recoveryPointDetails.recoveryPointArn"),
    "BedrockGuardrail": ("Bedrock guardrail", "resource.bedrockGuardrailDetails.guardrailArn"),
}
# Where something lies and nobody acts: it holds what GuardDuty found, and is not compromised by it.
STORED = ("S3 object", "EBS snapshot", "machine image", "recovery point")
# The same for the resources of an attack sequence: the first of these kinds that it names is what
# it is about. https://docs.aws.amazon.com/guardduty/latest/APIReference/API_ResourceV2.html
OF_A_SEQUENCE = {
    "EC2_INSTANCE": "EC2 instance",
    "EKS_CLUSTER": "EKS cluster",
    "ECS_CLUSTER": "ECS cluster",
    "S3_BUCKET": "S3 bucket",
    "ACCESS_KEY": "access key",
}
NAMED = 3  # of several, those that a headline names


def subject(finding):
    """What the finding is about, in words."""
    kind = text(mapping(finding, "resource"), "resourceType")
    access = mapping(finding, "resource", "accessKeyDetails")
    if access and kind in ("AccessKey", ""):
        return _identity(finding, access)
    if kind == "AttackSequence":
        return _of_a_sequence(finding)
    found = {one: jmespath.search(path, finding) for one, (_, path) in RESOURCES.items()}
    if kind not in RESOURCES:
        kind = next((one for one, names in found.items() if names), kind)
    instance = found["Instance"]
    if kind not in RESOURCES:
        return f"resource of type {one_line(kind, 64)}" if kind else "resource (not named)"
    words = _named(RESOURCES[kind][0], found[kind])
    if kind != "Instance" and isinstance(instance, str) and instance:
        words += f" (EC2 instance {one_line(instance, 40)})"
    return words


def _named(words, names):
    """Words for things of a kind, with the names of the first few."""
    names = names if isinstance(names, list) else [names]
    names = [one_line(name, 128) for name in names if isinstance(name, str) and name]
    if len(names) < 2:
        return f"{words} {names[0] if names else '(not named)'}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{words}s {', '.join(names[:NAMED])}{more}"


def _identity(finding, access):
    name = one_line(access.get("userName") or access.get("principalId"), 128) or "(not named)"
    kinds = {"IAMUser": "IAM user", "AssumedRole": "IAM role", "Role": "IAM role"}
    if access.get("userType") == "Root":
        return f"root user of account {one_line(finding.get('accountId'), 12)}"
    return f"{kinds.get(str(access.get('userType')), 'identity')} {name}"


def _of_a_sequence(finding):
    instances = instance_ids({"detail": finding})
    if instances:
        return _named("EC2 instance", instances)
    names = jmespath.search(
        "service.detection.sequence.resources[].[resourceType, name || uid]", finding
    )
    for kind, words in OF_A_SEQUENCE.items():
        found = [name for one, name in names or () if one == kind]
        if found:
            return _named(words, found)
    return f"account {one_line(finding.get('accountId'), 12) or '(not named)'}"


# What stands before the line where a judge held the isolation back (custom_actions/judgement.py).
HELD = {
    "brake": "BRAKE HELD",
    "last-healthy": "LAST HEALTHY MEMBER",
    "release": "RELEASED BEFORE",
}


def remediation_headline(finding, instance_id, outcomes, command=None, who=None):
    """`GuardDuty Remediation | ID: ...: GuardDuty discovered ...` and how the response ended.

    It says "isolated" only when the outcome of `isolate-instance` does, that is, after the
    read-back. `outcomes` are those of the steps, see custom_actions/response.py. `command` is the
    one by which a person does what the pack has not done; None where there is none to give. `who`:
    the person who runs the response by hand; then there may be no finding, which has no type.
    """
    name = f"EC2 instance (Instance ID: {instance_id})"
    who = one_line(who, 200)
    if who and not finding.get("type"):
        discovered = f"A person named an {name}."
    elif finding.get("type") == THREAT_LIST:
        discovered = (
            f"GuardDuty discovered an {name} that {COMMUNICATES[direction({'detail': finding})]} "
            "an IP Address on a threat list that you uploaded."
        )
    else:
        discovered = f"GuardDuty discovered an {name}: {one_line(finding.get('title'), 300)}"
    isolation = next((o for o in outcomes if "isolated" in o), {})
    failures = [o for o in outcomes if o["status"] == "failed"]
    errors = one_line("; ".join(f"{o['step']}: {o['error']}" for o in failures), 400)
    planned = isolation.get("status") == "planned"
    do_it = f" To do it: {command}" if command else ""
    isolated = "All security groups have been removed and it has been isolated"
    if who and isolation.get("status") == "unchanged":
        isolated = f"It was isolated already when {who} had this run by hand"
    elif who:
        isolated += f" by {who} by hand"
    if planned:
        result = f"Nothing was changed. {isolation['detail']}{do_it}"
    elif "withheld" in isolation:
        result = f"It was NOT isolated. {isolation['detail']}{do_it}"
    elif not isolation.get("isolated"):
        tried = f"{who} tried to isolate it by hand. " if who else ""
        result = f"{tried}It was NOT isolated. {errors or isolation.get('detail', '')}"
    elif failures:
        result = f"{isolated}, but the response is NOT COMPLETE: {errors}"
    else:
        result = f"{isolated}. {FOLLOW_UP}"
    line = f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: {discovered} {result}"
    if "withheld" in isolation:
        return one_line(f"{HELD[isolation['withheld']]} | {line}")
    return one_line(f"{undone(command)} | {line}" if planned else line)


# What became of an instance where a judge held it back.
HELD_BACK = {
    "brake": "held back by the brake",
    "last-healthy": "held back as last healthy member",
    "release": "released from this finding before",
}
FATES = {
    "planned": "would be isolated",
    "exempt": "exempt",
    "skipped": "with nothing left to isolate",
    "failed": "FAILED",
}
NAMED = 3  # of the instances to which the same happened


def fate(outcomes):
    """What became of one instance of several, in some words."""
    isolation = next((o for o in outcomes if "isolated" in o), {})
    if isolation.get("isolated"):
        return "isolated"
    if "withheld" in isolation:
        return HELD_BACK[isolation["withheld"]]
    if "unresolved" in isolation.get("facts", ()):
        detail = isolation["detail"].rstrip(".")
        return one_line(detail[:1].lower() + detail[1:], 120)
    return FATES.get(isolation.get("status"), "not isolated")


def sequence_headline(finding, results, command=None):
    """`GuardDuty Remediation | ID: ...: GuardDuty discovered an attack sequence ...`, with counts.

    results: {instance id: outcomes of its steps}. An instance counts as isolated only when its
    outcome says so, that is, after the read-back. command: where there is one to give, the mail has
    it; here is no room for it.
    """
    fates = {}
    for instance_id, outcomes in results.items():
        fates.setdefault(fate(outcomes), []).append(one_line(instance_id, 40))
    number, isolated = len(results), len(fates.pop("isolated", ()))
    all_outcomes = [outcome for outcomes in results.values() for outcome in outcomes]
    withheld = next((o["withheld"] for o in all_outcomes if "withheld" in o), None)
    planned = any(o["status"] == "planned" for o in all_outcomes)
    failed = [
        f"{one_line(instance_id, 40)} {o['step']}: {o['error']}"
        for instance_id, outcomes in results.items()
        for o in outcomes
        if o["status"] == "failed"
    ]
    if isolated == number:
        result = f"All security groups have been removed and all {number} have been isolated"
    else:
        others = "; ".join(f"{len(ids)} {words}{named(ids)}" for words, ids in fates.items())
        result = f"{isolated} of {number} instances isolated; NOT isolated: {one_line(others, 450)}"
        if planned:
            result = f"Nothing was changed. {result}"
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        result += f". The response is NOT COMPLETE: {one_line(failed[0], 150)}{more}"
    result += ". The mail has the command that isolates them." if command else "."
    if isolated == number and not failed:
        result += f" {FOLLOW_UP}"
    line = (
        f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: GuardDuty discovered an "
        f"attack sequence that names {number} EC2 instances: "
        f"{one_line(finding.get('title'), 200).rstrip('.')}. {result}"
    )
    if planned:
        return one_line(f"{undone(command)} | {line}")
    return one_line(f"{HELD[withheld]} | {line}" if withheld else line)


def named(ids):
    """The first of some ids, in brackets."""
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f" ({', '.join(ids[:NAMED])}{more})"


def undone(command):
    """What stands before the line where the policy may change nothing by itself."""
    return "ASK" if command else "OBSERVE ONLY"


def credential_headline(finding, outcomes, command=None, who=None):
    """`GuardDuty Remediation | ID: ...: GuardDuty discovered that credentials of ...`.

    It says what was denied or deactivated only when an outcome has `revoked`, that is, after the
    read-back. `outcomes`, `command` and `who` as in `remediation_headline`.
    """
    access = mapping(finding, "resource", "accessKeyDetails")
    discovered = (
        f"GuardDuty discovered that credentials of the {subject(finding)} may be in the wrong "
        f"hands: {one_line(finding.get('title'), 300)}"
    )
    step = next((o for o in outcomes if "revoked" in o), {})
    failures = [o for o in outcomes if o["status"] == "failed"]
    errors = one_line("; ".join(f"{o['step']}: {o['error']}" for o in failures), 400)
    planned = step.get("status") == "planned"
    if planned:
        do_it = f" To do it: {command}" if command else ""
        result = f"Nothing was changed. {step['detail']}{do_it}"
    elif not step.get("revoked"):
        user = access.get("userType") == "IAMUser"
        lost = "The access key was NOT deactivated." if user else "The sessions were NOT revoked."
        result = f"{lost} {errors or step.get('detail', '')}"
    elif failures:
        result = f"{step['detail']} But the response is NOT COMPLETE: {errors}"
    else:
        result = f"{step['detail']} {FOLLOW_UP}"
    if who:
        result = f"{one_line(who, 200)} responded by hand. {result}"
    line = f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: {discovered} {result}"
    return one_line(f"{undone(command)} | {line}" if planned else line)


def guard_headline(call, resource_id, outcomes, command=None):
    """`GuardDuty Guard | i-...: <who> called ... on what is isolated` and what became of it.

    `call` is the `detail` of an API call as CloudTrail reports it. What it was about is in the
    outcomes (`guarded`: `what`, and `about`, which may be an attacker's text), else the resource.
    `command` as in `remediation_headline`.
    """
    identity = mapping(call, "userIdentity")
    names = (identity.get(key) for key in ("arn", "principalId", "invokedBy"))
    who = one_line(next(filter(None, names), "somebody"), 200)
    guarded = {}
    for outcome in outcomes:
        guarded |= {k: v for k, v in (outcome.get("guarded") or {}).items() if v}
    what = guarded.get("what", "what is isolated")
    failures = "; ".join(f"{o['step']}: {o['error']}" for o in outcomes if o["status"] == "failed")
    left = [o for o in outcomes if o["status"] in ("planned", "exempt", "skipped")]
    details = one_line("; ".join(dict.fromkeys(o["detail"] for o in left)), 400)
    done = any(o["status"] == "done" for o in outcomes)
    if failures:
        result = f"It was NOT put right: {one_line(failures, 400)}"
    elif left and done:
        result = f"Only a part was put right and read back. NOT put right: {details}"
    elif left:
        do_it = f" To do it: {command}" if command else ""
        result = f"NOTHING was put right: {details}{do_it}"
    elif done:
        result = "It was put right and read back."
    elif guarded:
        result = "Nothing had to be put right."
    else:
        result = "The isolation holds, nothing had to be put right."
    on = one_line(guarded.get("about") or resource_id, 140)
    if any(o["status"] == "planned" for o in outcomes):
        on = f"{undone(command)} | {on}"
    return one_line(
        f"GuardDuty Guard | {on}: {who} called {one_line(call.get('eventName'), 64)} on {what}. "
        f"{result}"
    )


def release_headline(instance_id, who, outcomes):
    """`GuardDuty Release | i-...: released by <who>`, what could not be put back, what stays."""
    failures = "; ".join(f"{o['step']}: {o['error']}" for o in outcomes if o["status"] == "failed")
    line = f"GuardDuty Release | {instance_id}: "
    if failures:
        return one_line(
            f"{line}the release by {one_line(who, 200)} is NOT COMPLETE: {one_line(failures, 500)}"
        )
    line += f"released by {one_line(who, 200)}. What was recorded is back as it was."
    unrecorded = [part for o in outcomes for part in o.get("unrecorded", ())]
    if unrecorded:
        line += f" NOT recorded, and so not put back: {', '.join(unrecorded)}."
    for outcome in outcomes:
        if outcome.get("stays"):
            line += f" What stays: {one_line(outcome['stays'], 200)}"
    return one_line(line)


class FindingHeadline(EventAction):
    """Writes the first line of the finding mail, which `notify` behind it sends.

    :example:

    .. code-block:: yaml

        policies:
          - name: finding-mail
            resource: account
            mode:
              type: guard-duty
              role: guardduty-response-finding-notify
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - type: finding-headline
                followed-by:
                  ec2-isolate:
                    title: Isolate a compromised EC2 instance
                    resource: ec2
                    resource-types: [Instance]
                    filters:
                      - type: guard-duty-finding
                        types: [{prefix: CryptoCurrency:EC2/}]
              - type: notify
                template: finding.html
                subject: '{{ event["c7n:notice"].headline }}'
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response

    Arguments: `followed-by`, the policies that act on findings, from which the mail says what
    happens next: of each its `title`, its `resource`, the `resource-types` of its rule where that
    asks for some, those of its `filters` that ask the finding, and `opt-in: true` where no deploy
    takes it unless it is named. `make catalogue` copies all of it from their files.

    Writes `event["c7n:notice"]`: `headline`; `sample`, whether the finding is one; `autonomy`, how
    far the policies of the deploy may go; `instances`, the ids that the finding names; `case`, the
    incident that the instance is in by its tags, or None; and `next`, what follows by each policy
    that is for findings of this type (`policy`, `title`, `opt-in`, and `refusal`, why it does not
    act, or None), or None where `followed-by` is not said. What the resource itself decides
    (whether it is there, exempt, held back) is for the mail of that policy. Needs no IAM permission
    and changes nothing.
    """

    schema = type_schema(
        "finding-headline",
        **{
            "followed-by": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["title", "resource", "filters"],
                    "properties": {
                        "title": {"type": "string"},
                        "resource": {"enum": ["account", "ec2", "iam-user"]},
                        "resource-types": {"type": "array", "items": {"type": "string"}},
                        "filters": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                        "opt-in": {"type": "boolean"},
                    },
                },
            }
        },
    )
    permissions = ()

    def validate(self):
        for name, policy in self.data.get("followed-by", {}).items():
            for element in self.filters(policy):
                if not isinstance(element, EventFilter):
                    raise PolicyValidationError(
                        f"policy:{self.manager.data.get('name')} action:{self.type} followed-by "
                        f"{name}: the filter {element.type} does not ask the finding"
                    )
                element.validate()
        return self

    def process(self, resources, event=None):
        event[NOTICE] = {
            "headline": finding_headline(event),
            "sample": is_sample(event),
            "autonomy": autonomy.of(self.manager.config),
            "instances": instance_ids(event),
            "case": case_by_tags(event),
            "next": list(self.followed(event)) if "followed-by" in self.data else None,
        }

    def followed(self, event):
        """What the policies for findings of this type do with the event."""
        for name, policy in self.data.get("followed-by", {}).items():
            filters = self.filters(policy)
            if not any(isinstance(f, FindingFilter) and f.unlisted(event) for f in filters):
                yield {
                    "policy": name,
                    "title": policy["title"],
                    "opt-in": policy.get("opt-in", False),
                    "refusal": refusal(policy, filters, event),
                }

    def filters(self, policy):
        return [self.manager.filter_registry.factory(f, self.manager) for f in policy["filters"]]


def refusal(policy, filters, event):
    """Why a policy does not act on an event, by what the event alone says, or None."""
    kind = mapping(event, "detail", "resource").get("resourceType")
    wanted = policy.get("resource-types", [kind])
    if kind not in wanted:
        return f"the resource is of type {kind!r}, not {' or '.join(wanted)}"
    if policy["resource"] == "ec2" and not instance_ids(event):
        return "the finding names no instance"
    for element in filters:
        if isinstance(element, FindingFilter):
            reason = element.refusal(event)
        else:
            data = element.data
            reason = f"{str(data.get('key')).removeprefix('detail.')} is not {data.get('value')}"
            reason = None if element.process([{}], event) else reason
        if reason:
            return reason
    return None


def case_by_tags(event):
    """The case that the instance of a finding is in, by its tags as GuardDuty saw them, or None.

    Whoever may tag the instance can write them: `name` is that of record.case_id where the time of
    the incident can be read, else empty; `finding` is the one that began it.
    """
    instance = mapping(event, "detail", "resource", "instanceDetails")
    listed = instance.get("tags")
    tags = {
        text(tag, "key"): text(tag, "value")
        for tag in (listed if isinstance(listed, list) else ())
        if isinstance(tag, dict)
    }
    if not tags.get(FINDING) and not tags.get(STATE):
        return None
    named, began = instance_ids(event), tags.get(ISOLATED_AT, "")
    return {
        "name": case_id(named[0], began) if named and began else "",
        "state": tags.get(STATE, ""),
        "finding": tags.get(FINDING, ""),
    }


register("finding-headline", FindingHeadline, "account")
