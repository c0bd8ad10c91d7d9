"""GuardDuty's findings, by its API."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from custom_actions.finding import is_sample
from custom_actions.finding_file import camel_case
from simulation import guardduty

ACCOUNT, REGION = "111122223333", "us-west-2"
FINDING = Path(__file__).parents[1] / "findings" / "ec2-malicious-ip-caller.json"


def test_a_finding_is_read_and_archived_by_its_own_detector(cloud):
    client = cloud.client("guardduty", ACCOUNT, REGION)
    assert client.list_detectors()["DetectorIds"] == []
    event = json.loads(FINDING.read_text())
    guardduty.keep(event)
    name = event["detail"]["id"]
    (detector,) = client.list_detectors()["DetectorIds"]

    asked = {"DetectorId": detector, "FindingIds": [name, "0" * 32]}
    (found,) = client.get_findings(**asked)["Findings"]
    assert found["Service"]["Archived"] is False
    spelt = camel_case(found)
    assert (spelt["id"], spelt["type"]) == (name, event["detail"]["type"])
    shown, kept = (f["resource"]["instanceDetails"] for f in (spelt, event["detail"]))
    assert shown["networkInterfaces"] == kept["networkInterfaces"]

    client.archive_findings(DetectorId=detector, FindingIds=[name])
    assert client.get_findings(**asked)["Findings"][0]["Service"]["Archived"] is True
    with pytest.raises(ClientError, match="not owned by the current account"):
        cloud.client("guardduty", ACCOUNT, "eu-west-1").get_findings(**asked)


def test_findings_are_listed_by_criteria_in_pages(cloud):
    """moto has no ListFindings; of AWS's criteria these are played, any other is an error."""
    region = "eu-west-2"
    made = [(2, False, 1), (3.9, False, 2), (4, False, 3), (2, True, 4), (2, False, 5)]
    for severity, archived, day in made:
        event = json.loads(FINDING.read_text())
        event["detail"]["service"]["archived"] = archived
        day = f"2026-11-0{day}T00:00:00.000Z"
        known = {"region": region, "id": day, "severity": severity, "updatedAt": day}
        event["detail"] |= known
        guardduty.keep(event)
    client = cloud.client("guardduty", ACCOUNT, region)
    (detector,) = client.list_detectors()["DetectorIds"]
    second = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp() * 1000)
    criterion = {
        "severity": {"LessThan": 4},
        "service.archived": {"Equals": ["false"]},
        "accountId": {"Equals": [ACCOUNT]},
        "updatedAt": {"GreaterThanOrEqual": second},
    }
    asked = {"DetectorId": detector, "FindingCriteria": {"Criterion": criterion}, "MaxResults": 1}

    first = client.list_findings(**asked)
    then = client.list_findings(**asked, NextToken=first["NextToken"])

    assert [first["FindingIds"][0][:10], then["FindingIds"][0][:10]] == ["2026-11-05", "2026-11-02"]
    assert not then.get("NextToken")
    guardduty.forget(ACCOUNT, region)
    assert client.list_findings(**asked)["FindingIds"] == []


def test_threat_lists_and_the_administrator_are_read(cloud):
    guardduty.threat_list(ACCOUNT, "eu-north-1", "known", "INACTIVE")
    client = cloud.client("guardduty", ACCOUNT, "eu-north-1")
    key = {"DetectorId": client.create_detector(Enable=True)["DetectorId"]}

    assert client.list_threat_intel_sets(**key)["ThreatIntelSetIds"] == ["known"]
    assert client.get_threat_intel_set(**key, ThreatIntelSetId="known")["Status"] == "INACTIVE"
    assert client.list_threat_entity_sets(**key)["ThreatEntitySetIds"] == []
    assert "Administrator" not in client.get_administrator_account(**key)
    client.enable_organization_admin_account(AdminAccountId="444455556666")
    shown = client.get_administrator_account(**key)["Administrator"]
    assert shown["AccountId"] == "444455556666"


def test_a_malware_scan_is_begun_once_an_hour_and_shown_with_its_instance(cloud):
    client, ec2 = (cloud.client(name, ACCOUNT, REGION) for name in ("guardduty", "ec2"))
    launched = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]
    arn = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{launched['InstanceId']}"
    with pytest.raises(client.exceptions.BadRequestException):
        client.start_malware_scan(ResourceArn=arn)
    detector = client.create_detector(Enable=True)["DetectorId"]
    for other in (arn + "0", arn.replace(REGION, "eu-west-1")):
        with pytest.raises(client.exceptions.BadRequestException):
            client.start_malware_scan(ResourceArn=other)

    name = client.start_malware_scan(ResourceArn=arn)["ScanId"]
    with pytest.raises(client.exceptions.ConflictException, match="on this resource recently"):
        client.start_malware_scan(ResourceArn=arn)
    guardduty.end_scan(ACCOUNT, REGION, name, failureReason="x")

    asked = {"CriterionKey": "EC2_INSTANCE_ARN", "FilterCondition": {"EqualsValue": arn}}
    (scan,) = client.describe_malware_scans(
        DetectorId=detector, FilterCriteria={"FilterCriterion": [asked]}
    )["Scans"]
    assert (scan["ScanId"], scan["ScanStatus"], scan["ScanType"]) == (
        name,
        "COMPLETED",
        "ON_DEMAND",
    )
    assert scan["ResourceDetails"]["InstanceArn"] == arn
    assert abs(scan["ScanStartTime"] - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_sample_is_listed_and_sent_and_a_second_one_is_an_update(cloud, make_function, make_rule):
    client = cloud.client("guardduty", ACCOUNT, REGION)
    detector = client.create_detector(Enable=True)["DetectorId"]
    arn = make_function("heard", {"main.py": "def run(event, context):\n    return event\n"})
    make_rule("heard", json.dumps({"detail-type": ["GuardDuty Finding"]}), arn)
    kind = "UnauthorizedAccess:EC2/MaliciousIPCaller.Custom"

    for _ in range(2):
        client.create_sample_findings(DetectorId=detector, FindingTypes=[kind])
        cloud.wait_idle()

    criteria = {"Criterion": {"type": {"Equals": [kind]}}}
    (name,) = client.list_findings(DetectorId=detector, FindingCriteria=criteria)["FindingIds"]
    (found,) = client.get_findings(DetectorId=detector, FindingIds=[name])["Findings"]
    assert found["Service"]["Count"] == 2
    (invocation,) = cloud.invocations
    event = invocation.event
    assert (event["account"], event["region"], event["detail"]["id"]) == (ACCOUNT, REGION, name)
    assert is_sample(event) and is_sample({"detail": camel_case(found)})
    criteria = {"Criterion": {"type": {"Equals": ["Other"]}}}
    asked = client.list_findings(DetectorId=detector, FindingCriteria=criteria)
    assert asked["FindingIds"] == []
