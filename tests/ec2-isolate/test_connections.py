"""block-remote-address and its way back, run from the archive as deployed."""

import copy
import json

import pytest
from c7n.config import Config
from c7n.exceptions import PolicyValidationError
from c7n.loader import PolicyLoader

from custom_actions.finding import remote_addresses
from custom_actions.response import DELAYS
from simulation import deploy

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-block"
ADDRESS = "203.0.113.7"
NETWORK = f"{ADDRESS}/32"
TAG = f"forensic:deny:{ADDRESS}"

POLICY = """
policies:
  - name: {name}
    resource: ec2
    mode:
      type: guard-duty
      role: guardduty-response-ec2-isolate
      packages: [custom_actions]
      handler: custom_actions.handler.run
      runtime: python3.13
      memory: 1769
      timeout: 300
      {options}
    actions:
      {steps}
      - fail-unless-complete
"""
BLOCK = "- block-remote-address"
POLICIES = {
    "block": (BLOCK, ""),
    "block-private": ("- {type: block-remote-address, allow-private: true}", ""),
    "block-dry": (BLOCK, "execution-options: {dryrun: true}"),
    "block-unless-exempt": (f"- isolate-instance\n      {BLOCK}", ""),
}
UNBLOCK = """
policies:
  - name: unblock
    resource: ec2
    query:
      - instance-id: "{instance}"
    filters:
      - InstanceId: "{instance}"
    actions:
      - unblock-remote-address
      - fail-unless-complete
"""


@pytest.fixture(scope="module")
def deployed(cloud, pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    paths = []
    for name, (steps, options) in POLICIES.items():
        paths.append(folder / f"{name}.yml")
        paths[-1].write_text(POLICY.format(name=name, steps=steps, options=options))
    deploy.deploy(cloud, paths, ACCOUNT, REGION)


@pytest.fixture
def block(scene, deployed):
    """Invoke a policy once with a finding of the instance; `.result` and `.error` as of Lambda."""

    def run(instance, *addresses, policy="block", event=None):
        event = event or finding(scene, instance, *addresses)
        return scene.cloud.invoke(f"custodian-{policy}", event, ACCOUNT, REGION)

    return run


@pytest.fixture
def unblock(scene, tmp_path):
    """Run the revert as a person does: (succeeded, output, outcome of the step)."""

    def run(instance, *options):
        (tmp_path / "unblock.yml").write_text(UNBLOCK)
        (tmp_path / "vars.yml").write_text(f"instance: {instance}\n")
        arguments = ["run", "--region", REGION, "--cache-period", "0", "-s", tmp_path / "output"]
        arguments += [*options, "--vars-file", tmp_path / "vars.yml", tmp_path / "unblock.yml"]
        try:
            return True, deploy.custodian(scene.cloud, arguments, ACCOUNT, REGION).stdout
        except RuntimeError as error:
            return False, str(error)

    return run


def finding(scene, instance, *addresses):
    """A finding of a connection to one address, or with several as a port probe names them."""
    event = scene.finding(instance)
    if not addresses:
        return event
    key = {True: "ipAddressV6", False: "ipAddressV4"}
    remotes = [{"remoteIpDetails": {key[":" in address]: address}} for address in addresses]
    action = {"portProbeAction": {"blocked": False, "portProbeDetails": remotes}}
    if len(addresses) == 1:
        action = {"networkConnectionAction": remotes[0]}
    event["detail"]["service"]["action"] = action
    return event


def outcome(invocation, policy="block", step="block-remote-address"):
    assert invocation.error is None, invocation.error
    return {o["step"]: o for o in invocation.result[policy]}[step]


def error(invocation):
    return invocation.error["errorMessage"]


def acls(scene):
    """All network ACLs of the scene's account as EC2 describes them."""
    return scene.ec2.describe_network_acls()["NetworkAcls"]


def acl_of(scene, subnet_id=None):
    """The network ACL of a subnet, by default the scene's first."""
    (found,) = scene.ec2.describe_network_acls(
        Filters=[{"Name": "association.subnet-id", "Values": [subnet_id or scene.subnet_id]}]
    )["NetworkAcls"]
    return found


def rules(acl, egress):
    """The rules of one direction: [(number, action, network, protocol)]."""
    return sorted(
        (
            e["RuleNumber"],
            e["RuleAction"],
            e.get("CidrBlock") or e["Ipv6CidrBlock"],
            e["Protocol"],
        )
        for e in acl["Entries"]
        if e["Egress"] is egress
    )


def own_acl(scene, subnet_id=None):
    """Give a subnet an ACL of its own, which denies everything but what a test adds."""
    before = acl_of(scene, subnet_id)
    (association,) = [
        a for a in before["Associations"] if a["SubnetId"] == (subnet_id or scene.subnet_id)
    ]
    acl = scene.ec2.create_network_acl(VpcId=before["VpcId"])["NetworkAcl"]["NetworkAclId"]
    scene.ec2.replace_network_acl_association(
        AssociationId=association["NetworkAclAssociationId"], NetworkAclId=acl
    )
    return acl


def add_rule(scene, acl, number, egress, action="allow", protocol="-1", cidr="0.0.0.0/0"):
    family = "Ipv6CidrBlock" if ":" in cidr else "CidrBlock"
    scene.ec2.create_network_acl_entry(
        NetworkAclId=acl,
        RuleNumber=number,
        Protocol=protocol,
        RuleAction=action,
        Egress=egress,
        **{family: cidr},
    )


def changes(scene, caller=FUNCTION):
    return [
        call.operation
        for call in scene.cloud.call_log.by(caller)
        if call.service == "ec2" and not call.operation.startswith("Describe")
    ]


def deny_tags(scene, resource_id):
    return {k: v for k, v in scene.tags(resource_id).items() if k.startswith("forensic:deny:")}


# What is denied


def test_the_address_is_denied_in_both_directions_and_nothing_else_is_touched(scene, block):
    instance, neighbour = scene.instance(), scene.instance()
    before, groups = acl_of(scene), scene.interfaces(neighbour)
    others = [a for a in acls(scene) if a["NetworkAclId"] != before["NetworkAclId"]]

    report = outcome(block(instance))

    after = acl_of(scene)
    for egress in (False, True):
        assert rules(after, egress) == sorted([*rules(before, egress), (99, "deny", NETWORK, "-1")])
    assert [a for a in acls(scene) if a["NetworkAclId"] != before["NetworkAclId"]] == others
    assert scene.interfaces(neighbour) == groups and deny_tags(scene, neighbour) == {}
    assert report["status"] == "done" and "every instance in the subnet" in report["detail"]
    (row,) = report["network_acls"]
    assert (row["ingress"], row["egress"], row["status"]) == (99, 99, "denied")
    assert report["facts"] == [
        f"{before['NetworkAclId']}:{NETWORK}:{d}:denied" for d in ("egress", "ingress")
    ]


def test_rules_and_instances_are_marked(scene, block):
    instance = scene.instance()

    block(instance)

    acl = acl_of(scene)["NetworkAclId"]
    assert deny_tags(scene, acl) == {TAG: "ingress:99 egress:99"}
    assert deny_tags(scene, instance) == {TAG: acl}


def test_the_record_is_written_before_the_change(scene, block):
    block(scene.instance())

    assert changes(scene) == ["CreateTags", "CreateTags", *["CreateNetworkAclEntry"] * 2]


def test_several_addresses_of_both_families(scene, block):
    instance = scene.instance()

    report = outcome(block(instance, ADDRESS, "2001:db8:ffff::7", ADDRESS, "198.51.100.9"))

    denies = [r[2] for r in rules(acl_of(scene), True) if r[1] == "deny" and r[0] < 100]
    assert sorted(denies) == ["198.51.100.9/32", "2001:db8:ffff::7/128", NETWORK]
    assert report["status"] == "done"


def test_ipv6_is_denied_below_the_ipv6_allow(scene, block):
    instance = scene.instance()
    acl = own_acl(scene)
    for egress in (False, True):
        add_rule(scene, acl, 10, egress, cidr="::/0")
        add_rule(scene, acl, 100, egress)

    outcome(block(instance, "2001:db8:ffff::7"))

    assert (9, "deny", "2001:db8:ffff::7/128", "-1") in rules(acl_of(scene), False)
    assert (9, "deny", "2001:db8:ffff::7/128", "-1") in rules(acl_of(scene), True)


def test_each_acl_of_all_interfaces_is_changed_once(scene, block):
    instance = scene.instance(scene.groups[:1], scene.groups[:1])
    vpc, subnet = scene.vpc()
    scene.attach(instance, [scene.group("elsewhere", vpc)], subnet)
    (shown,) = scene.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    third = scene.ec2.create_subnet(
        VpcId=vpc, CidrBlock=shown["CidrBlock"].replace(".0.0/24", ".1.0/24")
    )["Subnet"]["SubnetId"]
    scene.attach(instance, [scene.group("third", vpc)], third)
    own = own_acl(scene, third)
    for egress in (False, True):
        add_rule(scene, own, 100, egress)
    touched = {acl_of(scene, s)["NetworkAclId"] for s in (None, subnet, third)}
    before = {acl["NetworkAclId"]: acl for acl in acls(scene)}

    report = outcome(block(instance))

    assert len(touched) == 3 and {r["network_acl"] for r in report["network_acls"]} == touched
    assert changes(scene).count("CreateNetworkAclEntry") == 2 * len(touched)
    assert touched == {
        acl["NetworkAclId"] for acl in acls(scene) if acl != before[acl["NetworkAclId"]]
    }


def test_the_deny_comes_before_the_first_allow_that_lets_the_address_through(scene, block):
    instance = scene.instance()
    acl = own_acl(scene)
    add_rule(scene, acl, 1, False, cidr="10.0.0.0/8")
    add_rule(scene, acl, 50, False, protocol="6", cidr="203.0.113.0/24")
    add_rule(scene, acl, 49, False, "deny", cidr="198.51.100.0/24")
    add_rule(scene, acl, 100, False)
    add_rule(scene, acl, 100, True)

    (row,) = outcome(block(instance))["network_acls"]

    assert (row["ingress"], row["egress"]) == (48, 99)


# What is left as it is


def test_again_is_unchanged_with_the_same_facts(scene, block):
    instance = scene.instance()
    first = outcome(block(instance))
    before = acls(scene)
    scene.cloud.call_log.clear()

    again = outcome(block(instance))

    assert again["status"] == "unchanged" and again["facts"] == first["facts"]
    assert changes(scene) == [] and acls(scene) == before


def test_an_address_that_a_person_has_denied_is_left_as_it_is(scene, block, unblock):
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]
    add_rule(scene, acl, 20, False, "deny", cidr="203.0.113.0/24")
    add_rule(scene, acl, 99, True, "deny", cidr=NETWORK)
    before = acl_of(scene)

    report = outcome(block(instance))
    succeeded, output = unblock(instance)

    assert report["status"] == "unchanged" and acl_of(scene) == before
    assert deny_tags(scene, instance) == {}
    assert succeeded and "nothing to revert" in output and acl_of(scene) == before


def test_an_acl_that_lets_nothing_through_is_left_as_it_is(scene, block):
    instance = scene.instance()
    own_acl(scene)
    before = acl_of(scene)

    assert outcome(block(instance))["status"] == "unchanged"

    assert acl_of(scene) == before


def test_a_deny_that_does_not_win_is_not_enough(scene, block):
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]
    add_rule(scene, acl, 200, False, "deny", cidr=NETWORK)
    add_rule(scene, acl, 30, True, "deny", protocol="6", cidr=NETWORK)

    (row,) = outcome(block(instance))["network_acls"]

    assert (row["ingress"], row["egress"]) == (99, 99)


@pytest.mark.parametrize(
    "address",
    [
        *("10.1.2.3", "172.16.0.9", "192.168.1.1", "100.64.0.1", "127.0.0.1", "0.0.0.0", "0.1.2.3"),
        *("169.254.169.254", "169.254.169.253", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fd00:ec2::253"),
        *("ff02::1", "::ffff:203.0.113.7", "0.0.0.0/0", "::/0", "evil.example", "5", "<b>"),
    ],
)
def test_an_address_that_is_never_a_target_is_refused(scene, block, address):
    instance, before = scene.instance(), acls(scene)

    report = outcome(block(instance, address))

    assert report["status"] == "skipped" and address in report["detail"]
    assert acls(scene) == before and changes(scene) == []


def test_the_vpcs_own_addresses_are_refused_in_every_association(scene, block):
    instance = scene.instance()
    scene.ec2.associate_vpc_cidr_block(VpcId=scene.vpc_id, CidrBlock="198.51.0.0/16")
    scene.ec2.associate_vpc_cidr_block(VpcId=scene.vpc_id, AmazonProvidedIpv6CidrBlock=True)
    (vpc,) = scene.ec2.describe_vpcs(VpcIds=[scene.vpc_id])["Vpcs"]
    ipv6 = vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"].partition("/")[0] + "9"

    report = outcome(block(instance, "198.51.100.9", ipv6))

    assert report["status"] == "skipped" and changes(scene) == []
    assert "198.51.0.0/16" in report["detail"] and ipv6 in report["detail"]


def test_a_refused_address_does_not_save_the_others(scene, block):
    report = outcome(block(scene.instance(), "10.9.9.9", ADDRESS))

    assert report["status"] == "done" and "'10.9.9.9' (private)" in report["detail"]
    assert [row["network"] for row in report["network_acls"]] == [NETWORK]


def test_private_addresses_are_denied_when_the_policy_says_so(scene, block):
    instance = scene.instance()
    (vpc,) = scene.ec2.describe_vpcs(VpcIds=[scene.vpc_id])["Vpcs"]
    resolver = vpc["CidrBlock"].replace("0.0/16", "0.2")
    neighbour = vpc["CidrBlock"].replace("0.0/16", "0.77")

    report = outcome(
        block(
            instance, "192.168.1.1", neighbour, "169.254.169.254", resolver, policy="block-private"
        ),
        "block-private",
    )

    assert [r["network"] for r in report["network_acls"]] == ["192.168.1.1/32", f"{neighbour}/32"]
    assert "169.254.169.254" in report["detail"] and resolver in report["detail"]


def test_a_finding_without_a_remote_address_is_skipped(scene, block):
    instance, before = scene.instance(), acls(scene)

    report = outcome(block(instance, event=scene.finding(instance, "ec2-dns-crypto")))

    assert report["status"] == "skipped" and "names no remote address" in report["detail"]
    assert acls(scene) == before


@pytest.mark.parametrize(
    "action", [None, [], "x", {"a": None}, {"a": {"remoteIpDetails": []}}, {"a": {"b": [7]}}]
)
def test_an_action_of_another_shape_is_skipped(scene, block, action):
    event = scene.finding(scene.instance())
    event["detail"]["service"]["action"] = action

    assert outcome(block(None, event=event))["status"] == "skipped"


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(scene, block):
    instance, before = scene.instance(), acls(scene)

    report = outcome(block(instance, policy="block-dry"), "block-dry")

    acl = acl_of(scene)["NetworkAclId"]
    assert report["status"] == "planned" and f"{NETWORK} on {acl}" in report["detail"]
    assert acls(scene) == before and scene.tags(instance) == {}
    assert changes(scene, "custodian-block-dry") == []


def test_an_exempt_instance_is_left_alone(scene, block):
    instance, before = scene.instance(tags={"forensic:exempt": ""}), acls(scene)

    name = "block-unless-exempt"
    report = outcome(block(instance, policy=name), name)

    assert report["status"] == "exempt" and acls(scene) == before


def test_a_terminated_instance_is_skipped(scene, block):
    instance = scene.instance()
    scene.ec2.terminate_instances(InstanceIds=[instance])

    assert outcome(block(instance))["status"] == "skipped"


# What cannot be done


def test_a_full_acl_is_named_and_the_other_direction_is_denied(scene, block, unblock):
    instance = scene.instance()
    acl = own_acl(scene)
    for number in range(100, 119):
        add_rule(scene, acl, number, True)
    add_rule(scene, acl, 100, False)
    before = acl_of(scene)

    message = error(block(instance))

    assert "NetworkAclEntryLimitExceeded" in message and acl in message
    assert "Rules per network ACL" in message
    assert rules(acl_of(scene), True) == rules(before, True)
    assert (99, "deny", NETWORK, "-1") in rules(acl_of(scene), False)
    assert deny_tags(scene, acl) == {TAG: "ingress:99"}
    assert unblock(instance)[0] and acl_of(scene) == before


def test_no_room_below_the_first_allow_is_named(scene, block):
    instance = scene.instance()
    acl = own_acl(scene)
    add_rule(scene, acl, 1, False)
    add_rule(scene, acl, 2, True)
    add_rule(scene, acl, 1, True, "deny", cidr="198.51.100.9/32")
    before = acl_of(scene)

    message = error(block(instance))

    for direction, number in (("ingress", 1), ("egress", 2)):
        assert f"no free rule number below {number}, its first {direction} allow" in message
    assert acl in message and "higher number" in message and "NoRecord" not in message
    assert acl_of(scene) == before and scene.tags(instance) == {}


def test_one_acl_that_refuses_does_not_stop_the_others(scene, block):
    instance = scene.instance()
    vpc, subnet = scene.vpc()
    scene.attach(instance, [scene.group("elsewhere", vpc)], subnet)
    refusing, other = acl_of(scene)["NetworkAclId"], acl_of(scene, subnet)["NetworkAclId"]
    scene.cloud.fail(
        "CreateNetworkAclEntry",
        "UnauthorizedOperation",
        times=None,
        when=lambda call: call.parameters["NetworkAclId"] == refusing,
    )

    message = error(block(instance))

    assert "UnauthorizedOperation" in message and refusing in message and other not in message
    assert (99, "deny", NETWORK, "-1") in rules(acl_of(scene, subnet), True)


def test_a_retry_makes_only_what_is_missing(scene, block):
    instance = scene.instance()
    scene.cloud.fail(
        "CreateNetworkAclEntry",
        "UnauthorizedOperation",
        when=lambda call: call.parameters["Egress"],
    )
    assert "UnauthorizedOperation" in error(block(instance))
    scene.cloud.call_log.clear()

    report = outcome(block(instance))

    assert changes(scene) == ["CreateTags", "CreateNetworkAclEntry"]
    assert report["status"] == "done"
    assert deny_tags(scene, acl_of(scene)["NetworkAclId"]) == {TAG: "ingress:99 egress:99"}


def test_a_function_that_dies_between_the_two_directions_is_completed(scene, block, unblock):
    instance = scene.instance()
    before = acl_of(scene)

    def die(call):
        scene.cloud.functions.kill(FUNCTION)

    scene.cloud.before("CreateNetworkAclEntry", die, skip=1)
    assert block(instance).error
    report = outcome(block(instance))

    assert report["network_acls"][0]["status"] == "denied"
    assert unblock(instance)[0] and acl_of(scene) == before


def test_a_number_taken_in_the_same_moment_is_not_used(scene, block, unblock):
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]
    scene.cloud.before(
        "CreateNetworkAclEntry",
        lambda call: add_rule(scene, acl, 99, False, "deny", cidr="198.51.100.9/32"),
        when=lambda call: call.caller == FUNCTION,
    )

    (row,) = outcome(block(instance))["network_acls"]

    assert (row["ingress"], row["egress"]) == (98, 99)
    assert deny_tags(scene, acl) == {TAG: "ingress:98 egress:99"}
    assert unblock(instance)[0]
    assert (99, "deny", "198.51.100.9/32", "-1") in rules(acl_of(scene), False)


def test_another_invocation_of_the_same_finding_in_the_same_moment(scene, block, unblock):
    instance = scene.instance()
    before = acl_of(scene)
    acl = before["NetworkAclId"]

    def other(call):
        for egress in (False, True):
            add_rule(scene, acl, 99, egress, "deny", cidr=NETWORK)

    scene.cloud.before("CreateNetworkAclEntry", other, when=lambda call: call.caller == FUNCTION)

    assert outcome(block(instance))["network_acls"][0]["status"] == "denied"

    assert unblock(instance)[0] and acl_of(scene) == before


def test_denied_is_said_only_when_it_was_read_back(scene, block):
    """Somebody removes the rule before each look."""
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]

    def remove(call):
        for egress in (False, True):
            if any(r[0] == 99 for r in rules(acl_of(scene), egress)):
                scene.ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=99, Egress=egress)

    scene.cloud.before(
        "DescribeNetworkAcls", remove, times=None, when=lambda call: call.caller == FUNCTION
    )

    message = error(block(instance))

    assert "NotReadBack" in message and acl in message


def test_what_the_last_try_made_is_read_back_too(scene, block):
    """Its number is taken again and again; what it makes at last is removed by somebody."""
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]
    looks = len(DELAYS) - 1  # the last look makes nothing any more
    scene.cloud.fail("CreateNetworkAclEntry", "NetworkAclEntryAlreadyExists", times=2 * (looks - 1))

    def remove(call):
        for egress in (False, True):
            scene.ec2.delete_network_acl_entry(NetworkAclId=acl, RuleNumber=99, Egress=egress)

    by_function = {"when": lambda call: call.caller == FUNCTION}
    scene.cloud.before("DescribeNetworkAcls", remove, skip=looks, **by_function)

    assert "NotReadBack" in error(block(instance))


def test_what_cannot_be_recorded_is_denied_and_named(scene, block):
    instance = scene.instance()
    scene.cloud.fail("CreateTags", "UnauthorizedOperation", times=None)

    invocation = block(instance)

    acl = acl_of(scene)
    assert (99, "deny", NETWORK, "-1") in rules(acl, True)
    assert "could not be recorded" in error(invocation)
    assert f"{acl['NetworkAclId']}: its rules ingress:99 egress:99" in error(invocation)
    assert f"not marked on {acl['NetworkAclId']}" in invocation.log


def test_a_deny_without_its_mark_is_named_again(scene, block):
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]
    scene.cloud.fail(
        "CreateTags",
        "TagLimitExceeded",
        times=None,
        when=lambda call: call.parameters["Resources"] == [acl],
    )

    first, again = error(block(instance)), error(block(instance))

    assert "TagLimitExceeded" in first
    assert "NoRecord" in again and acl in again


def test_an_instance_full_of_tags(scene, block):
    instance = scene.instance(tags={f"own-{n}": "x" for n in range(50)})

    invocation = block(instance)

    acl = acl_of(scene)
    assert (99, "deny", NETWORK, "-1") in rules(acl, True)
    assert "TagLimitExceeded" in error(invocation) and acl["NetworkAclId"] in error(invocation)


# The way back


def test_everything_is_back_as_it_was(scene, block, unblock):
    instance = scene.instance(tags={"Name": "web"})
    vpc, subnet = scene.vpc()
    scene.attach(instance, [scene.group("elsewhere", vpc)], subnet)
    before = acls(scene)
    block(instance, ADDRESS, "2001:db8:ffff::7")
    block(instance, "198.51.100.9")
    assert len(deny_tags(scene, instance)) == 3

    succeeded, output = unblock(instance)

    assert succeeded and "status:done" in output
    assert acls(scene) == before and scene.tags(instance) == {"Name": "web"}


def test_two_incidents_with_one_address_keep_the_deny_until_the_last_is_reverted(
    scene, block, unblock
):
    first, second = scene.instance(), scene.instance()
    before = acl_of(scene)
    block(first)
    assert outcome(block(second))["network_acls"][0]["ingress"] == 99
    during = acl_of(scene)

    succeeded, output = unblock(first)

    assert succeeded and f"stays denied on {before['NetworkAclId']} for {second}" in output
    assert acl_of(scene) == during and deny_tags(scene, first) == {}
    assert unblock(second)[0] and acl_of(scene) == before


def test_a_second_finding_never_makes_the_record_lose_an_acl(scene, block, unblock):
    """The instance's interface in the other subnet is gone when it is reverted."""
    instance = scene.instance()
    vpc, subnet = scene.vpc()
    extra = scene.attach(instance, [scene.group("elsewhere", vpc)], subnet)
    before = acls(scene)
    block(instance)
    (shown,) = scene.ec2.describe_network_interfaces(NetworkInterfaceIds=[extra])[
        "NetworkInterfaces"
    ]
    scene.ec2.detach_network_interface(AttachmentId=shown["Attachment"]["AttachmentId"])
    scene.ec2.delete_network_interface(NetworkInterfaceId=extra)
    block(instance)

    assert unblock(instance)[0]

    assert acls(scene) == before


def test_rules_of_a_person_survive_the_revert(scene, block, unblock):
    """One direction was denied by a person before; the other's number is a person's by now."""
    instance = scene.instance()
    acl = acl_of(scene)["NetworkAclId"]
    add_rule(scene, acl, 42, False, "deny", cidr=NETWORK)
    block(instance)
    scene.ec2.replace_network_acl_entry(
        NetworkAclId=acl,
        RuleNumber=99,
        Protocol="6",
        RuleAction="deny",
        Egress=True,
        CidrBlock=NETWORK,
        PortRange={"From": 1, "To": 2},
    )
    entries = acl_of(scene)["Entries"]

    assert unblock(instance)[0]

    assert acl_of(scene)["Entries"] == entries and acl_of(scene)["Tags"] == []


def test_a_removal_that_is_refused_keeps_the_record_for_another_try(scene, block, unblock):
    instance = scene.instance()
    before = acl_of(scene)
    block(instance)
    scene.cloud.fail(
        "DeleteNetworkAclEntry",
        "UnauthorizedOperation",
        when=lambda call: call.parameters["Egress"],
    )

    succeeded, output = unblock(instance)

    assert not succeeded and f"{before['NetworkAclId']}: egress rule 99" in output
    assert deny_tags(scene, instance) != {} and deny_tags(scene, before["NetworkAclId"]) != {}
    assert rules(acl_of(scene), False) == rules(before, False)
    assert unblock(instance)[0] and acl_of(scene) == before


def test_an_acl_that_is_gone_has_nothing_to_revert(scene, block, unblock):
    instance = scene.instance()
    default = acl_of(scene)["NetworkAclId"]
    acl = own_acl(scene)
    block(instance)
    (association,) = acl_of(scene)["Associations"]
    scene.ec2.replace_network_acl_association(
        AssociationId=association["NetworkAclAssociationId"], NetworkAclId=default
    )
    scene.ec2.delete_network_acl(NetworkAclId=acl)

    assert unblock(instance)[0]

    assert deny_tags(scene, instance) == {}


def test_revert_without_incident_and_revert_twice(scene, block, unblock):
    instance = scene.instance()
    for _ in range(2):
        succeeded, output = unblock(instance)
        assert succeeded and "status:unchanged" in output and "nothing to revert" in output
        block(instance)
        assert unblock(instance)[0]


def test_a_dry_run_of_the_revert_changes_nothing(scene, block, unblock):
    instance = scene.instance()
    block(instance)
    before = acls(scene)

    succeeded, output = unblock(instance, "--dryrun")

    assert succeeded and acls(scene) == before
    assert deny_tags(scene, instance) != {}


# The pieces


@pytest.mark.parametrize(
    "arguments",
    [
        {"never": ["8.8.8.8/8"]},
        {"never": ["S3"]},
        {"never": "8.8.8.8/32"},
        {"max-addresses": 0},
        {"not-for-types": ["", "Trojan:EC2/DropPoint"]},
    ],
    ids=str,
)
def test_arguments_that_a_policy_cannot_have(arguments):
    data = {"name": "block", "resource": "ec2"}
    data["actions"] = [{"type": "block-remote-address", **arguments}]

    with pytest.raises(PolicyValidationError):
        loader = PolicyLoader(Config.empty(account_id=ACCOUNT, region=REGION))
        (policy,) = loader.load_data({"policies": [data]}, "memory://")
        policy.validate()


def test_addresses_are_found_in_every_action():
    def remote(**details):
        return {"remoteIpDetails": details}

    action = {
        "networkConnectionAction": remote(ipAddressV4="203.0.113.1", ipAddressV6=""),
        "awsApiCallAction": remote(ipAddressV4="203.0.113.2"),
        "kubernetesApiCallAction": remote(ipAddressV6="2001:db8::3"),
        "portProbeAction": {
            "portProbeDetails": [remote(ipAddressV4="203.0.113.4"), remote(ipAddressV4=None)]
        },
        "dnsRequestAction": {"domain": "pool.example"},
    }
    event = {"detail": {"service": {"action": action}}}
    untouched = copy.deepcopy(event)

    assert remote_addresses(event) == [
        *("203.0.113.1", "203.0.113.2", "2001:db8::3", "203.0.113.4")
    ]
    assert event == untouched
    assert remote_addresses(None) == []
    assert remote_addresses(json.loads('{"detail": null}')) == []
