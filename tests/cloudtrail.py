"""API calls as CloudTrail reports them, and the message that a guard sends about one."""

import uuid

ACCOUNT, REGION = "111122223333", "us-west-2"
INCIDENT = "5ab2c3d4e5f60718293a4b5c6d7e8f90"  # id of the finding about the instance `isolated`
MALLORY = f"arn:aws:sts::{ACCOUNT}:assumed-role/Developer/mallory"


def api_call(name, parameters, role="Developer", service="ec2", **detail):
    """An API call as CloudTrail reports it and EventBridge delivers it."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "AWS API Call via CloudTrail",
        "source": f"aws.{service}",
        "account": ACCOUNT,
        "region": REGION,
        "time": "2026-11-24T10:00:00Z",
        "resources": [],
        "detail": {
            "eventVersion": "1.09",
            "eventID": str(uuid.uuid4()),
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "eventTime": "2026-11-24T10:00:00Z",
            "sourceIPAddress": "198.51.100.9",
            "userAgent": "aws-cli/2 <script>",
            "userIdentity": {
                "type": "AssumedRole",
                "arn": MALLORY.replace("Developer", role),
                "sessionContext": {"sessionIssuer": {"type": "Role", "userName": role}},
            },
            "requestParameters": parameters,
            **detail,
        },
    }


def headline(messages):
    """The first line of the only message."""
    (message,) = messages
    return message["event"]["c7n:notice"]["headline"]
