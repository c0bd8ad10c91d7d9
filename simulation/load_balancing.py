"""The double of Elastic Load Balancing and of Auto Scaling: moto's differences corrected.

    with corrected_load_balancing():                          # all corrections
        ...

The rule is that of `simulation.ec2`: one function for each correction, its docstring says what moto
5.2.5 does, what AWS does and the source; its test also runs on plain moto and must fail there.
Nothing here was run against AWS.

Limits: time does not pass. A detached instance is out at once, and a deregistered target drains
until it is registered again. Health checks do not happen.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import AutoScalingBackend, autoscaling_backends
from moto.elb.exceptions import LoadBalancerNotFoundError
from moto.elb.models import ELBBackend
from moto.elbv2.exceptions import InvalidTargetError, TargetNotRunning
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeTargetGroup

from .ec2 import _replace

CORRECTIONS: dict[str, Callable[[], Iterable[Any]]] = {}


@contextmanager
def corrected_load_balancing(*names: str) -> Iterator[None]:
    """Apply the named corrections, by default all of them, until the end of the block.

    Raises KeyError for a name that is not in ``CORRECTIONS``.
    """
    with ExitStack() as applied:
        for name in names or CORRECTIONS:
            for patch in CORRECTIONS[name]():
                applied.enter_context(patch)
        yield


def put_into(
    instance_id: str, lifecycle_state: str, *, region: str, account_id: str = "123456789012"
) -> None:
    """Put a member of an Auto Scaling group into a lifecycle state, as only time does on AWS."""
    for group in autoscaling_backends[account_id][region].autoscaling_groups.values():
        for state in group.instance_states:
            if state.instance.id == instance_id:
                state.lifecycle_state = lifecycle_state


def correction(patches: Callable[[], Iterable[Any]]) -> Callable[[], Iterable[Any]]:
    """Register a generator of patches under its own name."""
    CORRECTIONS[patches.__name__] = patches
    return patches


def _key(group: FakeTargetGroup, target: dict[str, Any]) -> tuple[str, int]:
    return target["Id"], int(target.get("Port") or group.port)


@correction
def a_target_is_an_id_and_a_port() -> Iterator[Any]:
    """One instance or address can be registered on several ports, and each is deregistered alone.

    moto keeps one port for each id. In ELB a target can be registered more than once with different
    ports (API, RegisterTargets and DeregisterTargets).
    """

    def register(self: FakeTargetGroup, targets: list[dict[str, Any]]) -> None:
        for target in targets:
            instance = self.ec2_backend.get_instance_by_id(target["Id"])
            if instance and instance.state != "running":
                raise TargetNotRunning(instance_id=target["Id"])
            key = _key(self, target)
            self.targets[key] = {"Id": key[0], "Port": key[1]}
            self.deregistered_targets.pop(key, None)

    def deregister(self: FakeTargetGroup, targets: list[dict[str, Any]]) -> None:
        for target in targets:
            key = _key(self, target)
            if key not in self.targets:
                raise InvalidTargetError()
            self.deregistered_targets[key] = self.targets.pop(key)

    def deregister_terminated(self: FakeTargetGroup, instance_ids: list[str]) -> None:
        for key in [key for key in self.targets if key[0] in instance_ids]:
            self.terminated_targets[key] = self.targets.pop(key)

    def health_for(present: Callable) -> Callable:
        def health(self: FakeTargetGroup, target: dict[str, Any], ec2: Any) -> FakeHealthStatus:
            key = _key(self, target)
            view = copy.copy(self)  # in which this target is known by its id, as moto wants it
            for name in ("targets", "deregistered_targets", "terminated_targets"):
                known = getattr(self, name)
                setattr(view, name, {key[0]: known[key]} if key in known else {})
            return present(view, {"Id": key[0], "Port": key[1]}, ec2)

        return health

    yield mock.patch.object(FakeTargetGroup, "register", register)
    yield mock.patch.object(FakeTargetGroup, "deregister", deregister)
    yield mock.patch.object(
        FakeTargetGroup, "deregister_terminated_instances", deregister_terminated
    )
    yield _replace(FakeTargetGroup, "health_for", health_for)


@correction
def deregistering_what_is_not_registered_succeeds() -> Iterator[Any]:
    """DeregisterTargets of a target that is not registered changes nothing and succeeds.

    moto answers InvalidTarget. Source: API, DeregisterTargets.
    """

    def registered_only(present: Callable) -> Callable:
        def deregister(self: FakeTargetGroup, targets: list[dict[str, Any]]) -> None:
            known = {_key(self, target) for target in self.targets.values()}
            present(self, [target for target in targets if _key(self, target) in known])

        return deregister

    yield _replace(FakeTargetGroup, "deregister", registered_only)


@correction
def a_deregistered_target_drains() -> Iterator[Any]:
    """DescribeTargetHealth goes on showing a target that was deregistered, as draining.

    moto forgets it at once. In ELB it is draining until the deregistration delay is over (API,
    TargetHealth; Application Load Balancers, "Deregistration delay"). Here that is never.
    """

    def with_draining(present: Callable) -> Callable:
        def describe(self: Any, target_group_arn: str, targets: list[Any]) -> list[Any]:
            shown = present(self, target_group_arn, targets)
            group = self.target_groups[target_group_arn]
            draining = [] if targets else list(group.deregistered_targets.values())
            return shown + [
                FakeHealthStatus(
                    target["Id"],
                    target["Port"],
                    group.health_check_port,
                    "draining",
                    "Target.DeregistrationInProgress",
                    "Target deregistration is in progress",
                )
                for target in draining
            ]

        return describe

    yield _replace(ELBv2Backend, "describe_target_health", with_draining)


@correction
def a_classic_load_balancer_has_one_list_of_instances() -> Iterator[Any]:
    """DeregisterInstancesFromLoadBalancer removes an instance that Auto Scaling registered.

    moto keeps a list of its own for those and leaves it there. In ELB there is one list (Classic
    Load Balancers, API, DeregisterInstancesFromLoadBalancer).
    """

    def from_both(present: Callable) -> Callable:
        def deregister(self: Any, name: str, ids: Any, from_autoscaling: bool = False) -> Any:
            ids = list(ids)
            if not from_autoscaling:
                present(self, name, ids, True)
            return present(self, name, ids, from_autoscaling)

        return deregister

    yield _replace(ELBBackend, "deregister_instances", from_both)


@correction
def a_classic_load_balancer_must_exist() -> Iterator[Any]:
    """Registering with a classic load balancer that is gone gives LoadBalancerNotFound.

    moto breaks off with an internal error, and so for deregistering. Source: Classic Load
    Balancers, API, RegisterInstancesWithLoadBalancer and DeregisterInstancesFromLoadBalancer.
    """

    def existing(present: Callable) -> Callable:
        def checked(self: Any, name: str, *args: Any, **kw: Any) -> Any:
            if name not in self.load_balancers:
                raise LoadBalancerNotFoundError(name)
            return present(self, name, *args, **kw)

        return checked

    yield _replace(ELBBackend, "register_instances", existing)
    yield _replace(ELBBackend, "deregister_instances", existing)


@correction
def only_what_serves_is_detached() -> Iterator[Any]:
    """DetachInstances wants instances of the group that are InService or Standby.

    moto does nothing, or detaches whatever state it is in. AWS answers ValidationError, "The
    instance i-... is not part of Auto Scaling group ..." (reported, ansible-collections/
    community.aws 933) and "... is not in InService or Standby." (reported, reproio/ecs_deploy 47);
    the User Guide names InService alone.
    """

    def checked(present: Callable) -> Callable:
        def detach(self: Any, group_name: str, instance_ids: list[str], *args: Any) -> Any:
            group = self.autoscaling_groups[group_name]
            states = {s.instance.id: s.lifecycle_state for s in group.instance_states}
            for instance_id in instance_ids:
                state = states.get(instance_id)
                if state in ("InService", "Standby"):
                    continue
                problem = (
                    f"is not part of Auto Scaling group {group_name}."
                    if state is None
                    else "is not in InService or Standby."
                )
                raise ValidationError(f"The instance {instance_id} {problem}")
            return present(self, group_name, instance_ids, *args)

        return detach

    yield _replace(AutoScalingBackend, "detach_instances", checked)


@correction
def processes_are_those_of_a_group_that_exists() -> Iterator[Any]:
    """SuspendProcesses and ResumeProcesses of a group that is gone give ValidationError.

    moto breaks off with an internal error. That the code is the one of other calls about a group
    that does not exist, and the message, are not verified.
    """

    def existing(present: Callable) -> Callable:
        def checked(self: Any, group_name: str, processes: list[str]) -> None:
            if group_name not in self.autoscaling_groups:
                raise ValidationError(f"AutoScalingGroup name not found - {group_name}")
            present(self, group_name, processes)

        return checked

    yield _replace(AutoScalingBackend, "suspend_processes", existing)
    yield _replace(AutoScalingBackend, "resume_processes", existing)


@correction
def a_full_group_refuses_an_instance() -> Iterator[Any]:
    """AttachInstances is refused when the desired capacity would exceed the maximum size.

    moto answers ResourceContention, which is an error of the server and tried again. AWS answers
    ValidationError, "AutoScalingGroup ... has min-size=3, max-size=4, and desired-size=4. To attach
    1 instance, please update the AutoScalingGroup sizes appropriately." (reported,
    LeanerCloud/AutoSpotting 407).
    """

    def with_room(present: Callable) -> Callable:
        def attach(self: Any, group_name: str, instance_ids: list[str]) -> None:
            group, count = self.autoscaling_groups[group_name], len(instance_ids)
            if group.desired_capacity + count > group.max_size:
                raise ValidationError(
                    f"AutoScalingGroup {group_name} has min-size={group.min_size}, "
                    f"max-size={group.max_size}, and desired-size={group.desired_capacity}. To "
                    f"attach {count} instance, please update the AutoScalingGroup sizes "
                    "appropriately."
                )
            present(self, group_name, instance_ids)

        return attach

    yield _replace(AutoScalingBackend, "attach_instances", with_room)


@correction
def a_detached_instance_leaves_the_target_groups() -> Iterator[Any]:
    """DetachInstances deregisters the instance from the target groups of its group.

    moto leaves it registered and healthy. Source: API, DetachInstances.
    """

    def and_deregister(present: Callable) -> Callable:
        def detach(self: Any, group_name: str, instance_ids: list[str], *args: Any) -> Any:
            answer = present(self, group_name, instance_ids, *args)
            for arn in self.autoscaling_groups[group_name].target_group_arns:
                group = self.elbv2_backend.target_groups[arn]
                targets = [{"Id": i, "Port": group.port} for i in instance_ids]
                known = {_key(group, target) for target in group.targets.values()}
                group.deregister([t for t in targets if _key(group, t) in known])
            return answer

        return detach

    yield _replace(AutoScalingBackend, "detach_instances", and_deregister)
