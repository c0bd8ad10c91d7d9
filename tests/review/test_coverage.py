"""`make coverage`: what no finding of tests/ shows."""

import copy
import json

import pytest
from click.testing import CliRunner

from deployment import policies
from deployment.targets import ROOT
from review.coverage import coverage, functions_of, of_folder, unexercised
from review.findings import disagreements, findings, surprises

TESTS = ROOT / "tests"
POLICIES = of_folder(policies.FOLDER)


@pytest.mark.parametrize("policy", POLICIES)
def test_each_part_of_a_rule_and_its_filters_is_shown_by_a_finding(policy):
    missing = unexercised(POLICIES[policy], findings(TESTS))
    if missing:
        said = "\n".join(f"{one}: no finding tells. Wanted: {one.wanted}." for one in missing)
        pytest.fail(f"{said}\nAdd one to tests/findings and link it.", pytrace=False)


def test_what_is_whole_is_said_and_a_policy_that_is_none_is_refused():
    said = CliRunner().invoke(coverage, ["-p", "ec2-isolate", "--json"])
    assert said.exit_code == 0
    assert json.loads(said.stdout) == {"not exercised": {"ec2-isolate": []}, "not as promised": []}

    refused = CliRunner().invoke(coverage, ["-p", "isolation-guard"])
    assert refused.exit_code == 2
    assert "isolation-guard is no policy for findings" in refused.output


def test_a_type_that_no_finding_has_is_named_with_the_finding_that_is_wanted():
    policy = copy.deepcopy(POLICIES["ec2-isolate"])
    policy["filters"][0]["types"].append("Impact:EC2/NeverSeen")

    (missing,) = unexercised(policy, findings(TESTS))

    assert str(missing) == "ec2-isolate: without Impact:EC2/NeverSeen"
    assert missing.wanted == "a finding of the type Impact:EC2/NeverSeen that the policy acts on"


def of_type(*events):
    return {path: event for path, event in findings(TESTS).items() if path.stem in events}


def test_a_finding_that_is_stopped_shows_no_type():
    """A brute-force finding whose instance is the target has the type, and nothing comes of it."""
    (target,) = of_type("ec2-winrm-brute-force-target").items()

    missing = {one.what for one in unexercised(POLICIES["ec2-isolate"], dict([target]))}

    assert "without Impact:EC2/WinRMBruteForce" in missing
    assert "actor-only without Impact:EC2/WinRMBruteForce" not in missing


def test_both_ways_and_both_locks():
    """Isolating what is only mailed, not isolating what should be, and one lock of two."""
    policy = copy.deepcopy(POLICIES["iam-role-revoke-sessions"])
    whole = functions_of(policy)
    assert not [*surprises(TESTS, policy["name"], whole)]
    assert not [*disagreements(policy["name"], findings(TESTS), whole)]
    lock = policy["filters"].pop()

    (said,) = disagreements(policy["name"], findings(TESTS), functions_of(policy))
    assert said.startswith(
        "iam-role-revoke-sessions: only the rule keeps iam-user-credential-exfiltration out "
        "(detail.resource.accessKeyDetails.userType is 'IAMUser', the rule wants 'AssumedRole')"
    )

    del policy["mode"]["pattern"]["detail"]["resource"]
    said = [*surprises(TESTS, policy["name"], functions_of(policy))]
    assert said == [
        "iam-role-revoke-sessions acts on iam-user-credential-exfiltration, but it is in "
        "tests/iam-role-revoke-sessions/negative: a person expects that it does nothing. Put the "
        "policy right, or the finding into another folder."
    ]

    policy["filters"].append(lock)
    (said,) = disagreements(policy["name"], findings(TESTS), functions_of(policy))
    assert "would be started by iam-user-credential-exfiltration only to stop at filter 2" in said

    policy["filters"][0]["types"].pop()  # of the rule too
    (said,) = surprises(TESTS, policy["name"], functions_of(policy))
    assert said.startswith("iam-role-revoke-sessions does not get ")
    assert "a person expects that it acts" in said


def test_what_nobody_expects_is_named(tmp_path):
    (tmp_path / "findings").mkdir()
    crypto = (TESTS / "findings" / "ec2-dns-crypto.json").read_text()
    (tmp_path / "findings" / "miner.json").write_text(crypto)

    (said,) = surprises(tmp_path, "ec2-isolate", functions_of(POLICIES["ec2-isolate"]))

    assert said.startswith("ec2-isolate acts on miner, which nobody expects")
