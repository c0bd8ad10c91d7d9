"""When this run began and where its log is, for the mails; and every call of it to AWS, and each
request to the API of a cluster, for the case record (custom_actions/steps/write_case.py).

What is kept of a call: when, by which step about which resource, the operation, the parameters that
say what it was about, and how it ended. Never a policy document, a message, a file or a credential:
only parameters in `ABOUT` are kept. A hook costs microseconds, and nothing is written until a case
is.
"""

import os
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
        "path",
    }
)
LONGEST = 256  # characters of a text
MANY = 50  # elements of a list
CALLS = 5000  # of one run: some hundred instances

# In an event, beside the notice: what tells one try from another, and so stands for itself.
RUN = "c7n:run"

_began = None  # the time of the run; None where it is none of a function
_calls = []
_left_out = 0  # calls for which there was no room
_about = (None, None)  # the step at work, and the resource


def begin():
    """A new run: what is known of the one before is forgotten."""
    global _began, _left_out
    _began = datetime.now(UTC)
    _calls.clear()
    _left_out = 0
    about(None, None)


def this_run():
    """When the function received the event, and the log that it writes; without those that are not
    known, as where a person runs it.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    log = {
        key: os.environ.get(f"AWS_LAMBDA_{key.upper()}_NAME") for key in ("log_group", "log_stream")
    }
    received = _began.isoformat(timespec="milliseconds") if _began else None
    known = {"received": received, **log}
    return {key: value for key, value in known.items() if value}


def about(step, resource_id):
    """What the calls from now on are for."""
    global _about
    _about = (step, resource_id)


def of(resource_id):
    """The calls of this run about a resource, and those about none, oldest first."""
    return [told(*call) for call in _calls if call[1][1] in (None, resource_id)]


def left_out():
    """How many calls of this run are not kept, whatever they were about."""
    return _left_out


def told(at, about, service, operation, params, result, ms, request_id):
    """One call, as a case has it. Not while it is made: the isolation would wait for that."""
    step, resource_id = about
    return {
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "step": step,
        "resource": resource_id,
        "service": service,
        "operation": operation,
        "parameters": {key: _short(held) for key, held in params.items()},
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


def begun(service, operation, params):
    """A call that begins now, for `ended`; botocore's are told by `watch`."""
    kept = {key: held for key, held in params.items() if key in ABOUT}
    return time.time(), time.perf_counter(), _about, service, operation, kept


def ended(call, result, request_id=None):
    """Keep a call, or count it where there are too many. result: ok, or its error's code."""
    global _left_out
    if len(_calls) >= CALLS:
        _left_out += 1
        return
    at, began, *what = call
    ms = round((time.perf_counter() - began) * 1000)
    _calls.append((at, *what, result, ms, request_id))


def _begins(params, model, context, **_):
    context["timeline"] = begun(model.service_model.service_name, model.name, params)


def _ends(parsed, context, **_):
    if "timeline" in context:
        code = parsed.get("Error", {}).get("Code") or "ok"
        request_id = (parsed.get("ResponseMetadata") or {}).get("RequestId")
        ended(context.pop("timeline"), code, request_id)


def _fails(exception, context, **_):
    if "timeline" in context:
        ended(context.pop("timeline"), type(exception).__name__)


def _short(value):
    if isinstance(value, dict):
        return {key: _short(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(held) for held in value[:MANY]]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[:LONGEST]
