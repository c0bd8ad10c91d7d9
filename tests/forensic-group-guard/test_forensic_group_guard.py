"""forensic-group-guard: a rule that somebody adds to the forensic group is revoked."""

import pytest
from cloudtrail import MALLORY, api_call, headline


def rule(family):
    ranges = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    return {"IpProtocol": "-1", family: ranges[family]}


@pytest.mark.parametrize("direction", ["Ingress", "Egress"])
@pytest.mark.parametrize("family", ["IpRanges", "Ipv6Ranges"])
def test_a_rule_of_the_forensic_group_is_revoked(scene, guarded, isolated, direction, family):
    group = scene.forensic_group()
    add = getattr(scene.ec2, f"authorize_security_group_{direction.lower()}")
    add(GroupId=group, IpPermissions=[rule(family)])

    guarded.deliver(api_call(f"AuthorizeSecurityGroup{direction}", {"groupId": group}))

    assert scene.forensic_group() == group  # which asserts that it is empty
    line = headline(guarded.messages())
    assert group in line and MALLORY in line and "put right and read back" in line


def test_a_changed_rule_is_an_event_too(scene, guarded, isolated):
    group = scene.forensic_group()
    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("IpRanges")])
    parameters = {"ModifySecurityGroupRulesRequest": {"GroupId": group}}

    guarded.deliver(api_call("ModifySecurityGroupRules", parameters))

    assert scene.forensic_group() == group


def test_another_group_keeps_its_rules(scene, guarded):
    group = scene.groups[0]
    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("IpRanges")])
    before = scene.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]

    guarded.deliver(api_call("AuthorizeSecurityGroupIngress", {"groupId": group}))

    assert scene.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"] == before
    assert guarded.messages() == []
