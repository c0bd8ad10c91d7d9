"""`make release ARCHIVE=1`: the finding is archived with the release, and never instead of it."""

import pytest

from simulation import guardduty

ACCOUNT, REGION = "111122223333", "us-west-2"


@pytest.fixture
def incident(scene, pack):
    """An isolated instance, and its finding as GuardDuty has it."""
    instance = scene.instance()
    event = scene.finding(instance)
    finding = guardduty.keep(event)
    pack.isolate(event)
    return instance, finding


def headline(pack):
    *_, message = pack.messages()
    return message["event"]["c7n:notice"]["headline"]


def test_the_finding_is_archived_when_it_is_asked_for_and_not_else(scene, pack, release, incident):
    instance, finding = incident

    assert release(instance)[0] and finding["service"]["archived"] is False
    assert "released by" in headline(pack)

    other = scene.instance()
    event = scene.finding(other)
    finding = guardduty.keep(event)
    pack.isolate(event)
    succeeded, output = release(other, archive="1")
    assert succeeded and finding["service"]["archived"] is True
    assert f"Finding {finding['id']} is archived." in output


def test_a_member_account_is_told_and_releases_all_the_same(scene, pack, release, incident):
    instance, finding = incident
    scene.cloud.fail("ArchiveFindings", "BadRequestException")

    succeeded, output = release(instance, archive="1")

    assert not succeeded and not scene.is_isolated(instance) and not scene.tags(instance)
    told = f"only the administrator account of GuardDuty may archive: have finding {finding['id']}"
    assert told in output
    assert headline(pack).endswith("NOT COMPLETE: archive-finding failed.")


def test_a_tag_has_no_finding_of_another_instance_archived(scene, pack, release, incident):
    instance, _ = incident
    other = guardduty.keep(scene.finding("i-0abc1234def567890"))
    tag = [{"Key": "forensic:finding", "Value": other["id"]}]
    scene.ec2.create_tags(Resources=[instance], Tags=tag)

    succeeded, output = release(instance, archive="1")

    assert not succeeded and "the tag forensic:finding was changed" in output
    assert other["service"]["archived"] is False and not scene.is_isolated(instance)

    said = "no finding of GuardDuty"
    pack.isolate(scene.finding(instance))
    tag[0]["Value"] = "by-hand-20261125T221500Z"
    scene.ec2.create_tags(Resources=[instance], Tags=tag)
    succeeded, output = release(instance, archive="1")
    assert succeeded and said in output
