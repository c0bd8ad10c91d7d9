"""The functions that a deploy would make of the policies, without deploying them."""

import functools
from pathlib import Path

import boto3

from custom_actions import autonomy, case, central, provision
from deployment import policies
from deployment.expected import Expected, expected
from deployment.targets import Target

NOBODY = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}


def functions(
    folder: Path, account_id: str, region: str, mode: str = autonomy.CONTAIN
) -> dict[str, Expected]:
    """What a deploy to an account and region would make of the policies of a folder that are for
    findings, those of opt-in/ too: {name: see deployment.expected.Expected}.

    mode: observe, ask or contain. Asks nothing of AWS. Raises deployment.errors.Refused when a
    policy is not valid.
    """
    return {
        name: function(policy, account_id, region, mode)
        for name, policy in policies.policies(folder, "guard-duty").items()
    }


def function(policy: dict, account_id: str, region: str, mode: str = autonomy.CONTAIN) -> Expected:
    """The same of one policy, by its data, which is not validated."""
    said = {
        autonomy.OPTION: mode,
        central.OPTION: central.NONE,
        provision.BRAKE: provision.BRAKE_OF_POLICY,
        provision.EVIDENCE: case.NONE,
    }
    target = Target({"account_id": account_id, "name": account_id}, region)
    return expected(target, session(region), policy, said)


@functools.cache
def session(region: str) -> boto3.Session:
    """One that is nobody's."""
    return boto3.Session(region_name=region, **NOBODY)
