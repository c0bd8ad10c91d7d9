"""observe, ask, contain: said at the deploy, kept by the next, and true of every policy."""

from pathlib import Path

import pytest
import yaml
from cloudtrail import ACCOUNT, REGION, api_call

from simulation import deploy, guardduty
from simulation.eventbridge import scheduled

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path
    for path in (ROOT / "policies").rglob("*.yml")
    if "mode" in yaml.safe_load(path.read_text())["policies"][0]
)
READS = ("Describe", "List", "Get", "AssumeRole", "Lookup")


@pytest.fixture
def account(cloud):
    """Another account, in which nothing is deployed yet."""
    name = "444455556666"
    mailer = deploy.mailer_stack(cloud, name, REGION)
    deploy.account_stack(cloud, name, REGION, mailer["MailQueueArn"])
    return name


TWO = ["policies/finding-notify.yml", "policies/forensic-group-guard.yml"]


def modes(cloud, account):
    """The modes of the functions, as their tags say it."""
    functions = cloud.client("lambda", account, REGION)
    shown = functions.list_functions()["Functions"]
    names = [function["FunctionName"] for function in shown]
    assert len(names) == len(TWO)
    return {functions.get_function(FunctionName=n)["Tags"]["forensic:autonomy"] for n in names}


def test_a_first_deploy_observes_and_a_later_one_keeps_what_is_deployed(cloud, account):
    deploy.deploy(cloud, TWO, account, REGION, autonomy=None)
    assert modes(cloud, account) == {"observe"}
    deploy.deploy(cloud, TWO, account, REGION, autonomy="ask")
    assert modes(cloud, account) == {"ask"}
    deploy.deploy(cloud, TWO, account, REGION, autonomy=None)
    assert modes(cloud, account) == {"ask"}

    with pytest.raises(RuntimeError, match="autonomy 'contian' is none of observe, ask, contain"):
        deploy.deploy(cloud, TWO, account, REGION, autonomy="contian")

    assert modes(cloud, account) == {"ask"}


@pytest.mark.parametrize("mode", [pytest.param("observe", marks=pytest.mark.slow), "ask"])
def test_no_policy_changes_anything_and_each_mail_says_the_mode(
    pack, scene, identities, guarded, mode
):
    cloud = pack.cloud
    isolated = scene.instance()
    pack.isolate(scene.finding(isolated))
    group = scene.forensic_group()
    role, (user, (key, _)) = identities.role(), identities.user()
    deploy.deploy(cloud, FILES, ACCOUNT, REGION, autonomy=mode)
    pack.restore()
    rule = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    (interface,) = scene.interfaces(isolated)
    opened = {"NetworkInterfaceId": interface, "Groups": scene.groups}
    scene.ec2.modify_network_interface_attribute(**opened)
    items = {"items": [{"groupId": g} for g in scene.groups]}
    cloud.client("events", ACCOUNT, REGION).disable_rule(Name="custodian-guardduty-guard")
    low = scene.finding(scene.instance(), "ec2-port-probe")
    guardduty.keep(low)
    digest = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/custodian-finding-digest"
    events = [
        scheduled(digest, low["detail"]["updatedAt"]),
        scene.finding(scene.instance()),
        identities.stolen(role),
        identities.misused(user, key),
        api_call("AuthorizeSecurityGroupIngress", {"groupId": group}),
        api_call(
            "ModifyNetworkInterfaceAttribute",
            {"networkInterfaceId": interface, "groupSet": items},
        ),
        api_call("DisableRule", {"name": "custodian-guardduty-guard"}, service="events"),
    ]
    cloud.call_log.clear()

    for event in events:
        pack.deliver(event)

    called = {call.operation for call in cloud.calls if str(call.caller).startswith("custodian-")}
    assert {c for c in called if not c.startswith(READS)} == {"Publish"}
    messages = pack.messages()
    told = {message["policy"]["name"] for message in messages}
    assert told == {path.stem for path in FILES} - {"guardduty-guard"}  # changes nothing ever
    for message in messages:
        notice = message["event"]["c7n:notice"]
        assert notice["autonomy"] == mode
        if message["policy"]["name"] not in ("finding-notify", "finding-digest"):
            word = {"observe": "OBSERVE ONLY", "ask": "ASK"}[mode]
            assert word in notice["headline"] and bool(notice["command"]) is (mode == "ask")
