"""Every call to AWS of this run, for the case record (custom_actions/steps/write_case.py).

What is kept of a call: when, by which step about which resource, the operation, the parameters that
say what it was about, and how it ended. Never a policy document, a message or a credential: only
parameters in `ABOUT` are told. A hook costs microseconds, and nothing is written until a case is.
"""

import time
from datetime import UTC, datetime

# Parameters that are told, shortened to what a person reads: ids, names, and tags of the pack.
ABOUT = frozenset(
    {
        *("InstanceIds", "InstanceId", "NetworkInterfaceIds", "NetworkInterfaceId", "GroupIds"),
        *("Groups", "GroupId", "GroupName", "VpcId", "Resources", "Tags", "Attribute"),
        *("DisableApiTermination", "DisableApiStop", "InstanceInitiatedShutdownBehavior"),
        *("NetworkAclId", "RuleNumber", "RuleAction", "Egress", "CidrBlock", "Ipv6CidrBlock"),
        *("SnapshotId", "SnapshotIds", "VolumeIds", "LockMode", "LockDuration", "IpPermissions"),
        *("AutoScalingGroupName", "AutoScalingGroupNames", "ScalingProcesses"),
        *("TargetGroupArn", "Targets", "LoadBalancerName", "Instances"),
        *("RoleName", "PolicyName", "InstanceProfileName", "RoleArn", "FindingIds", "DetectorId"),
        *("Bucket", "Key", "TopicArn", "Filters", "cluster", "containerInstances", "status"),
    }
)
LONGEST = 256  # characters of a text
MANY = 50  # elements of a list
CALLS = 5000  # of one run: some hundred instances

_calls = []
_about = (None, None)  # the step at work, and the resource


def begin():
    """A new run: what is known of the one before is forgotten."""
    _calls.clear()
    about(None, None)


def about(step, resource_id):
    """What the calls from now on are for."""
    global _about
    _about = (step, resource_id)


def of(resource_id):
    """The calls of this run about a resource, and those about none, oldest first."""
    return [told(*call) for call in _calls if call[1][1] in (None, resource_id)]


def told(at, about, model, params, result, ms, request_id):
    """One call, as a case has it. Not while it is made: the isolation would wait for that."""
    step, resource_id = about
    return {
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "step": step,
        "resource": resource_id,
        "service": model.service_model.service_name,
        "operation": model.name,
        "parameters": {key: _short(held) for key, held in params.items() if key in ABOUT},
        "result": result,
        "ms": ms,
        "request_id": request_id,
    }


def watch(events):
    """Keep the calls of a client, or of each client that a session makes from now on.

    events: those of either. Registering twice is like once.
    """
    for name, handler in (
        ("before-parameter-build", _begins),
        ("after-call", _ends),
        ("after-call-error", _fails),
    ):
        events.register(name, handler, unique_id=f"timeline-{name}")


def _begins(params, model, context, **_):
    context["timeline"] = (time.time(), time.perf_counter(), params, model, _about)


def _ends(parsed, context, **_):
    code = parsed.get("Error", {}).get("Code") or "ok"
    _keep(context, code, (parsed.get("ResponseMetadata") or {}).get("RequestId"))


def _fails(exception, context, **_):
    _keep(context, type(exception).__name__, None)


def _keep(context, result, request_id):
    if "timeline" not in context or len(_calls) >= CALLS:
        return
    at, began, params, model, about_ = context.pop("timeline")
    ms = round((time.perf_counter() - began) * 1000)
    _calls.append((at, about_, model, params, result, ms, request_id))


def _short(value):
    if isinstance(value, dict):
        return {key: _short(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(held) for held in value[:MANY]]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[:LONGEST]
