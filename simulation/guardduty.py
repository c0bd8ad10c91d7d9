"""GuardDuty's API for findings, threat lists and malware scans, which moto 5.2.5 does not have.

A finding is put here by a test, as the event in which EventBridge delivers it: the API's JSON has
the same spelling. What GuardDuty answers for an id that it does not have is not documented; here it
leaves it out. Whether an account may archive is not modelled: have the call fail.

A sample is sent to EventBridge at once, not within minutes. AWS does not say whether a second one
of the same type is a new finding; here it is an update of the first, which is not sent: GuardDuty
sends updates as often as the detector's FindingPublishingFrequency says.

A malware scan runs until a test ends it (`end_scan`). One is refused where GuardDuty is off, and
within an hour of another one of the instance ("A scan was started on this resource recently", user
guide, "Re-scanning previously scanned Amazon EC2 instance"): with a ConflictException here, since
StartMalwareScan has that error; which one AWS gives, and without a detector, is not documented. The
service-linked role that the first one makes is not modelled.
Sources: API_GetFindings, API_ListFindings, API_CreateSampleFindings, API_ArchiveFindings ("Only the
administrator account can archive findings"), API_StartMalwareScan, API_DescribeMalwareScans of
https://docs.aws.amazon.com/guardduty/latest/APIReference/. Nothing here was run against AWS.
"""

import contextlib
import copy
import functools
import json
import operator
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest import mock

from moto.ec2.models import ec2_backends
from moto.events.models import events_backends
from moto.guardduty import urls
from moto.guardduty.exceptions import GuardDutyException
from moto.guardduty.models import GuardDutyBackend, guardduty_backends
from moto.guardduty.responses import GuardDutyResponse
from moto.moto_api._internal import mock_random

FINDINGS = "{0}/detector/(?P<detector_id>[^/]+)/findings"
PATHS = [FINDINGS + end for end in ("$", "/get$", "/archive$", "/create$")]
# The operators of ListFindings that are played; any other is a KeyError.
OPERATORS = {
    "equals": lambda value, wanted: str(value).lower() in map(str.lower, wanted),
    "lessThan": operator.lt,
    "greaterThanOrEqual": operator.ge,
}
# of addresses, and of addresses and domains
LISTS = {"threatintelset": "threatIntelSetIds", "threatentityset": "threatEntitySetIds"}
PATHS += [
    f"{{0}}/detector/(?P<detector_id>[^/]+)/{kind}{one}$"
    for kind in LISTS
    for one in ("", "/(?P<list_id>[^/]+)")
]
PATHS += ["{0}/malware-scan/start$", "{0}/detector/(?P<detector_id>[^/]+)/malware-scans$"]


@contextlib.contextmanager
def findings_by_api() -> Iterator[None]:
    """Have the operations below answered until the end of the block."""
    answers = {
        answer.__name__: answer
        for answer in (
            get_findings,
            list_findings,
            archive_findings,
            create_sample_findings,
            get_administrator_account,
            start_malware_scan,
            describe_malware_scans,
        )
    }
    for kind in ("threat_intel", "threat_entity"):
        answers |= {f"list_{kind}_sets": list_lists, f"get_{kind}_set": get_list}
    with (
        mock.patch.dict(urls.url_paths, dict.fromkeys(PATHS, GuardDutyResponse.dispatch)),
        mock.patch.multiple(GuardDutyResponse, create=True, **answers),
    ):
        yield


def keep(event: dict, account_id: str | None = None) -> dict:
    """Have GuardDuty of the finding's account and region know it; returns it as it is kept.

    account_id: another account that has it, GuardDuty's administrator of its own.
    """
    detail = copy.deepcopy(event["detail"])
    _findings(turn_on(account_id or detail["accountId"], detail["region"]))[detail["id"]] = detail
    return detail


def turn_on(account_id: str, region: str) -> GuardDutyBackend:
    """Have GuardDuty have a detector there, if it has none."""
    backend = guardduty_backends[account_id][region]
    if not backend.detectors:
        backend.create_detector(True, "SIX_HOURS", {}, {}, [])
    return backend


def forget(account_id: str, region: str) -> None:
    """Have GuardDuty of an account and region have no finding; its detector stays."""
    _findings(guardduty_backends[account_id][region]).clear()


def get_findings(self: GuardDutyResponse) -> str:
    return json.dumps({"findings": _asked_for(self)})


def list_findings(self: GuardDutyResponse) -> str:
    """Those that meet all criteria, the newest first, in pages of 50 as the service has them.

    An administrator account has the findings of its members too: `keep` with its id.
    """
    backend = self.guardduty_backend
    backend.get_detector(self.path.split("/")[2])
    criteria = (self._get_param("findingCriteria") or {}).get("criterion", {})
    found = [f for f in _findings(backend).values() if _meets(f, criteria)]
    found.sort(key=lambda finding: finding["updatedAt"], reverse=True)
    start, size = int(self._get_param("nextToken") or 0), self._get_param("maxResults") or 50
    answer = {"findingIds": [finding["id"] for finding in found[start : start + size]]}
    if start + size < len(found):
        answer["nextToken"] = str(start + size)
    return json.dumps(answer)


def _meets(finding: dict, criteria: dict) -> bool:
    """Whether a finding meets criteria as API_Condition has them: texts are equal to one of a list,
    numbers below or above; a time is one of milliseconds since 1970."""
    for path, condition in criteria.items():
        value = functools.reduce(lambda inner, key: inner.get(key), path.split("."), finding)
        if path == "updatedAt":
            value = datetime.fromisoformat(value).timestamp() * 1000
        for name, wanted in condition.items():
            if not OPERATORS[name](value, wanted):
                return False
    return True


def create_sample_findings(self: GuardDutyResponse) -> str:
    backend, where = self.guardduty_backend, (self.current_account, self.region)
    bus = events_backends[where[0]][where[1]]
    detector = self.path.split("/")[2]
    backend.get_detector(detector)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for kind in self._get_param("findingTypes"):
        known = [f for f in _findings(backend).values() if f["type"] == kind and _is_sample(f)]
        for finding in known:
            finding["updatedAt"] = now
            finding["service"]["count"] += 1
        if not known:
            finding = _sample(kind, *where, detector, now)
            _findings(backend)[finding["id"]] = finding
            entry = {"Source": "aws.guardduty", "DetailType": "GuardDuty Finding"}
            bus.put_events([entry | {"Detail": json.dumps(finding)}])
    return "{}"


def _is_sample(finding: dict) -> bool:
    return finding["title"].startswith("[SAMPLE]")


def _sample(kind: str, account_id: str, region: str, detector: str, now: str) -> dict:
    """A sample finding about an instance, as GuardDuty fills it."""
    name = uuid.uuid4().hex
    return {
        "schemaVersion": "2.0",
        "accountId": account_id,
        "region": region,
        "partition": "aws",
        "id": name,
        "arn": f"arn:aws:guardduty:{region}:{account_id}:detector/{detector}/finding/{name}",
        "type": kind,
        "resource": {
            "resourceType": "Instance",
            "instanceDetails": {"instanceId": "i-99999999", "tags": []},
        },
        "service": {
            "serviceName": "guardduty",
            "detectorId": detector,
            "action": {
                "actionType": "NETWORK_CONNECTION",
                "networkConnectionAction": {
                    "connectionDirection": "OUTBOUND",
                    "remoteIpDetails": {"ipAddressV4": "198.51.100.0"},
                },
            },
            "resourceRole": "TARGET",
            "additionalInfo": {"value": '{"sample":true}', "type": "default", "sample": True},
            "eventFirstSeen": now,
            "eventLastSeen": now,
            "archived": False,
            "count": 1,
        },
        "severity": 5,
        "createdAt": now,
        "updatedAt": now,
        "title": "[SAMPLE] EC2 instance i-99999999 is communicating with a disallowed IP address.",
        "description": "[SAMPLE] This is a sample.",
    }


def archive_findings(self: GuardDutyResponse) -> str:
    for finding in _asked_for(self):
        finding["service"]["archived"] = True
    return "{}"


def threat_list(account_id: str, region: str, name: str, status: str = "ACTIVE") -> None:
    """Have GuardDuty have a threat list of addresses; its id is its name."""
    backend = guardduty_backends[account_id][region]
    _lists(backend, "threatintelset")[name] = {"name": name, "status": status}


def list_lists(self: GuardDutyResponse) -> str:
    kind = self.path.split("/")[3]
    return json.dumps({LISTS[kind]: list(_lists(self.guardduty_backend, kind))})


def get_list(self: GuardDutyResponse) -> str:
    *_, kind, name = self.path.split("/")
    return json.dumps(_lists(self.guardduty_backend, kind)[name])


def get_administrator_account(self: GuardDutyResponse) -> str:
    """As botocore's model spells it; moto writes it in capitals, which boto3 does not find."""
    found = self.guardduty_backend.get_administrator_account(self.path.split("/")[-2])
    return json.dumps(
        {"administrator": {k[0].lower() + k[1:]: v for k, v in found["Administrator"].items()}}
        if found
        else {}
    )


class ScanRefused(GuardDutyException):
    def __init__(self, error: str, message: str, code: int) -> None:
        self.code = code
        super().__init__(error, message)


def start_malware_scan(self: GuardDutyResponse) -> str:
    backend, arn = self.guardduty_backend, self._get_param("resourceArn")
    _, _, service, region, account_id, name = arn.split(":", 5)
    here = (service, region, account_id) == ("ec2", self.region, self.current_account)
    known = ec2_backends[self.current_account][self.region].get_instance_by_id(name.split("/")[-1])
    if not (backend.detectors and here and known):
        raise ScanRefused("BadRequestException", "The request cannot be processed.", 400)
    recent = datetime.now(UTC) - timedelta(hours=1)
    if any(s["scanStartTime"] > recent.timestamp() for s in _scans_of(backend, arn)):
        raise ScanRefused(
            "ConflictException",
            "A scan was started on this resource recently. You can request a scan on the same "
            "resource one hour after the previous scan start time.",
            409,
        )
    return json.dumps({"scanId": add_scan(backend, arn)})


def add_scan(backend: GuardDutyBackend, arn: str, kind: str = "ON_DEMAND") -> str:
    """Have a scan of an instance begin now; its id. kind: or GUARDDUTY_INITIATED."""
    scan_id = mock_random.get_random_hex(32)
    _scans(backend)[scan_id] = {
        "scanId": scan_id,
        "detectorId": next(iter(backend.detectors)),
        "accountId": backend.account_id,
        "scanType": kind,
        "scanStatus": "RUNNING",
        "scanStartTime": datetime.now(UTC).timestamp(),
        "resourceDetails": {"instanceArn": arn},
    }
    return scan_id


def end_scan(account_id: str, region: str, scan_id: str, status: str = "COMPLETED", **more) -> None:
    """Have a scan end; more: what GuardDuty shows of it then, in the spelling of its JSON."""
    scan = _scans(guardduty_backends[account_id][region])[scan_id]
    scan |= {"scanStatus": status, "scanEndTime": datetime.now(UTC).timestamp(), **more}


def describe_malware_scans(self: GuardDutyResponse) -> str:
    """Those of the instance that is asked for, the newest first; no other criterion."""
    backend = self.guardduty_backend
    backend.get_detector(self.path.split("/")[2])
    (criterion,) = self._get_param("filterCriteria")["filterCriterion"]
    if criterion["criterionKey"] != "EC2_INSTANCE_ARN":
        raise NotImplementedError(f"DescribeMalwareScans by {criterion['criterionKey']}")
    found = _scans_of(backend, criterion["filterCondition"]["equalsValue"])
    return json.dumps({"scans": sorted(found, key=lambda s: s["scanStartTime"], reverse=True)})


def _scans_of(backend: GuardDutyBackend, arn: str) -> list[dict]:
    return [s for s in _scans(backend).values() if s["resourceDetails"]["instanceArn"] == arn]


def _scans(backend: GuardDutyBackend) -> dict[str, dict]:
    return vars(backend).setdefault("malware_scans", {})


def _lists(backend: GuardDutyBackend, kind: str) -> dict[str, dict]:
    return vars(backend).setdefault(kind, {})


def _asked_for(response: GuardDutyResponse) -> list[dict]:
    backend = response.guardduty_backend
    backend.get_detector(response.path.split("/")[2])
    known = _findings(backend)
    return [known[name] for name in response._get_param("findingIds") if name in known]


def _findings(backend: GuardDutyBackend) -> dict[str, dict]:
    return vars(backend).setdefault("findings", {})
