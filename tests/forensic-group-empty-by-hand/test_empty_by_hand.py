"""forensic-group-empty-by-hand, run by a person: one group, and only one of this pack."""

import pytest

POLICY = "policies/forensic-group-empty-by-hand.yml"
RULE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


@pytest.fixture(scope="module")
def pack(stacks):
    return stacks


def rules(scene, group):
    (shown,) = scene.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return shown["IpPermissions"] + shown["IpPermissionsEgress"]


def test_a_forensic_group_is_emptied_and_no_other(scene, by_hand):
    own, other = scene.group("ForensicSecurityGroup"), scene.groups[0]
    scene.ec2.create_tags(Resources=[own], Tags=[{"Key": "forensic:group", "Value": "true"}])
    scene.ec2.authorize_security_group_ingress(GroupId=own, IpPermissions=[RULE])
    before = rules(scene, other)

    succeeded, output = by_hand(POLICY, group=own)
    assert succeeded and "has no rule any more" in output and rules(scene, own) == []

    assert "count:0" in by_hand(POLICY, group=other)[1]  # make says so
    assert before and rules(scene, other) == before
