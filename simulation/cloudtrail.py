"""CloudTrail's event history, which moto 5.2.5 does not have: what the call log has of Lambda.

Only calls that changed something, of the account and region, by EventName and time, as far as the
pack asks for them. On AWS an event is there some minutes later.
https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
"""

import contextlib
import json
from collections.abc import Iterator
from unittest import mock

from moto.cloudtrail.responses import CloudTrailResponse

from .calls import CallLog

# https://docs.aws.amazon.com/lambda/latest/dg/logging-using-cloudtrail.html
SPELLINGS = {
    "CreateFunction": "CreateFunction20150331",
    "UpdateFunctionCode": "UpdateFunctionCode20150331v2",
    "UpdateFunctionConfiguration": "UpdateFunctionConfiguration20150331v2",
}


@contextlib.contextmanager
def event_history(log: CallLog) -> Iterator[None]:
    """Have LookupEvents answered from the call log until the end of the block."""

    def lookup_events(self) -> str:
        asked = json.loads(self.body)
        (attribute,) = asked["LookupAttributes"]
        if attribute["AttributeKey"] != "EventName":
            raise NotImplementedError(f"LookupEvents by {attribute['AttributeKey']}")
        events = [
            {
                "EventName": attribute["AttributeValue"],
                "EventTime": call.at.timestamp(),
                "Username": call.caller,
                "CloudTrailEvent": json.dumps(
                    {
                        "userIdentity": {
                            "arn": f"arn:aws:sts::{call.account_id}:assumed-role/{call.caller}/x"
                        },
                        "requestParameters": {"functionName": call.parameters["FunctionName"]},
                    }
                ),
            }
            for call in log.calls
            if SPELLINGS.get(call.operation) == attribute["AttributeValue"]
            and call.status < 300
            and (call.account_id, call.region) == (self.current_account, self.region)
            and asked["StartTime"] <= call.at.timestamp() <= asked["EndTime"]
        ]
        return json.dumps({"Events": events[::-1]})

    with mock.patch.object(CloudTrailResponse, "lookup_events", lookup_events, create=True):
        yield
