"""accounts.yml: c7n-org deploys the same policy files to several accounts."""

from pathlib import Path

import pytest
import yaml

from custom_actions.finding_file import read_finding
from simulation import deploy
from simulation.mail import Mailer
from simulation.smtp import MailSink
from simulation.world import build

ROOT = Path(__file__).parent.parent
FIRST, SECOND = yaml.safe_load((ROOT / "accounts.yml").read_text())["accounts"]
REGION = FIRST["regions"][0]
FUNCTIONS = ["custodian-ec2-isolate", "custodian-finding-notify"]


@pytest.fixture(scope="module")
def organization(cloud, tmp_path_factory):
    contain = yaml.safe_load((ROOT / "accounts.yml").read_text())
    contain["vars"]["autonomy"] = "contain"  # whatever the team that commits the file has chosen
    accounts = tmp_path_factory.mktemp("accounts") / "accounts.yml"
    accounts.write_text(yaml.safe_dump(contain))
    others = {"AccountIds": SECOND["account_id"]}
    mailer = deploy.mailer_stack(cloud, FIRST["account_id"], REGION, **others)
    for account in (FIRST, SECOND):
        deploy.account_stack(cloud, account["account_id"], REGION, mailer["MailQueueArn"])
    for policy in ("finding-notify", "ec2-isolate"):
        deploy.c7n_org(
            cloud,
            ["run", "-c", accounts, "-s", cloud.folder / "org"] + ["-u", f"policies/{policy}.yml"],
            FIRST["account_id"],
            REGION,
        )
    cloud.mail_queue = mailer["MailQueueUrl"]
    return cloud


@pytest.mark.parametrize("account", [FIRST, SECOND], ids=lambda account: account["name"])
def test_the_policies_are_deployed_to_each_account(organization, account):
    functions = organization.client("lambda", account["account_id"], REGION).list_functions()
    names = sorted(f["FunctionName"] for f in functions["Functions"])
    assert names == FUNCTIONS
    for function in functions["Functions"]:
        role = f"guardduty-response-{function['FunctionName'].removeprefix('custodian-')}"
        assert function["Role"] == f"arn:aws:iam::{account['account_id']}:role/{role}"
    events = organization.client("events", account["account_id"], REGION)
    for name in names:
        (target,) = events.list_targets_by_rule(Rule=name)["Targets"]
        queue = f"arn:aws:sqs:{REGION}:{account['account_id']}:guardduty-response-dlq"
        assert target["DeadLetterConfig"] == {"Arn": queue}


def test_a_finding_of_the_second_account_isolates_there_only_and_is_mailed(organization):
    cloud = organization
    event = read_finding(ROOT / "tests/findings/ec2-malicious-ip-caller.json")
    first = build(cloud, event)
    other = {**event, "account": SECOND["account_id"]}
    other["detail"] = {**event["detail"], "accountId": SECOND["account_id"]}
    second = build(cloud, other)
    before = first.snapshot()

    with MailSink() as sink:
        mailer = Mailer(cloud, sink, FIRST["account_id"], REGION, cloud.mail_queue)
        mailer.deliver_all()  # which confirms the second account's subscription
        cloud.put_event(other)
        cloud.wait_idle()
        mailer.deliver_all()

    assert first.snapshot() == before
    groups = [i["groups"] for i in second.snapshot()[second.target]["interfaces"]]
    assert [[g["name"] for g in group] for group in groups] == [["ForensicSecurityGroup"]]
    assert {i.account_id for i in cloud.invocations} == {SECOND["account_id"]}
    account = f"Account: {SECOND['account_id']} ({SECOND['name']}; environment: production)"
    assert len(sink.mails) == 2
    assert all(account in " ".join(mail.text.split()) for mail in sink.mails)
