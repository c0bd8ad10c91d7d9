"""What the code calls, what the actions declare and what the role allows are the same.

The simulation does not enforce IAM, so this compares names of calls; conditions and resources of
the role's statements are not checked.
"""

import itertools
from pathlib import Path

import pytest
import yaml
from c7n.manager import resources as registry
from c7n.resources import load_resources

import custom_actions  # noqa: F401
from simulation import deploy

ROOT = Path(__file__).parent.parent
ACCOUNT, REGION = "111122223333", "us-west-2"
# Lambda and Custodian themselves, not an action
BY_LAMBDA = {"sts:AssumeRole", "sqs:SendMessage"}
BY_CUSTODIAN = {"ec2:DescribeInstances"}
RESOLVING = {
    "ec2": BY_CUSTODIAN,
    "account": {"iam:ListAccountAliases"},
    "security-group": {"ec2:DescribeSecurityGroups"},
}


class Loader(yaml.SafeLoader):
    """CloudFormation's short forms (!Sub, !Ref) as the plain value."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value)


def role_actions():
    """What the roles of the template allow: {name of the role: actions}."""
    template = yaml.load((ROOT / "infra/account.yml").read_text(), Loader)
    roles = [
        r["Properties"] for r in template["Resources"].values() if r["Type"].endswith("::Role")
    ]
    return {
        role["RoleName"]: {
            action
            for policy in role["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            for action in (
                [statement["Action"]]
                if isinstance(statement["Action"], str)
                else statement["Action"]
            )
            if not action.startswith("logs:")
        }
        for role in roles
    }


def declared(policy):
    """The permissions of a policy's actions, and of resolving its resource."""
    load_resources((f"aws.{policy['resource']}",))
    found = set(RESOLVING[policy["resource"]])
    for action in policy["actions"]:
        name = action if isinstance(action, str) else action["type"]
        cls = registry.get(policy["resource"]).action_registry[name]
        found |= set(cls.permissions or ("sns:Publish", "iam:ListAccountAliases"))
    return found


def called(cloud, function):
    services = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
    return {
        f"{services.get(call.service, call.service)}:{call.operation}"
        for call in cloud.call_log.by(function)
    }


def test_each_role_allows_what_its_deployed_policies_declare_and_no_more():
    wanted = {}
    for path in (ROOT / "policies").glob("*.yml"):
        for policy in yaml.safe_load(path.read_text())["policies"]:
            if "mode" in policy:
                of_role = wanted.setdefault(policy["mode"]["role"], {"sqs:SendMessage"})
                of_role |= declared(policy)
    assert role_actions() == wanted


@pytest.mark.parametrize("policy", ["ec2-isolate", "finding-notify"])
def test_a_policy_calls_nothing_that_it_does_not_declare(scene, pack, policy):
    (data,) = yaml.safe_load((ROOT / f"policies/{policy}.yml").read_text())["policies"]

    pack.deliver(scene.finding(scene.instance(scene.groups, scene.groups[:1])))

    assert called(scene.cloud, f"custodian-{policy}") - BY_LAMBDA <= declared(data)


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
    )
    made = called(scene.cloud, f"custodian-only-{step}") - BY_LAMBDA
    assert made - BY_CUSTODIAN == permissions - BY_CUSTODIAN
