"""Reading findings from files.

A file holds an EventBridge event, or findings as `aws guardduty get-findings` prints them: the
whole output, its list, or one finding of it. GuardDuty's API spells keys in PascalCase, its events
in camelCase; the API's own model, which botocore carries, names both (`locationName`).
"""

import json
import uuid
from functools import cache
from pathlib import Path

import botocore.session
from botocore.model import Shape


class NotAFinding(ValueError):
    """The file holds something else; the message says what was expected."""


def read_findings(path: str | Path) -> list[dict]:
    """The EventBridge events of all findings in a file. NotAFinding, or OSError."""
    try:
        # bytes: so what PowerShell writes, with a byte order mark or in UTF-16, is read too
        data = json.loads(Path(path).read_bytes())
        json.dumps(data, ensure_ascii=False).encode()  # JSON can spell what is no text
    except (ValueError, RecursionError) as error:
        raise NotAFinding(f"{path}: not JSON: {error}") from error
    try:
        if isinstance(data, dict) and isinstance(data.get("Findings"), list):
            data = data["Findings"]
        if not isinstance(data, list):
            data = [data]
        if not data:
            raise NotAFinding("an empty list of findings")
        return [as_event(finding) for finding in data]
    except NotAFinding as error:
        raise NotAFinding(f"{path}: {error}") from error


def read_finding(path: str | Path) -> dict:
    """The EventBridge event of the one finding in a file. NotAFinding when there are several."""
    events = read_findings(path)
    if len(events) > 1:
        raise NotAFinding(f"{path}: {len(events)} findings, where one is expected")
    return events[0]


def as_event(data: object) -> dict:
    """An event as it is, or the event that EventBridge would deliver for a bare finding."""
    if not isinstance(data, dict):
        raise NotAFinding(f"a {type(data).__name__}, where an event or a finding is expected")
    if "detail" in data:
        return _checked_event(data)
    if "Type" in data and "Resource" in data:
        return wrap(camel_case(data))
    if "type" in data and "resource" in data:
        return wrap(data)
    keys = ", ".join(sorted(data)[:5]) or "none"
    raise NotAFinding(
        "neither an EventBridge event (key: detail) nor a finding as `aws guardduty get-findings` "
        f"prints it (keys: Type, Resource); its keys: {keys}"
    )


def account_and_region(event: dict) -> tuple[str, str]:
    """Where the finding's resource is: not where the event is, with a GuardDuty administrator."""
    detail = event["detail"]
    return detail.get("accountId") or event["account"], detail.get("region") or event["region"]


def wrap(finding: dict) -> dict:
    """The EventBridge event of a finding in camelCase. Its id follows from the finding's."""
    # arn:aws:guardduty:REGION:ACCOUNT:detector/...
    arn = str(finding.get("arn") or "").split(":") + [""] * 5
    account, region = finding.get("accountId") or arn[4], finding.get("region") or arn[3]
    if not account or not region:
        raise NotAFinding("a finding without accountId or region")
    updated = str(finding.get("updatedAt") or "1970-01-01T00:00:00Z")
    return {
        "version": "0",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{finding.get('id')} {updated}")),
        "detail-type": "GuardDuty Finding",
        "source": "aws.guardduty",
        "account": account,
        "time": updated.partition(".")[0].rstrip("Z") + "Z",
        "region": region,
        "resources": [],
        "detail": finding,
    }


def camel_case(finding: dict) -> dict:
    """A finding of the API in the spelling of events.

    `AdditionalInfo.Value` is a text of JSON; an event has its fields beside it as well.
    """
    converted = _convert(finding, finding_shape())
    info = (converted.get("service") or {}).get("additionalInfo")
    if isinstance(info, dict) and isinstance(info.get("value"), str):
        try:
            fields = json.loads(info["value"])
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            converted["service"]["additionalInfo"] = fields | info
    return converted


def _checked_event(event: dict) -> dict:
    if not isinstance(event["detail"], dict):
        raise NotAFinding("an event whose detail is not an object")
    if event.get("source") != "aws.guardduty":
        raise NotAFinding(f"an event of {event.get('source')}, not of aws.guardduty")
    place = {"accountId": event.get("account"), "region": event.get("region")}
    defaults = wrap(event["detail"] | _given(place))
    return defaults | _given(event)


def _given(mapping: dict) -> dict:
    return {key: value for key, value in mapping.items() if value is not None}


@cache
def finding_shape() -> Shape:
    return botocore.session.Session().get_service_model("guardduty").shape_for("Finding")


def _convert(value: object, shape: Shape | None) -> object:
    """The value with the keys of structures renamed; keys of maps are data and stay."""
    if isinstance(value, list):
        member = shape.member if shape is not None and shape.type_name == "list" else None
        return [_convert(item, member) for item in value]
    if not isinstance(value, dict):
        return value
    if shape is not None and shape.type_name == "map":
        return {key: _convert(item, shape.value) for key, item in value.items()}
    members = shape.members if shape is not None and shape.type_name == "structure" else {}
    converted = {}
    for key, item in value.items():
        member = members.get(key)
        name = member.serialization.get("name") if member is not None else None
        converted[name or key[:1].lower() + key[1:]] = _convert(item, member)
    return converted
