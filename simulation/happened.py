"""What happened in a simulated cloud after a finding was put on the bus, as lines of the demo:
(seconds since then, text, style and, of a step, its name as a column)."""

import collections
import re
from datetime import datetime

from .judging import ISOLATE
from .story import sentence, some

# What a step is for; with a status it is told in a line.
PURPOSES = {
    "isolate-instance": "swaps every group for the forensic group",
    "leave-service": "leaves Auto Scaling and load balancers",
    "block-remote-address": "denies the remote address by network ACL",
    "cordon-node": "has ECS or EKS move away what runs on it",
    "preserve-evidence": "protects it, locks snapshots of it",
    "scan-for-malware": "has GuardDuty scan its volumes",
    "revoke-role-sessions": "denies everything to its role's sessions",
    "seal-record": "seals the record of the way back",
    "write-case": "writes the case record to S3",
    "notify-once": "hands the outcome to SNS, for the mail",
}
STATUSES = {
    "unchanged": "nothing to do",
    "planned": "not done",
    "withheld": "held back",
    "failed": "FAILED",
}
STEP = re.compile(
    r"^\[INFO\]\t(?P<at>\S+)Z\t\S+\tpolicy:\S+ resource:(?P<resource>\S+) "
    r"step:(?P<step>\S+) status:(?P<status>\S+) ?(?P<said>.*)$",
    re.MULTILINE,
)
ABOUT = ("NetworkInterfaceId", "Resources", "InstanceIds", "GroupId", "TopicArn")
SWAP = "ModifyNetworkInterfaceAttribute"


def calls(log, begin, verbose):
    """The swap, and where all is told every call of the functions, numbered for each."""
    numbers, swaps = collections.Counter(), {}
    for call in log:
        if not call.caller.startswith("custodian-") or call.operation.startswith("AssumeRole"):
            continue
        numbers[call.caller] += 1
        number, since = numbers[call.caller], call.started + call.duration - begin
        if call.operation == SWAP and call.caller == ISOLATE and not call.error_code:
            swaps[call.parameters.get("NetworkInterfaceId")] = since, number
        if verbose:
            yield since, told(call, number), "red" if call.error_code else "cyan"
    if swaps:
        made = [*swaps.values()]
        (first, first_number), (since, number) = made[0], made[-1]
        said = f"AWS call {number} of ec2-isolate swaps the groups of {[*swaps][-1]}"
        if len(swaps) > 1:
            said = (
                f"AWS call {number} of ec2-isolate swaps the groups of the last of {len(swaps)} "
                f"interfaces; call {first_number} at {first:.2f} s those of the first"
            )
        yield since, said, "bold"


def functions(invocations, began_at, verbose):
    """The steps as they ended, and each error of a function; invocations: with their ends."""
    for ended, invocation in invocations:
        name = invocation.function_name.removeprefix("custodian-")
        if verbose:
            start = f"cold, {invocation.init_duration:.2f} s to start"
            yield (
                ended,
                f"Lambda {invocation.function_name} ended after {invocation.duration:.2f} s "
                f"({start if invocation.cold else 'warm'}, try {invocation.attempt})",
                "dim",
            )
        if invocation.error:
            message = invocation.error["errorMessage"]
            said = message if verbose else sentence(message)
            yield ended, f"{name} FAILED, try {invocation.attempt} of 3: {said}", "bold red"
        steps = [found.groupdict() for found in STEP.finditer(invocation.log)]
        several = len({step["resource"] for step in steps}) > 1
        if several and not verbose:
            yield from ((ended, *line) for line in of_several(steps))
            continue
        for step in steps:
            if invocation.attempt > 1 and step["status"] == "unchanged":
                continue  # so much is done by the try before
            since = datetime.fromisoformat(f"{step['at']}+00:00") - began_at
            since = min(max(since.total_seconds(), 0), ended)
            style = "red" if step["status"] == "failed" else ""
            about = f"{step['resource']} " if several else ""
            yield since, about + in_words(step, verbose), style, f"{step['step']:<22}"


def in_words(step, verbose):
    word, said = STATUSES.get(step["status"], step["status"]), step["said"]
    if not verbose:
        purpose = PURPOSES.get(step["step"]) if step["status"] == "done" else None
        said = purpose or sentence(said)
    return f"{word}: {said}"


def told(call, number):
    """A call with what it is about."""
    about = next((call.parameters[key] for key in ABOUT if key in call.parameters), "")
    about = ", ".join(about) if isinstance(about, list) else about
    if call.operation == SWAP:
        about = f"{about} -> {', '.join(call.parameters.get('Groups') or ())}"
    function = "" if call.caller == ISOLATE else f" of {call.caller}"
    return f"{number:>3}. {call.service}:{call.operation}{function} {about} {call.error_code or ''}"


def of_several(steps):
    """What became of each of several instances: [(text, style)], of those alike in one line."""
    by_instance = collections.defaultdict(list)
    for step in steps:
        by_instance[step["resource"]].append(step)
    alike = collections.defaultdict(list)
    for instance_id, its in by_instance.items():
        failed = [
            f"{s['step']} FAILED: {sentence(s['said'])}" for s in its if s["status"] == "failed"
        ]
        first = next((s for s in its if s["step"] == "isolate-instance"), its[0])
        word = STATUSES.get(first["status"], first["status"])
        said = f"{first['step']} {word}: {sentence(first['said'])}"
        if not failed and first["status"] in ("done", "unchanged"):
            said = f"{said} No step failed."
        alike["; ".join(failed) or said].append(instance_id)
    for said, ids in alike.items():
        yield f"{some(ids)}: {said}", "red" if "FAILED" in said else ""
