"""The ways to break a policy."""

import yaml

from review.ablation import ablations
from review.mutate import ACCEPTED, sources
from review.mutate import ROOT as REPOSITORY

POLICY = """
name: ec2-isolate-some
resource: ec2
mode:
  type: guard-duty
  role: guardduty-response-ec2-isolate
  execution-options: {autonomy: observe, member-role: none}
  pattern:
    detail:
      accountId: ["{account_id}"]
      type: &types
        - UnauthorizedAccess:EC2/SSHBruteForce
        - prefix: Trojan:EC2/
      resource:
        accessKeyDetails:
          userType: [AssumedRole]
filters:
  - type: guard-duty-finding
    types: *types
    actor-only: [UnauthorizedAccess:EC2/SSHBruteForce]
    archived: true
  - or:
      - {type: event, key: detail.region, value: us-east-1}
      - not:
          - {type: event, key: detail.partition, op: in, value: [aws-cn, aws-us-gov]}
actions:
  - type: isolate-instance
    exempt-tag: forensic:exempt
  - leave-service
  - fail-unless-complete
"""

WAYS = [
    "the field detail.accountId of the rule dropped",
    "the field detail.type of the rule dropped",
    "without UnauthorizedAccess:EC2/SSHBruteForce",
    "without prefix 'Trojan:EC2/'",
    "the prefix 'Trojan:EC2/' widened to 'Trojan:'",
    "widened by the prefix 'UnauthorizedAccess:EC2/'",
    "the field detail.resource.accessKeyDetails.userType of the rule dropped",
    "without the filter guard-duty-finding",
    "actor-only without UnauthorizedAccess:EC2/SSHBruteForce",
    "without archived of the filter guard-duty-finding",
    "samples let in",
    "without the filter or",
    "without the filter event detail.region us-east-1",
    "without the filter not",
    "without the filter event detail.partition",
    "value without aws-cn",
    "value without aws-us-gov",
    "without the step isolate-instance",
    "without exempt-tag of the step isolate-instance",
    "without the step leave-service",
    "the steps isolate-instance and leave-service swapped",
    "without the step fail-unless-complete",
    "the steps leave-service and fail-unless-complete swapped",
    "isolate-instance last",
    "without role of the mode",
    "without execution-options of the mode",
    "without autonomy of execution-options of the mode",
    "without member-role of execution-options of the mode",
]


def test_every_way_is_one_edit_with_a_sentence():
    policy = yaml.safe_load(POLICY)
    made = {one.what: one.broken for one in ablations(policy)}

    assert list(made) == WAYS
    assert policy == yaml.safe_load(POLICY)  # each is made from a copy
    assert all(broken != policy for broken in made.values())
    # an anchored list is one list, in the rule and in the filter
    shorter = made["without UnauthorizedAccess:EC2/SSHBruteForce"]
    for types in (shorter["mode"]["pattern"]["detail"]["type"], shorter["filters"][0]["types"]):
        assert types == [{"prefix": "Trojan:EC2/"}]
    wider = made["the prefix 'Trojan:EC2/' widened to 'Trojan:'"]
    assert wider["filters"][0]["types"][1] == {"prefix": "Trojan:"}
    assert made["samples let in"]["filters"][0]["samples"] is True
    # what holds nothing any more goes too
    user_type = "the field detail.resource.accessKeyDetails.userType of the rule dropped"
    assert "resource" not in made[user_type]["mode"]["pattern"]["detail"]
    assert "actor-only" not in made[WAYS[8]]["filters"][0]
    assert [*made["isolate-instance last"]["actions"]] == [
        "leave-service",
        "fail-unless-complete",
        {"type": "isolate-instance", "exempt-tag": "forensic:exempt"},
    ]


def test_a_severity_and_types_that_are_left_out_can_be_broken_too():
    policy = yaml.safe_load(POLICY)
    policy["mode"]["pattern"]["detail"] = {
        "severity": [{"numeric": [">=", 4]}, {"exists": False}],
        "type": [{"anything-but": ["Policy:S3/X"]}],
    }
    policy["filters"] = [
        {"type": "guard-duty-finding", "min-severity": 4, "left-out": ["Policy:S3/X"]}
    ]

    made = {one.what: one for one in ablations(policy) if one.wanted}

    of_the_filter = "of the filter guard-duty-finding"
    assert {what: one.wanted for what, one in made.items() if "severity" in what} == {
        "the field detail.severity of the rule dropped": "a finding that the rule leaves out for "
        "its detail.severity",
        "detail.severity without numeric ['>=', 4]": "a finding that has numeric ['>=', 4] as "
        "detail.severity",
        "detail.severity without exists False": "a finding that has exists False as "
        "detail.severity",
        f"without min-severity {of_the_filter}": "a finding of a severity below 4",
        f"min-severity {of_the_filter} raised by one": "a finding of the severity 4",
    }
    raised = made[f"min-severity {of_the_filter} raised by one"].broken
    assert raised["filters"][0]["min-severity"] == 5
    left_out = made["left-out without Policy:S3/X"]
    assert left_out.wanted == (
        "a finding of the type Policy:S3/X that the policy would act on otherwise"
    )
    assert "left-out" not in left_out.broken["filters"][0]


def test_rules_and_filters_name_the_finding_that_would_tell():
    wanted = {one.what: one.wanted for one in ablations(yaml.safe_load(POLICY))}

    assert all(wanted[way] for way in WAYS[: WAYS.index("without the step isolate-instance")])
    assert not any(wanted[way] for way in WAYS[WAYS.index("without the step isolate-instance") :])
    assert "a member on the bus of GuardDuty's administrator account" in wanted[WAYS[0]]
    assert wanted[WAYS[8]] == (
        "a finding of the type UnauthorizedAccess:EC2/SSHBruteForce whose resource is the target, "
        "not the actor"
    )


def test_every_policy_can_be_broken_and_what_is_accepted_is_still_a_way():
    every = sources(REPOSITORY / "policies")
    ways = {(name, one.what) for name, it in every.items() for one in ablations(it.data)}

    assert {name for name, _ in ways} == set(every)
    assert set(ACCEPTED) <= ways, "make mutate accepts what can no longer happen: take it out"
    assert all(ACCEPTED.values())
