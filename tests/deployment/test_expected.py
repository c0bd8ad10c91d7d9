"""What `make status` compares with, without AWS."""

import platform

import boto3

from deployment import expected
from deployment.policies import policies
from deployment.targets import Target

SAID = {"autonomy": "observe", "member-role": "none", "max-per-hour": "policy"}
SAID["evidence-bucket"] = "none"


def test_it_does_not_depend_on_the_machine(monkeypatch):
    session = boto3.Session("none", "none", region_name="us-west-2")
    target = Target({"account_id": "111122223333", "name": "sandbox"}, "us-west-2")
    found = []
    for machine in ("x86_64", "arm64"):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        here = expected.expected(target, session, policies()["finding-notify"], SAID)
        code = here.func.get_archive().get_checksum()
        found.append((here.config, here.pattern, code))
        assert here.has_code(code) and not here.has_code("another")

    assert found[0] == found[1]
