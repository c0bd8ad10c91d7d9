"""The instance that everything happens to, with all that the pack may touch around it.

Two interfaces in two groups each, a volume, a role, an Auto Scaling group, a target group on two
ports and a classic load balancer, in a subnet with a network ACL of its own. Beside it stand
others of the same kind, for what is shared.
"""

import base64
import json
import re
import uuid
import zlib
from pathlib import Path

import stages
from cloudtrail import api_call
from moto.sns.models import sns_backends

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "tests" / "findings"
TOPIC = "guardduty-response"
ATTRIBUTES = ("disableApiTermination", "disableApiStop", "instanceInitiatedShutdownBehavior")


class Scene:
    """`instances` are the ids of those that were launched; the first one is `instance`."""

    def __init__(self, wire, instances=1):
        self.load, client = wire.aws.load, wire.client
        self.ec2, self.iam = client("ec2"), client("iam")
        self.scaling, self.elb, self.elbv2 = map(client, ("autoscaling", "elb", "elbv2"))
        self.topic = client("sns").create_topic(Name=TOPIC)["TopicArn"]
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.0.1.0/24")["Subnet"][
            "SubnetId"
        ]
        self.groups = [self.group(name) for name in ("web", "ssh")]
        self.others = [self.group(name) for name in ("backend", "monitoring")]
        self.acl = self.own_acl()
        self.role = self.make_role()
        self.make_service(instances)
        self.names = {}  # of what ids stand for, in messages
        self.instance = self.instances[0]
        for number, instance in enumerate(self.instances):
            self.furnish(instance)
            self.names[instance] = f"instance {number}"
        # the world as it is without any incident
        self.neighbour = self.launch()

    def group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)[
            "GroupId"
        ]

    def own_acl(self):
        acl = self.ec2.create_network_acl(VpcId=self.vpc)["NetworkAcl"]["NetworkAclId"]
        (default,) = self.ec2.describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": [self.subnet]}]
        )["NetworkAcls"]
        (association,) = [a for a in default["Associations"] if a["SubnetId"] == self.subnet]
        self.ec2.replace_network_acl_association(
            AssociationId=association["NetworkAclAssociationId"], NetworkAclId=acl
        )
        for egress in (False, True):
            self.ec2.create_network_acl_entry(
                NetworkAclId=acl,
                RuleNumber=100,
                Protocol="-1",
                RuleAction="allow",
                Egress=egress,
                CidrBlock="0.0.0.0/0",
            )
        return acl

    def make_role(self):
        role = self.iam.create_role(RoleName="web", AssumeRolePolicyDocument="{}")["Role"]
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        self.iam.put_role_policy(
            RoleName="web",
            PolicyName="own",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )
        self.iam.create_instance_profile(InstanceProfileName="web")
        self.iam.add_role_to_instance_profile(InstanceProfileName="web", RoleName="web")
        return role

    def make_service(self, instances):
        self.scaling.create_launch_configuration(
            LaunchConfigurationName="web",
            ImageId="ami-12c6146b",
            InstanceType="t3.micro",
            SecurityGroups=self.groups,
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName="web",
            LaunchConfigurationName="web",
            MinSize=0,
            MaxSize=20,
            DesiredCapacity=instances + 1,  # another, so that none is the last healthy member
            VPCZoneIdentifier=self.subnet,
        )
        (group,) = self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        self.instances = [member["InstanceId"] for member in group["Instances"]][:instances]
        self.target_group = self.elbv2.create_target_group(
            Name="web", Protocol="HTTP", Port=80, VpcId=self.vpc
        )["TargetGroups"][0]["TargetGroupArn"]
        self.elb.create_load_balancer(
            LoadBalancerName="classic",
            Listeners=[{"Protocol": "http", "LoadBalancerPort": 80, "InstancePort": 80}],
            Subnets=[self.subnet],
        )

    def furnish(self, instance):
        second = self.ec2.create_network_interface(SubnetId=self.subnet, Groups=self.others)
        self.ec2.attach_network_interface(
            NetworkInterfaceId=second["NetworkInterface"]["NetworkInterfaceId"],
            InstanceId=instance,
            DeviceIndex=1,
        )
        self.ec2.associate_iam_instance_profile(
            InstanceId=instance, IamInstanceProfile={"Name": "web"}
        )
        self.elbv2.register_targets(
            TargetGroupArn=self.target_group,
            Targets=[{"Id": instance, "Port": port} for port in (80, 8080)],
        )
        self.elb.register_instances_with_load_balancer(
            LoadBalancerName="classic", Instances=[{"InstanceId": instance}]
        )

    def launch(self):
        return self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            SubnetId=self.subnet,
            SecurityGroupIds=self.groups,
        )["Instances"][0]["InstanceId"]

    # what happens

    def event(self, name):
        event = json.loads((FINDINGS / f"{name}.json").read_text())
        event["account"] = event["detail"]["accountId"] = stages.ACCOUNT
        event["detail"]["id"] = uuid.uuid4().hex
        return event

    def finding(self, instance=None, remote=None):
        """The scenario's finding about one of the instances."""
        event = self.event("ec2-malicious-ip-caller")
        event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance or self.instance
        if remote:
            action = event["detail"]["service"]["action"]["networkConnectionAction"]
            action["remoteIpDetails"]["ipAddressV4"] = remote
        return event

    def stolen(self):
        """The finding that credentials of the role are used elsewhere."""
        event = self.event("iam-role-credential-exfiltration")
        event["detail"]["resource"]["accessKeyDetails"] |= {
            "userName": self.role["RoleName"],
            "principalId": f"{self.role['RoleId']}:{self.instance}",
        }
        return event

    def opened(self, instance=None):
        """Somebody gives the first interface other groups; the call as CloudTrail reports it."""
        interface, *_ = self.interfaces(instance or self.instance)
        name = interface["NetworkInterfaceId"]
        self.ec2.modify_network_interface_attribute(NetworkInterfaceId=name, Groups=self.groups)
        items = {"items": [{"groupId": group} for group in self.groups]}
        parameters = {"networkInterfaceId": name, "groupSet": items}
        return api_call("ModifyNetworkInterfaceAttribute", parameters)

    def rule_added(self):
        """Somebody gives the forensic group a rule; the call as CloudTrail reports it."""
        group = self.forensic()["GroupId"]
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        for call in (
            self.ec2.authorize_security_group_ingress,
            self.ec2.authorize_security_group_egress,
        ):
            call(GroupId=group, IpPermissions=[everything])
        return api_call("AuthorizeSecurityGroupIngress", {"groupId": group})

    # what is so

    def interfaces(self, instance):
        shown = self.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": [instance]}]
        )["NetworkInterfaces"]
        return sorted(shown, key=lambda i: i["Attachment"]["DeviceIndex"])

    def forensic(self):
        groups = self.ec2.describe_security_groups(
            Filters=[{"Name": "group-name", "Values": ["ForensicSecurityGroup"]}]
        )["SecurityGroups"]
        return groups[0] if groups else None

    def is_isolated(self, instance=None):
        """Every attached interface holds exactly the forensic group, which has no rule."""
        group = self.forensic()
        if group is None or group["IpPermissions"] or group["IpPermissionsEgress"]:
            return False
        return all(
            [g["GroupId"] for g in i["Groups"]] == [group["GroupId"]]
            for i in self.interfaces(instance or self.instance)
        )

    def state(self, number=None):
        """Everything that the pack may change: {what: value}, one entry for each thing.

        number: how many of the instances are looked at, and not the neighbour; None: all.

        Without snapshots, which stay, and without the forensic group, which stays too. `what`
        holds the words by which a report would name it.
        """
        found = {}
        instances = self.instances[:number]
        for instance in instances if number else [*instances, self.neighbour]:
            found |= self.of_instance(instance)
        health = self.elbv2.describe_target_health(TargetGroupArn=self.target_group)
        targets = sorted(
            (t["Target"]["Id"], t["Target"]["Port"])
            for t in health["TargetHealthDescriptions"]
            if t["TargetHealth"]["State"] != "draining"
        )
        (classic,) = self.elb.describe_load_balancers()["LoadBalancerDescriptions"]
        behind = sorted(i["InstanceId"] for i in classic["Instances"])
        for instance in instances:
            key = "target group", instance, self.target_group.partition(":targetgroup/")[2]
            found[key] = [port for i, port in targets if i == instance]
            found["classic load balancer", instance, "classic"] = instance in behind
        for acl in self.ec2.describe_network_acls()["NetworkAcls"]:
            name = acl["NetworkAclId"]
            found["rules", name] = sorted(
                (e["Egress"], e["RuleNumber"], e["RuleAction"], e.get("CidrBlock"))
                for e in acl["Entries"]
            )
            found["tags", name] = forensic_tags(acl["Tags"])
        seals = forensic_tags((self.forensic() or {}).get("Tags", ()))
        found["seals", "forensic group"] = {
            key: value for key, value in seals.items() if key.startswith("forensic:record:")
        }
        (group,) = self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        found["suspended processes", "web"] = sorted(
            process["ProcessName"] for process in group["SuspendedProcesses"]
        )
        key = {"RoleName": self.role["RoleName"]}
        found["role policies", "web"] = {
            name: self.iam.get_role_policy(**key, PolicyName=name)["PolicyDocument"]
            for name in self.iam.list_role_policies(**key)["PolicyNames"]
        }
        found["tags", "role web"] = forensic_tags(self.iam.list_role_tags(**key)["Tags"])
        return found

    def of_instance(self, instance):
        (reservation,) = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        (shown,) = reservation["Instances"]
        found = {("tags", instance): forensic_tags(shown.get("Tags", ()))}
        for name in ATTRIBUTES:
            answer = self.ec2.describe_instance_attribute(InstanceId=instance, Attribute=name)
            found["setting", instance, name] = answer[name[0].upper() + name[1:]]["Value"]
        for mapping in shown["BlockDeviceMappings"]:
            key = "deleted on termination", instance, mapping["Ebs"]["VolumeId"]
            found[key] = mapping["Ebs"]["DeleteOnTermination"]
        for interface in self.interfaces(instance):
            name = interface["NetworkInterfaceId"]
            found["groups", instance, name] = sorted(g["GroupId"] for g in interface["Groups"])
            found["tags", instance, name] = forensic_tags(interface["TagSet"])
        return found

    def mails(self):
        """The headlines of what SNS accepted, in order."""
        self.load()
        topic = sns_backends[stages.ACCOUNT][stages.REGION].topics[self.topic]
        return [headline(message) for _, message, *_ in topic.sent_notifications]


def headline(message):
    data = json.loads(zlib.decompress(base64.b64decode(message)))
    return data["event"]["c7n:notice"]["headline"]


def forensic_tags(tags):
    return {t["Key"]: t["Value"] for t in tags if re.match("forensic:", t["Key"])}


def differences(before, after):
    """What is otherwise than before: {what: (then, now)}."""
    keys = {**before, **after}
    return {
        key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)
    }
