"""The pack, deployed to the simulated cloud as a user deploys it, and instances to respond to."""

import gc
import itertools
import json
import re
import uuid
from pathlib import Path

import pytest
from cloudtrail import INCIDENT
from pack import ACCOUNT, OPT_IN, REGION, Pack

from simulation import deploy
from simulation.cloud import Cloud

# The processes of a deploy import what runs this one, which is pytest's command without xdist.
deploy.FORKSERVER.set_forkserver_preload(["simulation.preloaded", "pytest"])

# Modules, tests and moto's data stay until the end: the search for garbage among them was a twelfth
# of the CPU time.
gc.disable()

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "tests" / "findings"


# The files that take longest, as measured: begin with them, the longest first, so that no process
# ends long after the others.
SLOW = (
    *("test_every_revert", "test_organization", "test_connections", "test_forged_messages"),
    *("test_guard", "test_make", "test_sealed_record", "test_every_step", "test_judgement"),
    *("test_isolation", "test_demo", "test_responding", "test_release", "test_templates"),
    *("test_reading", "test_review", "test_shipped_roles", "test_instance_sessions"),
    *("test_denies", "test_replaying", "test_findings", "test_revoke_sessions", "test_archive"),
    *("test_status", "test_response_guard"),
)


# What repeats another test in a further case, or what tests/conformance tries of every step:
# played by `make hammer`.
REPEATS = re.compile(
    r"test_no_missing_or_misshapen_field_stops_a_mail\[(?!None)"
    r"|test_recording_again_gives_the_same_files\[(?!isolate\])"
    r"|\[five of one address\]"
    r"|test_what_was_lost_once_is_not_lost_again"
    r"|test_every_record_is_taken_where_the_metadata_service_shows_the_tags\[(?!isolate)"
    r"|test_service.py::test_(?!out_of_the_group|an_instance_of_a_warm|everything_is|a_suspension)"
    r"|test_evidence.py::test_(?!everything_is|one_volume|many_volumes|the_record_of_a_run)"
    r"|test_dying_after_any_call_is_completed.*\[(preserve-evidence|leave-service|cordon-node|write-case)"
    r"|test_a_refused_revert_is_named.*\[restore-settings"
    r"|test_nothing_misshapen_at_any_depth_stops_a_mail.*\[(?!None)"
    r"|never_a_target_is_refused\[(172|192|0\.1|169.*253|240|255|::\]|fe80::1\]|fd00.*253|::/0|5\])"
    r"|test_without_credentials_it_is_a_line\[make (?!isolate)"
    r"|\[(EnteringStandby|Pending:Wait|Warmed:Pending:Wait)\]"
    r"|test_what_is_malformed_on_the_(acl_stops_no_release\[(?!\*)|instance_stops_no_release)"
    r"|test_throttling_and_server_errors_are_ridden_out\[Unavailable"
    r"|test_five_calls_up_to_the_swap.*\[2\]"
    r"|test_a_new_finding_in_the_middle_of_a_release_leaves_its_seal\[False"
    r"|test_function.py::test_(deploying_again|a_server_that_is_down)"
    r"|test_a_full_group_gives_the_place_of_a_terminated_instance"
    r"|test_deploy.py::test_(from_a_policy_file|an_archive_that_was_kept)"
    r"|tests/simulation/test_(stack_sets|change_sets|world|s3)"
    r"|tests/simulation/test_lambda.py.*\[from nothing"
    r"|test_held_while_another_response_isolates_the_very"
    r"|test_an_isolation_that_was_released_still_counts"
    r"|test_a_claim_that_cannot_be_taken_back"
    r"|test_the_functions_log_hides_the_password"
    r"|test_without_one_of_its_actions_it_fails_and_says_so"
    r"|test_matrix.py.*\[(?!swap|release)"
    r"|test_no_misshapen_\w+\[(?!None)"
    r"|test_what_is_missing_or_wrong_is_said\[arguments(11|12)-"
    # tests/hostile/test_matrix.py has the same of the whole flow
    r"|test_dying_after_any_call_is_completed.*\[isolate-instance"
    r"|test_a_revert_that_dies_after_any_call.*\[(?!restore-role-sessions)"
    r"|test_every_template_with_every_field_forged\[(?!code)"
    r"|test_review.py::test_(a_pattern_narrowed|a_step_before_the_swap|an_action_whose_permission)"
    r"|test_a_refused_revert_is_named.*\[(return-to-service|unblock-remote-address)"
    # of 25 in one sequence the brake lets five pass as well
    r"|test_thirty_findings_within_a_minute"
    # tests/deployment/test_by_hand.py and test_organization.py run the commands without make
    r"|test_make.py::test_(release_releases|deploy_deploys)"
    r"|test_what_left_the_folder_goes_with_prune|test_what_somebody_changed_is_found_and_a_deploy"
    r"|test_central_mode.py::test_what_a_deploy_says_and_what_it_keeps"
    r"|test_whatever_credentials_lie_about_nothing_goes_to_aws"
    r"|test_a_function_that_fails_still_shows_its_steps"
    r"|test_a_policy_is_named_wherever_a_function_is"
    r"|test_make.py::test_(dryrun_changes|isolate_isolates)"
    r"|test_make.py::test_(one_policy_alone|what_people_look_at)"
    r"|test_what_is_old_or_still_fails_is_kept"
    r"|test_a_compiled_module_is_the_same.*\[(?!pass)"
    r"|test_60_messages_with_a_server_that_fails_at_random_for_the_first_half"
    r"|test_what_auth_plain_sent_is_not_in_the_log\[(?!-guardduty-response\]|before1-.*xy)"
    r"|test_a_failing_step_is_named_and_the_retry_completes_it\[(?!ModifyNetworkInterface)"
    r"|test_a_refused_revert_is_named.*\[unblock-remote-address"
    r"|test_a_record_changed_after_the_isolation.*\[more groups"
    r"|test_a_rule_of_the_forensic_group_is_revoked\[(IpRanges-Egress|Ipv6Ranges-Ingress)"
    r"|test_a_record_that_names_another_policy_is_left_alone.*\[(/|\{role\}/own)\]"
    r"|test_an_answer_without_a_field_loses_no_deny_and_no_record\[9-(?!Entries|Tags)"
)


def pytest_collection_modifyitems(items):
    for item in items:
        if REPEATS.search(item.nodeid):
            item.add_marker("slow")
        # that moto alone still differs from AWS, and that each correction works without the others,
        # is of interest when moto or a correction is changed
        if item.nodeid.startswith("tests/simulation/") and (
            "plain-moto" in item.nodeid or "alone" in item.nodeid
        ):
            item.add_marker("slow")
    order = {stem: number for number, stem in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(SLOW)))


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module")
def quick_cloud():
    """Cold starts are forked and nobody waits: for both as they are see tests/simulation."""
    with Cloud(warm=True, wound=True) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def cloud(quick_cloud):
    return quick_cloud


@pytest.fixture(scope="module")
def stacks(cloud):
    """The stacks alone, for policies that a person runs; let `pack` be it where no other is."""
    mailer = deploy.mailer_stack(cloud, ACCOUNT, REGION)
    deploy.account_stack(cloud, ACCOUNT, REGION, mailer["MailQueueArn"], **OPT_IN)
    return Pack(cloud, mailer["MailQueueUrl"])


@pytest.fixture(scope="module")
def pack(stacks):
    """The stacks and the policies for findings about instances, deployed by `custodian run`."""
    policies = ["policies/finding-notify.yml", "policies/ec2-isolate.yml"]
    deploy.deploy(stacks.cloud, policies, ACCOUNT, REGION)
    return stacks


@pytest.fixture
def by_hand(cloud, tmp_path):
    """Run a policy of a person's as make does: `by_hand(policy, **variables)`.

    Returns (succeeded, output).
    """

    def run(policy, **said):
        try:
            done = deploy.by_hand(cloud, tmp_path, policy, ACCOUNT, REGION, **said)
        except RuntimeError as error:
            return False, str(error)
        return True, done.stdout

    return run


@pytest.fixture
def scene(pack):
    pack.restore()
    yield Scene(pack)
    pack.restore()


class Scene:
    """A VPC of its own, with groups, and instances in it."""

    numbers = itertools.count(1)

    def __init__(self, pack):
        self.pack, self.cloud = pack, pack.cloud
        self.ec2 = pack.cloud.client("ec2", ACCOUNT, REGION)
        self.vpc_id, self.subnet_id = self.vpc()
        self.groups = [self.group(f"app-{n}") for n in range(3)]

    def vpc(self):
        number = next(self.numbers)
        vpc = self.ec2.create_vpc(CidrBlock=f"10.{number % 250}.0.0/16")["Vpc"]["VpcId"]
        cidr = f"10.{number % 250}.0.0/24"
        return vpc, self.ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"]

    def group(self, name, vpc_id=None):
        return self.ec2.create_security_group(
            GroupName=name, Description=name, VpcId=vpc_id or self.vpc_id
        )["GroupId"]

    def instance(self, *interfaces, tags=None):
        """Launch an instance; each argument is the list of group ids of one interface."""
        interfaces = interfaces or ([self.groups[0]],)
        launched = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            SubnetId=self.subnet_id,
            SecurityGroupIds=interfaces[0],
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": k, "Value": v} for k, v in (tags or {}).items()],
                }
            ]
            if tags
            else [],
        )["Instances"][0]["InstanceId"]
        for groups in interfaces[1:]:
            self.attach(launched, groups)
        return launched

    def attach(self, instance_id, groups, subnet_id=None):
        """Attach one more interface, made here; returns its id."""
        interface = self.ec2.create_network_interface(
            SubnetId=subnet_id or self.subnet_id, Groups=groups
        )["NetworkInterface"]["NetworkInterfaceId"]
        self.ec2.attach_network_interface(
            NetworkInterfaceId=interface,
            InstanceId=instance_id,
            DeviceIndex=len(self.interfaces(instance_id)),
        )
        return interface

    def interfaces(self, instance_id):
        """The groups of each attached interface, as EC2 shows them: {interface id: group ids}."""
        shown = self.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}]
        )["NetworkInterfaces"]
        shown.sort(key=lambda i: i["Attachment"]["DeviceIndex"])
        return {i["NetworkInterfaceId"]: [g["GroupId"] for g in i["Groups"]] for i in shown}

    def forensic_group(self, vpc_id=None):
        """The forensic group of the VPC, asserted to be empty; None when there is none."""
        groups = self.ec2.describe_security_groups(
            Filters=[
                {"Name": "group-name", "Values": ["ForensicSecurityGroup"]},
                {"Name": "vpc-id", "Values": [vpc_id or self.vpc_id]},
            ]
        )["SecurityGroups"]
        for group in groups:
            assert group["IpPermissions"] == group["IpPermissionsEgress"] == []
        return groups[0]["GroupId"] if groups else None

    def is_isolated(self, instance_id):
        forensic = self.forensic_group()
        return all(groups == [forensic] for groups in self.interfaces(instance_id).values())

    def tags(self, resource_id):
        return {
            t["Key"]: t["Value"]
            for t in self.ec2.describe_tags(
                Filters=[{"Name": "resource-id", "Values": [resource_id]}]
            )["Tags"]
        }

    def finding(self, instance_id, name="ec2-malicious-ip-caller", **detail):
        """A finding of this scene's instance, with an id of its own; `detail` replaces fields."""
        event = json.loads((FINDINGS / f"{name}.json").read_text())
        event["detail"] |= {"id": uuid.uuid4().hex, **detail}
        event["detail"]["resource"]["instanceDetails"]["instanceId"] = instance_id
        return event


@pytest.fixture
def release(scene, tmp_path):
    """Run the policy as `make release` does; returns (succeeded, output)."""

    def run(instance, **said):
        try:
            done = deploy.release(scene.cloud, tmp_path, instance, ACCOUNT, REGION, **said)
        except RuntimeError as error:
            return False, str(error)
        return True, done.stdout

    return run


@pytest.fixture(scope="module")
def credentials(pack):
    """The policies for stolen credentials, deployed beside the pack; the opt-in one too."""
    policies = [
        "policies/iam-role-revoke-sessions.yml",
        "policies/opt-in/iam-user-deactivate-access-key.yml",
    ]
    deploy.deploy(pack.cloud, policies, ACCOUNT, REGION)
    return pack


@pytest.fixture
def identities(credentials):
    credentials.restore()
    credentials.dead_letters()
    yield Identities(credentials)
    credentials.restore()


class Identities:
    """Roles and users, and findings about their credentials."""

    numbers = itertools.count(1)
    OWN = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
    }

    def __init__(self, pack):
        self.pack, self.cloud = pack, pack.cloud
        self.iam = pack.cloud.client("iam", ACCOUNT, REGION)

    def role(self, path="/"):
        """A role with an inline policy that a person gave it; returns it as IAM shows it."""
        role = self.iam.create_role(
            RoleName=f"web_{next(self.numbers)}+=,.@-", Path=path, AssumeRolePolicyDocument="{}"
        )["Role"]
        self.put(role, "own", self.OWN)
        return role

    def put(self, role, name, document):
        self.iam.put_role_policy(
            RoleName=role["RoleName"], PolicyName=name, PolicyDocument=json.dumps(document)
        )

    def policies(self, role):
        """The inline policies of a role, but for the person's own: {name: document}."""
        key = {"RoleName": role["RoleName"]}
        names = self.iam.list_role_policies(**key)["PolicyNames"]
        found = {
            name: self.iam.get_role_policy(**key, PolicyName=name)["PolicyDocument"]
            for name in names
        }
        assert found.pop("own") == self.OWN
        return found

    def tags(self, role):
        shown = self.iam.list_role_tags(RoleName=role["RoleName"])["Tags"]
        return {tag["Key"]: tag["Value"] for tag in shown}

    def user(self):
        """A user with two active keys; returns it as IAM shows it, and the ids of the keys."""
        user = self.iam.create_user(UserName=f"build_{next(self.numbers)}")["User"]
        name = {"UserName": user["UserName"]}
        keys = [self.iam.create_access_key(**name)["AccessKey"]["AccessKeyId"] for _ in range(2)]
        return user, keys

    def keys(self, user):
        """The status of each key of a user."""
        shown = self.iam.list_access_keys(UserName=user["UserName"])["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in shown}

    def user_tags(self, user):
        shown = self.iam.list_user_tags(UserName=user["UserName"])["Tags"]
        return {tag["Key"]: tag["Value"] for tag in shown}

    def finding(self, name="iam-role-credential-exfiltration", **details):
        """A finding with an id of its own; `details` replace fields of accessKeyDetails."""
        event = json.loads((FINDINGS / f"{name}.json").read_text())
        event["detail"]["id"] = uuid.uuid4().hex
        event["detail"]["resource"]["accessKeyDetails"] |= details
        return event

    def stolen(self, role, session="i-0abc1234def567890", **options):
        """The finding that credentials of a session of this role are used elsewhere."""
        return self.finding(
            userName=role["RoleName"], principalId=f"{role['RoleId']}:{session}", **options
        )

    def misused(self, user, key, **options):
        """The finding that this key of this user is used from an address on a threat list."""
        return self.finding(
            "iam-user-malicious-ip-caller",
            userName=user["UserName"],
            principalId=user["UserId"],
            accessKeyId=key,
            **options,
        )


@pytest.fixture(scope="module")
def guarded(pack):
    policies = ["policies/isolation-guard.yml", "policies/forensic-group-guard.yml"]
    deploy.deploy(pack.cloud, policies, ACCOUNT, REGION)
    return pack


@pytest.fixture
def isolated(guarded, scene):
    instance = scene.instance(scene.groups)
    guarded.isolate(scene.finding(instance, id=INCIDENT))
    guarded.messages()
    scene.cloud.invocations.clear()
    return instance
