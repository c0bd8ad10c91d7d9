"""Findings as GuardDuty's own API has them."""


def find(client, finding_id):
    """(id of the detector, finding in the API's spelling), or None when GuardDuty has none such.

    client: of GuardDuty. Raises ClientError. IAM: guardduty:ListDetectors, guardduty:GetFindings.
    What AWS answers for an id that it does not have is not documented: nothing, or a refusal.
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_GetFindings.html
    """
    for detector in client.list_detectors()["DetectorIds"]:
        asked = client.get_findings(DetectorId=detector, FindingIds=[finding_id])
        for finding in asked["Findings"]:
            return detector, finding
    return None


def newest(client, detector, criterion, most):
    """(ids of findings, the one updated last first, `most` of them; whether there are more).

    criterion: of ListFindings. Raises ClientError. IAM: guardduty:ListFindings.
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_ListFindings.html
    """
    pages = client.get_paginator("list_findings").paginate(
        DetectorId=detector,
        FindingCriteria={"Criterion": criterion},
        SortCriteria={"AttributeName": "updatedAt", "OrderBy": "DESC"},
        PaginationConfig={"PageSize": 50, "MaxItems": most + 1},
    )
    found = [finding for page in pages for finding in page["FindingIds"]]
    return found[:most], len(found) > most
