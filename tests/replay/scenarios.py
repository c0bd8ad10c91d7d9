"""The scenarios that are recorded, and the session that records or replays them.

Recorded against moto in this process with the corrections of simulation/ec2.py; ids are made
repeatable with moto's seed, times and request ids are pinned afterwards.
"""

import contextlib
import io
import json
import os
import re
import shutil
from pathlib import Path
from unittest import mock

import boto3
import placebo
import yaml
from c7n.config import Config
from c7n.policy import PolicyCollection, PullMode
from c7n.resources import load_resources
from c7n.utils import reset_session_cache
from moto import mock_aws
from moto.moto_api._internal import mock_random

import custom_actions  # noqa: F401
from custom_actions.modes import FindingMode
from simulation.ec2 import corrected_ec2, make_requester_managed
from simulation.guardduty import findings_by_api, turn_on

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RECORDINGS = HERE / "recordings"
ACCOUNT, REGION = "123456789012", "us-west-2"  # moto's account when nothing is assumed
NAMES = ("isolate", "isolate-without-group", "isolate-again", "isolate-refused", "release")


class Factory:
    """Custodian's session factory; each session is handed to placebo."""

    region = REGION

    def __init__(self, folder, mode):
        self.sent = []  # (operation, parameters) in the order of the calls
        self.session = boto3.Session("testing", "testing", region_name=REGION)
        self.session.events.register("provide-client-params.*.*", self.note)
        pill = placebo.attach(self.session, str(folder))
        getattr(pill, mode)()

    def note(self, params, model, **kw):
        self.sent.append((model.name, params))

    def __call__(self, assume=True, region=None):
        return self.session


def run(policy_name, event, factory, instance_id=None):
    """Run a shipped policy in this process; returns its resources with their outcomes."""
    load_resources(("aws.ec2",))
    reset_session_cache()
    data = yaml.safe_load((ROOT / "policies" / f"{policy_name}.yml").read_text())
    options = Config.empty(account_id=ACCOUNT, region=REGION, cache=None, output_dir="/dev/shm")
    (policy,) = PolicyCollection.from_data(data, options, factory)
    variables = {"instance": instance_id, "record": "", "groups": ""}
    policy.expand_variables(policy.get_variables(variables))
    policy.validate()
    mode = PullMode(policy) if event is None else FindingMode(policy)
    return mode.run(*([] if event is None else [event, None]))


class World:
    """A VPC with groups and one instance with two interfaces."""

    def __init__(self):
        self.ec2 = boto3.client("ec2", REGION)
        boto3.client("sns", REGION).create_topic(Name="guardduty-response")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.0.0/24")["Subnet"]
        groups = [self.group(name) for name in ("web", "ssh", "monitoring")]
        self.instance = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            ClientToken="recorded",  # botocore would make one up
            SubnetId=subnet["SubnetId"],
            SecurityGroupIds=groups,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "web-1"}]}
            ],
        )["Instances"][0]["InstanceId"]
        self.second = self.ec2.create_network_interface(
            SubnetId=subnet["SubnetId"], Groups=groups[:1]
        )["NetworkInterface"]["NetworkInterfaceId"]
        self.ec2.attach_network_interface(
            NetworkInterfaceId=self.second, InstanceId=self.instance, DeviceIndex=1
        )

    def group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)[
            "GroupId"
        ]

    def forensic_group(self):
        group = self.group("ForensicSecurityGroup")
        (shown,) = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        self.ec2.revoke_security_group_egress(
            GroupId=group, IpPermissions=shown["IpPermissionsEgress"]
        )

    def event(self):
        event = json.loads((ROOT / "tests/findings/ec2-malicious-ip-caller.json").read_text())
        event["account"] = event["detail"]["accountId"] = ACCOUNT
        event["detail"]["resource"]["instanceDetails"]["instanceId"] = self.instance
        return event


def record(name, folder):
    """Record one scenario into a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # placebo 0.10 prints each time that it writes
    quiet = contextlib.redirect_stdout(io.StringIO())
    # moto's own images would give other details, or none, by what else the process has set
    plain = mock.patch.dict(os.environ, MOTO_EC2_LOAD_DEFAULT_AMIS="false")
    with plain, mock_aws(), corrected_ec2(), findings_by_api(), quiet:
        # moto makes the default VPC when the region is first used: let that be before the seed.
        boto3.client("ec2", REGION).describe_vpcs()
        mock_random.seed(NAMES.index(name))
        world = World()
        turn_on(ACCOUNT, REGION)
        event = world.event()
        if name != "isolate-without-group":
            world.forensic_group()
        if name == "isolate-refused":
            make_requester_managed(world.second, region=REGION, account_id=ACCOUNT)
        if name in ("isolate-again", "release"):
            scratch = folder / "scratch"
            scratch.mkdir()
            run("ec2-isolate", world.event(), Factory(scratch, "record"))
            shutil.rmtree(scratch)
        factory = Factory(folder, "record")
        try:
            if name == "release":
                run("ec2-release", None, factory, world.instance)
            else:
                run("ec2-isolate", world.event(), factory)
        except Exception as error:
            if name != "isolate-refused":
                raise
            assert world.second in str(error)
    (folder / "event.json").write_text(json.dumps(event, indent=1) + "\n")
    for path in folder.glob("*_*.json"):
        path.write_text(pinned(path.read_text()))


def pinned(text):
    """A recording without what differs from run to run: times, and the response's metadata."""
    data = json.loads(text)
    data["data"].pop("ResponseMetadata", None)

    def pin(value):
        if isinstance(value, dict):
            if value.get("__class__") == "datetime":
                return {
                    **value,
                    "year": 2026,
                    "month": 11,
                    "day": 23,
                    "hour": 9,
                    "minute": 0,
                    "second": 0,
                    "microsecond": 0,
                }
            return {key: pin(v) for key, v in value.items()}
        if isinstance(value, list):
            return [pin(v) for v in value]
        if isinstance(value, str):
            return re.sub(
                r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(Z|\+00:00)?",
                "2026-11-23T09:00:00+00:00",
                re.sub(
                    r"20\d{6}T\d{6}\b",  # of a case
                    "20261123T090000",
                    re.sub(r"20\d{6}T\d{4}Z", "20261123T0900Z", value),
                ),
            )
        return value

    return json.dumps(pin(data), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
    }
    for scenario in NAMES:
        record(scenario, RECORDINGS / scenario)
        print(f"recorded {scenario}: {len(list((RECORDINGS / scenario).iterdir()))} files")
