"""CloudTrail's event history of Lambda."""

import json
from datetime import UTC, datetime, timedelta

ACCOUNT, REGION = "111122223333", "us-west-2"


def test_the_history_has_who_made_a_function_here(cloud):
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}]}
    role = cloud.client("iam", ACCOUNT, REGION).create_role(
        RoleName="of-a-function", AssumeRolePolicyDocument=json.dumps(trust)
    )["Role"]["Arn"]
    made = {"FunctionName": "made", "Runtime": "python3.13", "Handler": "x.y", "Role": role}
    functions = cloud.client("lambda", ACCOUNT, REGION, "somebody")
    functions.create_function(**made, Code={"ZipFile": b"x"})

    def found(event, region=REGION, since=-60):
        now = datetime.now(UTC)
        return cloud.client("cloudtrail", ACCOUNT, region).lookup_events(
            LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": event}],
            StartTime=now + timedelta(seconds=since),
            EndTime=now + timedelta(seconds=60),
        )["Events"]

    (event,) = found("CreateFunction20150331")
    assert event["Username"] == "somebody" and event["EventTime"].tzinfo
    detail = json.loads(event["CloudTrailEvent"])
    assert detail["requestParameters"] == {"functionName": "made"}
    assert "somebody" in detail["userIdentity"]["arn"]
    assert found("UpdateFunctionCode20150331v2") == []
    assert found("CreateFunction20150331", "eu-west-1") == []
    assert found("CreateFunction20150331", since=30) == []
