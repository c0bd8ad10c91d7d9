"""GuardDuty's API for findings and threat lists, which moto 5.2.5 does not have.

A finding is put here by a test, as the event in which EventBridge delivers it: the API's JSON has
the same spelling. What GuardDuty answers for an id that it does not have is not documented; here it
leaves it out. Whether an account may archive is not modelled: have the call fail.
Sources: API_GetFindings, API_ArchiveFindings ("Only the administrator account can archive
findings") of https://docs.aws.amazon.com/guardduty/latest/APIReference/. Nothing here was run
against AWS.
"""

import contextlib
import copy
import json
from collections.abc import Iterator
from unittest import mock

from moto.guardduty import urls
from moto.guardduty.models import GuardDutyBackend, guardduty_backends
from moto.guardduty.responses import GuardDutyResponse

PATHS = ("{0}/detector/(?P<detector_id>[^/]+)/findings/get$",)
PATHS += ("{0}/detector/(?P<detector_id>[^/]+)/findings/archive$",)
# of addresses, and of addresses and domains
LISTS = {"threatintelset": "threatIntelSetIds", "threatentityset": "threatEntitySetIds"}
PATHS += tuple(
    f"{{0}}/detector/(?P<detector_id>[^/]+)/{kind}{one}$"
    for kind in LISTS
    for one in ("", "/(?P<list_id>[^/]+)")
)


@contextlib.contextmanager
def findings_by_api() -> Iterator[None]:
    """Have GetFindings and ArchiveFindings answered until the end of the block."""
    with (
        mock.patch.dict(urls.url_paths, dict.fromkeys(PATHS, GuardDutyResponse.dispatch)),
        mock.patch.object(GuardDutyResponse, "get_findings", get_findings, create=True),
        mock.patch.object(GuardDutyResponse, "archive_findings", archive_findings, create=True),
        mock.patch.multiple(
            GuardDutyResponse,
            create=True,
            **{f"list_{kind}_sets": list_lists for kind in ("threat_intel", "threat_entity")},
            **{f"get_{kind}_set": get_list for kind in ("threat_intel", "threat_entity")},
            get_administrator_account=get_administrator_account,
        ),
    ):
        yield


def keep(event: dict) -> dict:
    """Have GuardDuty of the finding's account and region know it; returns it as it is kept."""
    detail = copy.deepcopy(event["detail"])
    backend = guardduty_backends[detail["accountId"]][detail["region"]]
    if not backend.detectors:
        backend.create_detector(True, "SIX_HOURS", {}, {}, [])
    _findings(backend)[detail["id"]] = detail
    return detail


def get_findings(self: GuardDutyResponse) -> str:
    return json.dumps({"findings": _asked_for(self)})


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


def _lists(backend: GuardDutyBackend, kind: str) -> dict[str, dict]:
    return vars(backend).setdefault(kind, {})


def _asked_for(response: GuardDutyResponse) -> list[dict]:
    backend = response.guardduty_backend
    backend.get_detector(response.path.split("/")[2])
    known = _findings(backend)
    return [known[name] for name in response._get_param("findingIds") if name in known]


def _findings(backend: GuardDutyBackend) -> dict[str, dict]:
    return vars(backend).setdefault("findings", {})
