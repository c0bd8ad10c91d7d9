"""The first line of each mail, which is its subject too, as plain text on one line.

It is made here and not in a template, because no mailer makes a subject by one. Policies hand it on
in `event["c7n:notice"]`, from where subject and template take it.
"""

from c7n.actions import EventAction
from c7n.utils import type_schema

from custom_actions.finding import direction, is_sample, mapping
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
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def finding_headline(event):
    """`GuardDuty Finding | ID: ...: The EC2 instance ... may be compromised ...`."""
    finding = mapping(event, "detail")
    count = mapping(finding, "service").get("count")
    line = (
        f"GuardDuty Finding | ID: {one_line(finding.get('id'), 64) or '(none)'}: "
        f"The {_subject(finding)} may be compromised and should be investigated"
    )
    if isinstance(count, int) and count > 1:
        line += f" (seen {count} times)"
    return one_line(f"[SAMPLE] {line}" if is_sample(event) else line)


def _subject(finding):
    """What the finding is about, in words."""
    resource = mapping(finding, "resource")
    access = mapping(resource, "accessKeyDetails")
    instance = one_line(mapping(resource, "instanceDetails").get("instanceId"), 40)
    name = one_line(access.get("userName") or access.get("principalId"), 128) or "(not named)"
    if access and resource.get("resourceType") != "Instance":
        kinds = {"IAMUser": "IAM user", "AssumedRole": "IAM role", "Role": "IAM role"}
        if access.get("userType") == "Root":
            return f"root user of account {one_line(finding.get('accountId'), 12)}"
        return f"{kinds.get(str(access.get('userType')), 'identity')} {name}"
    return f"EC2 instance {instance or '(not named)'}"


def remediation_headline(finding, instance_id, outcomes):
    """`GuardDuty Remediation | ID: ...: GuardDuty discovered ...` and how the response ended.

    It says "isolated" only when the outcome of `isolate-instance` does, that is, after the
    read-back. `outcomes` are those of the steps, see custom_actions/response.py.
    """
    name = f"EC2 instance (Instance ID: {instance_id})"
    if finding.get("type") == THREAT_LIST:
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
    if planned:
        result = f"Nothing was changed. {isolation['detail']}"
    elif not isolation.get("isolated"):
        result = f"It was NOT isolated. {errors or isolation.get('detail', '')}"
    elif failures:
        result = (
            "All security groups have been removed and it has been isolated, "
            f"but the response is NOT COMPLETE: {errors}"
        )
    else:
        result = f"All security groups have been removed and it has been isolated. {FOLLOW_UP}"
    line = f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: {discovered} {result}"
    return one_line(f"OBSERVE ONLY | {line}" if planned else line)


def credential_headline(finding, outcomes):
    """`GuardDuty Remediation | ID: ...: GuardDuty discovered that credentials of ...`.

    It says what was denied or deactivated only when an outcome has `revoked`, that is, after the
    read-back. `outcomes` are those of the steps, see custom_actions/response.py.
    """
    access = mapping(finding, "resource", "accessKeyDetails")
    discovered = (
        f"GuardDuty discovered that credentials of the {_subject(finding)} may be in the wrong "
        f"hands: {one_line(finding.get('title'), 300)}"
    )
    step = next((o for o in outcomes if "revoked" in o), {})
    failures = [o for o in outcomes if o["status"] == "failed"]
    errors = one_line("; ".join(f"{o['step']}: {o['error']}" for o in failures), 400)
    planned = step.get("status") == "planned"
    if planned:
        result = f"Nothing was changed. {step['detail']}"
    elif not step.get("revoked"):
        user = access.get("userType") == "IAMUser"
        lost = "The access key was NOT deactivated." if user else "The sessions were NOT revoked."
        result = f"{lost} {errors or step.get('detail', '')}"
    elif failures:
        result = f"{step['detail']} But the response is NOT COMPLETE: {errors}"
    else:
        result = f"{step['detail']} {FOLLOW_UP}"
    line = f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: {discovered} {result}"
    return one_line(f"OBSERVE ONLY | {line}" if planned else line)


def guard_headline(call, resource_id, outcomes):
    """`GuardDuty Guard | i-...: <who> called ... on what is isolated` and what became of it.

    `call` is the `detail` of an API call as CloudTrail reports it.
    """
    identity = mapping(call, "userIdentity")
    who = one_line(identity.get("arn") or identity.get("principalId") or "somebody", 200)
    failures = "; ".join(f"{o['step']}: {o['error']}" for o in outcomes if o["status"] == "failed")
    statuses = {o["status"] for o in outcomes}
    if failures:
        result = f"It was NOT put right: {one_line(failures, 400)}"
    elif statuses & {"planned", "exempt", "skipped"}:
        details = "; ".join(o["detail"] for o in outcomes)
        result = f"NOTHING was put right: {one_line(details, 400)}"
    elif "done" in statuses:
        result = "It was put right and read back."
    else:
        result = "The isolation holds, nothing had to be put right."
    if "planned" in statuses:
        resource_id = f"OBSERVE ONLY | {resource_id}"
    return one_line(
        f"GuardDuty Guard | {resource_id}: {who} called {one_line(call.get('eventName'), 64)} "
        f"on what is isolated. {result}"
    )


def release_headline(instance_id, who, outcomes):
    """`GuardDuty Release | i-...: released by <who>`, what could not be put back, what stays."""
    failures = "; ".join(f"{o['step']}: {o['error']}" for o in outcomes if o["status"] == "failed")
    line = f"GuardDuty Release | {instance_id}: "
    if any(o["status"] == "planned" for o in outcomes):
        return one_line(f"OBSERVE ONLY | {line}nothing was changed.")
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
    """Puts the first line of the finding mail where `notify` finds it.

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
              - finding-headline
              - type: notify
                template: finding.html
                subject: '{{ event["c7n:notice"].headline }}'
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response

    Writes `event["c7n:notice"]`: `headline`, and `sample`, whether the finding is one. Needs no
    IAM permission and changes nothing.
    """

    schema = type_schema("finding-headline")
    permissions = ()

    def process(self, resources, event=None):
        event[NOTICE] = {"headline": finding_headline(event), "sample": is_sample(event)}


register("finding-headline", FindingHeadline, "account")
