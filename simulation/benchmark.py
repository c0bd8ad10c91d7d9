"""`make benchmark`: how fast the isolation is, and that it stays so.

Everything is compared with something measured in the same run: times are of this machine and of
moto, the ratios and the numbers of calls are what counts.

1. Cold and warm, from the invocation to the answered swap, against a bare boto3 function that makes
   the same four calls and nothing else: no check, no refusal, no read-back.
2. A thousand findings in one container: its own time (without that of the calls) and its memory.
3. Two hundred findings of two hundred instances at once, while EC2 refuses most calls. Eight
   functions run at a time here (simulation/lambda_service.py); Lambda would run them all.

The first has the policy as it is deployed, but for the number of isolations within an hour. The
others have it without the steps between isolation and mail: with them the second takes five times,
the third four times as long.
"""

import io
import json
import re
import statistics
import sys
import time
import uuid
import zipfile
from collections import Counter
from pathlib import Path

import yaml

from . import deploy
from .cloud import Cloud
from .demo import SCENARIO

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION, SHORT, BARE = "custodian-ec2-isolate", "custodian-isolate-and-mail", "bare"
POLICY = "policies/ec2-isolate.yml"
SWAP = "ModifyNetworkInterfaceAttribute"
COLD_ROUNDS, WARM_ROUNDS = 15, 60
FINDINGS, PART = 1000, 100
FLEET, CALLS_A_SECOND = 200, 20
IN_A_VPC = 20  # a forensic group has room for the seals of 48 instances
BARE_SOURCE = """
import boto3
ec2, sns = boto3.client("ec2"), boto3.client("sns")
def run(event, context):
    instance = event["detail"]["resource"]["instanceDetails"]["instanceId"]
    shown = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    for interface in shown["NetworkInterfaces"]:
        interface_id = interface["NetworkInterfaceId"]
        group = ec2.describe_security_groups(Filters=[
            {"Name": "group-name", "Values": ["ForensicSecurityGroup"]},
            {"Name": "vpc-id", "Values": [interface["VpcId"]]},
        ])["SecurityGroups"][0]["GroupId"]
        groups = " ".join(g["GroupId"] for g in interface["Groups"])
        ec2.create_tags(Resources=[interface_id], Tags=[{"Key": "groups", "Value": groups}])
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface_id, Groups=[group])
    sns.publish(TopicArn=event["topic"], Message="isolated")
"""


class Scene:
    """The pack and the bare function, deployed, and a subnet to launch instances in."""

    def __init__(self, cloud):
        self.cloud = cloud
        mailer = deploy.mailer_stack(cloud, ACCOUNT, REGION)
        deploy.account_stack(cloud, ACCOUNT, REGION, mailer["MailQueueArn"])
        (policy,) = yaml.safe_load(Path(POLICY).read_text())["policies"]
        actions = policy["actions"]
        actions[0]["max-per-hour"] = 10_000  # no brake in a benchmark
        name, short = SHORT.removeprefix("custodian-"), [actions[0], *actions[-2:]]
        file = cloud.folder / "policies.yml"
        file.write_text(
            yaml.safe_dump({"policies": [policy, policy | {"name": name, "actions": short}]})
        )
        deploy.deploy(cloud, [file], ACCOUNT, REGION)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("bare.py", BARE_SOURCE)
        cloud.client("lambda", ACCOUNT, REGION).create_function(
            FunctionName=BARE,
            Runtime="python3.13",
            Role=f"arn:aws:iam::{ACCOUNT}:role/guardduty-response-ec2-isolate",
            Handler="bare.run",
            Code={"ZipFile": archive.getvalue()},
            Timeout=60,
        )
        self.ec2 = cloud.client("ec2", ACCOUNT, REGION)
        self.room = 0

    def network(self):
        """A new VPC with a subnet and the forensic group."""
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/20")["Subnet"]
        group = self.ec2.create_security_group(GroupName="app", Description="app", VpcId=vpc)
        self.subnet, self.group, self.room = subnet["SubnetId"], group["GroupId"], IN_A_VPC
        self.isolate(self.finding(*self.launch(1)))

    def launch(self, number):
        """The ids of new instances, one interface each."""
        ids = []
        while len(ids) < number:
            if not self.room:
                self.network()
            some = min(number - len(ids), self.room)
            launched = self.ec2.run_instances(
                ImageId="ami-12c6146b", MinCount=some, MaxCount=some,
                SubnetId=self.subnet, SecurityGroupIds=[self.group],
            )["Instances"]  # fmt: skip
            ids += [instance["InstanceId"] for instance in launched]
            self.room -= some
        return ids

    def finding(self, instance_id):
        """A new finding of an instance."""
        event = json.loads(SCENARIO.read_text())
        event["topic"] = f"arn:aws:sns:{REGION}:{ACCOUNT}:guardduty-response"
        event["detail"]["id"] = uuid.uuid4().hex
        event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance_id
        return event

    def isolate(self, event, function=FUNCTION):
        """Invoke a function; its invocation and its calls. RuntimeError when it fails."""
        self.cloud.call_log.clear()
        invocation = self.cloud.invoke(function, event, ACCOUNT, REGION)
        if invocation.error:
            raise RuntimeError(invocation.error["errorMessage"])
        calls = [c for c in self.cloud.call_log.by(function) if c.operation != "AssumeRole"]
        return invocation, calls

    def isolated(self):
        """The ids of the instances that have the forensic group alone."""
        pages = self.ec2.get_paginator("describe_network_interfaces").paginate()
        return {
            interface["Attachment"]["InstanceId"]
            for page in pages
            for interface in page["NetworkInterfaces"]
            if [group["GroupName"] for group in interface["Groups"]] == ["ForensicSecurityGroup"]
        }


def speed(scene):
    """1. Cold and warm, the two functions in turn so that a busy machine is busy for both."""
    print("from the invocation to the answered swap, median, and calls up to it")
    for cold, rounds in ((True, COLD_ROUNDS), (False, WARM_ROUNDS)):
        seconds, count = {FUNCTION: [], BARE: []}, {}
        for _ in range(rounds):
            for function, runs in seconds.items():
                if cold:
                    scene.cloud.functions.discard_warm()
                event = scene.finding(*scene.launch(1))
                begin = time.monotonic()
                _, calls = scene.isolate(event, function)
                number = [call.operation for call in calls].index(SWAP)
                runs.append(calls[number].started + calls[number].duration - begin)
                count[function] = number + 1
        medians = {function: statistics.median(runs) for function, runs in seconds.items()}
        for function, median in medians.items():
            name = f"{'cold' if cold else 'warm'}  {function}"
            print(f"  {name:<30}{median * 1000:6.0f} ms{count[function]:4} calls")
        print(f"  ratio {medians[FUNCTION] / medians[BARE]:.2f}")


def endurance(scene):
    """2. A thousand findings, ten of each of a hundred instances, in one container."""
    scene.cloud.functions.discard_warm()
    instances = scene.launch(PART)
    seconds, memory = [], []
    for number in range(FINDINGS):
        invocation, calls = scene.isolate(scene.finding(instances[number % PART]), SHORT)
        seconds.append(invocation.duration - sum(call.duration for call in calls))
        memory.append(int(re.search(r"Max Memory Used: (\d+) MB", invocation.log)[1]))
    scene.cloud.invocations.clear()
    # the first hundred isolate, all others find it done: those are compared
    early, late = seconds[PART : 2 * PART], seconds[-PART:]
    print(f"{FINDINGS} findings in one container, its own time without that of the calls")
    print(f"  findings {PART + 1} to {2 * PART}  {statistics.median(early) * 1000:6.0f} ms each")
    print(f"  the last {PART}          {statistics.median(late) * 1000:6.0f} ms each")
    print(f"  ratio {statistics.median(late) / statistics.median(early):.2f}")
    print(f"  memory {memory[PART]} MB, at the end {memory[-1]} MB", end="")
    print(f" ({memory[-1] / memory[PART] - 1:+.1%})")


def storm(scene):
    """3. Findings of a whole fleet at once, while EC2 takes few calls a second of the function."""
    cloud, fleet = scene.cloud, set(scene.launch(FLEET))
    cloud.call_log.clear()
    swapped = []

    def note(call):
        if call.operation == SWAP and call.status == 200:
            swapped.append(time.monotonic())

    unsubscribe = cloud.call_log.subscribe(note)
    cloud.call_log.throttle("ec2", CALLS_A_SECOND, when=lambda call: call.caller == SHORT)
    begin = time.monotonic()
    for instance_id in fleet:
        cloud.functions.invoke_later(SHORT, scene.finding(instance_id), ACCOUNT, REGION)
    cloud.wait_idle(timeout=1800)
    unsubscribe()
    calls = [call for call in cloud.call_log.by(SHORT) if call.service == "ec2"]
    refused = sum(call.error_code == "RequestLimitExceeded" for call in calls)
    tries = Counter(invocation.attempt for invocation in cloud.invocations)
    cloud.call_log.clear()
    lost = [i for i in cloud.invocations if i.dead_letter]
    print(f"{FLEET} findings at once, EC2 takes {CALLS_A_SECOND} calls a second")
    print(f"  isolated {len(fleet & scene.isolated())} of {FLEET}", end="")
    print(f", half of them after {swapped[FLEET // 2] - begin:.0f} s", end="")
    print(f", the last after {swapped[-1] - begin:.0f} s")
    print(f"  {len(calls)} calls to EC2, {refused} of them refused", end="")
    print(f": {len(calls) / (len(calls) - refused):.2f} tries a call")
    print(f"  invocations {dict(tries)} by try, dead letters {len(lost)}")


def main():
    with Cloud() as cloud:
        scene = Scene(cloud)
        for part in (speed, endurance, storm):
            part(scene)
    return 0


if __name__ == "__main__":
    sys.exit(main())
