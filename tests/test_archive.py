"""The archive that is deployed: compiled, the same each time, and quick to start."""

import json
import logging
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources

import custom_actions.archive as archive
from simulation import deploy
from simulation.lambda_runtime import image_packages

ACCOUNT, REGION = "111122223333", "us-west-2"
FUNCTION = "custodian-ec2-isolate"
ROOT = Path(__file__).parents[1]
CHECKSUM = """
import test_archive
print(test_archive.built("ec2-isolate").get_checksum())
"""
# What marshal writes of this by itself differs once another module has imported `quux`.
MODULE = 'a = {"quux", 2, 3}\ndef f():\n    b = {"quux", 2, 3}\n'
COMPILE = f"""
import sys
from custom_actions.archive import compiled
other = compile(sys.argv[1], "b.py", "exec")
print(compiled({MODULE.encode()!r}, "a.py").hex())
"""
# Runs in an unpacked archive as Lambda's bootstrap does, with the events of the first argument.
START = """
import json, os, sys
sys.path[:0] = [os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"]]
import botocore.session
made, create = [], botocore.session.Session.create_client
def create_client(self, service, *args, **kwargs):
    made.append(service)
    return create(self, service, *args, **kwargs)
botocore.session.Session.create_client = create_client
import custom_actions.handler
at_start = list(made)
for event in json.loads(sys.argv[1]):
    custom_actions.handler.run(event, None)
from c7n.filters.offhours import OffHour
print(json.dumps({
    "at_start": at_start,
    "made": made,
    "zones": len(OffHour.TZ_ALIASES),
    "custodian": sorted(name for name in sys.modules if name.startswith("c7n.resources.")),
}))
"""


def read(name, **mode):
    """A policy, `mode` changed in it; for the Python that runs this, whatever the pack deploys."""
    data = yaml.safe_load((ROOT / "policies" / f"{name}.yml").read_text())["policies"][0]
    data["mode"] |= {"runtime": archive.THIS_RUNTIME} | mode
    return data


def built(name, **mode):
    """The archive that Custodian would upload for a policy."""
    data = read(name, **mode)
    load_resources((f"aws.{data['resource']}",))
    options = Config.empty(account_id=ACCOUNT, region=REGION)
    (policy,) = PolicyCollection.from_data({"policies": [data]}, options)
    return policy.get_execution_mode().policy_lambda(policy).get_archive()


def compiled_names(one):
    return [name for name in one.get_filenames() if name.endswith(".pyc")]


@pytest.fixture(scope="module")
def policy(pack, tmp_path_factory):
    """The file of ec2-isolate for this Python, deployed."""
    path = tmp_path_factory.mktemp("policy") / "ec2-isolate.yml"
    path.write_text(yaml.safe_dump({"policies": [read("ec2-isolate")]}))
    deploy.deploy(pack.cloud, [path], ACCOUNT, REGION)
    return path


@pytest.fixture
def unpacked(pack, scene, policy):
    """The folder of the deployed function, as the simulation unpacks it."""
    pack.isolate(scene.finding(scene.instance()))
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)
    deployed = functions.get_function(FunctionName=FUNCTION)["Configuration"]["CodeSha256"]
    return scene.cloud.folder / deployed.replace("/", "_")


def start(scene, folder, *events):
    role = f"arn:aws:iam::{ACCOUNT}:role/guardduty-response-ec2-isolate"
    environment = scene.cloud.environment(ACCOUNT, REGION, role, FUNCTION) | {
        "LAMBDA_TASK_ROOT": str(folder),
        "LAMBDA_RUNTIME_DIR": str(image_packages(scene.cloud.folder / uuid.uuid4().hex)),
    }
    finished = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", START, json.dumps(events)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_a_function_imports_what_is_compiled_and_nothing_else(scene, unpacked, tmp_path):
    """With sources that cannot be compiled, all that it imports must come compiled."""
    folder = shutil.copytree(unpacked, tmp_path / "task")
    for path in folder.rglob("*.py"):
        path.unlink()
        path.write_text("no Python")
    instance = scene.instance()

    start(scene, folder, scene.finding(instance))

    assert scene.is_isolated(instance)


def test_resources_that_the_policy_does_not_have_are_not_compiled(scene, unpacked):
    imported = {name.rpartition(".")[2] for name in start(scene, unpacked)["custodian"]}
    folder = "c7n/resources/__pycache__/"
    compiled = {
        name.removeprefix(folder).partition(".")[0]
        for name in compiled_names(built("ec2-isolate"))
        if name.startswith(folder)
    }
    assert compiled - {"__init__"} == imported


@pytest.mark.slow
def test_the_archive_is_the_same_from_another_process():
    first = built("ec2-isolate").get_checksum()
    assert built("ec2-isolate").get_checksum() == first
    other = subprocess.run(
        [sys.executable, "-c", CHECKSUM],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert other.stdout.strip() == first, other.stderr


@pytest.mark.parametrize("before", ["pass", "import quux"])
def test_a_compiled_module_is_the_same_whatever_was_compiled_before(before):
    child = subprocess.run(
        [sys.executable, "-c", COMPILE, before], cwd=ROOT, capture_output=True, text=True
    )
    assert child.stdout.strip() == archive.compiled(MODULE.encode(), "a.py").hex(), child.stderr


def test_a_second_deploy_changes_nothing(scene, pack, policy):
    functions = scene.cloud.client("lambda", ACCOUNT, REGION)
    before = functions.get_function(FunctionName=FUNCTION)["Configuration"]
    scene.cloud.call_log.clear()

    deploy.deploy(scene.cloud, [policy], ACCOUNT, REGION)

    assert functions.get_function(FunctionName=FUNCTION)["Configuration"] == before
    calls = {call.operation for call in scene.cloud.calls if call.service == "lambda"}
    assert not {name for name in calls if name.startswith(("Update", "Create", "Publish"))}


def test_for_another_runtime_nothing_is_compiled_and_it_is_said(caplog):
    other = "python3.12" if archive.THIS_RUNTIME != "python3.12" else "python3.13"

    with caplog.at_level(logging.WARNING):
        names = built("ec2-isolate", runtime=other).get_filenames()

    assert "custom_actions/handler.py" in names
    assert not [name for name in names if name.endswith(".pyc")]
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.getMessage().startswith(
        f"policy:ec2-isolate runs on {other} and is deployed from {archive.THIS_RUNTIME}: "
    )
    caplog.clear()
    assert compiled_names(built("ec2-isolate"))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_clients_are_made_once_and_ec2s_while_the_function_starts(scene, unpacked):
    instances = [scene.instance() for _ in range(3)]

    seen = start(scene, unpacked, *map(scene.finding, instances))

    assert seen["at_start"] == ["ec2"]
    seen["made"].remove("elbv2")  # one more, for what is asked before the swap: it gives up sooner
    assert len(seen["made"]) == len(set(seen["made"])) > 3
    assert all(map(scene.is_isolated, instances))


def test_no_files_are_left_where_nobody_reads_them(scene, unpacked, tmp_path):
    folder = shutil.copytree(unpacked, tmp_path / "task")
    config = json.loads((folder / "config.json").read_text())
    name = config["policies"][0]["name"] = uuid.uuid4().hex
    (folder / "config.json").write_text(json.dumps(config))
    instance = scene.instance()

    start(scene, folder, scene.finding(instance))

    assert scene.is_isolated(instance)
    assert not Path("/tmp", name).exists()


def test_no_time_zones_are_read(scene, unpacked):
    """They take as long as all other imports of Custodian."""
    assert start(scene, unpacked)["zones"] < 50
