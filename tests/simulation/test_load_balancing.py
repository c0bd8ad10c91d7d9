"""The corrections of Elastic Load Balancing and Auto Scaling; see test_ec2.py for the manner."""

from contextlib import nullcontext

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from simulation import load_balancing as double

ACCOUNT = {
    "region_name": "us-west-2",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
TESTED: set[str] = set()


def needs(*names: str) -> pytest.MarkDecorator:
    """Run a test with these corrections alone, with all, and on plain moto (expected to fail)."""
    TESTED.update(names)
    moto_repaired = pytest.mark.xfail(strict=True, reason="moto differs from AWS here")
    return pytest.mark.parametrize(
        "corrections",
        [
            pytest.param(names, id="alone"),
            pytest.param(tuple(double.CORRECTIONS), id="all"),
            pytest.param((), id="plain-moto", marks=moto_repaired),
        ],
    )


class Service:
    """A network, an Auto Scaling group of two with a target group and a classic load balancer."""

    def __init__(self):
        self.ec2, self.elbv2, self.elb, self.scaling = (
            boto3.client(name, **ACCOUNT) for name in ("ec2", "elbv2", "elb", "autoscaling")
        )
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(
            VpcId=self.vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="us-west-2a"
        )["Subnet"]["SubnetId"]
        self.targets = self.elbv2.create_target_group(
            Name="web", Protocol="HTTP", Port=80, VpcId=self.vpc
        )["TargetGroups"][0]["TargetGroupArn"]
        self.elb.create_load_balancer(
            LoadBalancerName="old",
            Listeners=[{"Protocol": "http", "LoadBalancerPort": 80, "InstancePort": 80}],
            AvailabilityZones=["us-west-2a"],
        )
        self.scaling.create_launch_configuration(
            LaunchConfigurationName="web", ImageId="ami-12345678", InstanceType="t3.micro"
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName="web",
            LaunchConfigurationName="web",
            MinSize=0,
            MaxSize=4,
            DesiredCapacity=2,
            VPCZoneIdentifier=self.subnet,
            TargetGroupARNs=[self.targets],
            LoadBalancerNames=["old"],
        )

    def members(self):
        shown = self.scaling.describe_auto_scaling_instances()["AutoScalingInstances"]
        return [member["InstanceId"] for member in shown]

    def instance(self):
        return self.ec2.run_instances(
            ImageId="ami-12345678", MinCount=1, MaxCount=1, SubnetId=self.subnet
        )["Instances"][0]["InstanceId"]

    def health(self):
        shown = self.elbv2.describe_target_health(TargetGroupArn=self.targets)
        return {
            (t["Target"]["Id"], t["Target"]["Port"]): t["TargetHealth"]["State"]
            for t in shown["TargetHealthDescriptions"]
        }

    def classic(self):
        shown = self.elb.describe_load_balancers()["LoadBalancerDescriptions"][0]
        return [i["InstanceId"] for i in shown["Instances"]]

    def detach(self, instance_id):
        self.scaling.detach_instances(
            AutoScalingGroupName="web",
            InstanceIds=[instance_id],
            ShouldDecrementDesiredCapacity=False,
        )


@pytest.fixture
def service(corrections, monkeypatch):
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    with (
        mock_aws(),
        double.corrected_load_balancing(*corrections) if corrections else nullcontext(),
    ):
        yield Service()


@needs("a_target_is_an_id_and_a_port")
def test_a_target_has_several_ports(service):
    i = service.instance()
    ports = [{"Id": i, "Port": port} for port in (80, 8080, 8443)]
    service.elbv2.register_targets(TargetGroupArn=service.targets, Targets=ports)
    assert {(i, 80), (i, 8080), (i, 8443)} <= set(service.health())

    service.elbv2.deregister_targets(TargetGroupArn=service.targets, Targets=ports[:1])

    health = service.health()
    assert health.get((i, 80)) in (None, "draining")
    assert health[i, 8080] == health[i, 8443] == "healthy"


@needs("deregistering_what_is_not_registered_succeeds")
def test_deregistering_twice(service):
    i = service.instance()
    target = {"TargetGroupArn": service.targets, "Targets": [{"Id": i, "Port": 80}]}
    service.elbv2.register_targets(**target)
    service.elbv2.deregister_targets(**target)
    before = service.health()

    service.elbv2.deregister_targets(**target)

    assert service.health() == before


@needs("a_deregistered_target_drains")
def test_a_deregistered_target_is_draining_until_it_is_registered_again(service):
    i = service.instance()
    target = {"TargetGroupArn": service.targets, "Targets": [{"Id": i, "Port": 80}]}
    service.elbv2.register_targets(**target)

    service.elbv2.deregister_targets(**target)
    assert service.health()[i, 80] == "draining"

    service.elbv2.register_targets(**target)
    assert service.health()[i, 80] == "healthy"


@needs("a_classic_load_balancer_has_one_list_of_instances")
def test_what_auto_scaling_registered_can_be_deregistered(service):
    first, second = service.classic()

    service.elb.deregister_instances_from_load_balancer(
        LoadBalancerName="old", Instances=[{"InstanceId": first}]
    )

    assert service.classic() == [second]


@needs("a_classic_load_balancer_must_exist")
@pytest.mark.parametrize("verb", ["register_instances_with", "deregister_instances_from"])
def test_a_classic_load_balancer_that_is_gone(service, verb):
    with pytest.raises(ClientError, match=r"\(LoadBalancerNotFound\)"):
        getattr(service.elb, f"{verb}_load_balancer")(
            LoadBalancerName="gone", Instances=[{"InstanceId": service.members()[0]}]
        )


@needs("only_what_serves_is_detached")
@pytest.mark.parametrize("state", ["not a member", "Terminating:Wait"])
def test_only_members_in_service_or_standby_are_detached(service, state):
    instance_id = service.instance()
    if state != "not a member":
        instance_id = service.members()[0]
        double.put_into(instance_id, state, region="us-west-2")

    with pytest.raises(ClientError, match=r"\(ValidationError\)"):
        service.detach(instance_id)


@pytest.mark.parametrize("corrections", [tuple(double.CORRECTIONS)], ids=["all"])
def test_a_member_in_standby_is_detached(service):
    member = service.members()[0]
    double.put_into(member, "Standby", region="us-west-2")

    service.detach(member)

    assert member not in service.members()


@needs("processes_are_those_of_a_group_that_exists")
@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_processes_of_a_group_that_is_gone(service, verb):
    with pytest.raises(ClientError, match=r"\(ValidationError\)"):
        getattr(service.scaling, f"{verb}_processes")(
            AutoScalingGroupName="gone", ScalingProcesses=["Terminate"]
        )


@needs("a_full_group_refuses_an_instance")
def test_a_group_at_its_maximum_size_takes_no_further_instance(service):
    service.scaling.update_auto_scaling_group(AutoScalingGroupName="web", MaxSize=2)
    instance_id = service.instance()

    with pytest.raises(ClientError, match=r"\(ValidationError\).*max-size=2"):
        service.scaling.attach_instances(AutoScalingGroupName="web", InstanceIds=[instance_id])

    assert instance_id not in service.members()


@needs("a_detached_instance_leaves_the_target_groups")
def test_a_detached_instance_leaves_the_target_group_and_another_takes_its_place(service):
    before = service.members()

    service.detach(before[0])

    after = service.members()
    assert len(after) == 2 and before[0] not in after
    health = service.health()
    assert health.pop((before[0], 80), "draining") == "draining"
    assert health == {(i, 80): "healthy" for i in after}
    assert set(service.classic()) == set(after)


def test_every_correction_has_a_test():
    assert set(double.CORRECTIONS) == TESTED
