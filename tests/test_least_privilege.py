"""What the code calls, what the actions declare and what the roles allow are the same.

By the names of calls; see test_shipped_roles.py for the roles at work, and test_iam_language.py for
resources and conditions.
"""

import itertools

import pytest
import yaml
from c7n.manager import resources as registry
from click.testing import CliRunner

from custom_actions import transition_group
from infra import permissions
from simulation import deploy

ROOT = permissions.ROOT
ACCOUNT, REGION = "111122223333", "us-west-2"
# Lambda and Custodian themselves, not an action
BY_LAMBDA = {"sts:AssumeRole", "sqs:SendMessage"}
BY_CUSTODIAN = {"ec2:DescribeInstances"}


def declared(policy):
    """What a policy needs, and who runs it."""
    return set().union(*permissions.why(policy).values())


def listed(permissions):
    return ", ".join(sorted(permissions))


def called(cloud, function):
    services = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
    return {
        f"{services.get(call.service, call.service)}:{call.operation}"
        for call in cloud.call_log.by(function)
    }


@pytest.mark.parametrize("policy", permissions.deployed())
def test_a_role_allows_what_its_policy_declares_and_no_more(policy):
    allowed, needed = permissions.allowed(permissions.role(policy)), declared(policy)
    role = f"role guardduty-response-{policy} in infra/account.yml"
    assert not needed - allowed, (
        f"policy {policy} declares {listed(needed - allowed)}: add that to {role}, or its function "
        "is refused"
    )
    assert not allowed - needed, (
        f"policy {policy} declares no {listed(allowed - needed)}: take that out of {role}, or "
        "declare it in `permissions` of the step that calls it"
    )


def test_what_is_chosen_allows_what_cutting_connections_takes_and_the_way_back():
    """The groups before are put back where the forensic group is refused: they can be any."""
    stack = permissions.resources("account.yml")
    allowed = permissions.statements(stack["TransitionGroup"]["Properties"]["PolicyDocument"])
    back = {"ec2:ModifyNetworkInterfaceAttribute"}
    needed = back | set(transition_group.PERMISSIONS)
    assert permissions.allowed(allowed) == needed, (
        f"have TransitionGroup of infra/account.yml allow {listed(needed)}, and nothing else"
    )


def test_the_page_about_permissions_is_not_stale_and_is_written_when_it_is_whole(
    tmp_path, monkeypatch
):
    run, page = CliRunner().invoke, permissions.PAGE.read_text()
    fresh = run(permissions.main, ["--check"])
    assert (fresh.exit_code, fresh.output) == (0, "")

    monkeypatch.setattr(permissions, "PAGE", tmp_path / "permissions.md")
    stale = run(permissions.main, ["--check"])
    assert (stale.exit_code, stale.output) == (
        1,
        "docs/permissions.md is stale: make permissions\n",
    )
    assert run(permissions.main).exit_code == 0 and permissions.PAGE.read_text() == page

    monkeypatch.delitem(permissions.roles(), "guardduty-guard")
    lacking = run(permissions.main)
    assert lacking.exit_code == 2 and permissions.PAGE.read_text() == page
    assert lacking.output.startswith(
        "policy guardduty-guard: no role guardduty-response-guardduty-guard in infra/account.yml."
    )


@pytest.mark.parametrize("policy", ["ec2-isolate", "finding-notify"])
def test_a_policy_calls_nothing_that_it_does_not_declare(scene, pack, policy):
    pack.deliver(scene.finding(scene.instance(scene.groups, scene.groups[:1])))

    more = called(scene.cloud, f"custodian-{policy}") - BY_LAMBDA - declared(policy)
    assert not more, (
        f"policy {policy} calls {listed(more)} and declares none: add that to `permissions` of the "
        "step that does, and to the role"
    )


STEPS = {
    "notify-once": [
        "isolate-instance",
        {
            "type": "notify-once",
            "template": "remediation.html",
            "to": ["account-emails"],
            "transport": {"type": "sns", "topic": "guardduty-response"},
        },
    ],
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_declares_exactly_what_it_calls(scene, pack, tmp_path, step):
    """A group that has to be made, one with rules in both directions, and tags of a record that
    is nobody's need every call."""
    (data,) = yaml.safe_load((ROOT / "policies/ec2-isolate.yml").read_text())["policies"]
    data |= {"name": f"only-{step}", "actions": STEPS[step]}
    (tmp_path / "policy.yml").write_text(yaml.safe_dump({"policies": [data]}))
    deploy.deploy(scene.cloud, [tmp_path / "policy.yml"], ACCOUNT, REGION)
    events = [scene.finding(scene.instance())]
    other, subnet = scene.vpc()
    group = scene.group("ForensicSecurityGroup", other)
    rule = {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 22,
        "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    }
    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    elsewhere = scene.instance()
    scene.attach(elsewhere, [scene.group("app", other)], subnet)
    events.append(scene.finding(elsewhere))
    events.append(scene.finding(scene.instance(tags={"forensic:settings": "disableApiStop=False"})))
    scene.cloud.call_log.clear()

    for event in events:
        invocation = scene.cloud.invoke(f"custodian-only-{step}", event, ACCOUNT, REGION)
        assert invocation.error is None

    actions = [a if isinstance(a, str) else a["type"] for a in STEPS[step]]
    permissions = set(
        itertools.chain(
            *(registry.get("ec2").action_registry[action].permissions for action in actions)
        )
    ) | {"elasticloadbalancing:DescribeTargetGroups"}  # for the last healthy one: there is none
    made = called(scene.cloud, f"custodian-only-{step}") - BY_LAMBDA
    differ = (made - BY_CUSTODIAN) ^ (permissions - BY_CUSTODIAN)
    assert not differ, (
        f"{step}: it calls {listed(differ & made) or 'nothing'} undeclared, and declares "
        f"{listed(differ - made) or 'nothing'} that it does not call: put its `permissions` right"
    )
