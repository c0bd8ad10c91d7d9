"""The first line of each mail about what was done, which is its subject too, as plain text.

It is made here and not in a template, because no mailer makes a subject by one. Policies hand it on
in `event["c7n:notice"]`, from where subject and template take it. What did not go well begins it,
in capitals; of what failed the steps are named, their errors are in the mail. The finding mail's
line is in custom_actions/finding_headline.py.
"""

from custom_actions.finding import direction, mapping
from custom_actions.words import one_line, subject

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
    failures = failed(outcomes)
    planned = isolation.get("status") == "planned"
    do_it = f" To do it: {command}" if command else ""
    isolated = "All security groups have been removed and it has been isolated"
    if who and isolation.get("status") == "unchanged":
        isolated = f"It was isolated already when {who} had this run by hand"
    elif who:
        isolated += f" by {who} by hand"
    verdict = None
    if planned:
        result = f"Nothing was changed. {isolation['detail']}{do_it}"
        verdict = undone(command)
    elif "withheld" in isolation:
        result = f"It was NOT isolated. {isolation['detail']}{do_it}"
        verdict = HELD[isolation["withheld"]]
    elif not isolation.get("isolated"):
        tried = f"{who} tried to isolate it by hand. " if who else ""
        result = f"{tried}It was NOT isolated. {failures or isolation.get('detail', '')}"
        verdict = NOT_ISOLATED
    elif failures:
        result = f"{isolated}, but the response is NOT COMPLETE: {failures}"
        verdict = NOT_COMPLETE
    else:
        result = f"{isolated}. {FOLLOW_UP}"
    line = f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: {discovered} {result}"
    return begun_with(verdict, line)


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
    failures = [
        f"{one_line(instance_id, 40)} {words}"
        for instance_id, outcomes in results.items()
        if (words := failed(outcomes))
    ]
    if isolated == number:
        result = f"All security groups have been removed and all {number} have been isolated"
    else:
        others = "; ".join(f"{len(ids)} {words}{named(ids)}" for words, ids in fates.items())
        result = f"{isolated} of {number} instances isolated; NOT isolated: {one_line(others, 450)}"
        if planned:
            result = f"Nothing was changed. {result}"
    if failures:
        more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
        result += f". The response is NOT COMPLETE: {one_line(failures[0].rstrip('.'), 150)}{more}"
    result += ". The mail has the command that isolates them." if command else "."
    if isolated == number and not failures:
        result += f" {FOLLOW_UP}"
    line = (
        f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: GuardDuty discovered an "
        f"attack sequence that names {number} EC2 instances: "
        f"{one_line(finding.get('title'), 200).rstrip('.')}. {result}"
    )
    verdict = NOT_COMPLETE if failures else None
    if planned:
        verdict = undone(command)
    elif withheld:
        verdict = HELD[withheld]
    elif isolated < number:
        verdict = f"{number - isolated} OF {number} {NOT_ISOLATED}"
    return begun_with(verdict, line)


def named(ids):
    """The first of some ids, in brackets."""
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f" ({', '.join(ids[:NAMED])}{more})"


NOT_ISOLATED, NOT_COMPLETE, NOT_PUT_RIGHT = "NOT ISOLATED", "NOT COMPLETE", "NOT PUT RIGHT"


def begun_with(verdict, line):
    """The line, with what did not go well before it; None where all went well."""
    return one_line(f"{verdict} | {line}" if verdict else line)


def failed(outcomes):
    """The steps that failed, or ""; the mail has their errors. One that did what it is for, and not
    all that belongs to it, failed in part."""
    steps = dict.fromkeys(
        f"a part of {o['step']}" if o.get("isolated") or o.get("revoked") else o["step"]
        for o in outcomes
        if o["status"] == "failed"
    )
    return f"{', '.join(steps)} failed." if steps else ""


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
    failures, verdict = failed(outcomes), None
    planned = step.get("status") == "planned"
    if planned:
        do_it = f" To do it: {command}" if command else ""
        result = f"Nothing was changed. {step['detail']}{do_it}"
        verdict = undone(command)
    elif not step.get("revoked"):
        user = access.get("userType") == "IAMUser"
        lost = "The access key was NOT deactivated." if user else "The sessions were NOT revoked."
        result = f"{lost} {failures or step.get('detail', '')}"
        verdict = "NOT DEACTIVATED" if user else "NOT REVOKED"
    elif failures:
        result = f"{step['detail']} But the response is NOT COMPLETE: {failures}"
        verdict = NOT_COMPLETE
    else:
        result = f"{step['detail']} {FOLLOW_UP}"
    if who:
        result = f"{one_line(who, 200)} responded by hand. {result}"
    line = f"GuardDuty Remediation | ID: {one_line(finding.get('id'), 64)}: {discovered} {result}"
    return begun_with(verdict, line)


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
    failures, verdict = failed(outcomes), None
    left = [o for o in outcomes if o["status"] in ("planned", "exempt", "skipped")]
    details = one_line("; ".join(dict.fromkeys(o["detail"] for o in left)), 400)
    done = any(o["status"] == "done" for o in outcomes)
    if failures:
        result = f"It was NOT put right: {failures}"
        verdict = NOT_PUT_RIGHT
    elif left and done:
        result = f"Only a part was put right and read back. NOT put right: {details}"
        verdict = NOT_PUT_RIGHT
    elif left:
        do_it = f" To do it: {command}" if command else ""
        result = f"NOTHING was put right: {details}{do_it}"
        verdict = NOT_PUT_RIGHT
    elif done:
        result = "It was put right and read back."
    elif guarded:
        result = "Nothing had to be put right."
    else:
        result = "The isolation holds, nothing had to be put right."
    on = one_line(guarded.get("about") or resource_id, 140)
    if any(o["status"] == "planned" for o in outcomes):
        verdict = undone(command)
    return begun_with(
        verdict,
        f"GuardDuty Guard | {on}: {who} called {one_line(call.get('eventName'), 64)} on {what}. "
        f"{result}",
    )


def release_headline(instance_id, who, outcomes):
    """`GuardDuty Release | i-...: released by <who>`, what could not be put back, what stays."""
    line = f"GuardDuty Release | {instance_id}: "
    if failures := failed(outcomes):
        line += f"the release by {one_line(who, 200)} is NOT COMPLETE: {failures}"
        return begun_with(NOT_COMPLETE, line)
    line += f"released by {one_line(who, 200)}. What was recorded is back as it was."
    unrecorded = [part for o in outcomes for part in o.get("unrecorded", ())]
    if unrecorded:
        line += f" NOT recorded, and so not put back: {', '.join(unrecorded)}."
    for outcome in outcomes:
        if outcome.get("stays"):
            line += f" What stays: {one_line(outcome['stays'], 200)}"
    return one_line(line)
