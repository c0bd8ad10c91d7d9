"""guardduty-guard: who makes GuardDuty see or say less is told, with what it means.

The events are made by hand in the shape that CloudTrail documents. That the mail of such a guard
arrives is tested with response-guard.
"""

import json
from pathlib import Path

import boto3
import pytest
import yaml
from c7n.config import Config
from c7n.loader import PolicyLoader
from cloudtrail import MALLORY, api_call

from custom_actions.headline import guard_headline
from custom_actions.response import OUTCOMES

POLICY = Path(__file__).parents[2] / "policies" / "guardduty-guard.yml"
(DATA,) = yaml.safe_load(POLICY.read_text())["policies"]
EVENTS = [event["event"] for event in DATA["mode"]["events"]]


def told(event, **options):
    """The first line of the mail about a call; None when the guard leaves it alone."""
    config = Config.empty(account_id="111122223333", region="us-west-2", **options)
    (policy,) = PolicyLoader(config).load_data({"policies": [DATA]}, "memory://")
    policy.validate()
    manager = policy.resource_manager
    account = {"account_id": "111122223333"}
    if not manager.filter_resources([account], event):
        return None
    (explain,) = [action for action in manager.actions if action.type == "explain-call"]
    explain.process([account], event)
    json.dumps(account)  # goes into the message
    return guard_headline(event["detail"], account["account_id"], account[OUTCOMES])


@pytest.mark.parametrize("name", EVENTS)
def test_each_call_is_told_with_what_it_means(name):
    assert name in boto3.client("guardduty", "us-east-1").meta.service_model.operation_names
    line = told(api_call(name, {"detectorId": "d", "name": "x"}, service="guardduty"))

    assert line.startswith(
        f"NOT PUT RIGHT | GuardDuty Guard | d/x: {MALLORY} called {name} on what finds threats."
    )
    assert "NOTHING was put right: " in line and not line.endswith("put right: ")
    assert "leaves nothing" not in line  # each has its own sentence


def test_a_filter_that_only_sorts_is_left_alone():
    parameters = {"detectorId": "d", "name": "x", "action": "NOOP"}

    assert told(api_call("CreateFilter", parameters, service="guardduty")) is None
    parameters["action"] = "ARCHIVE"
    line = told(api_call("CreateFilter", parameters, service="guardduty"))
    assert "nobody is mailed and nothing is isolated" in line


@pytest.mark.parametrize(
    "parameters", [None, {}, {"name": 7}, {"detectorId": {"x": 1}}, {"name": "a\r\nBcc: x@y.z"}]
)
def test_a_misshapen_call_is_told_as_well(parameters):
    line = told(api_call("DeleteDetector", parameters, service="guardduty"))

    assert "called DeleteDetector" in line and "\n" not in line and "\r" not in line


def test_a_call_by_a_service_of_aws_is_told_as_its():
    identity = {"type": "AWSService", "invokedBy": "cloudformation.amazonaws.com"}

    line = told(api_call("DeleteDetector", {}, service="guardduty", userIdentity=identity))

    assert ": cloudformation.amazonaws.com called DeleteDetector" in line


def test_it_changes_nothing_whatever_the_mode():
    names = [a if isinstance(a, str) else a["type"] for a in DATA["actions"]]

    assert names == ["explain-call", "notify-call", "fail-unless-complete"]
