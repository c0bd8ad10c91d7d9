"""The whole story under exactly the rights that are shipped, and without each action of each role.

A person deploys with those of infra/operators.yml, the functions run under those of
infra/account.yml, a person releases. moto refuses by the names of actions alone (simulation/iam.py,
`enforcing`); what it cannot look at is in test_iam_language.py.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from cloudtrail import INCIDENT, api_call

from infra import permissions as shipped
from simulation import deploy, guardduty, kubernetes
from simulation.eventbridge import scheduled
from simulation.iam import enforcing
from simulation.load_balancing import put_into

ACCOUNT, REGION = "111122223333", "us-west-2"
FINDINGS = Path(__file__).parent / "findings"
ROLES = {name: f"guardduty-response-{name}" for name in shipped.deployed()}
# Lambda's own, which the simulation does not do as the role
BY_LAMBDA = {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"}
# GuardDuty's own at the first malware scan of an account, with the rights of the caller: not made
# by the simulation
BY_GUARDDUTY = {"iam:CreateServiceLinkedRole"}
# The mail does without the account's alias, and the log says so.
DECORATION = {"iam:ListAccountAliases"}
RULE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
SERVICES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
SERVICES["resourcegroupstaggingapi"] = "tag"


# People, and the managed policies of infra/operators.yml that they have
PEOPLE = {
    "deployer": ["deploy", "undeploy"],
    "responder": ["respond", "evidence", "nodes", "credentials"],
}
FREE = {"sts:GetCallerIdentity"}  # needs no permission


def called_by(cloud, caller):
    return {
        f"{SERVICES.get(call.service, call.service)}:{call.operation}"
        for call in cloud.call_log.by(caller)
    } - FREE


@pytest.fixture(scope="module")
def deployed(stacks, tmp_path_factory):
    """The pack as a person deploys it, and a change of it; and what that person called."""
    cloud = stacks.cloud
    deploy.stack(cloud, "operators.yml", ACCOUNT, REGION)
    iam = cloud.client("iam", ACCOUNT, REGION)
    for person, policies in PEOPLE.items():
        iam.create_role(RoleName=person, AssumeRolePolicyDocument="{}")
        for policy in policies:
            arn = f"arn:aws:iam::{ACCOUNT}:policy/guardduty-response-{policy}"
            iam.attach_role_policy(RoleName=person, PolicyArn=arn)
    folder = tmp_path_factory.mktemp("policies")
    for path in shipped.POLICIES:
        shutil.copy(path, folder)
    (data,) = yaml.safe_load((folder / "finding-notify.yml").read_text())["policies"]
    retired = folder / "retired.yml"
    retired.write_text(yaml.safe_dump({"policies": [data | {"name": "retired"}]}))
    deploy.deploy(cloud, [retired], ACCOUNT, REGION)  # by somebody
    retired.unlink()

    def run(*options):
        arguments = ["deploy", "--region", REGION, "--folder", folder, *options]
        done = deploy.deployment(cloud, arguments, ACCOUNT, REGION, "deployer")
        assert done.returncode == 0, done.stdout

    with enforcing(PEOPLE):
        run("--mode", "contain", "--prune")
        for memory in (768, 896, 1024):  # more versions than are kept
            data["mode"]["memory"] = memory
            (folder / "finding-notify.yml").write_text(yaml.safe_dump({"policies": [data]}))
            run("--mode", "ask", "-p", "finding-notify")
    return stacks, called_by(cloud, "deployer")


@pytest.fixture(scope="module")
def pack(deployed):
    return deployed[0]


@pytest.fixture(scope="module")
def credentials(pack):
    return pack  # which has those policies already


class Story:
    """What each function is for, with all around it that it may have to do with."""

    def __init__(self, scene, identities):
        self.scene, self.cloud, self.identities = scene, scene.cloud, identities
        clients = ("autoscaling", "elbv2", "elb", "iam")
        self.scaling, self.elbv2, self.elb, self.iam = (
            self.cloud.client(name, ACCOUNT, REGION) for name in clients
        )

    def marked_group(self):
        """A VPC whose forensic group, made before, has rules; an interface can be put there."""
        vpc, subnet = self.scene.vpc()
        group = self.scene.group("ForensicSecurityGroup", vpc)
        self.scene.ec2.create_tags(
            Resources=[group], Tags=[{"Key": "forensic:group", "Value": "true"}]
        )
        self.scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[RULE])
        return [self.scene.group("app", vpc)], subnet

    def member(self, name):
        """An instance in service, with a role and a tag that is somebody's forgery."""
        scene = self.scene
        self.scaling.create_launch_configuration(
            LaunchConfigurationName=name,
            ImageId="ami-12c6146b",
            InstanceType="t3.micro",
            SecurityGroups=scene.groups[:1],
        )
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName=name,
            MinSize=0,
            MaxSize=4,
            DesiredCapacity=2,
            VPCZoneIdentifier=scene.subnet_id,
        )
        groups = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])
        instance = groups["AutoScalingGroups"][0]["Instances"][0]["InstanceId"]
        target_group = self.elbv2.create_target_group(
            Name=name, Protocol="HTTP", Port=80, VpcId=scene.vpc_id
        )["TargetGroups"][0]["TargetGroupArn"]
        self.elbv2.register_targets(TargetGroupArn=target_group, Targets=[{"Id": instance}])
        self.elb.create_load_balancer(
            LoadBalancerName=name,
            Listeners=[{"Protocol": "http", "LoadBalancerPort": 80, "InstancePort": 80}],
            Subnets=[scene.subnet_id],
        )
        self.elb.register_instances_with_load_balancer(
            LoadBalancerName=name, Instances=[{"InstanceId": instance}]
        )
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        self.iam.create_instance_profile(InstanceProfileName=name)
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        scene.ec2.associate_iam_instance_profile(
            InstanceId=instance, IamInstanceProfile={"Name": name}
        )
        forged = [{"Key": "forensic:settings", "Value": "disableApiStop=False"}]
        scene.ec2.create_tags(Resources=[instance], Tags=forged)
        return instance

    def finding_notify(self):
        return [self.scene.finding(self.scene.instance())]

    def ec2_isolate(self):
        """One that leaves its Auto Scaling group, and one that has to be kept in it."""
        guardduty.turn_on(ACCOUNT, REGION)
        first, second = (self.member(self.name(n)) for n in range(2))
        self.scene.attach(first, *self.marked_group())
        put_into(second, "Warmed:Running", region=REGION, account_id=ACCOUNT)
        self.node(first)
        return [self.scene.finding(instance) for instance in (first, second)]

    def node(self, instance, *callers):
        """Make an instance a node of ECS and of EKS, where these roles have an access entry.

        Returns what shows both: the statuses in ECS, and whether the node is schedulable.
        """
        ecs, name = self.cloud.client("ecs", ACCOUNT, REGION), self.name("nodes")
        ecs.create_cluster(clusterName=name)
        document = json.dumps({"instanceId": instance})
        ecs.register_container_instance(cluster=name, instanceIdentityDocument=document)
        self.cloud.client("eks", ACCOUNT, REGION).create_cluster(
            name=name,
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/eks",
            resourcesVpcConfig={"subnetIds": [self.scene.subnet_id]},
        )
        tag = {"Key": f"kubernetes.io/cluster/{name}", "Value": "owned"}
        self.scene.ec2.create_tags(Resources=[instance], Tags=[tag])
        serving = kubernetes.serving(name, region=REGION, account_id=ACCOUNT)
        api = self.cloud.enter_context(serving)
        api.add_node("worker", instance)
        for caller in callers:
            api.entries[f"arn:aws:iam::{ACCOUNT}:role/{caller}"] = {"get", "list", "patch"}

        def state():
            arns = ecs.list_container_instances(cluster=name)["containerInstanceArns"]
            shown = ecs.describe_container_instances(cluster=name, containerInstances=arns)
            statuses = [c["status"] for c in shown["containerInstances"]]
            return statuses, api.is_schedulable("worker")

        return state

    def name(self, number):
        return f"web-{self.scene.vpc_id[-8:]}-{number}"

    def isolated(self):
        instance = self.scene.instance()
        self.scene.pack.isolate(self.scene.finding(instance, id=INCIDENT))
        return instance

    def isolation_guard(self):
        instance = self.isolated()
        attached = self.scene.attach(instance, *self.marked_group())
        vpc, subnet = self.scene.vpc()
        third = self.scene.attach(instance, [self.scene.group("app", vpc)], subnet)
        # a part of a record that nobody has written
        forged = f"forensic:original-groups:{third}:7"
        self.scene.ec2.create_tags(Resources=[third], Tags=[{"Key": forged, "Value": "sg-0"}])
        parameters = {"instanceId": instance, "networkInterfaceId": attached}
        # the second event names an interface
        items = {"items": [{"groupId": self.scene.groups[0]}]}
        acl = self.opened(instance)
        return [
            api_call("DeleteNetworkAclEntry", {"networkAclId": acl, "ruleNumber": 99}),
            api_call(
                "ModifyInstanceAttribute",
                {"instanceId": instance, "disableApiTermination": {"value": False}},
            ),
            api_call("AttachNetworkInterface", parameters),
            api_call(
                "ModifyNetworkInterfaceAttribute",
                {"networkInterfaceId": attached, "groupSet": items},
            ),
        ]

    def opened(self, instance):
        """Take off the protection of an isolated instance, and the denies; the id of the ACL."""
        ec2 = self.scene.ec2
        ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": False})
        subnet = [{"Name": "association.subnet-id", "Values": [self.scene.subnet_id]}]
        (acl,) = ec2.describe_network_acls(Filters=subnet)["NetworkAcls"]
        for entry in acl["Entries"]:
            if entry["RuleNumber"] < 100:
                key = {k: entry[k] for k in ("RuleNumber", "Egress")}
                ec2.delete_network_acl_entry(NetworkAclId=acl["NetworkAclId"], **key)
        return acl["NetworkAclId"]

    def response_guard(self):
        """A rule that is disabled and a reservation that is lowered; a throttle where there is no
        reservation."""
        isolate, notify = "custodian-ec2-isolate", "custodian-finding-notify"
        self.cloud.client("events", ACCOUNT, REGION).disable_rule(Name=isolate)
        for name in (isolate, notify):
            self.cloud.client("lambda", ACCOUNT, REGION).put_function_concurrency(
                FunctionName=name, ReservedConcurrentExecutions=0
            )
        throttled = {"functionName": notify, "reservedConcurrentExecutions": 0}
        return [
            api_call("DisableRule", {"name": isolate}, service="events"),
            api_call("PutFunctionConcurrency20171031", throttled, service="lambda"),
        ]

    def guardduty_guard(self):
        return [api_call("DeleteDetector", {"detectorId": "d"}, service="guardduty")]

    def forensic_group_guard(self):
        self.isolated()
        group = self.scene.forensic_group()
        for add in (
            self.scene.ec2.authorize_security_group_ingress,
            self.scene.ec2.authorize_security_group_egress,
        ):
            add(GroupId=group, IpPermissions=[RULE])
        return [api_call("AuthorizeSecurityGroupIngress", {"groupId": group})]

    def iam_role_revoke_sessions(self):
        return [self.identities.stolen(self.identities.role())]

    def iam_user_deactivate_access_key(self):
        user, (key, _) = self.identities.user()
        return [self.identities.misused(user, key)]

    def finding_digest(self):
        event = json.loads((FINDINGS / "ec2-port-probe.json").read_text())
        event["detail"]["updatedAt"] = event["time"]
        guardduty.keep(event)
        rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/custodian-finding-digest"
        return [scheduled(rule, event["time"])]

    # what a policy for findings does that has no story of its own (make new-policy)
    LIKE = {
        "ec2": "ec2_isolate",
        "iam-user": "iam_user_deactivate_access_key",
        "account": "iam_role_revoke_sessions",
    }

    def of(self, policy):
        """The events of a policy, which between them take all of its rights."""
        own = getattr(self, policy.replace("-", "_"), None)
        if own:
            return own()
        data = shipped.load()[policy].data
        assert data["mode"]["type"] == "guard-duty", (
            f"policy {policy}: add a method {policy.replace('-', '_')} to Story in "
            "tests/test_shipped_roles.py, which makes the events that take all of its rights"
        )
        events = getattr(self, self.LIKE[data["resource"]])()
        for event in events:
            event["detail"]["type"] = data["mode"]["pattern"]["detail"]["type"][0]
        return events

    def play(self, policy, without=()):
        """Run the function on each of its events, under its role; the invocations."""
        events = self.of(policy)
        self.scene.pack.messages()
        self.cloud.call_log.clear()
        with enforcing(ROLES.values(), without):
            return [
                self.cloud.invoke(f"custodian-{policy}", event, ACCOUNT, REGION) for event in events
            ]

    def called(self, policy):
        return called_by(self.cloud, f"custodian-{policy}") - {"sts:AssumeRole"}


@pytest.fixture
def story(scene, identities):
    return Story(scene, identities)


@pytest.mark.parametrize("policy", ROLES)
def test_under_its_role_a_function_does_all_of_its_work_and_may_do_no_more(story, policy):
    invocations = story.play(policy)

    assert [i.error for i in invocations] == [None] * len(invocations)
    assert story.scene.pack.messages()
    unused = shipped.allowed(shipped.roles()[policy]) - story.called(policy)
    unused -= BY_LAMBDA | BY_GUARDDUTY
    assert unused == {"sqs:SendMessage"}, (
        f"policy {policy}: take off its role in infra/account.yml what it does not call, or add to "
        f"Story here what does"
    )


def test_what_failed_is_kept_as_the_role_or_it_is_said_that_it_was_not(story):
    """By Lambda: what it may not keep it counts (DeadLetterErrors)."""
    kept = {}
    for without in ((), ("sqs:SendMessage",)):
        (event,) = story.finding_notify()
        with enforcing(ROLES.values(), {"sns:Publish", *without}):
            story.scene.pack.deliver(event)
        kept[without] = story.cloud.invocations[-1].dead_letter
        assert bool(story.scene.pack.dead_letters()) is (not without)
    assert kept[()].endswith(":guardduty-response-dlq")
    assert "AccessDenied" in kept["sqs:SendMessage",]


QUICK = {
    ("finding-notify", "sns:Publish"),
    ("isolation-guard", "ec2:ModifyNetworkInterfaceAttribute"),
    ("iam-role-revoke-sessions", "iam:PutRolePolicy"),
}


@pytest.mark.parametrize(
    "policy, action",
    [
        pytest.param(policy, action, marks=() if (policy, action) in QUICK else (pytest.mark.slow,))
        for policy, statements in shipped.roles().items()
        for action in sorted(
            shipped.allowed(statements) - BY_LAMBDA - BY_GUARDDUTY - {"sqs:SendMessage"}
        )
    ],
)
def test_without_one_of_its_actions_it_fails_and_says_so(story, policy, action):
    """Which is an error of the function: a retry, the dead-letter queue, an alarm; and a mail,
    unless it is the mail that fails."""
    invocations = story.play(policy, without={action})

    if action in DECORATION:
        assert all("the account's alias is not known" in i.log for i in invocations)
        return
    errors = [i.error["errorMessage"] for i in invocations if i.error]
    assert any(re.search("AccessDenied|UnauthorizedOperation", error) for error in errors), [
        i.log for i in invocations
    ]


def allowed_to_people(*names):
    return set().union(*(shipped.allowed(shipped.managed("operators.yml", n)) for n in names))


def test_a_person_deploys_with_the_rights_to_deploy(deployed):
    pack, called = deployed
    functions = pack.cloud.client("lambda", ACCOUNT, REGION).list_functions()["Functions"]
    memory = {f["FunctionName"].removeprefix("custodian-"): f["MemorySize"] for f in functions}
    assert set(memory) == set(ROLES) and memory["finding-notify"] == 1024
    # that a role is passed, tags are shown, and what is no longer there, is not seen in these calls
    gone = {"lambda:UntagResource", "lambda:DeleteFunctionConcurrency", "lambda:ListTags"}
    gone.add("lambda:RemovePermission")
    assert allowed_to_people("Deploy", "Undeploy") - called == {"iam:PassRole", *gone}


def test_a_person_releases_with_the_rights_to_respond(story, scene, pack, tmp_path):
    instance = scene.instance(scene.groups)
    node = story.node(instance, ROLES["ec2-isolate"], "responder")
    before = scene.interfaces(instance)
    for without in ({"ec2:ModifyNetworkInterfaceAttribute"}, set()):
        done = pack.isolate(scene.finding(instance))
        assert done.error is None and node() == (["DRAINING"], False)
        assert "k8s-aws-v1" not in done.log
        with enforcing(PEOPLE, without):
            release = (scene.cloud, tmp_path, instance, ACCOUNT, REGION)
            if without:
                with pytest.raises(RuntimeError, match="AccessDenied|UnauthorizedOperation"):
                    deploy.release(*release, role="responder")
            else:
                deploy.release(*release, role="responder")

    assert scene.interfaces(instance) == before and node() == (["ACTIVE"], True)
    assert any(m["policy"]["name"] == "ec2-release" for m in pack.messages())


def test_the_rights_to_respond_are_what_response_and_release_declare():
    declared = set().union(
        *(actions for name in shipped.by_hand() for actions in shipped.why(name).values())
    ) - set().union(*shipped.LAMBDA.values())
    declared |= set().union(*shipped.BESIDES.values())
    assert allowed_to_people("Respond", "Evidence", "Nodes", "Credentials") == declared - FREE


def test_iam_takes_the_policies_of_people():
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
    for name, policy in shipped.resources("operators.yml").items():
        document = policy["Properties"]["PolicyDocument"]
        assert len(json.dumps(document, separators=(",", ":"))) < 6144 - 400, (
            f"{name} of infra/operators.yml is as long as IAM takes: move some of its statements "
            "into another managed policy"
        )
