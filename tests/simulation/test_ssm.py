"""Commands of Systems Manager, as far as the pack sends them."""

import json

import pytest
from botocore.exceptions import ClientError

from simulation import ssm

ACCOUNT, REGION = "111122223333", "us-west-2"


def test_a_command_runs_where_an_agent_is_and_takes_its_time(cloud):
    """moto sends it to every instance, whatever the document, and it has always ended well."""
    client, ec2 = (cloud.client(name, ACCOUNT, REGION) for name in ("ssm", "ec2"))
    launched = ec2.run_instances(ImageId="ami-12c6146b", MinCount=2, MaxCount=2)["Instances"]
    one, other = (instance["InstanceId"] for instance in launched)
    content = {"schemaVersion": "2.2", "description": "x", "mainSteps": []}

    def send(instance):
        return client.send_command(DocumentName="Memory", InstanceIds=[instance])["Command"]

    with pytest.raises(ClientError, match="InvalidDocument"):
        send(one)
    client.create_document(Name="Memory", Content=json.dumps(content), DocumentType="Command")
    with pytest.raises(ClientError, match="InvalidInstanceId"):
        send(one)
    ssm.agent(ACCOUNT, REGION, one, looks=1, ends="Failed")
    key = {"CommandId": send(one)["CommandId"], "InstanceId": one}

    with pytest.raises(ClientError, match="InvocationDoesNotExist"):  # not yet
        client.get_command_invocation(**key)
    looks = [client.get_command_invocation(**key)["Status"] for _ in range(2)]
    assert looks == ["InProgress", "Failed"]
    assert len(ssm.commands(ACCOUNT, REGION, one)) == 1
    assert ssm.commands(ACCOUNT, REGION, other) == []
