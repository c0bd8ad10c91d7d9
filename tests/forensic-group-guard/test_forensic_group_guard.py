"""forensic-group-guard: a rule that somebody adds to the forensic group is revoked, and who edits
its mark is told."""

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
    guarded.messages()

    # the same group, called by its name
    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("IpRanges")])
    answer = {"securityGroupRuleSet": {"items": [{"groupId": group}, {"groupId": group}]}}
    parameters = {"groupName": "ForensicSecurityGroup"}
    guarded.deliver(api_call("AuthorizeSecurityGroupIngress", parameters, responseElements=answer))

    assert scene.forensic_group() == group
    assert "put right and read back" in headline(guarded.messages())


def of_tags(call, group, *keys, **options):
    """Among another group, which is gone by now, and an instance."""
    ids = [group, "sg-0123456789abcdef0", "i-0abc1234def567890"]
    parameters = {"resourcesSet": {"items": [{"resourceId": i} for i in ids]}}
    parameters["tagSet"] = {"items": [{"key": key} for key in keys]} if keys else {}
    return api_call(call, parameters, **options)


def test_the_mark_is_taken_off_and_then_a_rule_is_added(scene, guarded, isolated):
    group = scene.forensic_group()
    scene.ec2.delete_tags(Resources=[group], Tags=[{"Key": "forensic:group"}])
    for event in (
        of_tags("DeleteTags", group, "Name", "forensic:group"),
        of_tags("DeleteTags", group),
        of_tags("CreateTags", group, "forensic:group"),
    ):
        guarded.deliver(event)
        line = headline(guarded.messages())
        assert group in line and MALLORY in line and "NOTHING was put right" in line
        assert "Tag it so again" in line
    assert {i.error for i in guarded.cloud.invocations} == {None}

    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("IpRanges")])
    # which IAM does: the condition on the tag
    refused = "UnauthorizedOperation"
    guarded.cloud.fail("RevokeSecurityGroupIngress", refused, times=None)
    guarded.deliver(api_call("AuthorizeSecurityGroupIngress", {"groupId": group}))

    messages = guarded.messages()[:1]
    line = headline(messages)
    assert line.startswith("NOT PUT RIGHT | ") and line.endswith("failed.")
    (resource,) = messages[0]["resources"]
    errors = " ".join(str(o["error"]) for o in resource["c7n:response"])
    assert refused in errors
    assert f"then make empty-forensic-group GROUP={group} REGION=us-west-2" in errors
    assert guarded.dead_letters()


def test_a_release_and_the_pack_may_edit_tags_of_the_group(scene, guarded, isolated):
    group, other = scene.forensic_group(), scene.groups[0]
    own = {"role": "guardduty-response-ec2-isolate"}
    for event in (
        of_tags("DeleteTags", group, f"forensic:record:{isolated}"),
        of_tags("CreateTags", group, "Name", f"forensic:released:{isolated}"),
        of_tags("CreateTags", group, "forensic:notified-guard", **own),
        of_tags("DeleteTags", other, "forensic:group"),
    ):
        guarded.deliver(event)

    assert guarded.messages() == []


def test_another_group_keeps_its_rules(scene, guarded):
    group = scene.groups[0]
    scene.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule("IpRanges")])
    before = scene.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]

    guarded.deliver(api_call("AuthorizeSecurityGroupIngress", {"groupId": group}))

    assert scene.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"] == before
    assert guarded.messages() == []
