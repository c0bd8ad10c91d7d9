"""`make mutate`: a broken policy turns a test red, and what no test notices is listed."""

import copy
import json

import pytest
from click.testing import CliRunner

from deployment.targets import ROOT
from review.ablation import Ablation, ablations
from review.mutate import hunt, mutate, sources


def test_what_cannot_be_broken_is_refused():
    no_policy = CliRunner().invoke(mutate, ["-p", "nobody"])
    assert no_policy.exit_code == 2
    assert "There is no policy nobody. There are: " in no_policy.output

    no_way = CliRunner().invoke(mutate, ["-p", "ec2-isolate", "--only", "no such words"])
    assert no_way.exit_code == 2
    assert "'no such words'" in no_way.output


@pytest.mark.slow
def test_one_dies_and_one_survives():
    every = sources(ROOT / "policies")
    name = "iam-user-reactivate-access-key"  # whose own tests are the fewest
    survivor = copy.deepcopy(every[name].data)
    survivor["description"] += " Of no consequence."
    last = next(one for one in ablations(every[name].data) if "fail-unless-complete" in one.what)
    before = every[name].file.read_bytes()

    (_, alive), (_, dead) = hunt(every, [Ablation(name, "more words", survivor), last])

    assert alive is None
    assert dead.startswith("tests/test_contract.py::test_a_policy_with_response_steps_ends_in")
    assert every[name].file.read_bytes() == before


@pytest.mark.slow
def test_the_command_says_which_test_turned_red():
    said = CliRunner().invoke(mutate, ["-p", "ec2-isolate", "--only", "samples let in", "--json"])

    assert said.exit_code == 0
    (row,) = json.loads(said.stdout)
    assert row["broken"] == "samples let in"
    first = (
        "tests/test_findings.py::",
        "tests/test_contract.py::test_a_policy_for_findings_acts_on",
    )
    assert row["red"].startswith(first)
