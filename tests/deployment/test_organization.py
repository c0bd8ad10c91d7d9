"""deploy, plan and undeploy in the accounts and regions of a file; and a finding in one of them."""

import copy
import shutil
from pathlib import Path
from unittest import mock

import pytest
import yaml
from moto.resourcegroupstaggingapi.models import ResourceGroupsTaggingAPIBackend

from custom_actions.finding_file import read_finding
from custom_actions.version import VERSION, VERSION_TAG
from simulation import deploy
from simulation.calls import ApiError
from simulation.mail import Mailer
from simulation.organizations import organization as make_organization
from simulation.smtp import MailSink
from simulation.world import build

ROOT = Path(__file__).parents[2]
HERE, US = "111122223333", "us-west-2"
ACCOUNTS = {"sandbox": HERE, "staging": "444455556666", "production": "777788889999"}
REGIONS = [US, "eu-central-1"]
EVERYWHERE = [(account, region) for account in ACCOUNTS.values() for region in REGIONS]
POLICIES = ["ec2-isolate", "finding-notify"]
FINDING = read_finding(ROOT / "tests/findings/ec2-malicious-ip-caller.json")
MEMBER = "guardduty-response-member"
MAILS = ["GuardDuty Finding", "GuardDuty Remediation"]


@pytest.fixture(scope="module")
def organization(cloud, tmp_path_factory):
    folder = tmp_path_factory.mktemp("organization")
    members = {account: name for name, account in ACCOUNTS.items()}
    name = make_organization(cloud, "999988887777", members)
    mailer = deploy.mailer_stack(cloud, HERE, US, OrganizationId=name)
    for account, region in EVERYWHERE:
        more = {"MemberRole": MEMBER, "OrganizationId": name} if account == HERE else {}
        deploy.account_stack(cloud, account, region, mailer["MailQueueArn"], RoleRegion=US, **more)
    return Organization(cloud, folder, mailer["MailQueueUrl"], name)


class Organization:
    def __init__(self, cloud, folder, queue, name):
        self.cloud, self.queue, self.name = cloud, queue, name
        self.accounts, self.policies = folder / "accounts.yml", folder / "policies"
        self.policies.mkdir()
        for name in POLICIES:
            shutil.copy(ROOT / f"policies/{name}.yml", self.policies)
        listed = [
            {
                "account_id": account,
                "name": name,
                "role": f"arn:aws:iam::{account}:role/custodian-deploy",
                "regions": REGIONS,
                "tags": [f"environment:{name}"],
            }
            for name, account in ACCOUNTS.items()
        ]
        listed[2]["vars"] = {"autonomy": "contain", "owner": "shop team"}
        self.listed = {"vars": {"autonomy": "observe"}, "accounts": listed}
        self.accounts.write_text(yaml.safe_dump(self.listed))

    def run(self, command, *options, here=False):
        """(exit code, output). here: in the caller's own account, which no file names."""
        arguments = [command, *(() if here else ("-c", self.accounts)), *options]
        if command != "undeploy":
            arguments += ["--folder", self.policies]
        done = deploy.deployment(self.cloud, arguments, HERE, US)
        return done.returncode, done.stdout

    def is_everywhere(self):
        """Deploy, unless a test before has done it."""
        if not all(self.functions(*there) for there in EVERYWHERE):
            self.run("deploy")

    def functions(self, account, region):
        shown = self.cloud.client("lambda", account, region).list_functions()["Functions"]
        return {f["FunctionName"].removeprefix("custodian-"): f for f in shown}

    def rules(self, account, region):
        rules = self.cloud.client("events", account, region).list_rules()["Rules"]
        return sorted(rule["Name"].removeprefix("custodian-") for rule in rules)

    def tags(self, account, region, name):
        lambda_ = self.cloud.client("lambda", account, region)
        return lambda_.get_function(FunctionName=f"custodian-{name}")["Tags"]

    def writes(self):
        """(account, region) in which functions or rules were written since the log was cleared."""
        reads = ("Get", "List", "Describe")
        return {
            (call.account_id, call.region)
            for call in self.cloud.call_log.calls
            if call.service in ("lambda", "events") and not call.operation.startswith(reads)
            if call.status == 200 or call.status == 201
        }


def test_what_does_not_exist_or_is_not_valid_is_refused_before_anything(organization, tmp_path):
    organization.cloud.call_log.clear()
    code, output = organization.run("deploy", "-a", "nosuch")
    assert code == 2 and "no account nosuch" in output and "sandbox" in output
    code, output = organization.run("deploy", "-t", "environment:none")
    assert code == 2 and "environment:none" in output
    code, output = organization.run("deploy", "--region", "eu-centrall-1")
    assert code == 2 and "Did you mean eu-central-1?" in output
    code, output = organization.run("deploy", "-p", "ec2-isolat")
    assert code == 2 and "no policy ec2-isolat." in output
    code, output = organization.run("deploy", "--mode", "observe")
    assert code == 2 and "autonomy: said in accounts.yml" in output
    assert "not observe for production." in " ".join(output.split())
    code, output = organization.run("deploy", "--member-role", "guardduty-response-member")
    assert code == 2 and "member-role: said in accounts.yml" in output
    wrong = organization.policies / "wrong.yml"
    wrong.write_text((organization.policies / "ec2-isolate.yml").read_text().replace(
        "- leave-service", "- leave-servise"
    ))  # fmt: skip
    try:
        code, output = organization.run("deploy")
    finally:
        wrong.unlink()
    assert code == 2 and "wrong.yml is not valid" in output and "leave-servise" in output
    assert organization.cloud.call_log.calls == []


def test_one_account_is_named_with_its_alias_and_each_policy_has_a_line(organization):
    cloud, there = organization.cloud, ["--region", US]
    cloud.client("iam", HERE, US).create_account_alias(AccountAlias="acme-prod")

    def lines(command, *options):
        code, output = organization.run(command, *there, *options, here=True)
        return code, [" ".join(line.split()) for line in output.splitlines()]

    place = f"{HERE} (alias acme-prod), {US}"
    cloud.fail("iam:ListAccountAliases", "AccessDenied", status=403)
    code, told = lines("deploy", "--mode", "contain", "-p", "ec2-isolate")
    assert (code, told) == (0, [f"Deploy: {HERE}, {US}, mode contain", "ec2-isolate made"])
    code, told = lines("deploy")
    assert (code, told) == (0, [
        f"Deploy: {place}",
        "finding-notify observe made",
        "ec2-isolate contain unchanged",
        "observe: it mails what it would do, and changes nothing. MODE=contain acts.",
    ])  # fmt: skip
    cloud.fail("lambda:GetFunction", "AccessDenied", status=403)  # of the first
    code, (heading, first, second, *_) = lines("plan", "--mode", "observe")
    assert (code, heading) == (1, f"Plan, nothing was changed: {place}, mode observe")
    assert first.startswith("finding-notify FAILED: GetFunction: AccessDenied")
    assert second == "ec2-isolate changed: code, mode (contain -> observe)"


def test_those_that_fail_are_named_and_stop_no_other(organization):
    """Then a second run completes them and touches nothing else."""
    log, staging, production = organization.cloud.call_log, *list(ACCOUNTS.values())[1:]
    log.clear()
    log.before(
        "sts:AssumeRole",
        lambda call: ApiError("AccessDenied", "not authorized to perform: sts:AssumeRole", 403),
        when=lambda call: staging in call.parameters["RoleArn"],
        times=None,
    )
    log.before(
        "sns:*",
        lambda call: ApiError("InvalidClientTokenId", "The token is invalid", 403),
        when=lambda call: (call.account_id, call.region) == (HERE, "eu-central-1"),
        times=None,
    )
    iam = organization.cloud.client("iam", production, US)
    role = "guardduty-response-finding-notify"
    (policy,) = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    iam.delete_role(RoleName=role)

    code, output = organization.run("deploy")

    assert code == 1 and "5 of 6 failed" in output
    lines = output[output.index("Failed") :].splitlines()
    for account, region, reason in (
        (staging, US, "sts:AssumeRole"),
        (staging, "eu-central-1", "sts:AssumeRole"),
        (HERE, "eu-central-1", "not enabled in the account"),
        (production, US, f"role {role}: not there"),
        (production, "eu-central-1", f"role {role}: not there"),
    ):
        assert any(account in line and region in line and reason in line for line in lines), lines
    assert "Traceback" not in output
    assert organization.writes() == {(HERE, US)}
    assert sorted(organization.functions(HERE, US)) == POLICIES

    log.clear()
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=str(trust).replace("'", '"'))
    code, output = organization.run("deploy")
    assert code == 0, output
    assert organization.writes() == set(EVERYWHERE) - {(HERE, US)}
    rows = [[cell.strip() for cell in line.split("│")] for line in output.splitlines()]
    assert [f"{HERE} (sandbox)", US, "observe", "all 2 unchanged"] in rows
    assert [f"{production} (production)", US, "contain", "all 2 made"] in rows
    for account, region in EVERYWHERE:
        assert sorted(organization.functions(account, region)) == POLICIES
        assert organization.rules(account, region) == POLICIES
        tags = organization.tags(account, region, "ec2-isolate")
        wanted = "contain" if account == ACCOUNTS["production"] else "observe"
        assert (tags["forensic:autonomy"], tags[VERSION_TAG]) == (wanted, VERSION)


def test_a_plan_says_what_the_deploy_then_does(organization):
    there = ["-a", "sandbox", "--region", "eu-central-1"]
    organization.run("deploy", *there)
    file = organization.policies / "ec2-isolate.yml"
    before = file.read_text()
    cloud = organization.cloud
    functions, events = (
        cloud.client(service, HERE, "eu-central-1") for service in ("lambda", "events")
    )
    events.disable_rule(Name="custodian-finding-notify")
    events.remove_targets(Rule="custodian-ec2-isolate", Ids=["custodian-ec2-isolate"])
    functions.remove_permission(
        FunctionName="custodian-ec2-isolate", StatementId="custodian-ec2-isolate"
    )
    functions.add_permission(
        FunctionName="custodian-ec2-isolate", StatementId="custodian-ec2-isolate",
        Action="lambda:InvokeFunction", Principal="events.amazonaws.com",
        SourceArn="arn:aws:events:eu-central-1:111122223333:rule/other",
    )  # fmt: skip
    file.write_text(before.replace("timeout: 900", "timeout: 800"))
    cloud.call_log.clear()
    try:
        code, plan = organization.run("plan", *there)
        assert (code, organization.writes()) == (0, set()), plan
        # as accounts.yml has it
        code, done = organization.run("deploy", *there, "--mode", "observe")
        assert code == 0, done
    finally:
        file.write_text(before)

    heading, *told = plan.splitlines()
    assert heading.endswith(f": {HERE} (sandbox), eu-central-1, mode observe")
    assert told == done.splitlines()[1:]
    text = " ".join("\n".join(told).split())
    assert "ec2-isolate changed: code, configuration (Timeout), target, permission" in text
    assert "finding-notify changed: rule (State)" in text
    assert "`autonomy: contain` in accounts.yml acts." in text
    assert organization.writes() == {(HERE, "eu-central-1")}
    (target,) = events.list_targets_by_rule(Rule="custodian-ec2-isolate")["Targets"]
    assert target["DeadLetterConfig"]["Arn"].endswith(":guardduty-response-dlq")
    policy = functions.get_policy(FunctionName="custodian-ec2-isolate")["Policy"]
    assert "rule/custodian-ec2-isolate" in policy and "rule/other" not in policy


def test_old_versions_are_trimmed(organization):
    """And an update that is still on its way is waited for, as is a role that was just made."""
    file = organization.policies / "finding-notify.yml"
    before = file.read_text()
    log = organization.cloud.call_log
    in_progress = "The operation cannot be performed at this time. An update is in progress"
    log.before(
        "lambda:UpdateFunctionCode",
        lambda call: ApiError("ResourceConflictException", in_progress, 409),
    )
    try:
        for seconds in (101, 102, 103):
            file.write_text(before.replace("timeout: 300", f"timeout: {seconds}"))
            where = ["-a", "sandbox", "--region", US, "-p", "finding-notify"]
            code, output = organization.run("deploy", *where)
            assert code == 0, output
    finally:
        file.write_text(before)
    functions = organization.cloud.client("lambda", HERE, US)
    versions = functions.list_versions_by_function(FunctionName="custodian-finding-notify")
    assert len(versions["Versions"]) == 3  # with $LATEST


def finding_in(account, region, **instance):
    event = copy.deepcopy(FINDING) | {"account": account, "region": region}
    event["detail"] |= {"accountId": account, "region": region}
    event["detail"]["resource"]["instanceDetails"] |= instance
    return event


def test_a_finding_isolates_in_its_account_and_region_alone_and_is_mailed_by_name(organization):
    """By the deployment of the account; by that of GuardDuty's administrator; and once by both."""
    organization.is_everywhere()
    cloud, there = organization.cloud, (ACCOUNTS["production"], "eu-central-1")
    worlds = {place: build(cloud, finding_in(*place)) for place in EVERYWHERE}
    world = worlds[there]

    def others():
        return {place: w.snapshot() for place, w in worlds.items() if place != there}

    def isolated():
        return {
            instance
            for instance, shown in world.snapshot().items()
            for interface in shown["interfaces"]
            if [group["name"] for group in interface["groups"]] == ["ForensicSecurityGroup"]
        }

    def found(number, instance):
        """The accounts whose functions ran, and the mails, for a finding of this instance."""
        event = finding_in(*there, instanceId=instance)
        event["detail"]["id"] = f"{number:032}"
        cloud.invocations.clear()
        sink.mails.clear()
        cloud.put_event(event)
        cloud.wait_idle()
        mailer.deliver_all()
        subjects = sorted(mail.subject.split(" | ")[0] for mail in sink.mails)
        return {one.account_id for one in cloud.invocations}, subjects

    before, untouched = world.snapshot(), others()
    with MailSink() as sink:
        mailer = Mailer(
            cloud, sink, HERE, US, organization.queue,
            accounts=str(organization.accounts), administrator_accounts=[HERE],
        )  # fmt: skip
        mailer.deliver_all()  # which confirms the subscriptions of the other accounts

        assert found(1, world.target) == (
            {there[0]},
            MAILS,
        )
        account = f"{there[0]} (production; environment: production; owner: shop team)"
        assert all(account in " ".join(mail.text.split()) for mail in sink.mails)
        assert isolated() == {world.target} and others() == untouched

        # now the administrator alone acts
        organization.run("undeploy", "-a", "production", "--yes")
        deploy.stack(
            cloud, "member-role.yml", there[0], US,
            AdministratorAccountId=HERE, OrganizationId=organization.name,
        )  # fmt: skip
        central = copy.deepcopy(organization.listed)
        central["accounts"][0]["vars"] = {"autonomy": "contain", "member-role": MEMBER}
        organization.accounts.write_text(yaml.safe_dump(central))
        code, output = organization.run("deploy", "-a", "sandbox", "--region", "eu-central-1")
        assert code == 0, output
        cloud.administrators[there[0]] = HERE
        first, second = world.neighbours
        assert found(2, first) == ({HERE}, MAILS)
        assert all(account in " ".join(mail.text.split()) for mail in sink.mails)
        assert isolated() == {world.target, first} and others() == untouched

        # now both: the member's own came first (at the same moment: tests/test_central_mode.py)
        code, output = organization.run("deploy", "-a", "production")
        assert code == 0, output
        del cloud.administrators[there[0]]
        assert found(3, second) == ({there[0]}, MAILS)
        cloud.administrators[there[0]] = HERE
        assert found(3, second) == ({HERE, there[0]}, [])
        assert isolated() == set(before) and others() == untouched


def test_what_left_the_folder_goes_with_prune_and_all_with_undeploy(organization):
    """A function that only looks like the pack's stays, whatever its name."""
    organization.is_everywhere()
    cloud = organization.cloud
    for name, tags in (("custodian-theirs", {}), ("custodian-tagged", {VERSION_TAG: "1"})):
        cloud.client("lambda", HERE, US).create_function(
            FunctionName=name, Runtime="python3.13", Handler="theirs.run", Code={"ZipFile": b"x"},
            Role=f"arn:aws:iam::{HERE}:role/guardduty-response-finding-notify", Tags=tags,
        )  # fmt: skip
    moved = organization.policies / "finding-notify.yml"
    kept = moved.read_text()
    moved.unlink()
    options = ["-a", "sandbox", "--region", US, "--prune"]

    code, output = organization.run("plan", *options)
    assert code == 1 and "removed: no policy has this name" in output
    assert "finding-notify" in organization.functions(HERE, US)
    code, output = organization.run("deploy", *options)
    moved.write_text(kept)

    assert code == 1 and "it has the pack's tag" in output
    assert sorted(organization.functions(HERE, US)) == ["ec2-isolate", "tagged", "theirs"]
    assert organization.rules(HERE, US) == ["ec2-isolate"]
    assert sorted(organization.functions(HERE, "eu-central-1")) == POLICIES

    with mock.patch.object(  # the list of tags lags behind
        ResourceGroupsTaggingAPIBackend, "get_resources", lambda *_, **__: (None, [])
    ):
        code, output = organization.run("undeploy", "-a", "staging")
    assert "To be removed" in output and "finding-notify" in output
    assert f"{ACCOUNTS['staging']} (staging)" in output
    code, output = organization.run("undeploy")  # nobody is there to say yes
    assert code == 1 and "To be removed" in output
    assert "finding-notify" in organization.functions(ACCOUNTS["staging"], US)
    code, output = organization.run("undeploy", "--yes")
    assert code == 1 and "1 of 6 failed" in output
    assert sorted(organization.functions(HERE, US)) == ["tagged", "theirs"]
    for account, region in EVERYWHERE[1:]:
        assert organization.functions(account, region) == {}
    assert not any(organization.rules(*there) for there in EVERYWHERE)
