"""The first line of each mail, which is its subject too, as plain text on one line.

It is made here and not in a template, because no mailer makes a subject by one. Policies hand it on
in `event["c7n:notice"]`, from where subject and template take it.
"""

from c7n.actions import EventAction
from c7n.utils import type_schema

from custom_actions import autonomy
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
        f"The {subject(finding)} may be compromised and should be investigated"
    )
    if isinstance(count, int) and count > 1:
        line += f" (seen {count} times)"
    return one_line(f"[SAMPLE] {line}" if is_sample(event) else line)


def subject(finding):
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
              - finding-headline
              - type: notify
                template: finding.html
                subject: '{{ event["c7n:notice"].headline }}'
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response

    Writes `event["c7n:notice"]`: `headline`, `sample`, whether the finding is one, and `autonomy`,
    how far the policies of the deploy may go. Needs no IAM permission and changes nothing.
    """

    schema = type_schema("finding-headline")
    permissions = ()

    def process(self, resources, event=None):
        event[NOTICE] = {
            "headline": finding_headline(event),
            "sample": is_sample(event),
            "autonomy": autonomy.of(self.manager.config),
        }


register("finding-headline", FindingHeadline, "account")
