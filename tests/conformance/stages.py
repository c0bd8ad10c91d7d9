"""What each step acts on, in moto within this process: a stage for every step and its revert.

A stage is made anew for each run that is tried; what costs time and is not touched (VPCs, groups)
is shared by all of its class. `state` is everything that the step may change and a person would
compare, with the tags.
"""

import functools
import hashlib
import itertools
import json
from pathlib import Path

from moto.ecs.models import ecs_backends

from custom_actions import seal
from simulation import guardduty, kubernetes, ssm
from simulation.ec2 import put_root_on_instance_store
from simulation.load_balancing import put_into

FINDINGS = Path(__file__).parent.parent / "findings"
ACCOUNT, REGION = "123456789012", "us-west-2"  # moto's account when nothing is assumed
NUMBERS = itertools.count(1)


class Stage:
    """kind, step: the resource and the name of a step. revert: of its revert, None for none.

    variants: what else the step has to cope with, as keyword arguments of `setup`. one_change: all
    writes of the step are one change, of which the first refusal ends the rest. rare: calls that
    the step makes only where somebody has tampered, or a limit is reached. records_are_the_work:
    tags are all that it writes. follows: writes that are about what another one makes, {write: that
    other}: where it is refused there is nothing to do them to. slow: it shares what it does with
    another step, whose tests suffice most of the time.
    """

    slow = False
    one_change = False
    records_are_the_work = False
    rare = ()
    follows = {}

    kind = "ec2"
    step = None
    revert_kind = "ec2"
    revert = None
    finding = "ec2-malicious-ip-caller"
    variants = ({},)

    def __init__(self, client, **variant):
        self.client = client  # boto3's, by name of the service; not watched
        self.ec2 = client("ec2")
        self.shared = shared(type(self), client)
        self.event = json.loads((FINDINGS / f"{self.finding}.json").read_text())
        self.event["detail"]["accountId"] = ACCOUNT
        self.setup(**variant)

    @classmethod
    def share(cls, client):
        """What all stages of the class use: {name: id}."""
        ec2 = client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        groups = [
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            for name in ("web", "ssh")
        ]
        return {"vpc": vpc, "subnet": subnet, "groups": groups}

    def setup(self):
        self.instance = self.launch()

    def launch(self, **options):
        launched = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            **{"SubnetId": self.shared["subnet"], "SecurityGroupIds": self.shared["groups"]}
            | options,
        )["Instances"][0]["InstanceId"]
        self.event["detail"]["resource"]["instanceDetails"]["instanceId"] = launched
        return launched

    def resource(self):
        """What Custodian hands to the action."""
        shown = self.ec2.describe_instances(InstanceIds=[self.instance])
        return {"Tags": [], **shown["Reservations"][0]["Instances"][0]}

    revert_resource = resource

    def data(self):
        """The arguments of the step."""
        return {}

    def revert_data(self):
        """The arguments of the revert."""
        return {}

    def tags(self, resource_id):
        shown = self.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [resource_id]}])
        return {tag["Key"]: tag["Value"] for tag in shown["Tags"]}

    def state(self):
        raise NotImplementedError


@functools.cache
def shared(cls, client):
    return cls.share(client)


class Isolate(Stage):
    step, revert = "isolate-instance", "release-instance"
    rare = ("ec2:DeleteTags",)
    variants = ({}, {"elsewhere": True}, {"rules": True})

    def data(self):
        return {"max-per-hour": 1000, "judge": ["brake", "release"]}

    def setup(self, elsewhere=False, rules=False):
        self.instance, self.neighbour = self.launch(), self.launch()
        self.event["detail"]["resource"]["instanceDetails"]["instanceId"] = self.instance
        subnet, group = self.shared["subnet"], self.shared["groups"][1]
        if elsewhere or rules:
            # a second VPC, where the forensic group has to be made, or has rules
            more = Stage.share(self.client)
            subnet, group = more["subnet"], more["groups"][0]
            if rules:
                self.forensic(more["vpc"], rules=True)
        second = self.ec2.create_network_interface(SubnetId=subnet, Groups=[group])
        self.ec2.attach_network_interface(
            NetworkInterfaceId=second["NetworkInterface"]["NetworkInterfaceId"],
            InstanceId=self.instance,
            DeviceIndex=1,
        )

    @classmethod
    def share(cls, client):
        made = super().share(client)
        cls.make_forensic(client, made["vpc"])
        return made

    def forensic(self, vpc, rules=False):
        self.make_forensic(self.client, vpc, rules)

    @staticmethod
    def make_forensic(client, vpc, rules=False):
        ec2, name = client("ec2"), "ForensicSecurityGroup"
        group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        (shown,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        if rules:
            ec2.authorize_security_group_ingress(
                GroupId=group, IpPermissions=shown["IpPermissionsEgress"]
            )
        else:
            ec2.revoke_security_group_egress(
                GroupId=group, IpPermissions=shown["IpPermissionsEgress"]
            )

    def interfaces(self, instance):
        shown = self.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": [instance]}]
        )["NetworkInterfaces"]
        shown.sort(key=lambda i: i["Attachment"]["DeviceIndex"])
        order = [i["NetworkInterfaceId"] for i in shown]

        def place(key):
            *_, interface = key.split(":")
            if interface not in order:
                return key.replace(interface, "the instance")
            return key.replace(interface, f"interface {order.index(interface)}")

        def plain(value):
            """Without the time of a claim."""
            return value.partition("=")[0] if value.startswith("begun=") else value

        return [
            {
                "groups": sorted(g["GroupName"] for g in i["Groups"]),
                "tags": sorted((place(t["Key"]), plain(t["Value"])) for t in i["TagSet"]),
            }
            for i in shown
        ]

    def state(self):
        return {
            "instance": self.interfaces(self.instance),
            "neighbour": self.interfaces(self.neighbour),
            "tags": self.tags(self.instance),
        }


class Block(Stage):
    step, revert = "block-remote-address", "unblock-remote-address"

    def setup(self):
        # an ACL of its own, since the rules of one are few
        number = next(NUMBERS) % 250
        subnet = self.ec2.create_subnet(
            VpcId=self.shared["vpc"], CidrBlock=f"10.0.{number + 1}.0/24"
        )["Subnet"]["SubnetId"]
        self.acl = self.ec2.create_network_acl(VpcId=self.shared["vpc"])["NetworkAcl"][
            "NetworkAclId"
        ]
        (default,) = self.ec2.describe_network_acls(
            Filters=[{"Name": "association.subnet-id", "Values": [subnet]}]
        )["NetworkAcls"]
        (association,) = [a for a in default["Associations"] if a["SubnetId"] == subnet]
        self.ec2.replace_network_acl_association(
            AssociationId=association["NetworkAclAssociationId"], NetworkAclId=self.acl
        )
        for egress in (False, True):
            self.ec2.create_network_acl_entry(
                NetworkAclId=self.acl,
                RuleNumber=100,
                Protocol="-1",
                RuleAction="allow",
                Egress=egress,
                CidrBlock="0.0.0.0/0",
            )
        self.instance = self.launch(SubnetId=subnet)

    def state(self):
        (acl,) = self.ec2.describe_network_acls(NetworkAclIds=[self.acl])["NetworkAcls"]
        rules = [
            (e["Egress"], e["RuleNumber"], e["RuleAction"], e.get("CidrBlock"))
            for e in acl["Entries"]
        ]
        tags = [(t["Key"], t["Value"]) for t in acl["Tags"]]
        return {"acl": sorted(rules), "marks": sorted(tags), "tags": self.tags(self.instance)}


class Evidence(Stage):
    step, revert = "preserve-evidence", "restore-settings"
    rare = ("ec2:DescribeSecurityGroups",)  # where another deployment began
    follows = {"ec2:LockSnapshot": "ec2:CreateSnapshots"}
    variants = ({}, {"kind": "spot"}, {"kind": "instance-store"})

    def setup(self, kind=None):
        spot = {"InstanceMarketOptions": {"MarketType": "spot"}} if kind == "spot" else {}
        self.instance = self.launch(
            **spot,
            InstanceInitiatedShutdownBehavior="terminate",
            BlockDeviceMappings=[
                {"DeviceName": name, "Ebs": {"VolumeSize": 8, "DeleteOnTermination": True}}
                for name in ("/dev/sda", "/dev/sdb")
            ],
        )
        if kind == "instance-store":
            put_root_on_instance_store(self.instance, region=REGION, account_id=ACCOUNT)
        self.ec2.create_tags(
            Resources=[self.instance],
            Tags=[
                {"Key": "forensic:isolated-at", "Value": "2024-11-23T09:00:00+00:00"},
                {"Key": "forensic:finding", "Value": self.event["detail"]["id"]},
            ],
        )

    def state(self):
        settings = [
            self.ec2.describe_instance_attribute(InstanceId=self.instance, Attribute=name)[
                name[0].upper() + name[1:]
            ]["Value"]
            for name in (
                "disableApiTermination",
                "disableApiStop",
                "instanceInitiatedShutdownBehavior",
            )
        ]
        volumes = [
            (m["DeviceName"], m["Ebs"]["DeleteOnTermination"])
            for m in self.resource()["BlockDeviceMappings"]
        ]
        return {"settings": settings, "volumes": volumes, "tags": self.tags(self.instance)}

    def extra(self):
        """What a revert leaves: the snapshots, with their tags and locks."""
        found = self.ec2.describe_snapshots(
            OwnerIds=["self"],
            Filters=[{"Name": "tag:forensic:instance", "Values": [self.instance]}],
        )["Snapshots"]
        ids = [each["SnapshotId"] for each in found]
        locks = self.ec2.describe_locked_snapshots(SnapshotIds=ids)["Snapshots"] if ids else []
        tags = sorted(sorted(tag["Key"] for tag in each["Tags"]) for each in found)
        return tags, [(lock["LockState"], lock["LockDuration"]) for lock in locks]


class Unprotected(Evidence):
    """Preserved, and then somebody took the protections off."""

    step, revert = "keep-protections", None
    rare, follows = (), {}
    variants = ({},)
    slow = True


class Undenied(Block):
    """Denied and sealed, and then somebody took the denies off the ACL."""

    step, revert = "keep-denied", None
    slow = True

    def setup(self):
        super().setup()
        group = self.ec2.create_security_group(
            GroupName=f"forensic-{next(NUMBERS)}", Description="x", VpcId=self.shared["vpc"]
        )["GroupId"]
        tags = {"forensic:deny:203.0.113.7": self.acl}
        sealed = seal.digest([f"203.0.113.7={self.acl}"])
        of_group = {f"forensic:record:{self.instance}": f"deny={sealed}", "forensic:group": "true"}
        for resource, wanted in ((self.instance, tags), (group, of_group)):
            self.ec2.create_tags(
                Resources=[resource], Tags=[{"Key": k, "Value": v} for k, v in wanted.items()]
            )


class Stopped(Stage):
    """A function of the response that is throttled, and whose rule is disabled."""

    kind, step = "account", "restore-response"
    variants = ({}, {"reserved": 4})

    @classmethod
    def share(cls, client):
        assume = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}
        statement = assume | {"Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        made = client("iam").create_role(RoleName="stopped", AssumeRolePolicyDocument=document)
        return {"role": made["Role"]["Arn"]}

    def setup(self, reserved=None):
        self.events, self.functions = map(self.client, ("events", "lambda"))
        self.name, self.reserved = f"custodian-{next(NUMBERS)}", reserved
        self.events.put_rule(Name=self.name, EventPattern="{}", State="DISABLED")
        self.functions.create_function(
            FunctionName=self.name,
            Role=self.shared["role"],
            Code={"ZipFile": b"x"},
            Handler="x.x",
            Runtime="python3.11",
        )
        self.functions.put_function_concurrency(
            FunctionName=self.name, ReservedConcurrentExecutions=0
        )

    def data(self):
        return {"reserved": {self.name: self.reserved}} if self.reserved else {}

    def resource(self):
        return {"account_id": ACCOUNT, "c7n:function": self.name}

    def state(self):
        shown = self.functions.get_function_concurrency(FunctionName=self.name)
        return {
            "rule": self.events.describe_rule(Name=self.name)["State"],
            "reserved": shown.get("ReservedConcurrentExecutions"),
        }


class Service(Stage):
    step, revert = "leave-service", "return-to-service"
    # one of a warm pool, of which one process is suspended already: for another instance
    variants = ({}, {"warm": True})

    @classmethod
    def share(cls, client):
        made = super().share(client)
        client("autoscaling").create_launch_configuration(
            LaunchConfigurationName="web",
            ImageId="ami-12c6146b",
            InstanceType="t3.micro",
            SecurityGroups=made["groups"],
        )
        return made

    def setup(self, warm=False):
        number = next(NUMBERS)
        self.scaling, self.elbv2, self.elb = map(self.client, ("autoscaling", "elbv2", "elb"))
        self.group, self.classic = f"group-{number}", f"classic-{number}"
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=self.group,
            LaunchConfigurationName="web",
            MinSize=0,
            MaxSize=99,
            DesiredCapacity=1,
            VPCZoneIdentifier=self.shared["subnet"],
        )
        (self.instance,) = self.members()
        self.event["detail"]["resource"]["instanceDetails"]["instanceId"] = self.instance
        self.target_group = self.elbv2.create_target_group(
            Name=f"web-{number}", Protocol="HTTP", Port=80, VpcId=self.shared["vpc"]
        )["TargetGroups"][0]["TargetGroupArn"]
        self.elbv2.register_targets(
            TargetGroupArn=self.target_group,
            Targets=[{"Id": self.instance, "Port": port} for port in (80, 8080)],
        )
        self.elb.create_load_balancer(
            LoadBalancerName=self.classic,
            Listeners=[{"Protocol": "http", "LoadBalancerPort": 80, "InstancePort": 80}],
            Subnets=[self.shared["subnet"]],
        )
        self.elb.register_instances_with_load_balancer(
            LoadBalancerName=self.classic, Instances=[{"InstanceId": self.instance}]
        )
        if warm:
            put_into(self.instance, "Warmed:Running", region=REGION, account_id=ACCOUNT)
            self.scaling.suspend_processes(
                AutoScalingGroupName=self.group, ScalingProcesses=["Terminate"]
            )
            other = {
                "forensic:auto-scaling-group": self.group,
                "forensic:suspended-processes": "Terminate",
            }
            self.ec2.create_tags(
                Resources=[self.launch()],
                Tags=[{"Key": key, "Value": value} for key, value in other.items()],
            )
            self.event["detail"]["resource"]["instanceDetails"]["instanceId"] = self.instance

    def teardown(self):
        """So that the next stage's step does not look through the target groups of this one."""
        self.elbv2.delete_target_group(TargetGroupArn=self.target_group)
        self.elb.delete_load_balancer(LoadBalancerName=self.classic)

    def revert_data(self):
        return {"rejoin-auto-scaling-group": True}

    def describe(self):
        (shown,) = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.group])[
            "AutoScalingGroups"
        ]
        return shown

    def members(self):
        return [i["InstanceId"] for i in self.describe()["Instances"]]

    def state(self):
        health = self.elbv2.describe_target_health(TargetGroupArn=self.target_group)
        (classic,) = self.elb.describe_load_balancers(LoadBalancerNames=[self.classic])[
            "LoadBalancerDescriptions"
        ]
        return {
            "member": self.instance in self.members(),
            "suspended": sorted(p["ProcessName"] for p in self.describe()["SuspendedProcesses"]),
            "targets": sorted(
                (t["Target"]["Id"], t["Target"]["Port"])
                for t in health["TargetHealthDescriptions"]
                if t["TargetHealth"]["State"] != "draining"
            ),
            "classic": [i["InstanceId"] for i in classic["Instances"]],
            "tags": self.tags(self.instance),
        }


class EcsNode(Stage):
    """A container instance, beside another and beside a cluster with none; or a node of EKS too."""

    step, revert = "cordon-node", "uncordon-node"
    variants = ({}, {"eks": True})

    @classmethod
    def share(cls, client):
        made = super().share(client) | {"clusters": ["empty", "batch"]}
        for name in made["clusters"]:
            client("ecs").create_cluster(clusterName=name)
        return made

    def setup(self, eks=False):
        self.ecs, self.api = self.client("ecs"), None
        self.neighbour, self.instance = self.launch(), self.launch()
        for instance in (self.neighbour, self.instance):
            document = json.dumps({"instanceId": instance})
            self.ecs.register_container_instance(cluster="batch", instanceIdentityDocument=document)
        if eks:
            self.make_node()

    def make_node(self):
        name = f"eks-{next(NUMBERS)}"
        subnets = {"subnetIds": [self.shared["subnet"]]}
        role = f"arn:aws:iam::{ACCOUNT}:role/eks"
        self.client("eks").create_cluster(name=name, roleArn=role, resourcesVpcConfig=subnets)
        self.serving = kubernetes.serving(name, region=REGION, account_id=ACCOUNT)
        self.api = self.serving.__enter__()
        self.api.secrets["testing"] = "testing"
        self.api.entries["testing"] = {"get", "list", "patch"}
        for number, instance in enumerate((self.neighbour, self.instance)):
            self.api.add_node(f"node-{number}", instance)
        tag = {"Key": f"kubernetes.io/cluster/{name}", "Value": "owned"}
        self.ec2.create_tags(Resources=[self.instance], Tags=[tag])

    def teardown(self):
        if self.api:
            self.serving.__exit__(None, None, None)

    def state(self):
        shown = ecs_backends[ACCOUNT][REGION].container_instances["batch"].values()
        own = (self.instance, self.neighbour)
        tags = self.tags(self.instance)
        return {
            "containers": [c.status for i in own for c in shown if c.ec2_instance_id == i],
            "nodes": {n: self.api.is_schedulable(n) for n in self.api.nodes} if self.api else None,
            "recorded": [word.partition("/")[0] for word in tags.get("forensic:node", "").split()],
        }


class Role(Stage):
    """A role with a policy of a person."""

    def make_role(self):
        self.iam = self.client("iam")
        self.role = self.iam.create_role(
            RoleName=f"web-{next(NUMBERS)}", AssumeRolePolicyDocument="{}"
        )["Role"]
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        self.iam.put_role_policy(
            RoleName=self.role["RoleName"],
            PolicyName="own",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )

    def policies(self):
        key = {"RoleName": self.role["RoleName"]}
        return [
            (name, self.iam.get_role_policy(**key, PolicyName=name)["PolicyDocument"])
            for name in self.iam.list_role_policies(**key)["PolicyNames"]
        ]


class InstanceSessions(Role):
    step, revert = "revoke-role-sessions", "restore-role-sessions"

    def setup(self):
        self.make_role()
        self.instance, name = self.launch(), self.role["RoleName"]
        self.iam.create_instance_profile(InstanceProfileName=name)
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        self.ec2.associate_iam_instance_profile(
            InstanceId=self.instance, IamInstanceProfile={"Name": name}
        )

    def state(self):
        return {"policies": self.policies(), "tags": self.tags(self.instance)}


class FindingSessions(Role):
    kind = revert_kind = "account"
    step, revert = "revoke-role-sessions", "restore-role-sessions"
    finding = "iam-role-credential-exfiltration"
    variants = ({}, {"session": "app-session"}, {"session": ""})

    def setup(self, session="i-0abc1234def567890"):
        self.make_role()
        self.event["detail"]["resource"]["accessKeyDetails"] |= {
            "userName": self.role["RoleName"],
            "principalId": f"{self.role['RoleId']}:{session}",
        }

    def resource(self):
        return {"account_id": ACCOUNT, "Tags": []}

    revert_resource = resource

    def revert_data(self):
        return {"role": self.role["RoleName"], "finding": self.event["detail"]["id"]}

    def state(self):
        tags = self.iam.list_role_tags(RoleName=self.role["RoleName"])["Tags"]
        return {"policies": self.policies(), "tags": tags}


class AccessKey(Stage):
    kind, revert_kind = "iam-user", "account"
    step, revert = "deactivate-access-key", "reactivate-access-key"
    finding = "iam-user-malicious-ip-caller"
    variants = ({}, {"other": True})

    def setup(self, other=False):
        self.iam = self.client("iam")
        self.user = f"build-{next(NUMBERS)}"
        created = self.iam.create_user(UserName=self.user)["User"]
        self.key, self.other = (
            self.iam.create_access_key(UserName=self.user)["AccessKey"]["AccessKeyId"]
            for _ in range(2)
        )
        self.event["detail"]["resource"]["accessKeyDetails"] |= {
            "userName": self.user,
            "principalId": created["UserId"],
            "accessKeyId": self.key,
        }
        if other:  # which was deactivated before
            self.iam.tag_user(
                UserName=self.user,
                Tags=[{"Key": "forensic:deactivated-keys", "Value": self.other}],
            )

    def resource(self):
        return {"Tags": [], **self.iam.get_user(UserName=self.user)["User"]}

    def revert_resource(self):
        return {"account_id": ACCOUNT, "Tags": []}

    def revert_data(self):
        return {"user": self.user, "access-key": self.key, "finding": self.event["detail"]["id"]}

    def state(self):
        keys = self.iam.list_access_keys(UserName=self.user)["AccessKeyMetadata"]
        return {
            "keys": [(k["AccessKeyId"] == self.key, k["Status"]) for k in keys],
            "tags": self.iam.list_user_tags(UserName=self.user)["Tags"],
        }


class ForensicGroup(Stage):
    kind, step = "security-group", "empty-forensic-group"
    one_change = True

    def setup(self):
        name = f"forensic-{next(NUMBERS)}"
        self.group = self.ec2.create_security_group(
            GroupName=name, Description=name, VpcId=self.shared["vpc"]
        )["GroupId"]
        rules = self.resource()["IpPermissionsEgress"]
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=rules)

    def resource(self):
        return self.ec2.describe_security_groups(GroupIds=[self.group])["SecurityGroups"][0]

    def state(self):
        shown = self.resource()
        return {key: len(shown[key]) for key in ("IpPermissions", "IpPermissionsEgress")}


class Archive(Stage):
    step = "archive-finding"
    one_change = True

    def setup(self):
        super().setup()
        self.event["detail"]["id"] = f"{next(NUMBERS):032x}"
        self.finding = guardduty.keep(self.event)
        name = [{"Key": "forensic:finding", "Value": self.finding["id"]}]
        self.ec2.create_tags(Resources=[self.instance], Tags=name)

    def data(self):
        return {"archive": "1"}

    def state(self):
        return {"archived": self.finding["service"]["archived"]}


class MalwareScan(Stage):
    step = "scan-for-malware"
    # where another deployment began, and at the first scan in an account, by GuardDuty
    rare = ("ec2:DescribeSecurityGroups", "iam:CreateServiceLinkedRole")
    one_change = True

    @classmethod
    def share(cls, client):
        if not client("guardduty").list_detectors()["DetectorIds"]:
            client("guardduty").create_detector(Enable=True)
        return super().share(client)

    def setup(self):
        super().setup()
        began = {"Key": "forensic:isolated-at", "Value": "2024-11-23T09:00:00+00:00"}
        self.ec2.create_tags(Resources=[self.instance], Tags=[began])
        (self.detector,) = self.client("guardduty").list_detectors()["DetectorIds"]

    def state(self):
        arn = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{self.instance}"
        equal = {"CriterionKey": "EC2_INSTANCE_ARN", "FilterCondition": {"EqualsValue": arn}}
        scans = self.client("guardduty").describe_malware_scans(
            DetectorId=self.detector, FilterCriteria={"FilterCriterion": [equal]}
        )["Scans"]
        tags = {k: v.partition("=")[0] for k, v in self.tags(self.instance).items()}
        return {"scans": [scan["ScanStatus"] for scan in scans], "tags": tags}


class Seal(Stage):
    step, revert = "seal-record", "close-record"
    records_are_the_work = True

    @classmethod
    def share(cls, client):
        made = super().share(client)
        Isolate.make_forensic(client, made["vpc"])
        (made["forensic"],) = [
            group["GroupId"]
            for group in client("ec2").describe_security_groups()["SecurityGroups"]
            if (group["VpcId"], group["GroupName"]) == (made["vpc"], "ForensicSecurityGroup")
        ]
        mark = {"Key": "forensic:group", "Value": "true"}
        client("ec2").create_tags(Resources=[made["forensic"]], Tags=[mark])
        return made

    def setup(self):
        self.instance = self.launch(SecurityGroupIds=[self.shared["forensic"]])

    def state(self):
        seal = f"forensic:record:{self.instance}"
        return {"seal": self.tags(self.shared["forensic"]).get(seal)}


class Memory(Stage):
    step = "capture-memory"
    one_change = True

    @classmethod
    def share(cls, client):
        content = {"schemaVersion": "2.2", "description": "x", "mainSteps": []}
        client("ssm").create_document(
            Name="CaptureMemory", Content=json.dumps(content), DocumentType="Command"
        )
        return super().share(client)

    def setup(self):
        super().setup()
        ssm.agent(ACCOUNT, REGION, self.instance)

    def data(self):
        return {"document": "CaptureMemory"}

    def state(self):
        mark = self.tags(self.instance).get("forensic:memory", "::")
        sent = ssm.commands(ACCOUNT, REGION, self.instance)
        return {"mark": mark.split(":")[2], "sent": bool(sent)}


class Case(Stage):
    """An incident whose snapshots are made, and a bucket that locks what is written to it."""

    step = "write-case"
    one_change = True  # without its record there is no manifest
    rare = ("lambda:ListTags",)  # where a person says no bucket

    @classmethod
    def share(cls, client):
        client("s3").create_bucket(
            Bucket="evidence",
            ObjectLockEnabledForBucket=True,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        return super().share(client)

    def setup(self):
        self.instance = self.launch()
        began = {"forensic:isolated-at": "2024-11-23T09:00:00+00:00"}
        of_snapshot = began | {"forensic:instance": self.instance}
        tags = [{"Key": key, "Value": value} for key, value in of_snapshot.items()]
        made = self.ec2.create_snapshots(
            InstanceSpecification={"InstanceId": self.instance},
            TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}],
        )
        self.snapshot = made["Snapshots"][0]["SnapshotId"]
        self.ec2.create_tags(Resources=[self.instance], Tags=tags[:1])

    def data(self):
        return {"bucket": "evidence"}

    def stored(self):
        """What is in the folder of the case: {name: body}."""
        s3, folder = self.client("s3"), f"cases/{ACCOUNT}/{REGION}/{self.instance}-20241123T090000/"
        keys = [o["Key"] for o in s3.list_objects_v2(Bucket="evidence", Prefix=folder)["Contents"]]
        return {
            key.removeprefix(folder): s3.get_object(Bucket="evidence", Key=key)["Body"].read()
            for key in keys
        }

    def state(self):
        """Without the calls of runs, which differ, and what follows from them."""
        shown = self.client("s3").list_objects_v2(Bucket="evidence", Prefix=f"cases/{ACCOUNT}")
        if not any(self.instance in found["Key"] for found in shown.get("Contents", ())):
            return {"case": None}
        stored = self.stored()
        case = json.loads(stored.get("case.json", "null")) or {}
        hashed = self.tags(self.snapshot).get("forensic:case-sha256")
        return {
            "names": sorted(stored),
            "findings": [finding["id"] for finding in case.get("findings", ())],
            "runs": len(case.get("runs", ())),
            "snapshots": [snapshot["id"] for snapshot in case.get("snapshots", ())],
            "files": [file["name"] for file in case.get("files", ())],
            "is proven": hashlib.sha256(stored.get("manifest.json", b"")).hexdigest() == hashed,
        }


STAGES = [
    Isolate,
    Seal,
    Block,
    Undenied,
    Evidence,
    Unprotected,
    Stopped,
    Service,
    EcsNode,
    InstanceSessions,
    FindingSessions,
    AccessKey,
    ForensicGroup,
    MalwareScan,
    Case,
    Memory,
    Archive,
]
