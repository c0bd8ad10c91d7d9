"""The ECS double: where moto 5.2.5 differs from ECS in what this pack reads and writes.

The rule is that of simulation/ec2.py: each correction says what moto does, what AWS does and the
source, and its test fails on plain moto. Nothing here was run against AWS. Tasks are not moved:
nothing runs in a cluster of moto's.
"""

import contextlib
import re
from collections.abc import Iterator
from unittest import mock

from moto.core.responses import ActionResult
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends
from moto.ecs.responses import EC2ContainerServiceResponse

PAGE = 100
FILTER = re.compile(r"ec2InstanceId == (i-[0-9a-f]+)")


@contextlib.contextmanager
def corrected_ecs() -> Iterator[None]:
    """Apply the corrections until the end of the block."""
    with (
        clusters_come_in_pages(),
        container_instances_are_filtered(),
        only_what_is_registered_changes_its_state(),
    ):
        yield


def put_into(status: str, cluster: str, *, region: str, account_id: str) -> None:
    """Put the container instances of a cluster into a status, as only time does on AWS."""
    backend = ecs_backends[account_id][region]
    for container in backend.container_instances[cluster].values():
        container.status = status


def clusters_come_in_pages():
    """ListClusters answers at most 100, and a token for the next.

    moto answers all. Source: API, ListClusters.
    """

    def list_clusters(self: EC2ContainerServiceResponse) -> ActionResult:
        found = self.ecs_backend.list_clusters()
        begin = int(self._get_param("nextToken") or 0)
        end = begin + PAGE
        more = {"nextToken": str(end)} if end < len(found) else {}
        return ActionResult({"clusterArns": found[begin:end], **more})

    return mock.patch.object(EC2ContainerServiceResponse, "list_clusters", list_clusters)


def container_instances_are_filtered():
    """ListContainerInstances answers those for which the filter holds.

    moto passes over `filter`. Of the language only what the pack asks is known here, anything else
    is refused. Source: developer guide, "cluster-query-language".
    """
    answer = EC2ContainerServiceResponse.list_container_instances

    def list_container_instances(self: EC2ContainerServiceResponse) -> ActionResult:
        found = answer(self)
        if not (wanted := self._get_param("filter")):
            return found
        if not (matched := FILTER.fullmatch(wanted)):
            raise InvalidParameterException(f"Invalid filter: {wanted}")
        cluster = self._get_param("cluster", "default").split("/")[-1]
        containers = self.ecs_backend.container_instances.get(cluster, {}).values()
        own = [c.container_instance_arn for c in containers if c.ec2_instance_id == matched[1]]
        return ActionResult({"containerInstanceArns": own})

    return mock.patch.object(
        EC2ContainerServiceResponse, "list_container_instances", list_container_instances
    )


def only_what_is_registered_changes_its_state():
    """UpdateContainerInstancesState takes those that are ACTIVE or DRAINING.

    moto changes any. Source: API, UpdateContainerInstancesState ("If the instance is in any other
    status, an error will be received"). That the error is an InvalidParameterException for the
    whole call, and its message, are not verified.
    """
    update = EC2ContainerServiceBackend.update_container_instances_state

    def update_container_instances_state(self, cluster_str, ids, status):
        known = self.container_instances[cluster_str.split("/")[-1]]
        for container in filter(None, (known.get(i.split("/")[-1]) for i in ids)):
            if container.status not in ("ACTIVE", "DRAINING"):
                raise InvalidParameterException(
                    f"The container instance is {container.status}, and not ACTIVE."
                )
        return update(self, cluster_str, ids, status)

    return mock.patch.object(
        EC2ContainerServiceBackend,
        "update_container_instances_state",
        update_container_instances_state,
    )
