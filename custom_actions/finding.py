"""What is read out of a GuardDuty finding, and the filter that says which findings a policy means.

The functions take the event as EventBridge delivers it, or None, as there is in pull mode. No
field is trusted to be there or to be of its type: one that is missing, null or of another type
reads as if it said nothing. Some fields hold text that an attacker chose. What is about to be
acted on is checked: what is not a well-formed id or name raises PolicyExecutionError, so that
nothing is changed, and the caller compares what is left with what AWS itself says.

Sources: https://docs.aws.amazon.com/guardduty/latest/APIReference/API_Finding.html (fields; an
event spells them in camelCase),
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html (prefixes of unique
ids), https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html (lengths).
"""

import contextlib
import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from c7n.exceptions import PolicyExecutionError, PolicyValidationError
from c7n.filters import EventFilter
from c7n.utils import type_schema

from custom_actions.registry import register

ACCOUNT_ID = re.compile(r"[0-9]{12}")
INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
ENTITY_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")  # of a role or a user
# Of a session of a role, by the API of STS. In a condition of IAM it means itself: a variable
# (`${...}`) or a wildcard needs characters that are none of these.
SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
ROLE_ID = re.compile(r"AROA[A-Z0-9]{12,124}")
USER_KEY_ID = re.compile(r"AKIA[A-Z0-9]{12,124}")
TEMPORARY_KEY_ID = re.compile(r"ASIA[A-Z0-9]{12,124}")
# A real one is 32 hexadecimal digits; it becomes part of policy names and tag keys.
FINDING_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
GUARDDUTY_ID = re.compile(r"[0-9a-f]{32}")

# The instance that GuardDuty names in every sample about one.
SAMPLE_INSTANCE = "i-99999999"

# The resource types of what runs in a container. The instance that it runs on, if it is one, stands
# in `instanceDetails`; a task of ECS on Fargate has none.
CONTAINERS = ("EKSCluster", "ECSCluster", "Container")

# The type of resource of a finding that puts several signals together, and names several resources.
SEQUENCE = "AttackSequence"
# A resource of such a finding may be named by its ARN.
INSTANCE_ARN = re.compile(r"arn:[a-z-]+:ec2:([a-z0-9-]+):([0-9]{12}):instance/(.+)")

# A key of JSON text, which words in one of its strings cannot imitate: their quotes are escaped.
SAMPLE_KEY = re.compile(r'[{,]\s*"sample"\s*:\s*"?true', re.IGNORECASE)


def mapping(parent, *keys):
    """The mapping at a path of keys; an empty one when something else or nothing stands there."""
    for key in keys:
        parent = parent.get(key) if isinstance(parent, dict) else None
    return parent if isinstance(parent, dict) else {}


def text(parent, key):
    """The text under a key of a mapping; an empty one when something else or nothing is there."""
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def finding_type(event):
    """The type, as `UnauthorizedAccess:EC2/TorClient`; empty when the finding has none."""
    return text(mapping(event, "detail"), "type")


def is_actor(event):
    """Whether the finding says that the resource acts, and is not the target.

    It separates the two directions of a type that exists in both. It does not say who is guilty:
    most findings about a compromised instance call it the target.
    """
    return mapping(event, "detail", "service").get("resourceRole") == "ACTOR"


def is_target(event):
    """Whether the finding calls the resource the target. See is_actor for what that says."""
    return mapping(event, "detail", "service").get("resourceRole") == "TARGET"


def direction(event):
    """Who began the connection: OUTBOUND (the instance), INBOUND (the remote side), or UNKNOWN.

    Also UNKNOWN where the finding says nothing, as findings of other actions do.
    """
    action = mapping(event, "detail", "service", "action", "networkConnectionAction")
    found = text(action, "connectionDirection").upper()
    return found if found in ("OUTBOUND", "INBOUND") else "UNKNOWN"


def is_without_instance(event):
    """Whether a finding is about a container, and names no instance that it runs on.

    What is there but is no id is for who resolves the instance to refuse. So is a finding about an
    Instance that names none.
    """
    resource = mapping(event, "detail", "resource")
    return resource.get("resourceType") in CONTAINERS and not resource.get("instanceDetails")


def is_archived(event):
    """Whether somebody, or a suppression rule, has dealt with the finding."""
    return _word(mapping(event, "detail", "service").get("archived")) == "true"


def is_sample(event):
    """Whether the finding is marked as a sample, in any of the ways that have been seen.

    A sample must never be acted on, so this errs on the side of a sample: a key `sample` counts
    at any depth of `additionalInfo` and of the JSON text in its `value`, also when that text is
    cut off or goes on. What an attacker can choose must not make a real finding one: words in a
    string of that text do not count.
    """
    finding = mapping(event, "detail")
    return (
        text(finding, "title").strip().upper().startswith("[SAMPLE]")
        or any(named.instance_id == SAMPLE_INSTANCE for named in named_instances(event))
        or _is_marked(mapping(finding, "service", "additionalInfo"))
    )


def _is_marked(info):
    value = info.get("value")
    if isinstance(value, str):
        if SAMPLE_KEY.search(value):
            return True
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    pending = [info, value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if any(k.lower() == "sample" and _word(v).startswith("true") for k, v in node.items()):
                return True
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return False


def _word(value):
    """A boolean as a word in lower case; findings have been seen to spell it as one."""
    return str(value).strip('"').lower() if isinstance(value, bool | str) else ""


def is_sequence(event):
    """Whether the finding is an attack sequence, which may name several instances."""
    return mapping(event, "detail", "resource").get("resourceType") == SEQUENCE


def _in_sequence(event, kind):
    """The entries of a list of an attack sequence: `resources`, `endpoints`, `signals`."""
    found = mapping(event, "detail", "service", "detection", "sequence").get(kind)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


class NamedInstance(NamedTuple):
    """An instance as a finding names it. Empty where it does not say: account_id, region."""

    instance_id: str
    account_id: str
    region: str


def named_instances(event):
    """The instances that a finding is about, as it spells them. None of it is checked.

    Of an attack sequence those are its resources of the type EC2_INSTANCE. Whether `uid` is the
    instance's id or its ARN is not documented: both are read. The instances that a group of its
    resources lists (`ec2InstanceUids` of an Auto Scaling group, of an ECS cluster) are members of
    that group; those among them that were seen to act are resources of the sequence by themselves.
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_ResourceV2.html
    """
    if not is_sequence(event):
        details = mapping(event, "detail", "resource", "instanceDetails")
        return [NamedInstance(details["instanceId"], "", "")] if "instanceId" in details else []
    found = []
    for resource in _in_sequence(event, "resources"):
        if resource.get("resourceType") == "EC2_INSTANCE":
            name, account_id, region = str(resource.get("uid")), "", ""
            if arn := INSTANCE_ARN.fullmatch(name):
                region, account_id, name = arn.groups()
            place = text(resource, "accountId") or account_id, text(resource, "region") or region
            found.append(NamedInstance(name, *place))
    return list(dict.fromkeys(found))


def signals_of_addresses(event):
    """The remote addresses of an attack sequence, and the names of the signals that have them.

    {address: names}; the name of a signal that is a finding is its type. In the order in which the
    finding lists its endpoints.
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_NetworkEndpoint.html
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_Signal.html
    """
    names = {}
    for signal in _in_sequence(event, "signals"):
        ids = signal.get("endpointIds")
        for endpoint_id in ids if isinstance(ids, list) else ():
            names.setdefault(str(endpoint_id), set()).add(text(signal, "name"))
    found = {}
    for endpoint in _in_sequence(event, "endpoints"):
        if address := text(endpoint, "ip"):
            found.setdefault(address, set()).update(names.get(str(endpoint.get("id")), ()))
    return found


def severity(event):
    """The severity, from 1 to 10; None when there is none to read."""
    found = mapping(event, "detail").get("severity")
    if isinstance(found, str):
        with contextlib.suppress(ValueError):
            found = float(found)
    readable = isinstance(found, int | float) and not isinstance(found, bool)
    return found if readable and 1 <= found <= 10 else None


def instance_ids(event):
    """The ids of the instances that a finding names, each once; what is no id is left out."""
    found = [named.instance_id for named in named_instances(event)]
    return list(dict.fromkeys(i for i in found if isinstance(i, str) and INSTANCE_ID.fullmatch(i)))


def remote_addresses(event):
    """The remote addresses that a finding names, as it spells them, each once.

    They stand under `remoteIpDetails` of the action (networkConnectionAction, awsApiCallAction
    and others like them), or of each entry of a list in it (portProbeDetails). `runtimeDetails` of
    Runtime Monitoring has none: of a socket it names the family and the protocol alone. Of an
    attack sequence they are its endpoints.
    """
    found = list(signals_of_addresses(event))
    for action in mapping(event, "detail", "service", "action").values():
        lists = [value for value in mapping(action).values() if isinstance(value, list)]
        for holder in (action, *(entry for entries in lists for entry in entries)):
            details = mapping(holder, "remoteIpDetails")
            found += [details.get("ipAddressV4"), details.get("ipAddressV6")]
    return list(dict.fromkeys(str(address) for address in found if address))


def finding_id(event):
    """The id of the finding, which is the name of its incident. Raises PolicyExecutionError."""
    found = mapping(event, "detail").get("id")
    if not isinstance(found, str) or not FINDING_ID.fullmatch(found):
        raise PolicyExecutionError(f"{found!r} is not the id of a finding")
    return found


@dataclass(frozen=True)
class RoleSession:
    """A session of a role: `principalId` of a finding is `<role_id>:<name>`; "" for no name."""

    role_name: str
    role_id: str
    name: str


def role_session(event, account_id):
    """The role session that a finding of this account is about. Raises PolicyExecutionError."""
    details = _access_key_details(event, account_id)
    if details.get("userType") != "AssumedRole":
        raise PolicyExecutionError(
            f"the finding is about a {details.get('userType')!r}, not about an AssumedRole"
        )
    role_id, colon, name = str(details.get("principalId")).partition(":")
    if not colon or not ROLE_ID.fullmatch(role_id):
        raise PolicyExecutionError(
            f"principalId {details.get('principalId')!r} is not a role id and a session name"
        )
    if name and not SESSION_NAME.fullmatch(name):
        raise PolicyExecutionError(f"{name!r} is not the name of a session: revoke by hand")
    return RoleSession(_name(details, "role"), role_id, name)


def affiliated_account(event):
    """The account that used the credentials, when GuardDuty knows it as affiliated with this one.

    Only in a finding of use inside AWS; None otherwise. Source: GuardDuty's page of IAM finding
    types, "InstanceCredentialExfiltration.InsideAWS"; API_RemoteAccountDetails.
    """
    action = mapping(event, "detail", "service", "action", "awsApiCallAction")
    remote = mapping(action, "remoteAccountDetails")
    if finding_type(event).endswith(".InsideAWS") and _word(remote.get("affiliated")) == "true":
        return text(remote, "accountId") or "(not named)"
    return None


# What a session belongs to that is no instance's, by the type that GuardDuty has for it.
OF_A_WORKLOAD = "UnauthorizedAccess:IAMUser/ResourceCredentialExfiltration."


def workload(event, session_name):
    """What the sessions of a name are, in words; "" where the finding does not say.

    Only of a finding about credentials of a Lambda function or an ECS task. Lambda names its
    sessions after the function, ECS after the task. Which of the two it is stands in the details of
    the function or the cluster, if the finding has them and they agree with the name.
    """
    if not finding_type(event).startswith(OF_A_WORKLOAD) or not session_name:
        return ""
    resource = mapping(event, "detail", "resource")
    if text(mapping(resource, "lambdaDetails"), "functionName") == session_name:
        return "Lambda function"
    task = mapping(resource, "ecsClusterDetails", "taskDetails")
    if text(task, "arn").rpartition("/")[2] == session_name:
        return "ECS task"
    return "function or task"


@dataclass(frozen=True)
class UserKey:
    """A long-term access key of an IAM user: `principalId` of a finding is the user's id."""

    user_name: str
    user_id: str
    key_id: str


def user_key(event, account_id):
    """The access key that a finding of this account is about. Raises PolicyExecutionError."""
    details = _access_key_details(event, account_id)
    if details.get("userType") != "IAMUser":
        raise PolicyExecutionError(
            f"the finding is about a {details.get('userType')!r}, not about an IAMUser"
        )
    key_id = str(details.get("accessKeyId"))
    if TEMPORARY_KEY_ID.fullmatch(key_id):
        raise PolicyExecutionError(
            f"{key_id} is a temporary key of the user; such a key cannot be deactivated"
        )
    if not USER_KEY_ID.fullmatch(key_id):
        raise PolicyExecutionError(f"{details.get('accessKeyId')!r} is not an access key id")
    return UserKey(_name(details, "user"), str(details.get("principalId")), key_id)


def _access_key_details(event, account_id):
    finding = mapping(event, "detail")
    if finding.get("accountId") != account_id:
        raise PolicyExecutionError(f"the finding is of account {finding.get('accountId')}")
    details = mapping(finding, "resource").get("accessKeyDetails")
    if not isinstance(details, dict):
        raise PolicyExecutionError("the finding names no credentials")
    return details


def _name(details, kind):
    name = details.get("userName")
    if not isinstance(name, str) or not ENTITY_NAME.fullmatch(name):
        raise PolicyExecutionError(f"{name!r} is not the name of a {kind}")
    return name


# Entries of a list of types, as in `mode.pattern`, which takes the same list by a YAML anchor.
TYPES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "oneOf": [
            {"type": "string", "minLength": 1},
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["prefix"],
                "properties": {"prefix": {"type": "string", "minLength": 1}},
            },
        ]
    },
}


class FindingFilter(EventFilter):
    """Says which GuardDuty findings a policy means; it passes all resources or none.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-miners-and-attackers
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
              pattern:
                detail:
                  type: &types
                    - UnauthorizedAccess:EC2/MaliciousIPCaller.Custom
                    - UnauthorizedAccess:EC2/SSHBruteForce
                    - prefix: CryptoCurrency:EC2/
            filters:
              - type: guard-duty-finding
                types: *types
                actor-only: [UnauthorizedAccess:EC2/SSHBruteForce]
                not-inbound: [UnauthorizedAccess:EC2/MaliciousIPCaller.Custom]
            actions:
              - isolate-instance
              - fail-unless-complete

    Arguments, one of the first three at least: `types`, entries as in an event pattern: a type, or
    a mapping with the `prefix` of types, both case-sensitive; without it every type is meant, also
    one that does not exist yet. `left-out`, such entries of types that are not meant.
    `min-severity`, from 1 to 10 (low is 1, medium 4, high 7, critical 9): a finding below it is not
    meant; one whose severity cannot be read is, so that it is not lost. `actor-only`, entries of
    `types`: findings that exist in both directions, meant only when the resource is the one that
    acts (`service.resourceRole` is ACTOR). `not-inbound`, entries of `types`: not meant when the
    finding says that the remote side began the connection (`connectionDirection` is INBOUND) and
    not that the instance acts: whoever knocks at an open port would decide what is done to it. A
    finding with UNKNOWN, or without a direction, is meant: it still says that the two communicate,
    and when GuardDuty writes UNKNOWN is not documented. `samples: true` and `archived: true` let in
    what is left out otherwise: samples, and findings that somebody or a suppression rule has dealt
    with. In a policy for ec2 a finding about a container (`resourceType` EKSCluster, ECSCluster or
    Container) that names no instance, as on Fargate, is not meant: EC2 has nothing to act on.

    It is not called `finding`: that is Custodian's filter for Security Hub. Like Custodian's
    `event` filter it passes everything where there is no event (`--dryrun`). It is refused in
    every mode but guard-duty, where it would pass all or nothing. Needs no IAM permission.

    Sources:
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
    https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_finding-types-ec2.html
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_NetworkConnectionAction.html
    https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html
    """

    schema = type_schema(
        "guard-duty-finding",
        **{
            "types": TYPES,
            "left-out": TYPES,
            "min-severity": {"type": "number", "minimum": 1, "maximum": 10},
            "actor-only": TYPES,
            "not-inbound": TYPES,
            "samples": {"type": "boolean"},
            "archived": {"type": "boolean"},
        },
    )
    schema_alias = False
    permissions = ()

    def validate(self):
        about = f"policy:{self.manager.data.get('name')} filter:{self.type}"
        mode = mapping(self.manager.data, "mode").get("type")
        if mode != "guard-duty":
            raise PolicyValidationError(
                f"{about} needs mode guard-duty, which alone brings a finding; the mode is {mode}"
            )
        if not self.data.keys() & {"types", "min-severity", "left-out"}:
            raise PolicyValidationError(
                f"{about} means every finding there is: say types, min-severity or left-out"
            )
        for name in ("actor-only", "not-inbound"):
            stray = [e for e in self.data.get(name, ()) if e not in self.data.get("types", ())]
            if stray:
                raise PolicyValidationError(
                    f"{about} {name} names {stray}, which types does not: spell them as there"
                )
        return self

    def process(self, resources, event=None):
        reason = None if event is None else self.refusal(event)
        if reason is None:
            return resources
        finding = mapping(event, "detail").get("id")
        self.log.info(
            "policy:%s finding:%r left out: %s", self.manager.data.get("name"), finding, reason
        )
        return []

    def unlisted(self, event):
        """Why the policy does not mean findings of this type and severity, which its rule asks
        too, or None."""
        found, number, least = finding_type(event), severity(event), self.data.get("min-severity")
        if "types" in self.data and not is_among(self.data["types"], found):
            return f"the type {found!r} is not among the policy's"
        if is_among(self.data.get("left-out", ()), found):
            return f"the type {found!r} is one that the policy leaves out"
        if least is not None and number is not None and number < least:
            return f"its severity is {number}, the policy's least is {least}"
        return None

    def refusal(self, event):
        """Why the policy does not mean this finding, or None."""
        if reason := self.unlisted(event):
            return reason
        found = finding_type(event)
        if is_sample(event) and not self.data.get("samples"):
            return "it is a sample"
        if is_archived(event) and not self.data.get("archived"):
            return "it is archived"
        if self.manager.type == "ec2" and is_without_instance(event):
            return "it is about a container and names no instance, as on Fargate"
        if is_actor(event):
            return None
        if is_among(self.data.get("actor-only", ()), found):
            return f"the resource of a {found} is not the one that acts"
        if is_among(self.data.get("not-inbound", ()), found) and direction(event) == "INBOUND":
            return f"the remote side of a {found} began the connection, the instance did not"
        return None


def is_among(types, found):
    """Whether a type is among entries of a list as TYPES describes it."""
    return any(
        found.startswith(entry["prefix"]) if isinstance(entry, dict) else found == entry
        for entry in types
    )


register("guard-duty-finding", FindingFilter, "account", "ec2", "iam-user")
