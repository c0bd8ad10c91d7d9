"""Central mode: one deployment in GuardDuty's administrator account acts in its members."""

import copy
import json
from pathlib import Path

import pytest
from conftest import Pack

from custom_actions.finding_file import read_finding
from infra import permissions
from simulation import deploy
from simulation.iam import ORGANIZATION
from simulation.world import build

ROOT = Path(__file__).parent.parent
ADMINISTRATOR, FIRST, SECOND = "111122223333", "444455556666", "777788889999"
REGION = "us-west-2"
ROLE = "guardduty-response-member"
POLICIES = [
    f"policies/{n}.yml" for n in ("finding-notify", "ec2-isolate", "iam-role-revoke-sessions")
]
FINDING = read_finding(ROOT / "tests/findings/ec2-malicious-ip-caller.json")


def finding_of(account, finding=FINDING, number=1):
    event = copy.deepcopy(finding) | {"account": account}
    event["detail"] |= {"accountId": account, "id": f"{number:02}{account}" + "f" * 18}
    return event


class Organization(Pack):
    """The administrator's deployment and queue, and the same instance in each account."""

    def __init__(self, cloud):
        mailer = deploy.mailer_stack(cloud, ADMINISTRATOR, REGION)
        super().__init__(cloud, mailer["MailQueueUrl"])
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

    def of(self, policy):
        return [i for i in self.cloud.invocations if i.function_name == f"custodian-{policy}"]


@pytest.fixture(scope="module")
def organization(cloud):
    return Organization(cloud)


def test_a_finding_of_a_member_is_acted_on_there_and_mailed_from_here(organization):
    cloud = organization.cloud
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
        assumed = [c for c in cloud.calls if c.operation == "AssumeRole"]
        if account == ADMINISTRATOR:
            assert assumed == []
        else:
            # nothing is assumed for the finding mail, which has to go out whatever becomes of it
            assert [c.parameters["RoleArn"] for c in assumed] == [
                f"arn:aws:iam::{account}:role/{ROLE}-ec2-isolate"
            ]
            assert calls[0] == "AssumeRole"
        tags = organization.worlds[account].snapshot()[organization.worlds[account].target]["tags"]
        deployment = None if account == ADMINISTRATOR else ADMINISTRATOR
        assert tags["forensic:state"] == "isolated"
        assert tags.get("forensic:deployment") == deployment
