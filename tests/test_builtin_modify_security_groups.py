"""Why the pack has an action of its own instead of Custodian's `modify-security-groups`.

When this test fails, Custodian has been mended, and the decision can be looked at again.
"""

import boto3
import pytest
from c7n.config import Config
from c7n.loader import PolicyLoader
from c7n.resources import load_resources
from moto import mock_aws

from simulation.ec2 import corrected_ec2

REGION = "us-west-2"


@pytest.mark.parametrize("count", [2, 5])
def test_it_leaves_groups_on_an_interface_that_has_several(count, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # 1300 of them, none is needed
    load_resources(("aws.ec2",))
    with mock_aws(), corrected_ec2():
        ec2 = boto3.client("ec2", REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        groups = [
            ec2.create_security_group(GroupName=f"g{n}", Description="d", VpcId=vpc)["GroupId"]
            for n in range(count + 1)
        ]
        ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            SecurityGroupIds=groups[1:],
        )
        (policy,) = PolicyLoader(Config.empty(region=REGION, cache=None)).load_data(
            {
                "policies": [
                    {
                        "name": "isolate",
                        "resource": "ec2",
                        "actions": [
                            {
                                "type": "modify-security-groups",
                                "remove": "all",
                                "isolation-group": groups[0],
                            }
                        ],
                    }
                ]
            },
            "memory://",
        )
        policy.validate()
        (action,) = policy.resource_manager.actions
        action.process(policy.resource_manager.resources())

        (interface,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
        left = {group["GroupId"] for group in interface["Groups"]}
    assert left & set(groups[1:]), "mended: see the docstring of this file"
