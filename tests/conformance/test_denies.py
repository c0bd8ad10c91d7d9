"""Denies that instances share, tags that somebody else wrote, and answers that are not the asked.

What is peculiar to block-remote-address and its revert, in this process.
"""

import json
import random
import threading

import pytest
from c7n.utils import reset_session_cache
from stages import STAGES, Block
from wire import Died, Play, Wire, is_read

ADDRESS = "203.0.113.7"
KEY = f"forensic:deny:{ADDRESS}"
OLD_KEY = f"{KEY}/32"


class Shared(Block):
    """Instances of one subnet, of which each has a finding about the same address."""

    def setup(self, count=2):
        super().setup()
        (shown,) = self.ec2.describe_instances(InstanceIds=[self.instance])["Reservations"]
        subnet = shown["Instances"][0]["SubnetId"]
        self.instances = [self.instance] + [self.launch(SubnetId=subnet) for _ in range(count - 1)]

    def as_resource(self, instance):
        (shown,) = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
        return {"Tags": [], **shown["Instances"][0]}

    def tag(self, resource, **tags):
        self.ec2.create_tags(
            Resources=[resource], Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
        )

    def rules(self, egress=False):
        (acl,) = self.ec2.describe_network_acls(NetworkAclIds=[self.acl])["NetworkAcls"]
        return [
            (e["RuleNumber"], e.get("CidrBlock"))
            for e in acl["Entries"]
            if e["RuleAction"] == "deny" and e["Egress"] is egress and e["RuleNumber"] < 32767
        ]

    def person_denies(self, number, address=ADDRESS):
        for egress in (False, True):
            self.ec2.create_network_acl_entry(
                NetworkAclId=self.acl,
                RuleNumber=number,
                Protocol="-1",
                RuleAction="deny",
                Egress=egress,
                CidrBlock=f"{address}/32",
            )

    def state(self):
        return super().state() | {"all": [self.tags(i) for i in self.instances]}


class SharedPlay(Play):
    """Steps of any of the stage's instances, with arguments and findings of a test."""

    def run(self, name, instance=None, event=None, data=None, wire=None, **options):
        stage = self.stage
        return (wire or self.wire).run(
            "ec2",
            stage.as_resource(instance or stage.instance),
            event,
            name,
            data=data or {},
            **options,
        )

    def block(self, instance=None, *addresses, type=None, role=None, **options):
        event = json.loads(json.dumps(self.stage.event))
        if addresses:
            probes = [{"remoteIpDetails": {"ipAddressV4": address}} for address in addresses]
            event["detail"]["service"]["action"] = {"portProbeAction": {"portProbeDetails": probes}}
        event["detail"]["type"] = type or event["detail"]["type"]
        event["detail"]["service"]["resourceRole"] = role or "TARGET"
        return self.run("block-remote-address", instance, event, **options)

    def unblock(self, instance=None, **options):
        return self.run("unblock-remote-address", instance, **options)


@pytest.fixture(scope="module")
def aws(aws):
    aws.wire = Wire()
    aws.wires = [Wire() for _ in range(3)]  # for runs at once; making a client takes long
    reset_session_cache()  # or the session of the wire before is used
    return aws


@pytest.fixture
def denies(aws):
    """A stage with instances that share an ACL."""
    yield lambda **variant: SharedPlay(aws, Shared(aws.client, **variant))
    aws.wire.edit = None


# Released together


class Turns:
    """Lets threads make their calls one at a time, in an order that a seed decides."""

    def __init__(self, seed):
        self.random, self.changed = random.Random(seed), threading.Condition()
        self.waiting, self.running, self.turn = [], 0, None

    def wait(self, name):
        """Called by a thread before each call: until it is its turn."""
        with self.changed:
            self.waiting.append(name)
            self.running -= 1
            self.choose()
            self.changed.wait_for(lambda: self.turn == name)
            self.turn = None
            self.running += 1

    def choose(self):
        """When none is at work: who may go on."""
        if not self.running and self.waiting:
            self.waiting.sort()
            self.turn = self.waiting.pop(self.random.randrange(len(self.waiting)))
            self.changed.notify_all()

    def end(self):
        with self.changed:
            self.running -= 1
            self.choose()


def in_turns(seed, wires, runs):
    """Run functions of a wire at once, call by call in turn; returns what they return."""
    turns, results = Turns(seed), {}

    def play(number, run):
        def gate(*_):
            turns.wait(number)

        try:
            results[number] = run(wires[number], gate)
        finally:
            turns.end()

    turns.running = len(runs)
    threads = [threading.Thread(target=play, args=item) for item in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [results[number] for number in range(len(runs))]


@pytest.mark.slow
@pytest.mark.parametrize("count, seed", [(2, n) for n in range(40)] + [(3, n) for n in range(10)])
def test_a_deny_that_instances_share_goes_when_they_are_released_together(denies, aws, count, seed):
    one = denies(count=count)
    for instance in one.stage.instances:
        assert one.block(instance)["error"] is None

    outcomes = in_turns(
        seed,
        aws.wires,
        [
            lambda wire, gate, instance=instance: one.unblock(instance, wire=wire, fault=gate)
            for instance in one.stage.instances
        ],
    )

    assert [o["error"] for o in outcomes] == [None] * count
    assert one.state() == one.began, outcomes


def drop_and_die(one, instance):
    """A release of the instance that dies once its hold is dropped."""
    with pytest.raises(Died):
        one.unblock(instance, last=2)
    assert one.stage.tags(instance) == {KEY: f"released {one.stage.acl}"} and one.stage.rules()


def test_a_release_that_died_is_finished_by_that_of_another_instance_and_by_its_own(denies):
    one = denies()
    first, second = one.stage.instances
    for instance in (first, second):
        one.block(instance)
    drop_and_die(one, first)

    assert one.unblock(second)["error"] is None and one.stage.rules() == []

    assert one.unblock(first)["error"] is None and one.state() == one.began


def test_a_hold_that_cannot_be_dropped_stays_and_so_does_the_way_back(denies):
    one = denies()
    first, second = one.stage.instances
    for instance in (first, second):
        one.block(instance)

    refused = one.unblock(
        first, fault=lambda _, call: "UnauthorizedOperation" if "CreateTags" in call else None
    )

    assert refused["status"] == "failed" and "UnauthorizedOperation" in refused["error"]
    assert one.stage.tags(first) == {KEY: one.stage.acl}
    assert f"for {second}" in refused["detail"]
    assert one.unblock(second)["error"] is None and one.stage.rules()
    assert one.unblock(first)["error"] is None
    assert one.state() == one.began


def test_a_new_finding_takes_the_deny_back_from_a_release_that_died(denies):
    one = denies()
    first, second = one.stage.instances
    for instance in (first, second):
        one.block(instance)
    drop_and_die(one, first)

    assert one.block(first)["error"] is None
    assert one.unblock(second)["error"] is None

    assert one.stage.rules() and one.stage.tags(first) == {KEY: one.stage.acl}
    assert one.unblock(first)["error"] is None and one.state() == one.began


def test_holds_are_matched_here_whatever_describe_tags_answers(denies):
    """A filter that is not honoured: marks of ACLs and denies of other addresses come as well."""
    one = denies()
    first, second = one.stage.instances
    one.block(first)
    one.block(second, "198.51.100.9")
    everything = one.stage.ec2.describe_tags()["Tags"]

    def alter(name, answer):
        if name == "DescribeTags":
            answer["Tags"] = everything

    one.wire.edit = alter
    assert one.unblock(first)["error"] is None

    assert [cidr for _, cidr in one.stage.rules()] == ["198.51.100.9/32"]


# Tags that somebody else wrote, or an earlier version


def test_records_of_an_earlier_version_are_reverted(denies):
    one = denies()
    first, second = one.stage.instances
    for instance in (first, second):
        one.block(instance)
    for resource in (first, second, one.stage.acl):
        value = one.stage.tags(resource)[KEY]
        one.stage.ec2.delete_tags(Resources=[resource], Tags=[{"Key": KEY}])
        one.stage.tag(resource, **{OLD_KEY: value})
    one.block(first, ADDRESS, "198.51.100.9")
    done = one.stage.rules()

    assert f"for {second}" in one.unblock(first)["detail"]
    assert [rule for rule in done if ADDRESS in rule[1]] == one.stage.rules()
    assert one.unblock(second)["error"] is None
    assert one.state() == one.began


@pytest.mark.parametrize(
    "key, value",
    [
        ("forensic:deny:999.1.1.1", "acl-0abc1234def567890"),
        ("forensic:deny:999.1.1.1/32", "acl-0abc1234def567890"),
        ("forensic:deny:10.0.0.0/8", "acl-0abc1234def567890"),
        ("forensic:deny:", "x"),
        (f"{KEY}:2", "acl-0abc1234def567890"),
        ("forensic:deny:203.0.113.9:2", "acl-0abc1234def567890"),
        ("forensic:deny:2001:db8::7", "acl-0abc1234def567890"),
        ("forensic:deny:198.51.100.9", "*"),
        ("forensic:deny:198.51.100.9", "x/y/notaport acl-zz"),
        ("forensic:deny:198.51.100.9", ""),
        (KEY, "acl-* i-0abc1234def567890"),
    ],
)
def test_what_is_malformed_on_the_instance_stops_no_release(denies, key, value):
    one = denies()
    one.block()
    words = one.stage.tags(one.stage.instance).get(KEY, "") if key == KEY else ""
    one.stage.tag(one.stage.instance, **{key: f"{words} {value}".strip()})

    report = one.unblock()

    assert one.state() == one.began
    if value and key != f"{KEY}:2":  # nothing, or a second part of a record, is not malformed
        assert "left out" in report["error"] and "malformed" in str(report["facts"])
    assert one.unblock()["status"] == "unchanged"


@pytest.mark.parametrize("words", ["x/y/notaport", "ingress:x egress:99999", "ingress: :99", "*"])
def test_what_is_malformed_on_the_acl_stops_no_release(denies, words):
    one = denies()
    one.block()
    mark = one.stage.tags(one.stage.acl)[KEY]
    one.stage.tag(one.stage.acl, **{KEY: f"{mark} {words}"})

    report = one.unblock()

    assert one.state() == one.began
    assert (
        report["status"] == "failed"
        and "is no rule: left out" in report["error"]
        and one.stage.acl in report["error"]
    )
    assert one.unblock()["status"] == "unchanged"


def test_malformed_words_are_kept_out_of_the_next_record(denies):
    one = denies()
    one.stage.tag(one.stage.instance, **{KEY: "x/y/notaport", "forensic:deny:999.1.1.1/32": "x"})

    assert one.block()["error"] is None

    assert one.stage.tags(one.stage.instance)[KEY] == one.stage.acl


@pytest.mark.parametrize(
    "stage", [s for s in STAGES if s.kind == "ec2" and s.revert], ids=lambda s: s.step
)
def test_every_record_is_taken_where_the_metadata_service_shows_the_tags(play, stage):
    one = play(stage)
    one.stage.ec2.modify_instance_metadata_options(
        InstanceId=one.stage.instance, InstanceMetadataTags="enabled"
    )

    assert one.step()["error"] is None
    assert one.revert()["error"] is None and one.state() == one.began


@pytest.mark.parametrize("address", [ADDRESS, "2001:db8:ffff::7"])
def test_the_key_of_a_deny_has_no_slash_and_goes_on_unmistakably(denies, address):
    """`:2` behind a key that goes on must not be a part of the address."""
    one = denies()
    one.block(one.stage.instance, address)
    (key,) = [k for k in one.stage.tags(one.stage.instance) if k.startswith("forensic:deny:")]
    more = " ".join(f"acl-{n:017x}" for n in range(3))
    one.stage.tag(one.stage.instance, **{f"{key}:2": more})

    assert "/" not in key
    assert one.unblock()["error"] is None and one.state() == one.began


# Answers that are not the asked


def of_another_acl(one):
    """An answer of DescribeNetworkAcls with an ACL that none of the instance's subnets has."""
    stage = one.stage
    other = stage.ec2.create_network_acl(VpcId=stage.shared["vpc"])["NetworkAcl"]["NetworkAclId"]
    for egress in (False, True):
        stage.ec2.create_network_acl_entry(
            NetworkAclId=other,
            RuleNumber=100,
            Protocol="-1",
            RuleAction="allow",
            Egress=egress,
            CidrBlock="0.0.0.0/0",
        )

    def shown():
        return stage.ec2.describe_network_acls(NetworkAclIds=[other])["NetworkAcls"]

    def alter(name, answer):
        if name == "DescribeNetworkAcls":
            answer["NetworkAcls"] += shown()

    one.wire.edit = alter
    return shown


def test_an_acl_of_another_subnet_is_not_changed(denies):
    one = denies()
    shown = of_another_acl(one)
    before = shown()

    report = one.block()

    assert report["status"] == "done" and shown() == before
    assert [row["network_acl"] for row in report["network_acls"]] == [one.stage.acl]


def test_an_acl_that_was_not_asked_for_is_not_changed_by_the_release(denies):
    one = denies()
    one.block()
    shown = of_another_acl(one)
    other = shown()[0]["NetworkAclId"]
    one.stage.ec2.create_network_acl_entry(
        NetworkAclId=other,
        RuleNumber=99,
        Protocol="-1",
        RuleAction="deny",
        Egress=False,
        CidrBlock=f"{ADDRESS}/32",
    )
    one.stage.tag(other, **{KEY: "ingress:99"})
    before = shown()

    assert one.unblock()["error"] is None

    assert shown() == before and one.state() == one.began


def foreign(one, *acls):
    def alter(name, answer):
        if name == "DescribeNetworkAcls":
            for acl in answer["NetworkAcls"]:
                if not acls or acl["NetworkAclId"] in acls:
                    acl["OwnerId"] = "999988887777"

    one.wire.edit = alter


@pytest.mark.parametrize("dryrun", [False, True])
def test_an_acl_of_the_account_that_shares_the_subnet_is_skipped_and_named(denies, dryrun):
    one = denies()
    foreign(one)

    report = one.block(dryrun=dryrun)

    assert report["status"] == "skipped" and report["error"] is None
    for part in (one.stage.acl, "account 999988887777", f"ask there to deny {ADDRESS}/32"):
        assert part in report["detail"]
    assert one.writes == [] and one.state() == one.began
    assert [row["status"] for row in report["network_acls"]] == ["skipped"]


def test_the_owners_own_deny_is_told(denies):
    one = denies()
    one.stage.person_denies(50)
    foreign(one)

    report = one.block()

    assert report["status"] == "unchanged" and f"{ADDRESS}/32 is denied on" in report["detail"]
    assert one.writes == []


def test_a_record_that_names_an_acl_of_another_account_reverts_nothing_there(denies):
    one = denies()
    one.block()
    foreign(one)

    report = one.unblock()

    assert report["status"] == "done" and one.stage.rules()
    assert not [c for c in one.writes if not c.endswith("Tags")]


# Whose addresses are denied, and how many


VICTIMS = [
    "Recon:EC2/Portscan",
    "Impact:EC2/PortSweep",
    "UnauthorizedAccess:EC2/SSHBruteForce",
    "UnauthorizedAccess:EC2/RDPBruteForce",
    "Impact:EC2/WinRMBruteForce",
    "Backdoor:EC2/DenialOfService.Dns",
    "Backdoor:EC2/DenialOfService.UdpOnTcpPorts",
    "Backdoor:EC2/Spambot",
    "Behavior:EC2/TrafficVolumeUnusual",
    "DefenseEvasion:EC2/UnusualDNSResolver",
]
ATTACKERS = [
    "UnauthorizedAccess:EC2/MaliciousIPCaller.Custom",
    "UnauthorizedAccess:EC2/TorClient",
    "UnauthorizedAccess:EC2/TorRelay",
    "Backdoor:EC2/C&CActivity.B",
    "CryptoCurrency:EC2/BitcoinTool.B",
    "Trojan:EC2/DropPoint",
    "Trojan:EC2/BlackholeTraffic",
    "Recon:EC2/PortProbeUnprotectedPort",
]


@pytest.mark.parametrize("type", VICTIMS)
def test_what_the_intruder_attacks_is_not_denied(denies, type):
    one = denies()

    report = one.block(None, "8.8.8.8", type=type, role="ACTOR")

    assert report["status"] == "skipped" and one.writes == []
    assert "Not blocked: '8.8.8.8'" in report["detail"] and type in report["detail"]


@pytest.mark.parametrize("type", ATTACKERS)
@pytest.mark.parametrize("role", ["ACTOR", "TARGET"])
def test_the_intruders_own_address_is_denied(denies, type, role):
    assert denies().block(type=type, role=role)["status"] == "done"


@pytest.mark.parametrize("type", VICTIMS[2:5])
def test_whoever_tries_passwords_on_the_instance_is_denied(denies, type):
    assert denies().block(type=type, role="TARGET")["status"] == "done"


def test_the_policy_can_name_other_types(denies):
    one = denies()
    chosen = {"not-for-types": [{"prefix": "Trojan:EC2/"}]}

    assert one.block(type="Trojan:EC2/DropPoint", data=chosen)["status"] == "skipped"
    assert one.block(type="Recon:EC2/Portscan", data=chosen)["status"] == "done"


def test_networks_of_the_policy_are_never_denied(denies):
    one = denies()
    data = {"never": ["8.8.8.0/24", "2001:db8::/32"]}

    report = one.block(None, "8.8.8.8", "2001:db8::7", ADDRESS, data=data)

    assert [row["network"] for row in report["network_acls"]] == [f"{ADDRESS}/32"]
    assert "'8.8.8.8' (in 8.8.8.0/24, which the policy never denies)" in report["detail"]
    assert "2001:db8::/32" in report["detail"]


def test_one_instance_never_fills_an_acl(denies):
    one = denies()
    first, second = one.stage.instances
    one.block(first, "198.51.100.1", "198.51.100.2", "198.51.100.3")

    report = one.block(first, *(f"198.51.100.{n}" for n in range(3, 9)))
    again = one.block(first, "198.51.100.9")

    assert report["status"] == "done"
    assert sorted(cidr for _, cidr in one.stage.rules()) == [
        f"198.51.100.{n}/32" for n in range(1, 6)
    ]
    assert (
        "198.51.100.6/32 (the instance has 5 addresses denied, max-addresses is 5)"
        in (report["detail"])
    )
    assert again["status"] == "skipped" and "max-addresses is 5" in again["detail"]
    assert one.block(second, "198.51.100.9")["status"] == "done"
    assert one.block(first, "198.51.100.9")["error"] is None  # it is denied, and needs no room
    assert one.block(first, "198.51.100.10", data={"max-addresses": 9})["status"] == "done"


def test_tags_that_the_intruder_wrote_use_no_room_up(denies):
    one = denies()
    for n in range(5):
        one.stage.tag(one.stage.instance, **{f"forensic:deny:198.51.100.{n}": one.stage.acl})

    assert one.block()["status"] == "done"


# What may not be said


def test_a_release_that_cannot_look_for_holds_removes_nothing_and_can_be_run_again(denies):
    one = denies()
    one.block()

    refused = one.unblock(
        fault=lambda _, call: "RequestLimitExceeded" if "DescribeTags" in call else None
    )

    assert refused["status"] == "failed" and "RequestLimitExceeded" in refused["error"]
    assert [c for c in one.calls if not is_read(c)] == ["ec2:CreateTags"] and one.stage.rules()
    assert one.unblock()["error"] is None and one.state() == one.began


FIELDS = ("NetworkAclId", "Entries", "Associations", "Egress", "RuleNumber", "RuleAction")


@pytest.mark.parametrize("field", [*FIELDS, "Protocol", "CidrBlock", "OwnerId", "Tags"])
@pytest.mark.parametrize("times", [1, 9])
def test_an_answer_without_a_field_loses_no_deny_and_no_record(denies, field, times):
    one, answers = denies(), []

    def alter(name, answer):
        if name == "DescribeNetworkAcls":
            answers.append(name)
            for part in (p for acl in answer["NetworkAcls"] for p in (*acl["Entries"], acl)):
                if len(answers) <= times:
                    part.pop(field, None)

    for run in (one.block, one.unblock):
        answers.clear()
        one.wire.edit = alter
        report = run()

        assert not report["error"] or "Error: " not in report["error"], report
        if report["status"] == "failed":
            one.wire.edit = None
            assert run()["error"] is None
        one.wire.edit = None
    if field == "Tags":  # which is what EC2 shows of an ACL without a mark
        assert "ingress rule 99, egress rule 99 has no mark and stays" in report["error"]
        assert one.unblock()["status"] == "unchanged"
    else:
        assert one.state() == one.began
