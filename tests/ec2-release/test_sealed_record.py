"""What a release puts back is what the pack has recorded, whatever others write into the tags."""

import re

import pytest

ACCOUNT, REGION = "111122223333", "us-west-2"
RECORD = "forensic:original-groups:"


def tag(scene, resource, **tags):
    scene.ec2.create_tags(
        Resources=[resource], Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
    )


@pytest.fixture
def admin(scene):
    """A group that was never on the instance."""
    return scene.group("admin")


@pytest.mark.parametrize(
    "key, state",
    [
        (RECORD + "{interface}", {"forensic:state": "isolated"}),
        (RECORD + "{interface}:2", {}),
        (RECORD + "{interface}", {}),
    ],
)
def test_a_group_written_into_the_record_beforehand_is_not_put_back(
    scene, pack, release, admin, key, state
):
    instance = scene.instance(scene.groups[:1])
    (interface,) = scene.interfaces(instance)
    key = key.format(interface=interface)
    tag(scene, interface, **{key: admin})
    tag(scene, instance, **{key: admin}, **state)

    first = pack.isolate(scene.finding(instance))

    assert first.error is None and scene.is_isolated(instance)
    assert scene.tags(interface)[RECORD + interface] == scene.groups[0]
    told = first.result["ec2-isolate"][0]
    assert not state or "not this pack's" in told["detail"]
    assert release(instance)[0]
    assert scene.interfaces(instance) == {interface: scene.groups[:1]}


@pytest.mark.parametrize(
    "written",
    [
        {"forensic:load-balancers": "victim/0123456789abcdef/80"},
        {"forensic:settings": "disableApiTermination=False"},
        {"forensic:notified": "0123456789:0123456789abcdef"},
    ],
    ids=lambda tags: next(iter(tags)),
)
def test_a_record_from_before_the_incident_is_removed_and_told(scene, pack, written):
    instance = scene.instance()
    tag(scene, instance, **written)
    ((key, value),) = written.items()

    invocation = pack.isolate(scene.finding(instance))

    assert scene.tags(instance).get(key) != value
    assert f"{key}={value}" in invocation.result["ec2-isolate"][0]["detail"]
    assert "removed" in invocation.result["ec2-isolate"][0]["detail"]


def test_the_incident_begins_now_whatever_the_tags_say(scene, pack):
    instance = scene.instance()
    poison = {
        "forensic:state": "isolated",
        "forensic:isolated-at": "2020-01-01T00:00:00+00:00",
        "forensic:finding": "f" * 32,
        "forensic:snapshots": "2020-01-01T00:00:00+00:00 snap-0123456789abcdef0",
    }
    tag(scene, instance, **poison)
    finding = scene.finding(instance)

    outcomes = pack.isolate(finding).result["ec2-isolate"]

    tags = scene.tags(instance)
    assert tags["forensic:finding"] == finding["detail"]["id"]
    assert tags["forensic:isolated-at"] > "2026"
    snapshots = next(o for o in outcomes if o["step"] == "preserve-evidence")["snapshots"]
    assert snapshots and snapshots[0]["id"] in tags["forensic:snapshots"]


@pytest.mark.parametrize("part", ["groups", "more groups", "service", "settings"])
def test_a_record_changed_after_the_isolation_is_shown_and_nothing_is_done(
    scene, pack, release, admin, part
):
    instance = scene.instance(scene.groups[:1])
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    pack.messages()
    where, key, value = {
        "groups": (interface, RECORD + interface, admin),
        "more groups": (interface, f"{RECORD}{interface}:2", admin),
        "service": (instance, "forensic:load-balancers", "victim/0123456789abcdef/80"),
        "settings": (instance, "forensic:settings", "disableApiTermination=False"),
    }[part]
    tag(scene, where, **{key: value})
    before = scene.tags(instance), scene.tags(interface)

    succeeded, output = release(instance)

    assert not succeeded and value in output and "may be an intruder's" in output
    assert scene.is_isolated(instance)
    assert (scene.tags(instance), scene.tags(interface)) == before
    assert "step:restore-settings status:skipped" in output
    (message,) = pack.messages()
    assert "NOT COMPLETE" in message["event"]["c7n:notice"]["headline"]


def test_a_person_confirms_exactly_the_record_that_was_shown(scene, pack, release, admin):
    instance = scene.instance(scene.groups[:1])
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    tag(scene, interface, **{RECORD + interface: scene.groups[1]})
    shown = re.search(r"RECORD=([\w-]+)", release(instance)[1])[1]

    tag(scene, interface, **{RECORD + interface: admin})
    succeeded, output = release(instance, record=shown)
    assert not succeeded and "is not the one that RECORD=" in output
    assert scene.is_isolated(instance)

    tag(scene, interface, **{RECORD + interface: scene.groups[1]})
    assert release(instance, record=shown)[0]
    assert scene.interfaces(instance) == {interface: scene.groups[1:2]}


def test_the_mail_of_the_isolation_has_the_word_of_the_record(scene, pack, release):
    instance = scene.instance(scene.groups[:1])
    pack.isolate(scene.finding(instance))
    (message,) = pack.messages()
    outcomes = message["resources"][0]["c7n:response"]
    word = next(o for o in outcomes if o["step"] == "seal-record")["record"]

    assert release(instance, record=word)[0]


def test_a_tampered_record_is_told_by_the_next_update_and_not_sealed(scene, pack, release, admin):
    instance = scene.instance(scene.groups[:1])
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    tag(scene, instance, **{"forensic:load-balancers": "victim/0123456789abcdef/80"})

    outcomes = pack.isolate(scene.finding(instance)).error["errorMessage"]

    assert "seal-record" in outcomes and "victim/0123456789abcdef/80" in outcomes
    assert not release(instance)[0] and scene.is_isolated(instance)


def test_opened_by_somebody_it_goes_back_to_its_first_groups(scene, pack, release, admin):
    instance = scene.instance(scene.groups[:2])
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    scene.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[admin])

    pack.isolate(scene.finding(instance))

    assert scene.is_isolated(instance)
    assert release(instance)[0]
    assert set(scene.interfaces(instance)[interface]) == set(scene.groups[:2])


def test_opened_by_somebody_and_never_sealed_it_keeps_its_record_and_a_release_asks(
    scene, pack, release, admin
):
    instance = scene.instance(scene.groups[:1])
    (interface,) = scene.interfaces(instance)
    refusing = scene.cloud.fail(
        "CreateTags",
        "UnauthorizedOperation",
        when=lambda call: "forensic:record" in str(call.parameters),
        times=None,
    )
    assert "could not be sealed" in pack.isolate(scene.finding(instance)).error["errorMessage"]
    scene.cloud.call_log.remove(refusing)
    other = scene.attach(instance, [scene.forensic_group()])
    scene.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[admin])

    error = pack.isolate(scene.finding(instance)).error["errorMessage"]

    assert scene.is_isolated(instance) and "never sealed" in error
    assert scene.tags(interface)[RECORD + interface] == scene.groups[0]
    said = {"groups": f"{other}={scene.groups[0]}"}
    shown = re.search(r"RECORD=([\w-]+)", release(instance, **said)[1])[1]
    assert release(instance, record=shown, **said)[0]
    assert scene.interfaces(instance)[interface] == scene.groups[:1]


def test_groups_that_could_not_be_recorded_are_in_the_mail_and_can_be_said(scene, pack, release):
    instance = scene.instance(scene.groups[:2])
    (interface,) = scene.interfaces(instance)
    scene.cloud.fail(
        "CreateTags",
        "TagLimitExceeded",
        when=lambda call: interface in str(call.parameters),
        times=None,
    )
    pack.isolate(scene.finding(instance))
    scene.cloud.fail("CreateTags", "TagLimitExceeded", when=lambda call: False)
    (message,) = pack.messages()
    (row,) = message["resources"][0]["c7n:response"][0]["interfaces"]
    said = re.search(r"GROUPS=(\S+)", row["error"])[1]

    succeeded, output = release(instance)
    assert not succeeded and f"GROUPS={interface}=" in output and scene.is_isolated(instance)

    assert release(instance, groups=said)[0]
    assert set(scene.interfaces(instance)[interface]) == set(scene.groups[:2])
    assert not [key for key in scene.tags(instance) if key.startswith("forensic:")]


@pytest.mark.parametrize(
    "said",
    ["eni-0123456789abcdef0=sg-0123456789abcdef0", "nonsense"],
)
def test_groups_that_make_no_sense_change_nothing(scene, pack, release, said):
    instance = scene.instance()
    (interface,) = scene.interfaces(instance)
    pack.isolate(scene.finding(instance))
    before = scene.tags(instance)

    succeeded, output = release(instance, groups=said.format(interface=interface))

    assert not succeeded and "GROUPS" in output and "Nothing was changed" in output
    assert scene.is_isolated(instance) and scene.tags(instance) == before


def test_what_was_changed_without_a_record_is_named_by_the_release(scene, pack, release):
    """An instance has room for 50 tags: with 47 of its own the record does not fit."""
    instance = scene.instance(tags={f"own-{n}": "x" for n in range(47)})

    pack.isolate(scene.finding(instance))
    succeeded, output = release(instance)

    assert scene.interfaces(instance) == {next(iter(scene.interfaces(instance))): scene.groups[:1]}
    messages = pack.messages()
    headline = messages[-1]["event"]["c7n:notice"]["headline"]
    assert "NOT recorded" in headline and "settings" in headline
    assert "Everything is back" not in headline


def test_what_was_recorded_during_the_release_is_named(scene, pack, release):
    instance = scene.instance()
    pack.isolate(scene.finding(instance))
    scene.cloud.before(
        "DeleteTags",
        lambda call: tag(scene, instance, **{"forensic:role-policy": "web/forensic-deny"}),
        when=lambda call: "forensic:settings" in str(call.parameters),
    )

    succeeded, output = release(instance)

    assert not succeeded and "role-policy web/forensic-deny: recorded while" in output


def test_without_room_for_a_seal_it_is_isolated_and_a_release_asks(scene, pack, release):
    pack.isolate(scene.finding(scene.instance()))
    group = scene.forensic_group()
    tag(scene, group, **{f"own-{n}": "x" for n in range(50 - len(scene.tags(group)))})
    instance = scene.instance()

    invocation = pack.isolate(scene.finding(instance))

    assert invocation.error is None and scene.is_isolated(instance)
    details = " ".join(o["detail"] for o in invocation.result["ec2-isolate"])
    assert "no room for another tag: a release will ask" in details
    shown = re.search(r"RECORD=([\w-]+)", release(instance)[1])[1]
    assert scene.is_isolated(instance)
    assert release(instance, record=shown)[0]


def test_a_full_group_gives_the_place_of_a_terminated_instance(scene, pack, release):
    gone = scene.instance()
    pack.isolate(scene.finding(gone))
    group = scene.forensic_group()
    tag(scene, group, **{f"own-{n}": "x" for n in range(50 - len(scene.tags(group)))})
    for attribute in ("DisableApiTermination", "DisableApiStop"):
        scene.ec2.modify_instance_attribute(InstanceId=gone, **{attribute: {"Value": False}})
    scene.ec2.terminate_instances(InstanceIds=[gone])
    instance = scene.instance()

    invocation = pack.isolate(scene.finding(instance))

    assert invocation.error is None
    assert f"forensic:record:{instance}" in scene.tags(group)
    assert f"forensic:record:{gone}" not in scene.tags(group)
    assert release(instance)[0]
