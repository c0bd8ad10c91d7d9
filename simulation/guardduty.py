"""GuardDuty's API for findings, which moto 5.2.5 does not have.

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


@contextlib.contextmanager
def findings_by_api() -> Iterator[None]:
    """Have GetFindings and ArchiveFindings answered until the end of the block."""
    with (
        mock.patch.dict(urls.url_paths, dict.fromkeys(PATHS, GuardDutyResponse.dispatch)),
        mock.patch.object(GuardDutyResponse, "get_findings", get_findings, create=True),
        mock.patch.object(GuardDutyResponse, "archive_findings", archive_findings, create=True),
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


def _asked_for(response: GuardDutyResponse) -> list[dict]:
    backend = response.guardduty_backend
    backend.get_detector(response.path.split("/")[2])
    known = _findings(backend)
    return [known[name] for name in response._get_param("findingIds") if name in known]


def _findings(backend: GuardDutyBackend) -> dict[str, dict]:
    return vars(backend).setdefault("findings", {})
