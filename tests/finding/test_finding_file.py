"""Reading findings from files."""

import json
from pathlib import Path

import pytest

from custom_actions.finding_file import (
    NotAFinding,
    account_and_region,
    as_event,
    read_finding,
    read_findings,
)

FINDINGS = Path(__file__).parents[1] / "findings"
BARE = ["bare-ec2-malicious-ip-caller.json", "bare-sample-as-get-findings-prints-it.json"]


def keys(value):
    """All keys of nested dictionaries."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set()


@pytest.mark.parametrize("name", BARE)
def test_a_bare_finding_becomes_the_event_of_the_same_finding(name):
    event = read_finding(FINDINGS / name)
    counterpart = name.replace("bare-", "").replace("-as-get-findings-prints-it", "")
    if name == BARE[1]:
        counterpart = "ec2-malicious-ip-caller-sample.json"
    expected = json.loads((FINDINGS / counterpart).read_text())
    # The two were made by hand and differ in the text of additionalInfo.value.
    value = json.loads(event["detail"]["service"]["additionalInfo"]["value"])
    expected["detail"]["service"]["additionalInfo"]["value"] = json.dumps(value)
    assert event["detail"] == expected["detail"]
    assert {key: event[key] for key in ("account", "region", "source", "detail-type")} == {
        key: expected[key] for key in ("account", "region", "source", "detail-type")
    }
    assert not [key for key in keys(event) if key[0].isupper()]


def test_the_sample_marking_of_the_json_text_is_beside_it_too():
    info = read_finding(FINDINGS / BARE[1])["detail"]["service"]["additionalInfo"]
    assert info["sample"] is True
    assert json.loads(info["value"])["sample"] is True


def test_keys_with_digits_acronyms_and_data_for_keys():
    finding = {
        "Type": "t",
        "AccountId": "111122223333",
        "Region": "us-west-2",
        "UpdatedAt": "2026-11-23T09:02:00.123Z",
        "Resource": {
            "S3BucketDetails": [{"Arn": "a"}],
            "InstanceDetails": {"NetworkInterfaces": [{"Ipv6Addresses": ["::1"]}]},
        },
        "Service": {
            "Action": {
                "AwsApiCallAction": {
                    "RemoteIpDetails": {"IpAddressV4": "1", "GeoLocation": {"Lat": 1}},
                    "AffectedResources": {"AWS::S3::Bucket": "b"},
                },
                "KubernetesApiCallAction": {"SourceIps": ["1"]},
            }
        },
        "NewToday": {"SubField": 1},
    }
    event = as_event(finding)
    assert event["time"] == "2026-11-23T09:02:00Z"
    detail = event["detail"]
    assert detail["resource"] == {
        "s3BucketDetails": [{"arn": "a"}],
        "instanceDetails": {"networkInterfaces": [{"ipv6Addresses": ["::1"]}]},
    }
    action = detail["service"]["action"]
    assert action["awsApiCallAction"] == {
        "remoteIpDetails": {"ipAddressV4": "1", "geoLocation": {"lat": 1}},
        "affectedResources": {"AWS::S3::Bucket": "b"},
    }
    assert action["kubernetesApiCallAction"] == {"sourceIPs": ["1"]}
    assert detail["newToday"] == {"subField": 1}


@pytest.mark.parametrize("path", sorted(FINDINGS.glob("[ei]*.json")), ids=lambda path: path.stem)
def test_an_event_is_left_as_it_is(path):
    assert read_finding(path) == json.loads(path.read_text())


def test_an_event_with_gaps_is_completed():
    event = as_event(
        {
            "source": "aws.guardduty",
            "account": None,
            "detail": {"id": "1", "accountId": "111122223333", "region": "us-west-2"},
        }
    )
    assert (event["account"], event["region"]) == ("111122223333", "us-west-2")
    assert event["detail-type"] == "GuardDuty Finding"
    assert event["detail"] == {"id": "1", "accountId": "111122223333", "region": "us-west-2"}


def test_the_place_is_the_findings_not_the_administrators():
    event = {
        "source": "aws.guardduty",
        "account": "999988887777",
        "region": "us-east-1",
        "detail": {"accountId": "111122223333", "region": "us-west-2"},
    }
    assert account_and_region(as_event(event)) == ("111122223333", "us-west-2")
    event["detail"] = {}
    assert account_and_region(as_event(event)) == ("999988887777", "us-east-1")


def test_the_output_of_get_findings_and_lists_of_it(tmp_path):
    bare = [json.loads((FINDINGS / name).read_text()) for name in BARE]
    file = tmp_path / "findings.json"
    for content in ({"Findings": bare}, bare):
        file.write_text(json.dumps(content))
        ids = [event["detail"]["id"] for event in read_findings(file)]
        assert ids == [finding["Id"] for finding in bare]
        with pytest.raises(NotAFinding, match="2 findings, where one is expected"):
            read_finding(file)
    file.write_text(json.dumps({"Findings": bare[:1]}))
    assert read_finding(file)["detail"]["id"] == bare[0]["Id"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "empty list"),
        ("3", "a int, where"),
        ('{"Findings": []}', "empty list"),
        ("{}", "its keys: none"),
        ('{"hello": 1}', "neither an EventBridge event .* its keys: hello"),
        ('{"detail": 1}', "detail is not an object"),
        ('{"detail": {}, "source": "aws.ec2"}', "an event of aws.ec2"),
        ('{"detail": {}, "source": "aws.guardduty"}', "without accountId or region"),
        ('{"Type": "t", "Resource": {}}', "without accountId or region"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, message):
    file = tmp_path / "finding.json"
    file.write_text(text)
    with pytest.raises(NotAFinding, match=f"finding.json: .*{message}"):
        read_findings(file)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_and_what_powershell_writes_are_read(tmp_path, encoding):
    text = (FINDINGS / BARE[0]).read_text()
    (tmp_path / "finding.json").write_text(text, encoding=encoding)
    assert read_finding(tmp_path / "finding.json") == read_finding(FINDINGS / BARE[0])


@pytest.mark.parametrize("text", ['{"id": "a\\ud800"}', "[" * 100_000])
def test_what_python_cannot_take_as_json_is_no_finding(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(NotAFinding, match="not JSON"):
        read_finding(tmp_path / "odd.json")
