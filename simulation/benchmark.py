"""`make benchmark`: time and API calls from the invocation to the swap, cold and warm.

What is compared is measured in the same run: ec2-isolate against a bare boto3 function that
describes, changes the groups and publishes, without a record, a check or a read-back. Times are of
this machine and of moto; the ratio and the number of calls are what can be compared.
"""

import io
import json
import statistics
import sys
import time
import uuid
import zipfile

from . import deploy
from .cloud import Cloud
from .demo import SCENARIO

ACCOUNT, REGION = "111122223333", "us-west-2"
ROUNDS = 7
BARE = """
import boto3
ec2, sns = boto3.client("ec2"), boto3.client("sns")
def run(event, context):
    instance = event["detail"]["resource"]["instanceDetails"]["instanceId"]
    shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    for interface in shown["NetworkInterfaces"]:
        ec2.modify_network_interface_attribute(
            NetworkInterfaceId=interface["NetworkInterfaceId"], Groups=[event["group"]]
        )
    sns.publish(TopicArn=event["topic"], Message="isolated")
"""


def bare_function(cloud):
    """Deploy the function that ec2-isolate is compared with."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("bare.py", BARE)
    cloud.client("lambda", ACCOUNT, REGION).create_function(
        FunctionName="bare",
        Runtime="python3.11",
        Role=f"arn:aws:iam::{ACCOUNT}:role/guardduty-response",
        Handler="bare.run",
        Code={"ZipFile": archive.getvalue()},
        Timeout=60,
    )


def measure(cloud, function, launch, event, cold):
    """(seconds from the invocation to the answered swap, calls up to the swap)."""
    if cold:
        cloud.functions.discard_warm()
    event["detail"]["resource"]["instanceDetails"]["instanceId"] = launch()
    event["detail"]["id"] = uuid.uuid4().hex
    cloud.call_log.clear()
    begin = time.monotonic()
    invocation = cloud.invoke(function, event, ACCOUNT, REGION)
    if invocation.error:
        raise RuntimeError(invocation.error["errorMessage"])
    calls = [c for c in cloud.call_log.by(function) if c.operation != "AssumeRole"]
    swap = next(n for n, c in enumerate(calls) if c.operation == "ModifyNetworkInterfaceAttribute")
    return calls[swap].started + calls[swap].duration - begin, swap + 1


def main():
    event = json.loads(SCENARIO.read_text())
    with Cloud() as cloud:
        mailer = deploy.mailer_stack(cloud, ACCOUNT, REGION)
        deploy.account_stack(cloud, ACCOUNT, REGION, mailer["MailQueueArn"])
        deploy.deploy(cloud, ["policies/ec2-isolate.yml"], ACCOUNT, REGION)
        bare_function(cloud)
        ec2 = cloud.client("ec2", ACCOUNT, REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="app", Description="app", VpcId=vpc)["GroupId"]
        event["group"] = group
        event["topic"] = f"arn:aws:sns:{REGION}:{ACCOUNT}:guardduty-response"

        def launch():
            return ec2.run_instances(
                ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=subnet,
                SecurityGroupIds=[group],
            )["Instances"][0]["InstanceId"]  # fmt: skip

        measure(cloud, "custodian-ec2-isolate", launch, event, cold=True)  # makes the group
        print(f"median of {ROUNDS}, from the invocation to the answered swap")
        for cold in (True, False):
            medians = {}
            for function in ("custodian-ec2-isolate", "bare"):
                measure(cloud, function, launch, event, cold)
                runs = [measure(cloud, function, launch, event, cold) for _ in range(ROUNDS)]
                medians[function] = statistics.median(seconds for seconds, _ in runs)
                print(
                    f"  {'cold' if cold else 'warm'}  {function:<22} "
                    f"{medians[function] * 1000:6.0f} ms  {runs[0][1]} calls"
                )
            print(f"  ratio {medians['custodian-ec2-isolate'] / medians['bare']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
