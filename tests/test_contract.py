"""What holds for every policy and every action of the pack, whatever it does."""

import functools
import importlib
import inspect
import itertools
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import boto3
import pytest
import yaml
from c7n.actions import Action
from c7n.config import Config
from c7n.exceptions import PolicyValidationError
from c7n.filters import Filter
from c7n.loader import PolicyLoader
from c7n.manager import resources as registry
from c7n.resources import load_resources

import custom_actions
from custom_actions import provision
from custom_actions.builtin import TELLING, BuiltIn, Telling
from custom_actions.finding import is_among
from custom_actions.registry import register
from custom_actions.response import ResponseAction, Revert, Step
from custom_actions.steps.sessions import Revocation
from deployment import policies
from mailer.config import RUNTIME
from review import followed_by

ROOT = Path(__file__).parent.parent
POLICY_FILES = sorted((ROOT / "policies").rglob("*.yml"))  # with those of opt-in/
POLICIES = [
    pytest.param(path, policy, id=path.stem)
    for path in POLICY_FILES
    for policy in yaml.safe_load(path.read_text())["policies"]
]


KINDS = ("ec2", "account", "iam-user", "security-group")


def pack_elements(part):
    """Every action (or filter) of the pack: {(resource, name): class}; a name may mean several."""
    load_resources([f"aws.{kind}" for kind in KINDS])
    return {
        (kind, name): element
        for kind in KINDS
        for name, element in getattr(registry.get(kind), part).items()
        if element.__module__.startswith("custom_actions")
    }


ACTIONS = pack_elements("action_registry")
FILTERS = pack_elements("filter_registry")
TESTS = [p for p in (ROOT / "tests").rglob("test_*.py") if not p.stem.startswith("test_contract")]
STAGES = ROOT / "tests" / "conformance" / "stages.py"
# The boto3 clients of an IAM service prefix that is not a client's name itself.
CLIENTS = {"elasticloadbalancing": ("elb", "elbv2")}
RESOURCE = {
    "InstanceId": "i-0abc1234def567890",
    "account_id": "111122223333",
    "UserName": "build",
}
each_action = pytest.mark.parametrize("resource, name", sorted(ACTIONS))
each_element = pytest.mark.parametrize(
    "block, resource, name, element",
    [
        pytest.param(block, *key, element, id=f"{block}-{'-'.join(key)}")
        for block, elements in (("actions", ACTIONS), ("filters", FILTERS))
        for key, element in sorted(elements.items())
    ],
)
each_policy = pytest.mark.parametrize("path, policy", POLICIES)
BY_NAME = {policy["name"]: policy for _, policy in (param.values for param in POLICIES)}
FINDING_NOTIFY = ROOT / "policies" / "finding-notify.yml"


def is_for_findings(policy):
    return policy.get("mode", {}).get("type") == "guard-duty"


def load(data):
    loader = PolicyLoader(Config.empty(account_id="111122223333", region="us-west-2"))
    loaded = list(loader.load_data(data, "memory://"))
    for policy in loaded:
        policy.validate()
    return loaded


def test_the_actions_that_the_pack_promises_are_there():
    assert {"isolate-instance", "release-instance", "notify-once", "fail-unless-complete"} <= {
        name for _, name in ACTIONS
    }


@each_element
def test_element_has_a_closed_schema(block, resource, name, element):
    assert element.schema["additionalProperties"] is False, (
        f"{block} {name}: make its schema with type_schema, or an option that is misspelt passes"
    )
    with pytest.raises(Exception, match="misspelt"):
        load(
            {
                "policies": [
                    {
                        "name": "closed",
                        "resource": resource,
                        block: [{"type": name, "misspelt": True}],
                    }
                ]
            }
        )


def test_no_element_takes_a_name_of_custodians():
    """Which of the two a policy got would depend on the order of imports."""
    without_the_pack = f"""
from c7n.manager import resources
from c7n.resources import load_resources
load_resources([f"aws.{{kind}}" for kind in {KINDS}])
for kind in {KINDS}:
    for name in resources.get(kind).action_registry.keys():
        print("action", kind, name)
    for name in resources.get(kind).filter_registry.keys():
        print("filter", kind, name)
"""
    run = [sys.executable, "-c", without_the_pack]
    listed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    taken = set(listed.splitlines())
    assert {"action ec2 stop", "filter ec2 finding"} <= taken  # the latter is Security Hub's
    ours = {f"action {kind} {name}" for kind, name in ACTIONS}
    ours |= {f"filter {kind} {name}" for kind, name in FILTERS}
    assert not ours & taken, (
        f"{', '.join(sorted(ours & taken))}: Custodian has that name already, take another"
    )


def test_no_element_takes_a_name_of_another():
    load_resources(["aws.ec2"])
    for name in ("fail-unless-complete", "stop"):
        taken = registry.get("ec2").action_registry.get(name)
        with pytest.raises(ValueError, match=f"^{name} of ec2 is {taken.__module__}"):
            register(name, Step, "ec2")
        assert registry.get("ec2").action_registry.get(name) is taken


@functools.cache
def operations_of(client):
    return boto3.client(client, "us-east-1").meta.service_model.operation_names


# Calls that IAM has another name for
CALLED = {"s3:ListBucket": "s3:ListObjectsV2"}


@each_action
def test_action_names_real_permissions(resource, name):
    action = ACTIONS[resource, name]
    for permission in action.permissions:
        service, _, operation = CALLED.get(permission, permission).partition(":")
        known = [operations_of(client) for client in CLIENTS.get(service, [service])]
        assert operation in itertools.chain(*known), (
            f"action {name} of {resource}: {permission} in its `permissions` is no call of AWS"
        )


@each_element
def test_docstring_holds_a_complete_policy(block, resource, name, element):
    blocks = re.findall(
        r"\.\. code-block:: yaml\n\n(.*?)(?=\n\S|\n    \S|\Z)", inspect.getdoc(element), re.DOTALL
    )
    assert blocks, f"{block} {name}: add a policy to its docstring, `.. code-block:: yaml`"
    used = set()
    for text in blocks:
        for policy in load(yaml.safe_load(textwrap.dedent(text))):
            used |= {e.type for e in getattr(policy.resource_manager, block)}
    assert name in used, f"{block} {name}: the policy in its docstring uses {used}, and not it"


def test_every_action_and_filter_of_the_package_is_registered():
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(custom_actions.__path__, "custom_actions.")
        if not found.name.endswith("__main__")
    ]
    classes = {
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Action | Filter) and cls.__module__ == module.__name__
    }
    bases = {ResponseAction, Step, Revert, Revocation, BuiltIn, Telling}
    lost = classes - bases - {*ACTIONS.values(), *FILTERS.values()}
    assert not lost, f"{lost}: register each at the end of its module, or name it as a base here"
    assert {*ACTIONS.values(), *FILTERS.values()} <= classes - bases


@pytest.mark.parametrize(
    "resource, name", [key for key, action in sorted(ACTIONS.items()) if issubclass(action, Step)]
)
def test_a_step_is_tried_and_can_be_undone(resource, name):
    """tests/conformance plays what stages.py has, and says where the two differ."""
    action, module = ACTIONS[resource, name], name.replace("-", "_")
    stages = STAGES.read_text()
    assert f'"{name}"' in stages, (
        f"step {name}: add a stage, what it acts on, to tests/conformance/stages.py, so that all "
        "that a step promises is tried"
    )
    assert any(name in path.read_text() or module in path.stem for path in TESTS), (
        f"step {name}: add a test of what it alone does, such as tests/conformance/test_{module}.py"
    )
    assert (
        issubclass(action, Revert)
        or re.search(rf'step, revert = "{name}", "', stages)
        or "There is no revert" in " ".join(inspect.getdoc(action).split())
    ), (
        f"step {name}: add its revert beside it and name that in its stage in tests/conformance/"
        "stages.py, or say in its docstring `There is no revert: ` and why"
    )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "custom_actions" / "steps").glob("*.py")), ids=lambda path: path.stem
)
def test_no_step_imports_another(path):
    """What two steps share is a module of its own, so that a step is one file."""
    assert "custom_actions.steps" not in path.read_text(), (
        f"{path.name} imports another step: put what both need into a module of custom_actions/"
    )


@each_policy
def test_policy_is_named_after_its_file(path, policy):
    assert policy["name"] == path.stem, (
        f"policy {policy['name']}: call its file so, not {path.name}"
    )


@each_policy
def test_policy_says_what_it_is(path, policy):
    who, metadata = f"policy {policy['name']}: add to", policy.get("metadata", {})
    assert 0 < len(policy.get("description", "")) <= 256, (
        f"{who} it a description of at most 256 characters"
    )
    assert metadata.get("title"), f"{who} its metadata a title"
    assert metadata.get("severity") in ("low", "medium", "high", "critical"), (
        f"{who} its metadata a severity: low, medium, high or critical"
    )
    techniques = metadata.get("mitre-attack", [""])
    assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", technique) for technique in techniques), (
        f"{who} its metadata `mitre-attack`, a list of techniques such as T1071, [] for none"
    )
    page, _, anchor = metadata.get("runbook", "").partition("#")
    assert anchor, f"{who} its metadata `runbook: docs/runbook.md#<section>`, where its mails lead"
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert anchor in anchors, (
        f"{who} {page} the section `{anchor}` that its metadata names: what its mail means, what "
        "to do then, how to undo it"
    )


@each_policy
def test_policy_has_a_folder_of_findings(path, policy):
    folder, name = Path("tests") / policy["name"], policy["name"].replace("-", "_")
    if not is_for_findings(policy):
        assert list((ROOT / folder).glob("test_*.py")), (
            f"policy {policy['name']}: add a test that plays it, {folder}/test_{name}.py"
        )
        return
    for kind, which in (
        ("positive", "that it acts on"),
        ("negative", "that it leaves alone, though somebody might expect it to act"),
        ("sample", "as GuardDuty makes them on request"),
    ):
        assert list((ROOT / folder / kind).glob("*.json")), (
            f"policy {policy['name']}: add a finding {which} to {folder / kind}"
        )


@each_policy
def test_policy_validates_with_the_pack_loaded(path, policy):
    load(yaml.safe_load(path.read_text()))


@each_policy
def test_resource_is_spelt_as_guard_duty_mode_wants_it(path, policy):
    assert not policy["resource"].startswith("aws."), (
        f"policy {policy['name']}: write `resource: {policy['resource'].removeprefix('aws.')}`"
    )


@each_policy
def test_policy_that_runs_in_lambda_brings_the_pack_along(path, policy):
    mode = policy.get("mode")
    if mode is None:
        return
    queue = "arn:{partition}:sqs:{region}:{account_id}:guardduty-response-dlq"
    for key, wanted, why in (
        ("packages", ["custom_actions"], "without it the function has none of the pack's actions"),
        ("handler", provision.HANDLER, "Custodian's own takes a missing resource for a success"),
        ("role", f"guardduty-response-{policy['name']}", "each function has a role of its own"),
        ("runtime", RUNTIME, "the mailer has the same, and the archive is compiled for it"),
        ("dead_letter_config", {"TargetArn": queue}, "without it what fails three times is lost"),
    ):
        assert mode.get(key) == wanted, (
            f"policy {policy['name']}: make `{key}` of its mode {wanted}: {why}"
        )
    for key in ("memory", "timeout"):
        assert mode.get(key), f"policy {policy['name']}: add `{key}` to its mode"


@pytest.mark.parametrize("key", ["role", "packages", "handler"])
def test_validate_refuses_a_policy_without_what_lambda_needs(key):
    """And so does each deploy, in a sentence that says what to add."""
    (data,) = yaml.safe_load((ROOT / "policies" / "ec2-isolate.yml").read_text())["policies"]
    line = f"{key}: {data['mode'].pop(key)}".replace("'", "")
    with pytest.raises(PolicyValidationError, match=f"policy ec2-isolate: add `{re.escape(line)}`"):
        load({"policies": [data]})


@functools.cache
def changing(path):
    """The names of a policy's actions that change something; a mail is none."""
    (loaded,) = load(yaml.safe_load(path.read_text()))
    return [
        action.type
        for action in loaded.resource_manager.actions
        if isinstance(action, Step)
        or not (type(action).__module__.startswith("custom_actions") or action.type in TELLING)
    ]


@each_policy
def test_a_policy_for_findings_acts_on_no_sample_archived_or_foreign_one(path, policy):
    if not is_for_findings(policy):
        return
    who = f"policy {policy['name']}"
    detail = policy["mode"].get("pattern", {}).get("detail", {})
    assert detail.get("accountId") == ["{account_id}"], (
        f'{who}: add `accountId: ["{{account_id}}"]` to pattern.detail of its mode, or in '
        "GuardDuty's administrator account it takes the findings of members for its own"
    )
    named = [f for f in policy.get("filters", ()) if f.get("type") == "guard-duty-finding"]
    assert named, (
        f"{who}: add `- {{type: guard-duty-finding, types: *types}}` to its filters, or samples "
        "and archived findings are acted on"
    )
    for let_in in ("samples", "archived"):
        assert not (changing(path) and any(f.get(let_in) for f in named)), (
            f"{who}: take `{let_in}: true` off its filter guard-duty-finding, or "
            f"{changing(path)[0]} acts on such a finding"
        )


@each_policy
def test_what_is_acted_on_is_also_mailed_as_a_finding(path, policy):
    """Of every type, but for what somebody has finding-notify leave out."""
    if not is_for_findings(policy) or not changing(path):
        return
    mailed = next(f for f in BY_NAME["finding-notify"]["filters"] if "min-severity" in f)
    assert "types" not in mailed, "finding-notify: take `types` off its filter, it mails every type"
    for entry in policy["mode"]["pattern"]["detail"]["type"]:
        example = entry if isinstance(entry, str) else entry["prefix"]
        assert not is_among(mailed.get("left-out", ()), example), (
            f"policy {policy['name']}: take {entry} off `left-out` of policies/finding-notify.yml, "
            "or nobody gets a mail about a finding that it acts on"
        )


def test_the_finding_mail_says_what_follows():
    text = FINDING_NOTIFY.read_text()
    there = policies.policies(ROOT / "policies", "guard-duty")
    assert text == followed_by.written(text, there, policies.opt_ins()), (
        "policies/finding-notify.yml: `followed-by`, from which the finding mail says what happens "
        "next, is not what the policies that act ask of a finding: run `make catalogue` (or "
        "`.venv/bin/python -m review followed-by`) and commit what it writes"
    )


# Where each function is named: the file, what stands there, whether those of opt-in/ do too, why.
PLACES = [
    ("infra/account.yml", "RoleName: guardduty-response-{}", True, "the role of its function"),
    ("infra/account.yml", "role/guardduty-response-{}", True, "who may publish to the topic"),
    ("infra/operators.yml", "function:custodian-{}", True, "who deploys, looks and does it again"),
    ("infra/operators.yml", "rule/custodian-{}", True, "who deploys its rule"),
    ("infra/operators.yml", "role/guardduty-response-{}", True, "who may pass its role"),
    ("infra/alarms.yml", "{}", False, "the names whose failures ring"),
    ("infra/protect.yml", "function:custodian-{}*", False, "what only a deploy may change"),
    ("policies/response-guard.yml", "- custodian-{}", False, "what that guard looks after"),
    ("docs/permissions.md", "## {}", True, "by `make permissions`"),
]


@each_policy
def test_what_becomes_a_function_is_named_wherever_each_is(path, policy):
    if "mode" not in policy:
        return
    for file, line, of_opt_in, what in PLACES:
        wanted = line.format(policy["name"])
        found = re.search(rf"(?<![\w-]){re.escape(wanted)}(?![\w-])", (ROOT / file).read_text())
        assert found or (path.parent.name == "opt-in" and not of_opt_in), (
            f"policy {policy['name']}: add `{wanted}` to {file}: {what}"
        )


@each_policy
def test_policy_names_no_account(path, policy):
    named = re.findall(r"\d{12}", path.read_text())
    assert not named, (
        f"policy {policy['name']} names the account {', '.join(named)}: write {{account_id}}, each "
        "deploy puts its own there"
    )


@each_policy
def test_a_policy_with_response_steps_ends_in_fail_unless_complete(path, policy):
    names = [a if isinstance(a, str) else a["type"] for a in policy["actions"]]
    pack = [ACTIONS.get((policy["resource"], name), Action) for name in names]
    if any(issubclass(action, ResponseAction) for action in pack):
        assert names[-1] == "fail-unless-complete", (
            f"policy {policy['name']}: make fail-unless-complete its last action, or what a step "
            "could not do is neither tried again nor kept in the dead-letter queue"
        )


@each_policy
def test_event_filter_and_pattern_name_the_same_types(path, policy):
    """A type in only one of the two is either never delivered or never acted on."""
    mode = policy.get("mode")
    if not is_for_findings(policy):
        return
    entries = mode["pattern"]["detail"].get("type", ["Of:AnyType/AtAll"])
    examples = [e if isinstance(e, str) else e["prefix"] + "Example" for e in entries]
    (loaded,) = load(yaml.safe_load(path.read_text()))
    # what else the pattern asks of a finding
    (user_type,) = (
        mode["pattern"]["detail"]
        .get("resource", {})
        .get("accessKeyDetails", {})
        .get("userType", [None])
    )
    detail = {
        "service": {"resourceRole": "ACTOR"},
        "resource": {"accessKeyDetails": {"userType": user_type}},
    }
    for finding_type in examples:
        event = {"detail": {**detail, "type": finding_type}}
        assert loaded.resource_manager.filter_resources([RESOURCE], event), (
            f"policy {policy['name']}: its rule starts it for {finding_type}, and a filter stops "
            "that: a person expects that it acts, add the type to `types` of guard-duty-finding"
        )
    others = {"Recon:EC2/PortProbeUnprotectedPort", "Behavior:EC2/TrafficVolumeUnusual"}
    others = others if "type" in mode["pattern"]["detail"] else set()
    for finding_type in others - set(examples):
        event = {"detail": {**detail, "type": finding_type}}
        assert not loaded.resource_manager.filter_resources([RESOURCE], event), (
            f"policy {policy['name']}: its filters let {finding_type} through, which its rule does "
            "not name: a person expects that it does nothing, narrow `types` of guard-duty-finding"
        )


@each_policy
def test_how_far_and_where_a_policy_may_go_is_said_at_the_deploy(path, policy):
    if "mode" not in policy:
        return
    words = ["autonomy"]
    if is_for_findings(policy) or policy["mode"]["type"] == "periodic":
        words.append("member-role")
        if "isolate-instance" in changing(path):
            words.append("max-per-hour")
        if "write-case" in changing(path):
            words.append("evidence-bucket")
    wanted = {word: f"{{{word}}}" for word in words}
    found = policy["mode"].get("execution-options")
    assert found == wanted, (
        f"policy {policy['name']}: make `execution-options` of its mode {wanted}, not {found}: "
        "what a deploy says, MODE, MEMBER_ROLE, MAX_PER_HOUR and EVIDENCE_BUCKET, gets into the "
        "function by them"
    )


def test_opt_in_policies_are_not_deployed_by_make():
    assert "POLICIES := $(wildcard policies/*.yml)" in (ROOT / "Makefile").read_text(), (
        "Makefile: POLICIES are those of policies/ alone, what is in opt-in/ is deployed by name"
    )


@pytest.mark.parametrize(
    "name", [p.id for p in POLICIES if p.id.endswith("-by-hand") and p.id[:3] != "for"]
)
def test_what_is_done_by_hand_is_what_the_function_does(name):
    """Step by step; how isolate-instance judges is a person's, and whether it mails is not."""
    other = name.removesuffix("-by-hand")
    function, person = ([*BY_NAME[one]["actions"]] for one in (other, name))
    if BY_NAME[name]["resource"] == "ec2":
        first = [a.pop(0)["type"] for a in (person, function)]
        assert first == ["isolate-instance"] * 2, f"{name}: isolate-instance comes before all else"

    assert person == function, (
        f"policy {name} does {person}, and {other} does {function}: a person expects the same of "
        "both, give them the same `actions` in the same order"
    )
    assert BY_NAME[name]["resource"] == BY_NAME[other]["resource"], (
        f"policy {name}: make its `resource` that of {other}, {BY_NAME[other]['resource']}"
    )
