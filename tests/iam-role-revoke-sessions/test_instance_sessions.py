"""revoke-role-sessions and restore-role-sessions on ec2: the sessions of an isolated instance."""

import json

import pytest

from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-sessions-of-instance"
RECORD = "forensic:role-policy"
MODE = {
    "type": "guard-duty",
    "role": "guardduty-response-ec2-isolate",
    "packages": ["custom_actions"],
    "handler": "custom_actions.handler.run",
    "runtime": "python3.13",
    "memory": 1769,
    "timeout": 300,
}


@pytest.fixture(scope="module")
def step(credentials, tmp_path_factory):
    """The step alone, deployed; returns a function that runs it once and gives its outcome."""
    path = tmp_path_factory.mktemp("policy") / "sessions.yml"
    actions = ["revoke-role-sessions", "fail-unless-complete"]
    policies = [
        {"name": "sessions-of-instance", "mode": MODE},
        {"name": "observe-instance", "mode": {**MODE, "execution-options": {"dryrun": True}}},
    ]
    policies = [{**p, "resource": "ec2", "actions": actions} for p in policies]
    path.write_text(json.dumps({"policies": policies}))
    deploy.deploy(credentials.cloud, [path], ACCOUNT, REGION)

    def run(event, function=FUNCTION):
        return credentials.cloud.invoke(function, event, ACCOUNT, REGION)

    return run


@pytest.fixture
def restore(scene, tmp_path):
    """Run the revert as a person does; returns (succeeded, output)."""

    def run(instance):
        path = tmp_path / "restore.yml"
        actions = ["restore-role-sessions", "fail-unless-complete"]
        policy = {"name": "sessions-back", "resource": "ec2", "actions": actions}
        policy |= {"query": [{"instance-id": instance}]}
        path.write_text(json.dumps({"policies": [policy]}))
        arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", tmp_path / "output"]
        try:
            return True, deploy.custodian(scene.cloud, [*arguments, path], ACCOUNT, REGION).stdout
        except RuntimeError as error:
            return False, str(error)

    return run


@pytest.fixture
def world(scene, identities):
    return World(scene, identities)


class World:
    """Instances with a role."""

    def __init__(self, scene, identities):
        self.scene, self.identities, self.iam = scene, identities, identities.iam

    def profile(self, role=None):
        name = f"profile-{next(self.identities.numbers)}"
        self.iam.create_instance_profile(InstanceProfileName=name)
        if role:
            self.give(name, role)
        return name

    def give(self, profile, role):
        self.iam.add_role_to_instance_profile(
            InstanceProfileName=profile, RoleName=role["RoleName"]
        )

    def instance(self, profile=None):
        instance = self.scene.instance()
        if profile:
            self.scene.ec2.associate_iam_instance_profile(
                InstanceId=instance, IamInstanceProfile={"Name": profile}
            )
        return instance


def outcome(invocation):
    assert invocation.error is None, invocation.error
    (policy,) = invocation.result.values()
    return policy[0]


def userids(policies):
    """The aws:userid that each of these policies denies: {policy name: userid}."""
    return {
        name: document["Statement"][0]["Condition"]["StringEquals"]["aws:userid"]
        for name, document in policies.items()
    }


def test_the_sessions_of_the_instance_are_denied_and_recorded(world, identities, scene, step):
    role = identities.role()
    instance = world.instance(world.profile(role))

    report = outcome(step(scene.finding(instance)))

    name = f"forensic-deny-sessions-{instance}"
    assert userids(identities.policies(role)) == {name: f"{role['RoleId']}:{instance}"}
    assert scene.tags(instance) == {RECORD: f"{role['RoleName']}/{name}"}
    assert report["status"] == "done" and report["revoked"]
    assert report["role"] == role["RoleName"] and instance in report["detail"]
    assert len(report["detail"]) <= 300  # what the mail shows of it


def test_the_longest_name_of_a_role_still_fits_into_the_mail(world, identities, scene, step):
    name = "r" * 64
    identities.iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    instance = world.instance(world.profile({"RoleName": name}))

    assert len(outcome(step(scene.finding(instance)))["detail"]) <= 300


def test_again_nothing_is_changed(world, identities, scene, step):
    role = identities.role()
    instance = world.instance(world.profile(role))
    step(scene.finding(instance))
    scene.cloud.call_log.clear()

    again = outcome(step(scene.finding(instance)))

    assert again["status"] == "unchanged" and again["revoked"]
    changed = [
        c.operation
        for c in scene.cloud.call_log.by(FUNCTION)
        if not c.operation.startswith(("Describe", "Get", "Assume"))
    ]
    assert changed == []


@pytest.mark.parametrize("with_profile", [False, True])
def test_an_instance_without_a_role(world, scene, step, with_profile):
    instance = world.instance(world.profile() if with_profile else None)

    report = outcome(step(scene.finding(instance)))

    assert report["status"] == "unchanged" and "role" in report["detail"]
    assert scene.tags(instance) == {}


def test_a_terminated_instance_whose_role_is_not_known_any_more(world, identities, scene, step):
    role = identities.role()
    instance = world.instance(world.profile(role))
    scene.ec2.terminate_instances(InstanceIds=[instance])

    report = outcome(step(scene.finding(instance)))

    assert report["status"] == "skipped" and "revoke by hand" in report["detail"]
    assert identities.policies(role) == {}


def test_a_profile_that_was_made_again_is_not_trusted(world, identities, scene, step):
    old, new = identities.role(), identities.role()
    profile = world.profile(old)
    instance = world.instance(profile)
    world.iam.remove_role_from_instance_profile(
        InstanceProfileName=profile, RoleName=old["RoleName"]
    )
    world.iam.delete_instance_profile(InstanceProfileName=profile)
    world.iam.create_instance_profile(InstanceProfileName=profile)
    world.give(profile, new)

    invocation = step(scene.finding(instance))

    assert "was made again" in invocation.error["errorMessage"]
    assert identities.policies(old) == identities.policies(new) == {}


def test_a_record_that_fails_does_not_stop_the_deny(world, identities, scene, step):
    role = identities.role()
    instance = world.instance(world.profile(role))
    scene.cloud.fail("CreateTags", "UnauthorizedOperation", status=403)

    invocation = step(scene.finding(instance))
    entry = f"{role['RoleName']}/forensic-deny-sessions-{instance}"

    assert userids(identities.policies(role))
    assert "could not be recorded" in invocation.error["errorMessage"]
    assert entry in invocation.error["errorMessage"] and entry in invocation.log
    assert outcome(step(scene.finding(instance)))["status"] == "unchanged"
    assert scene.tags(instance) == {RECORD: entry}


def test_observing_changes_nothing(world, identities, scene, step):
    role = identities.role()
    instance = world.instance(world.profile(role))

    report = outcome(step(scene.finding(instance), "custodian-observe-instance"))

    assert report["status"] == "planned" and not report["revoked"]
    assert identities.policies(role) == {} and scene.tags(instance) == {}


# The way back


def test_restoring_one_instance_leaves_the_other_and_what_people_did(
    world, identities, scene, step, restore
):
    role = identities.role()
    profile = world.profile(role)
    first, second = world.instance(profile), world.instance(profile)
    for instance in (first, second):
        step(scene.finding(instance))
    assert len(identities.policies(role)) == 2

    succeeded, output = restore(first)

    assert succeeded and "status:done" in output
    name = f"forensic-deny-sessions-{second}"
    assert userids(identities.policies(role)) == {name: f"{role['RoleId']}:{second}"}
    assert f"Other denies stay: {role['RoleName']}/{name}" in output
    assert scene.tags(first) == {} and scene.tags(second)


def test_an_instance_that_changed_its_role_between_two_findings(
    world, identities, scene, step, restore
):
    old, new = identities.role(), identities.role()
    profile = world.profile(old)
    instance = world.instance(profile)
    step(scene.finding(instance))
    world.iam.remove_role_from_instance_profile(
        InstanceProfileName=profile, RoleName=old["RoleName"]
    )
    world.give(profile, new)

    step(scene.finding(instance))

    assert len(identities.policies(old)) == len(identities.policies(new)) == 1
    assert restore(instance)[0]
    assert identities.policies(old) == identities.policies(new) == {}
    assert scene.tags(instance) == {}


def test_nothing_to_restore(scene, restore):
    succeeded, output = restore(scene.instance())

    assert succeeded and "status:unchanged" in output and "Nothing to revert" in output


def test_restoring_twice(world, identities, scene, step, restore):
    instance = world.instance(world.profile(identities.role()))
    step(scene.finding(instance))

    assert "status:done" in restore(instance)[1]
    assert "status:unchanged" in restore(instance)[1]


def test_the_deny_of_a_credential_finding_stays_and_is_named(
    world, identities, scene, step, restore
):
    role = identities.role()
    instance = world.instance(world.profile(role))
    step(scene.finding(instance))
    event = identities.stolen(role, instance)
    identities.cloud.invoke("custodian-iam-role-revoke-sessions", event, ACCOUNT, REGION)

    output = restore(instance)[1]

    name = f"forensic-deny-sessions-{event['detail']['id']}"
    assert userids(identities.policies(role)) == {name: f"{role['RoleId']}:{instance}"}
    assert name in output


@pytest.mark.parametrize("entry", ["{role}/own", "{role}/forensic-deny-sessions-i-0", "own", "/"])
def test_a_record_that_names_another_policy_is_left_alone_and_named(
    world, identities, scene, step, restore, entry
):
    role = identities.role()
    instance = world.instance(world.profile(role))
    step(scene.finding(instance))
    entry = entry.format(role=role["RoleName"])
    value = f"{scene.tags(instance)[RECORD]} {entry}"
    scene.ec2.create_tags(Resources=[instance], Tags=[{"Key": RECORD, "Value": value}])

    succeeded, output = restore(instance)

    assert not succeeded and f"{entry}: is not a policy that this pack made" in output
    assert identities.policies(role) == {}  # asserts that the person's own is there
    assert scene.tags(instance) == {}
    assert "Nothing to revert" in restore(instance)[1]


def test_the_restore_does_not_go_by_a_search_of_tags(world, identities, scene, step, restore):
    role = identities.role()
    instance = world.instance(world.profile(role))
    step(scene.finding(instance))
    scene.cloud.fail("DescribeTags", "InvalidParameterValue", times=None)

    assert "status:done" in restore(instance)[1]

    assert identities.policies(role) == {}


def test_a_policy_or_a_role_that_is_gone_already(world, identities, scene, step, restore):
    role = identities.role()
    profile = world.profile(role)
    first, second = world.instance(profile), world.instance(profile)
    for instance in (first, second):
        step(scene.finding(instance))
    key = {"RoleName": role["RoleName"]}
    for name in (f"forensic-deny-sessions-{first}", f"forensic-deny-sessions-{second}", "own"):
        world.iam.delete_role_policy(**key, PolicyName=name)
    assert restore(first)[0]
    world.iam.remove_role_from_instance_profile(InstanceProfileName=profile, **key)
    world.iam.delete_role(**key)

    assert restore(second)[0]
    assert scene.tags(first) == scene.tags(second) == {}


def test_a_restore_that_fails_keeps_its_record_and_can_be_run_again(
    world, identities, scene, step, restore
):
    role = identities.role()
    instance = world.instance(world.profile(role))
    step(scene.finding(instance))
    scene.cloud.fail("DeleteRolePolicy", "AccessDenied", status=403)

    succeeded, output = restore(instance)

    assert not succeeded and "AccessDenied" in output
    assert RECORD in scene.tags(instance)
    assert restore(instance)[0]
    assert identities.policies(role) == {}
