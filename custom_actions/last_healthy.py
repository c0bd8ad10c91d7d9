"""Whether an instance is the last healthy member of what serves: isolating it would take that down.

Asked before the swap, so it must not take long: the calls give up quickly, after `BUDGET` seconds
the rest is not asked, and a warm function remembers for some minutes which target groups there are
(the health of their targets it asks for each time). What could not be read is no reason to leave an
intruder alone.

A member whose own isolation has begun is no healthy one any more, by its seal or claim on the
forensic group of the VPC.
"""

import time
from functools import partial

from c7n.utils import local_session

from custom_actions import clients
from custom_actions.record import tags_of
from custom_actions.response import MISSHAPEN, REFUSED, PolicyExecutionError, describe, readable

# EC2's own tag, which nobody else can write
GROUP_TAG = "aws:autoscaling:groupName"

BUDGET = 3  # seconds
REMEMBER = 300  # seconds

# of a target; unavailable: its health checks are disabled
SERVING = ("healthy", "unavailable")

PERMISSIONS = (
    "autoscaling:DescribeAutoScalingGroups",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
)


class LastHealthy:
    """Looks at the Auto Scaling group and the target groups of one instance.

    instance: as EC2 describes it. healthy: {group: the healthy members of a group that it is one
    of}. unknown: {what: why} of what could not be read.

    An Auto Scaling group is asked only when the instance has EC2's tag of one; target groups are
    those of the VPCs of its interfaces that a load balancer routes to, by instance or address.
    Classic load balancers are not asked.

    Sources: https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_Instance.html
    https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html
    IAM: PERMISSIONS.
    """

    def __init__(self, session_factory, instance):
        self.client = partial(clients.client, session_factory, patient=False)
        self.memory = vars(local_session(session_factory))  # as long as the function is warm
        self.instance = instance
        self.end = time.monotonic() + BUDGET
        self.healthy, self.unknown = {}, {}
        if group := tags_of(instance).get(GROUP_TAG):
            self._ask(f"Auto Scaling group {group}", self._auto_scaling_group, group)
        for arn in self._ask("target groups", self._target_groups) or ():
            name = arn.rpartition(":targetgroup/")[2].partition("/")[0]
            self._ask(f"target group {name}", self._target_group, arn)

    def of(self, gone):
        """The groups in which no other member is healthy; gone: ids of others that are leaving."""
        own = self.instance["InstanceId"]
        return [what for what, ids in self.healthy.items() if ids - set(gone) <= {own}]

    def _ask(self, what, call, *args):
        """The answer of a call; where it is a set with this instance, those are the healthy."""
        try:
            if time.monotonic() > self.end:
                raise PolicyExecutionError(f"not asked any more after {BUDGET} s")
            answer = call(*args)
        except (*REFUSED, *MISSHAPEN) as error:
            self.unknown[what] = describe(readable(error))
            return None
        if isinstance(answer, set) and self.instance["InstanceId"] in answer:
            self.healthy[what] = answer
        return answer

    def _auto_scaling_group(self, name):
        described = self.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=[name]
        )
        return {
            member["InstanceId"]
            for group in described["AutoScalingGroups"]
            for member in group["Instances"]
            if member["LifecycleState"] == "InService" and member["HealthStatus"] == "Healthy"
        }

    def _target_groups(self):
        known, until = self.memory.get("target_groups", ((), 0))
        if time.monotonic() > until:
            pages = self.client("elbv2").get_paginator("describe_target_groups").paginate()
            known = [
                (group.get("VpcId"), group["TargetGroupArn"])
                for page in pages
                for group in page["TargetGroups"]
                if group["LoadBalancerArns"]
            ]
            self.memory["target_groups"] = known, time.monotonic() + REMEMBER
        vpcs = {i["VpcId"] for i in self.instance["NetworkInterfaces"]}
        return [arn for vpc_id, arn in known if vpc_id in vpcs]

    def _target_group(self, arn):
        described = self.client("elbv2").describe_target_health(TargetGroupArn=arn)
        found = {
            target["Target"]["Id"]
            for target in described["TargetHealthDescriptions"]
            if target["TargetHealth"]["State"] in SERVING
        }
        own = {self.instance["InstanceId"]} | {
            address[key]
            for interface in self.instance["NetworkInterfaces"]
            for items, key in (
                ("PrivateIpAddresses", "PrivateIpAddress"),
                ("Ipv6Addresses", "Ipv6Address"),
            )
            for address in interface.get(items) or ()
        }
        # its own addresses are it
        return {self.instance["InstanceId"] if target in own else target for target in found}
