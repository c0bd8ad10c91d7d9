"""What holds for every policy and every action of the pack, whatever it does."""

import importlib
import inspect
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
from c7n.filters import Filter
from c7n.loader import PolicyLoader
from c7n.manager import resources as registry
from c7n.resources import load_resources

import custom_actions
from custom_actions.builtin import BuiltIn, Telling
from custom_actions.response import ResponseAction, Revert, Step
from custom_actions.steps.sessions import Revocation
from mailer.config import RUNTIME

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


def is_for_findings(policy):
    return policy.get("mode", {}).get("type") == "guard-duty"


def load(data):
    policies = PolicyLoader(Config.empty(account_id="111122223333", region="us-west-2")).load_data(
        data, "memory://"
    )
    for policy in policies:
        policy.validate()
    return list(policies)


def test_the_actions_that_the_pack_promises_are_there():
    assert {"isolate-instance", "release-instance", "notify-once", "fail-unless-complete"} <= {
        name for _, name in ACTIONS
    }


@each_element
def test_element_has_a_closed_schema(block, resource, name, element):
    assert element.schema["additionalProperties"] is False
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
    assert not ours & taken


@each_action
def test_action_names_real_permissions(resource, name):
    action = ACTIONS[resource, name]
    for permission in action.permissions:
        service, _, operation = permission.partition(":")
        operations = {
            known
            for client in CLIENTS.get(service, [service])
            for known in boto3.client(client, "us-east-1").meta.service_model.operation_names
        }
        assert operation in operations, permission


@each_element
def test_docstring_holds_a_complete_policy(block, resource, name, element):
    blocks = re.findall(
        r"\.\. code-block:: yaml\n\n(.*?)(?=\n\S|\n    \S|\Z)", inspect.getdoc(element), re.DOTALL
    )
    assert blocks, "no YAML in the docstring"
    used = set()
    for text in blocks:
        for policy in load(yaml.safe_load(textwrap.dedent(text))):
            used |= {e.type for e in getattr(policy.resource_manager, block)}
    assert name in used


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
    assert classes - bases == {*ACTIONS.values(), *FILTERS.values()}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "custom_actions" / "steps").glob("*.py")), ids=lambda path: path.stem
)
def test_no_step_imports_another(path):
    """What two steps share is a module of its own, so that a step is one file."""
    assert "custom_actions.steps" not in path.read_text()


@each_policy
def test_policy_is_named_after_its_file(path, policy):
    assert policy["name"] == path.stem


@each_policy
def test_policy_says_what_it_is(path, policy):
    assert 0 < len(policy["description"]) <= 256
    metadata = policy["metadata"]
    assert metadata["title"]
    assert metadata["severity"] in ("low", "medium", "high", "critical")
    assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", t) for t in metadata["mitre-attack"])
    page, _, anchor = metadata["runbook"].partition("#")
    assert anchor, "lead to a section of the runbook"
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert anchor in anchors, f"{metadata['runbook']} leads nowhere"


@each_policy
def test_policy_has_a_folder_of_findings(path, policy):
    folder = ROOT / "tests" / policy["name"]
    if is_for_findings(policy):
        for kind in ("positive", "negative", "sample"):
            assert list((folder / kind).glob("*.json")), f"{folder / kind} has no finding"
    else:
        assert list(folder.glob("test_*.py"))


@each_policy
def test_policy_validates_with_the_pack_loaded(path, policy):
    load(yaml.safe_load(path.read_text()))


@each_policy
def test_resource_is_spelt_as_guard_duty_mode_wants_it(path, policy):
    assert not policy["resource"].startswith("aws.")


@each_policy
def test_policy_that_runs_in_lambda_brings_the_pack_along(path, policy):
    mode = policy.get("mode")
    if mode is None:
        return
    assert mode["packages"] == ["custom_actions"]
    assert mode["handler"] == "custom_actions.handler.run"
    assert mode["role"] == f"guardduty-response-{policy['name']}"
    assert mode["dead_letter_config"]["TargetArn"].endswith(":guardduty-response-dlq")
    assert mode["runtime"] == RUNTIME  # the mailer's as well
    assert mode["memory"] and mode["timeout"]


@each_policy
def test_policy_names_no_account(path, policy):
    assert not re.search(r"\d{12}", path.read_text())


@each_policy
def test_a_policy_with_response_steps_ends_in_fail_unless_complete(path, policy):
    names = [a if isinstance(a, str) else a["type"] for a in policy["actions"]]
    pack = [ACTIONS.get((policy["resource"], name), Action) for name in names]
    if any(issubclass(action, ResponseAction) for action in pack):
        assert names[-1] == "fail-unless-complete"


@each_policy
def test_event_filter_and_pattern_name_the_same_types(path, policy):
    """A type in only one of the two is either never delivered or never acted on."""
    mode = policy.get("mode")
    if not is_for_findings(policy):
        return
    entries = mode["pattern"]["detail"]["type"]
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
        assert loaded.resource_manager.filter_resources([RESOURCE], event), finding_type
    for finding_type in ("Recon:EC2/PortProbeUnprotectedPort", "Behavior:EC2/TrafficVolumeUnusual"):
        event = {"detail": {**detail, "type": finding_type}}
        assert not loaded.resource_manager.filter_resources([RESOURCE], event)


@each_policy
def test_how_far_and_where_a_policy_may_go_is_said_at_the_deploy(path, policy):
    if "mode" in policy:
        words = ["autonomy", *(["member-role"] if is_for_findings(policy) else [])]
        options = {word: f"{{{word}}}" for word in words}
        brake = {"max-per-hour": "{max-per-hour}"} if policy["name"] == "ec2-isolate" else {}
        assert policy["mode"]["execution-options"] == options | brake


def test_opt_in_policies_are_not_deployed_by_make():
    makefile = (ROOT / "Makefile").read_text()
    assert "POLICIES := $(wildcard policies/*.yml)" in makefile
    assert {path.stem for path in (ROOT / "policies" / "opt-in").glob("*.yml")} == {
        "iam-user-deactivate-access-key",
        "iam-user-deactivate-access-key-by-hand",
        "iam-user-reactivate-access-key",
    }


@pytest.mark.parametrize(
    "name", [p.id for p in POLICIES if p.id.endswith("-by-hand") and p.id[:3] != "for"]
)
def test_what_is_done_by_hand_is_what_the_function_does(name):
    """Step by step; how isolate-instance judges is a person's, and whether it mails is not."""
    policies = {path.stem: policy for path, policy in (param.values for param in POLICIES)}
    function, person = ([*policies[n]["actions"]] for n in (name.removesuffix("-by-hand"), name))
    if policies[name]["resource"] == "ec2":
        assert {a.pop(0)["type"] for a in (function, person)} == {"isolate-instance"}

    assert person == function
    assert policies[name]["resource"] == policies[name.removesuffix("-by-hand")]["resource"]


def test_what_isolates_is_also_mailed_as_a_finding():
    """The finding mail says what follows; it takes every EC2 type that it mails as isolating."""
    types = {
        policy["name"]: {str(t) for t in policy["mode"]["pattern"]["detail"]["type"]}
        for _, policy in (param.values for param in POLICIES)
        if policy["name"] in ("finding-notify", "ec2-isolate")
    }
    mailed = {t for t in types["finding-notify"] if ":EC2/" in t}
    assert mailed == types["ec2-isolate"]
