"""The corrections of ECS; each also runs on plain moto and must fail there."""

import contextlib
import json

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from simulation import ecs as double

ACCOUNT = {
    "region_name": "us-west-2",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}
PLACE = {"region": "us-west-2", "account_id": "123456789012"}


@pytest.fixture(
    params=[
        "corrected",
        pytest.param("plain-moto", marks=pytest.mark.xfail(strict=True, reason="moto differs")),
    ]
)
def cluster(request, monkeypatch):
    """A client of ECS, where a cluster has two container instances, and the ids of those."""
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    corrected = request.param == "corrected"
    with mock_aws(), double.corrected_ecs() if corrected else contextlib.nullcontext():
        ecs, ec2 = (boto3.client(name, **ACCOUNT) for name in ("ecs", "ec2"))
        ecs.create_cluster(clusterName="web")
        launched = ec2.run_instances(ImageId="ami-12345678", MinCount=2, MaxCount=2)["Instances"]
        ids = [instance["InstanceId"] for instance in launched]
        for instance_id in ids:
            document = json.dumps({"instanceId": instance_id})
            ecs.register_container_instance(cluster="web", instanceIdentityDocument=document)
        yield ecs, ids


def test_clusters_come_a_hundred_a_page(cluster):
    ecs, _ = cluster
    for number in range(100):
        ecs.create_cluster(clusterName=f"more-{number}")

    first = ecs.list_clusters()

    assert len(first["clusterArns"]) == 100
    assert len(ecs.list_clusters(nextToken=first["nextToken"])["clusterArns"]) == 1


def test_a_container_instance_is_found_by_its_instance(cluster):
    ecs, (first, _) = cluster

    found = ecs.list_container_instances(cluster="web", filter=f"ec2InstanceId == {first}")

    shown = ecs.describe_container_instances(
        cluster="web", containerInstances=found["containerInstanceArns"]
    )["containerInstances"]
    assert [c["ec2InstanceId"] for c in shown] == [first]


def test_what_is_still_registering_is_not_drained(cluster):
    ecs, _ = cluster
    double.put_into("REGISTERING", "web", **PLACE)
    arns = ecs.list_container_instances(cluster="web")["containerInstanceArns"]

    with pytest.raises(ClientError, match="REGISTERING"):
        ecs.update_container_instances_state(
            cluster="web", containerInstances=arns, status="DRAINING"
        )
