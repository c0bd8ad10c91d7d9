"""infra/operators.yml: people deploy and release with exactly these rights."""

import pytest
import yaml

from infra import permissions as shipped
from simulation import deploy
from simulation.iam import enforcing

ACCOUNT, REGION = "111122223333", "us-west-2"
SERVICES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
FREE = {"sts:GetCallerIdentity"}  # needs no permission
PEOPLE = {"deployer": ["deploy"], "responder": ["respond", "credentials"]}


@pytest.fixture(scope="module")
def people(pack):
    """Roles of people with the managed policies of the stack."""
    deploy.stack(pack.cloud, "operators.yml", ACCOUNT, REGION)
    iam = pack.cloud.client("iam", ACCOUNT, REGION)
    for person, policies in PEOPLE.items():
        iam.create_role(RoleName=person, AssumeRolePolicyDocument="{}")
        for policy in policies:
            arn = f"arn:aws:iam::{ACCOUNT}:policy/guardduty-response-{policy}"
            iam.attach_role_policy(RoleName=person, PolicyArn=arn)
    return pack


def allowed(*names):
    return set().union(*(shipped.allowed(shipped.managed("operators.yml", n)) for n in names))


def called(cloud, person):
    return {
        f"{SERVICES.get(call.service, call.service)}:{call.operation}"
        for call in cloud.call_log.by(person)
    } - FREE


def test_a_person_deploys_again_and_again_with_the_rights_to_deploy(scene, people, tmp_path):
    files = [path for path in shipped.POLICIES if "    mode:" in path.read_text()]
    (data,) = yaml.safe_load((shipped.ROOT / "policies/finding-notify.yml").read_text())["policies"]
    data["mode"] |= {"memory": 1024}
    (tmp_path / "changed.yml").write_text(yaml.safe_dump({"policies": [data]}))
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)

    with enforcing(PEOPLE):
        changed = [tmp_path / "changed.yml"]
        for policies, mode in ((files, "contain"), (files, None), (changed, "ask")):
            deploy.deploy(scene.cloud, policies, ACCOUNT, REGION, mode, role="deployer")

    deployed = {
        function["FunctionName"].removeprefix("custodian-"): function
        for function in functions.list_functions()["Functions"]
    }
    assert set(deployed) == set(shipped.deployed())
    assert deployed["finding-notify"]["MemorySize"] == 1024
    # the roles that are passed, and tags of another version, are no calls of this
    unused = allowed("Deploy") - called(scene.cloud, "deployer")
    assert unused == {"iam:PassRole", "lambda:UntagResource"}


def test_a_person_releases_with_the_rights_to_respond(scene, people, tmp_path):
    instance = scene.instance(scene.groups)
    before = scene.interfaces(instance)
    people.isolate(scene.finding(instance))
    scene.cloud.call_log.clear()

    with enforcing(PEOPLE):
        deploy.release(scene.cloud, tmp_path, instance, ACCOUNT, REGION, role="responder")

    assert scene.interfaces(instance) == before
    assert any(m["policy"]["name"] == "ec2-release" for m in people.messages())
    with pytest.raises(RuntimeError, match="AccessDenied|UnauthorizedOperation"):
        people.isolate(scene.finding(instance))
        with enforcing(PEOPLE, without={"ec2:ModifyNetworkInterfaceAttribute"}):
            deploy.release(scene.cloud, tmp_path, instance, ACCOUNT, REGION, role="responder")


def test_the_rights_to_respond_are_what_response_and_release_declare():
    declared = set().union(
        *(actions for name in shipped.by_hand() for actions in shipped.why(name).values())
    ) - set().union(*shipped.LAMBDA.values())
    assert allowed("Respond", "Credentials") == declared - FREE
