"""Central mode: one deployment in GuardDuty's administrator account acts in its members."""

import copy
import gc
import json
import re
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from c7n.config import Config
from c7n.exceptions import PolicyValidationError
from c7n.utils import reset_session_cache
from moto.sts.models import sts_backends
from pack import Pack, unpack

from custom_actions import central, clients, deadline, provision
from custom_actions.finding_file import read_finding
from custom_actions.modes import FindingMode
from infra import permissions
from simulation import deploy
from simulation.iam import ORGANIZATION
from simulation.world import build

ROOT = Path(__file__).parent.parent
ADMINISTRATOR, FIRST, SECOND = "111122223333", "444455556666", "777788889999"
REGION = "us-west-2"
FUNCTION = "lambda:SourceFunctionArn"
# of the policies that change something in an account whose finding it is
ROLES = {
    "".join(word.capitalize() for word in name.split("-")): name
    for name, policy in permissions.load().items()
    if policy.execution_mode == "guard-duty" and name != "finding-notify"
}
ROLE = "guardduty-response-member"
POLICIES = [
    f"policies/{n}.yml" for n in ("finding-notify", "ec2-isolate", "iam-role-revoke-sessions")
]
FINDING = read_finding(ROOT / "tests/findings/ec2-malicious-ip-caller.json")


STOLEN = "iam-role-credential-exfiltration.json"


def instance_of(event):
    return event["detail"]["resource"]["instanceDetails"]["instanceId"]


def finding_of(account, finding=FINDING, number=1):
    event = copy.deepcopy(finding) | {"account": account}
    event["detail"] |= {"accountId": account, "id": f"{number:02}{account}" + "f" * 18}
    return event


class Organization(Pack):
    """The administrator's deployment and queue, and the same instance in each account."""

    def __init__(self, cloud):
        mailer = deploy.mailer_stack(cloud, ADMINISTRATOR, REGION)
        super().__init__(cloud, mailer["MailQueueUrl"])
        self.made = 10
        self.queue_arn = mailer["MailQueueArn"]
        deploy.account_stack(
            cloud,
            ADMINISTRATOR,
            REGION,
            self.queue_arn,
            MemberRole=ROLE,
            OrganizationId=ORGANIZATION,
        )
        deploy.deploy(cloud, POLICIES, ADMINISTRATOR, REGION, member_role=ROLE)
        for member in (FIRST, SECOND):
            self.trust(member)
            cloud.administrators[member] = ADMINISTRATOR
        self.worlds = {
            account: build(cloud, finding_of(account)) for account in (ADMINISTRATOR, FIRST, SECOND)
        }

    def trust(self, member, administrator=ADMINISTRATOR):
        deploy.stack(
            self.cloud,
            "member-role.yml",
            member,
            REGION,
            AdministratorAccountId=administrator,
            OrganizationId=ORGANIZATION,
        )

    def trust_only(self, member, administrator):
        """Have the roles of a member trust another administrator account."""
        iam = self.cloud.client("iam", member, REGION)
        for policy in ("ec2-isolate", "iam-role-revoke-sessions"):
            role = iam.get_role(RoleName=f"{ROLE}-{policy}")["Role"]
            trust = json.dumps(role["AssumeRolePolicyDocument"])
            trust = re.sub(r"iam::[0-9]{12}", f"iam::{administrator}", trust)
            iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=trust)

    def is_isolated(self, account):
        world = self.worlds[account]
        groups = [i["groups"] for i in world.snapshot()[world.target]["interfaces"]]
        return [[g["name"] for g in group] for group in groups] == [["ForensicSecurityGroup"]]

    def others(self, account):
        return {a: world.snapshot() for a, world in self.worlds.items() if a != account}

    def writes(self):
        """The accounts in which the functions have changed anything, but for mails and keys."""
        reads = ("Describe", "Get", "List", "AssumeRole", "Publish")
        return {
            call.account_id
            for call in self.cloud.calls
            if str(call.caller).startswith("custodian-") and not call.operation.startswith(reads)
        }

    def assumed(self):
        """The roles that functions have assumed."""
        return [
            call.parameters["RoleArn"]
            for call in self.cloud.calls
            if call.operation == "AssumeRole" and call.caller.startswith("custodian-")
        ]

    def instance(self, account):
        """One more instance beside the finding's, and its finding."""
        world = self.worlds[account]
        ec2 = world.client("ec2")
        (beside,) = ec2.describe_instances(InstanceIds=[world.neighbours[0]])["Reservations"]
        (beside,) = beside["Instances"]
        (made,) = ec2.run_instances(
            ImageId=beside["ImageId"], MinCount=1, MaxCount=1, SubnetId=beside["SubnetId"]
        )["Instances"]
        self.made += 1
        event = finding_of(account, number=self.made)
        event["detail"]["resource"]["instanceDetails"]["instanceId"] = made["InstanceId"]
        return event

    def tags(self, event):
        shown = (
            self.worlds[event["account"]]
            .client("ec2")
            .describe_tags(Filters=[{"Name": "resource-id", "Values": [instance_of(event)]}])
        )
        return {tag["Key"]: tag["Value"] for tag in shown["Tags"]}

    def told(self):
        """Who published the remediation mails that are out, by account."""
        return [
            call.parameters["TopicArn"].split(":")[4]
            for call in self.cloud.call_log.by("custodian-ec2-isolate")
            if call.operation == "Publish"
        ]

    def central(self):
        """The runs of ec2-isolate in the administrator account."""
        return [i for i in self.of("ec2-isolate") if i.account_id == ADMINISTRATOR]

    def of(self, policy):
        return [i for i in self.cloud.invocations if i.function_name == f"custodian-{policy}"]


@pytest.fixture(scope="module")
def organization(cloud):
    return Organization(cloud)


def test_a_finding_of_a_member_is_acted_on_there_and_mailed_from_here(organization):
    cloud, swaps = organization.cloud, set()
    for number, account in enumerate((SECOND, FIRST, ADMINISTRATOR)):
        before = organization.others(account)
        cloud.call_log.clear()
        cloud.invocations.clear()

        organization.deliver(finding_of(account))

        assert organization.is_isolated(account) and organization.others(account) == before
        assert organization.writes() == {account}
        (isolation,) = organization.of("ec2-isolate")
        assert isolation.error is None and isolation.account_id == ADMINISTRATOR
        assert isolation.cold is (number == 0)  # the second is in the container of the first
        messages = organization.messages()
        assert [m["account_id"] for m in messages] == [account] * 2
        assert {m["policy"]["name"] for m in messages} == {"ec2-isolate", "finding-notify"}
        (headline,) = {
            m["event"]["c7n:notice"]["headline"]
            for m in messages
            if m["policy"]["name"] == "ec2-isolate"
        }
        assert "it has been isolated" in headline
        published = [c.parameters["TopicArn"] for c in cloud.calls if c.operation == "Publish"]
        topic = f"arn:aws:sns:{REGION}:{ADMINISTRATOR}:guardduty-response"
        assert published == [topic] * 2
        calls = [c.operation for c in cloud.call_log.by("custodian-ec2-isolate")]
        assumed = organization.assumed()
        if account == ADMINISTRATOR:
            assert assumed == []
        else:
            # nothing is assumed for the finding mail, which has to go out whatever becomes of it
            assert assumed == [f"arn:aws:iam::{account}:role/{ROLE}-ec2-isolate"]
            assert calls.pop(0) == "AssumeRole"
        # and not one call more up to the swap, with the brake and the groups of new accounts
        swap = calls.index("ModifyNetworkInterfaceAttribute")
        swaps.add(tuple(calls[:swap]))
        tags = organization.worlds[account].snapshot()[organization.worlds[account].target]["tags"]
        deployment = None if account == ADMINISTRATOR else ADMINISTRATOR
        assert tags["forensic:state"] == "isolated"
        assert tags.get("forensic:deployment") == deployment
    assert len(swaps) == 1


def test_a_role_that_cannot_be_assumed_is_named_and_nothing_is_changed_until_it_can(organization):
    cloud = organization.cloud
    iam = cloud.client("iam", SECOND, REGION)
    stolen = finding_of(SECOND, read_finding(ROOT / "tests/findings" / STOLEN), number=90)
    details = stolen["detail"]["resource"]["accessKeyDetails"]
    role = iam.create_role(RoleName=details["userName"], AssumeRolePolicyDocument="{}")["Role"]
    details["principalId"] = f"{role['RoleId']}:i-0abc1234def567890"
    organization.trust_only(SECOND, administrator=FIRST)
    event = organization.instance(SECOND)
    before = organization.others(None)
    cloud.invocations.clear()
    cloud.call_log.clear()

    organization.deliver(event)
    organization.deliver(stolen)

    assert organization.others(None) == before and organization.writes() == set()
    assert organization.tags(event) == {}
    for policy in ("ec2-isolate", "iam-role-revoke-sessions"):
        tries = organization.of(policy)
        assert len(tries) == 3 and tries[-1].dead_letter.endswith(":guardduty-response-dlq")
        for said in (
            SECOND,
            f"arn:aws:iam::{SECOND}:role/{ROLE}-{policy}",
            "infra/member-role.yml",
        ):
            assert said in tries[0].error["errorMessage"]
    assert len(organization.dead_letters()) == 2
    told = [m["policy"]["name"] for m in organization.messages()]
    assert told.count("finding-notify") == 2 and "ec2-isolate" not in told

    organization.trust_only(SECOND, administrator=ADMINISTRATOR)
    organization.deliver(stolen)

    assert organization.of("iam-role-revoke-sessions")[-1].error is None
    (deny,) = iam.list_role_policies(RoleName=details["userName"])["PolicyNames"]
    assert deny.startswith("forensic-deny-sessions-") and organization.writes() == {SECOND}


@pytest.fixture(scope="module")
def twice(organization):
    """The first member has a deployment of its own as well."""
    deploy.account_stack(organization.cloud, FIRST, REGION, organization.queue_arn)
    deploy.deploy(organization.cloud, ["policies/ec2-isolate.yml"], FIRST, REGION)
    return organization


@pytest.mark.parametrize(
    "first, second",
    [
        (FIRST, ADMINISTRATOR),
        pytest.param(ADMINISTRATOR, FIRST, marks=pytest.mark.slow),
    ],
)
def test_of_two_deployments_the_second_says_who_was_there_before(twice, first, second):
    event = twice.instance(FIRST)
    twice.cloud.call_log.clear()
    outcomes = []
    for account in (first, second, first):
        ran = twice.cloud.invoke("custodian-ec2-isolate", event, account, REGION)
        assert ran.error is None
        outcomes.append({o["step"]: o for o in ran.result["ec2-isolate"]})

    assert twice.told() == [first]
    isolated = [o["isolate-instance"] for o in outcomes]
    assert [o["status"] for o in isolated] == ["done", "unchanged", "unchanged"]
    said = f"The deployment of account {first} was there before."
    assert [said in o["detail"] for o in isolated] == [False, True, False]
    assert twice.tags(event).get("forensic:deployment") == {ADMINISTRATOR: first}.get(first)


def test_nobody_waits_for_a_deployment_that_the_seal_does_not_name(twice):
    """Whatever the instance's own role writes. Of a person who isolated by hand no mail is due."""
    event, ec2 = twice.instance(FIRST), twice.worlds[FIRST].client("ec2")
    instance_id = instance_of(event)
    own = twice.cloud.invoke("custodian-ec2-isolate", event, FIRST, REGION)
    mark = {"Key": "forensic:notified"}
    (group,) = ec2.describe_security_groups(
        Filters=[{"Name": "tag-key", "Values": [f"forensic:record:{instance_id}"]}]
    )["SecurityGroups"]
    (sealed,) = [t for t in group["Tags"] if t["Key"].endswith(instance_id)]
    assert " by=own " in sealed["Value"]

    forged = {"Key": "forensic:deployment", "Value": "999999999999"}
    ec2.create_tags(Resources=[instance_id], Tags=[forged])
    ec2.delete_tags(Resources=[instance_id], Tags=[mark])
    deceived = twice.cloud.invoke("custodian-ec2-isolate", event, FIRST, REGION)
    ec2.delete_tags(Resources=[instance_id], Tags=[mark, forged])
    sealed["Value"] = sealed["Value"].replace("by=own ", "")
    ec2.create_tags(Resources=[group["GroupId"]], Tags=[sealed])
    by_hand = twice.cloud.invoke("custodian-ec2-isolate", event, ADMINISTRATOR, REGION)

    for ran in (own, deceived, by_hand):
        assert ran.error is None and 15 not in ran.slept


def test_two_deployments_at_the_same_moment_act_and_mail_once(twice):
    """Both have looked before either writes that it was there. Then the administrator's goes on."""
    cloud, event = twice.cloud, twice.instance(FIRST)
    both, seen, ended = threading.Barrier(2), threading.Event(), threading.Event()
    sealed, asked = threading.Event(), threading.Event()
    cloud.call_log.clear()
    cloud.invocations.clear()
    looks = []

    def is_state(call):
        return call.operation == "CreateTags" and "forensic:state" in str(call.parameters)

    def is_own(call):
        role = sts_backends[FIRST]["aws"].get_assumed_role_from_access_key(call.access_key)
        return role is not None and role.role_arn.endswith("role/guardduty-response-ec2-isolate")

    def is_seal(call):
        return call.operation == "CreateTags" and "original-groups=" in str(call.parameters)

    def asks_who_sealed(call):
        filters = str(call.parameters.get("Filters"))
        return call.operation == "DescribeSecurityGroups" and "'tag-key'" in filters

    def own_looks(call):
        looks.append(call)
        if len(looks) == 1:
            assert seen.wait(20)
        if asked.is_set():
            assert ended.wait(20)

    # the administrator's is the first to seal
    cloud.before(
        "DescribeSecurityGroups",
        lambda call: sealed.wait(20) and None,
        when=lambda c: is_own(c) and "'group-id'" in str(c.parameters),
    )
    cloud.before("CreateTags", lambda call: both.wait(20) and None, when=is_state, times=2)
    cloud.before(
        "Publish",
        lambda call: asked.wait(20) and None,
        when=lambda c: c.caller == "custodian-ec2-isolate" and not is_own(c),
    )
    cloud.before(
        "DescribeInstances",
        own_looks,
        when=lambda c: is_own(c) and any(is_own(w) and is_state(w) for w in cloud.calls),
        times=None,
    )
    stop = [
        cloud.call_log.subscribe(lambda c: is_seal(c) and not is_own(c) and sealed.set()),
        cloud.call_log.subscribe(lambda c: asks_who_sealed(c) and is_own(c) and asked.set()),
        cloud.call_log.subscribe(lambda c: is_state(c) and not is_own(c) and seen.set()),
        cloud.functions.subscribe(lambda i: i in twice.central() and ended.set()),
    ]

    twice.deliver(event)

    for unsubscribe in stop:
        unsubscribe()
    ran = {i.account_id: i for i in twice.of("ec2-isolate")}
    assert set(ran) == {ADMINISTRATOR, FIRST} and not any(i.error for i in ran.values())
    assert 1 in ran[FIRST].slept  # it waited for the other
    assert twice.told() == [ADMINISTRATOR]
    assert [c.operation for c in cloud.calls].count("CreateSnapshots") == 1
    assert twice.tags(event)["forensic:state"] == "isolated"


@pytest.mark.slow
def test_one_that_never_mails_is_not_waited_for_long(twice):
    event = twice.instance(FIRST)
    cloud = twice.cloud
    cloud.fail("sns:Publish", "AuthorizationError", status=403)
    cloud.invoke("custodian-ec2-isolate", event, ADMINISTRATOR, REGION)

    ran = cloud.invoke("custodian-ec2-isolate", event, FIRST, REGION)

    *_, published = [
        c for c in cloud.call_log.by("custodian-ec2-isolate") if c.operation == "Publish"
    ]
    assert f":{FIRST}:" in published.parameters["TopicArn"]
    message = unpack(published.parameters["Message"])
    incident = message["event"]["c7n:notice"]["incident"]
    assert ran.error is None and "waited" not in f"{incident} {list(message['resources'][0])}"
    assert [s for s in ran.slept if s in (4, 8, 15)] == [4, 8, 15]  # once for all of its steps


def rule(cloud, policy):
    """The accounts whose findings the rule in the administrator account lets through."""
    events = cloud.client("events", ADMINISTRATOR, REGION)
    pattern = json.loads(events.describe_rule(Name=f"custodian-{policy}")["EventPattern"])
    return pattern["detail"].get("accountId")


def test_what_a_deploy_says_and_what_it_keeps(organization):
    """A forgotten word takes the response from no member."""
    cloud = organization.cloud
    path, notify = ["policies/ec2-isolate.yml"], ["policies/finding-notify.yml"]
    deploy.deploy(cloud, path, ADMINISTRATOR, REGION, max_per_hour="1")
    assert rule(cloud, "ec2-isolate") is None
    held = [organization.instance(FIRST) for _ in range(2)]
    ran = [
        cloud.invoke("custodian-ec2-isolate", event, ADMINISTRATOR, REGION).result["ec2-isolate"][0]
        for event in held
    ]
    assert ran[1]["withheld"] == "brake" and "no more than 1 may" in ran[1]["detail"]
    lambda_ = cloud.client("lambda", ADMINISTRATOR, REGION)
    numbers = []
    for said in ({}, {"max_per_hour": "policy"}):
        deploy.deploy(cloud, path, ADMINISTRATOR, REGION, **said)
        tags = lambda_.get_function(FunctionName="custodian-ec2-isolate")["Tags"]
        numbers.append(tags.get("forensic:max-per-hour"))
    assert numbers == ["1", None]

    deploy.deploy(cloud, notify, ADMINISTRATOR, REGION, member_role="none")
    assert rule(cloud, "finding-notify") == [ADMINISTRATOR] and rule(cloud, "ec2-isolate") is None


@pytest.mark.parametrize("number", ["0", "-1", "many", 1.5, True, ""])
def test_a_brake_that_is_no_number_is_refused(number):
    data = {"mode": {"execution-options": {"max-per-hour": number}}, "actions": []}
    with pytest.raises(
        PolicyValidationError, match=f"p max-per-hour {number!r} is neither a whole"
    ):
        provision.settle_brake(SimpleNamespace(name="p", data=data), dict)


@pytest.mark.parametrize("name", ["a role", "x" * 60, "", 7, "arn:aws:iam::444455556666:role/x"])
def test_a_member_role_that_is_no_name_is_refused(name):
    with pytest.raises(PolicyValidationError, match="is not what names of roles begin with"):
        central.checked(name, "ec2-isolate")


# The roles in the members


def document(template, name):
    properties = permissions.resources(template)[name]["Properties"]
    documents = [p["PolicyDocument"] for p in properties.get("Policies", ())]
    if documents or "ManagedPolicyArns" in properties:
        return documents[0] if documents else {"Statement": []}
    return properties["PolicyDocument"]


@pytest.mark.parametrize(
    "name", ["ForensicGroup", "Isolate", "Keep", *ROLES, "TransitionGroup", "Memory", "WriteCase"]
)
def test_a_role_in_a_member_may_what_the_function_may_in_its_own_account(name):
    """But for mail, log and dead letters; and its credentials are not a function's."""
    own = [
        s._replace(condition={k: v for k, v in s.condition.items() if FUNCTION not in v})
        for s in permissions.statements(document("account.yml", name))
    ]
    there = permissions.resources("member-role.yml")
    assert name in there, f"add the role {name} of infra/account.yml to infra/member-role.yml"
    assert permissions.statements(document("member-role.yml", name)) == own
    if name in ROLES:
        here, there = (
            permissions.resources(t)[name]["Properties"] for t in ("account.yml", "member-role.yml")
        )
        assert there.get("ManagedPolicyArns", []) == here["ManagedPolicyArns"][1:]
        assert here["ManagedPolicyArns"][0] == "Tell"


@pytest.mark.parametrize("name, policy", ROLES.items())
def test_a_role_trusts_one_role_and_that_one_function_may_take_it(name, policy):
    (trust,) = permissions.resources("member-role.yml")[name]["Properties"][
        "AssumeRolePolicyDocument"
    ]["Statement"]
    administrator = "arn:aws:iam::${AdministratorAccountId}:"
    assert trust["Principal"] == {"AWS": f"{administrator}root"}
    assert trust["Condition"] == {
        "ArnEquals": {"aws:PrincipalArn": f"{administrator}role/guardduty-response-{policy}"},
        "StringEquals": {"aws:PrincipalOrgID": "OrganizationId"},
    }
    (take,) = permissions.statements(document("account.yml", f"{name}InMembers"))
    assert take.actions == ["sts:AssumeRole"]
    assert take.resources == [f"arn:aws:iam::*:role/${{MemberRole}}-{policy}"]
    function = f"arn:aws:lambda:*:{permissions.ACCOUNT}:function:custodian-{policy}"
    assert take.condition == {
        "StringEquals": {"aws:ResourceOrgID": "OrganizationId"},
        "ArnLike": {FUNCTION: function},
    }


@pytest.mark.parametrize(
    "guard, step",
    [
        ("isolation-guard", "isolate-instance"),
        ("forensic-group-guard", "isolate-instance"),
        ("response-guard", "revoke-role-sessions"),
    ],
)
def test_the_guards_know_the_roles(guard, step):
    """They leave what the response does alone: else they would mail each isolation."""
    text = (ROOT / f"policies/{guard}.yml").read_text()
    for policy in ROLES.values():
        if step in (a.type for a in permissions.load()[policy].resource_manager.actions):
            for role in (f"guardduty-response-{policy}", f"{ROLE}-{policy}"):
                assert f"- {role}\n" in text, (
                    f"policy {policy}: add its role {role} to those that policies/{guard}.yml "
                    f"leaves alone, or the guard mails, and undoes, each {step}"
                )


# Sessions


@pytest.fixture
def own(organization, monkeypatch):
    """The sessions of ec2-isolate in the administrator account, as in the function."""
    reset_session_cache()
    name = "custodian-ec2-isolate"
    role = "guardduty-response-ec2-isolate"
    environment = organization.cloud.environment(ADMINISTRATOR, REGION, role, session_name=name)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    yield clients.FunctionSessions(REGION)
    reset_session_cache()


def of(account, own):
    """Configuration and sessions of a finding of this account, in the warm function of `own`."""
    mode = {"member-role": f"arn:aws:iam::{{account_id}}:role/{ROLE}-ec2-isolate"}
    config = Config.empty(account_id=ADMINISTRATOR, region=REGION)
    return central.of_event(finding_of(account), mode, config, own)


def test_a_warm_function_keeps_one_session_of_a_member_and_calls_by_no_other(own, organization):
    kept = []
    for account in (FIRST, SECOND, FIRST, ADMINISTRATOR, SECOND):
        config, sessions = of(account, own)
        ec2, sts = (clients.client(sessions, service) for service in ("ec2", "sts"))
        assert sts.get_caller_identity()["Account"] == account == config.account_id
        assert (ec2 is clients.client(sessions, "ec2")) and sessions(assume=False) is own()
        assert of(account, own)[1] is sessions  # and its clients, for the next finding of it
        kept.append(weakref.ref(sessions()))
        del sessions, ec2, sts
    reset_session_cache()
    gc.collect()
    # of five findings the last member's, and the function's own
    assert [ref() is not None for ref in kept] == [False, False, False, True, True]


def test_calls_in_a_member_are_tried_again_and_end_in_time(own, organization, monkeypatch):
    cloud = organization.cloud
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    _, sessions = of(FIRST, own)
    cloud.call_log.clear()
    cloud.fail("sts:AssumeRole", "Throttling", times=2)
    cloud.fail("CreateTags", "ConcurrentTagAccess", times=None)
    calls = [clients.client(sessions, "ec2"), sessions().client("ec2")]  # the pack's, Custodian's

    for ec2 in calls:
        with pytest.raises(ClientError, match="ConcurrentTagAccess"):
            ec2.create_tags(Resources=["i-1"], Tags=[])

    made = [call.operation for call in cloud.calls]
    assert made == ["AssumeRole"] * 3 + ["CreateTags"] * clients.ATTEMPTS * 2
    deadline.begin(SimpleNamespace(get_remaining_time_in_millis=lambda: 1000))
    try:
        with deadline.enforced(), pytest.raises(deadline.OutOfTime):
            calls[0].describe_instances()
    finally:
        deadline.begin(None)


def test_only_a_refusal_asks_for_the_roles(own, organization, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    for code, asks in (("AccessDenied", True), ("RegionDisabledException", False)):
        organization.cloud.fail("sts:AssumeRole", code, times=1)
        _, sessions = of(SECOND, own)
        reset_session_cache()
        sessions.kept = None
        with pytest.raises(central.NotAssumed, match=code) as failed:
            clients.client(sessions, "ec2").describe_instances()
        for words in ("infra/member-role.yml", "MemberRole", "OrganizationId", "service control"):
            assert (words in str(failed.value)) is asks


def test_an_account_is_twelve_digits_or_nothing_is_done(own):
    for odd in ("", "4444", "44445555666x", "444455556666/../x", None, ["444455556666"]):
        event = finding_of(FIRST)
        event["detail"]["accountId"] = odd
        config = Config.empty(account_id=ADMINISTRATOR, region=REGION)
        mode = {"member-role": "arn:aws:iam::{account_id}:role/x"}
        assert central.of_event(event, mode, config, own) == (config, own)
        assert FindingMode.refusal(event)
