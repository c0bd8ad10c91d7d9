"""The filter `guard-duty-finding`."""

import copy
import logging

import pytest
from c7n.config import Config
from c7n.exceptions import PolicyValidationError
from c7n.loader import PolicyLoader

import custom_actions  # noqa: F401 - registers the filter

INSTANCES = [{"InstanceId": "i-0abc1234def567890"}, {"InstanceId": "i-0abc1234def567891"}]
TYPES = ["UnauthorizedAccess:EC2/SSHBruteForce", "Recon:EC2/Portscan", {"prefix": "Trojan:EC2/"}]
LAMBDA = {
    "role": "guardduty-response-ec2-isolate",
    "packages": ["custom_actions"],
    "handler": "custom_actions.handler.run",
}
GUARD_DUTY = {"type": "guard-duty", **LAMBDA}


def policy(mode=GUARD_DUTY, resource="ec2", types=TYPES, **options):
    """types: None for a filter without them."""
    options |= {"types": types} if types is not None else {}
    data = {
        "name": "meant",
        "resource": resource,
        "filters": [{"type": "guard-duty-finding", **options}],
    }
    if mode:
        data["mode"] = mode
    loader = PolicyLoader(Config.empty(account_id="111122223333", region="us-west-2"))
    (loaded,) = loader.load_data({"policies": [data]}, "memory://")
    loaded.validate()
    return loaded


def takes(event, **options):
    """Whether the policy takes the finding: all resources pass, or none."""
    passed = policy(**options).resource_manager.filter_resources(copy.deepcopy(INSTANCES), event)
    assert passed in ([], INSTANCES)
    return bool(passed)


def finding(finding_type="Recon:EC2/Portscan", **service):
    return {"detail": {"id": "1ab2c3d4", "type": finding_type, "service": service}}


SAMPLE = finding(additionalInfo={"value": '{"sample":true}'})
ARCHIVED = finding(archived="true")


@pytest.mark.parametrize(
    "finding_type, meant",
    {
        "Recon:EC2/Portscan": True,
        "Trojan:EC2/DropPoint": True,
        "Trojan:EC2/": True,
        "recon:EC2/Portscan": False,
        "trojan:EC2/DropPoint": False,
        "Recon:EC2/PortscanMore": False,
        "Impact:Trojan:EC2/": False,
        "": False,
        None: False,
        7: False,
    }.items(),
)
def test_types_are_those_of_an_event_pattern(finding_type, meant):
    assert takes(finding(finding_type)) is meant


def test_the_least_severity():
    (least,) = policy(types=None, **{"min-severity": 4}).resource_manager.filters
    event = finding("Impact:New/Type")
    assert least.process(INSTANCES, event) == INSTANCES  # it has none
    for severity, meant in (
        *((4, True), (4.0, True), (3.9, False), (1, False), (9.5, True), ("3", False), ("5", True)),
        # none that can be read: it is not lost
        *((None, True), ("high", True), ([2], True), (True, True), (float("nan"), True)),
        *((0, True), (10**400, True), (-1.5, True)),
    ):
        event["detail"]["severity"] = severity
        assert least.process(INSTANCES, event) == (INSTANCES if meant else []), severity


def test_types_that_are_left_out():
    options = {"left-out": ["Policy:S3/X", {"prefix": "Trojan:"}]}
    (of_all,) = policy(types=None, **options).resource_manager.filters
    for found, meant in (
        *(("Policy:S3/X", False), ("Trojan:EC2/DropPoint", False), ("Policy:S3/XY", True)),
        *(("Impact:New/Type", True), (None, True)),
    ):
        assert (of_all.refusal(finding(found)) is None) is meant, found
    assert not takes(finding("Trojan:EC2/DropPoint"), **options)  # of `types`, and left out of it


def test_a_filter_that_asks_nothing_is_refused():
    with pytest.raises(PolicyValidationError, match="policy:meant .* say types, min-severity or"):
        policy(types=None, samples=True)
    with pytest.raises(PolicyValidationError, match="actor-only names .* which types does not"):
        policy(types=None, **{"min-severity": 4, "actor-only": [TYPES[0]]})


@pytest.mark.parametrize(
    "options, sample, archived",
    [
        ({}, False, False),
        ({"samples": True}, True, False),
        ({"archived": True}, False, True),
        ({"samples": False, "archived": False}, False, False),
        ({"samples": True, "archived": True}, True, True),
    ],
    ids=str,
)
def test_samples_and_archived_findings_are_let_in_when_asked_for(options, sample, archived):
    assert takes(SAMPLE, **options) is sample
    assert takes(ARCHIVED, **options) is archived
    assert takes(finding(), **options)


@pytest.mark.parametrize("role, meant", [("ACTOR", True), ("TARGET", False), (None, False)])
@pytest.mark.parametrize(
    "finding_type, entry",
    [(TYPES[0], TYPES[0]), ("Trojan:EC2/DropPoint", TYPES[2])],
)
def test_actor_only(finding_type, entry, role, meant):
    event = finding(finding_type, resourceRole=role)

    assert takes(event, **{"actor-only": [entry]}) is meant
    assert takes(finding("Recon:EC2/Portscan", resourceRole=role), **{"actor-only": [entry]})


@pytest.mark.parametrize(
    "action, meant",
    [
        ({"networkConnectionAction": {"connectionDirection": "OUTBOUND"}}, True),
        ({"networkConnectionAction": {"connectionDirection": "INBOUND"}}, False),
        ({"networkConnectionAction": {"connectionDirection": "Inbound"}}, False),
        ({"networkConnectionAction": {"connectionDirection": "UNKNOWN"}}, True),
        ({"networkConnectionAction": {"connectionDirection": ["INBOUND"]}}, True),
        ({"networkConnectionAction": None}, True),
        ({"dnsRequestAction": {"connectionDirection": "INBOUND"}}, True),
        (None, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("entry", [TYPES[0], TYPES[2]], ids=str)
def test_not_inbound(entry, action, meant):
    found = entry if isinstance(entry, str) else "Trojan:EC2/DropPoint"
    only = {"not-inbound": [entry]}

    assert takes(finding(found, action=action, resourceRole="TARGET"), **only) is meant
    assert takes(finding(found, action=action, resourceRole="ACTOR"), **only)
    assert takes(finding("Recon:EC2/Portscan", action=action), **only)


@pytest.mark.parametrize(
    "event, reason",
    [
        (finding("Policy:S3/X"), "the type 'Policy:S3/X' is not among the policy's"),
        (SAMPLE, "it is a sample"),
        (ARCHIVED, "it is archived"),
        (finding(TYPES[0], resourceRole="TARGET"), "is not the one that acts"),
        (finding() | {"detail": finding()["detail"] | {"severity": 1}}, "its severity is 1, the"),
        (finding("Trojan:EC2/X"), "the type 'Trojan:EC2/X' is one that the policy leaves out"),
    ],
)
def test_the_log_says_why_a_finding_was_left_out(event, reason, caplog):
    caplog.set_level(logging.INFO, "custodian.filters")

    options = {"actor-only": [TYPES[0]], "min-severity": 2, "left-out": ["Trojan:EC2/X"]}
    assert not takes(event, **options)

    (line,) = (r.getMessage() for r in caplog.records if r.name == "custodian.filters")
    assert line.startswith("policy:meant finding:'1ab2c3d4' left out: ") and reason in line


def test_without_an_event_everything_passes():
    """`--dryrun` lists what a policy could act on; there is no finding to ask."""
    assert takes(None)


@pytest.mark.parametrize(
    "mode",
    [
        None,
        {"type": "pull"},
        {
            "type": "cloudtrail",
            **LAMBDA,
            "events": [{"source": "ec2.amazonaws.com", "event": "X", "ids": "y"}],
        },
    ],
    ids=str,
)
def test_a_mode_that_brings_no_finding_is_refused(mode):
    with pytest.raises(PolicyValidationError, match="policy:meant .* needs mode guard-duty"):
        policy(mode)


@pytest.mark.parametrize("argument", ["actor-only", "not-inbound"])
@pytest.mark.parametrize("entry", ["UnauthorizedAccess:EC2/SshBruteForce", {"prefix": "Trojan:"}])
def test_a_narrower_list_names_entries_of_types(entry, argument):
    """A misspelt one would isolate the target of an attack."""
    about = f"policy:meant .* {argument} names .* which types does not"
    with pytest.raises(PolicyValidationError, match=about):
        policy(**{argument: [entry]})


@pytest.mark.parametrize(
    "options",
    [
        {"types": []},
        {"types": "Recon:EC2/Portscan"},
        {"types": [""]},
        {"types": [{"prefix": ""}]},
        {"types": [{"suffix": "BruteForce"}]},
        {"types": [{"prefix": "Trojan:", "suffix": "X"}]},
        {"samples": "yes"},
        {"archived": 1},
        {"actor-only": True},
        {"not-inbound": []},
        {"sample": True},
        {"min-severity": 0},
        {"min-severity": 11},
        {"min-severity": "medium"},
        {"left-out": []},
        {"left-out": [{"suffix": "X"}]},
    ],
    ids=str,
)
def test_what_the_schema_refuses(options):
    with pytest.raises(PolicyValidationError):
        policy(**options)


@pytest.mark.parametrize("resource", ["account", "ec2", "iam-user"])
def test_it_is_there_for_each_resource_that_a_finding_can_be_about(resource):
    """guard-duty mode knows these three."""
    (found,) = policy(resource=resource).resource_manager.filters
    assert type(found).__module__ == "custom_actions.finding"
