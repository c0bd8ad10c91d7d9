"""The Lambda runtime and its retry rule: containers from nothing and forked ones do the same."""

import json
import subprocess
import time
from collections import defaultdict

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from simulation.cloud import Cloud
from simulation.lambda_service import TooManyRequests
from simulation.lambda_template import ForkedProcess, forking

ACCOUNT, REGION, ROLE = "111122223333", "us-west-2", "function-role"

ECHO = "def run(event, context):\n    print('got', event)\n    return event\n"
FAIL = "def run(event, context):\n    raise ValueError('no luck')\n"


@pytest.fixture(params=["from nothing, real time", "forked, wound time"])
def cloud(request, monkeypatch):
    """Real cold starts are the point here, and that forked ones cannot be told from them.

    With wound time the first container of a code is forked too, from a template that knows nothing.
    """
    forked, wound = "forked" in request.param, "wound" in request.param
    monkeypatch.setattr(forking(wound), "_templates", {})
    monkeypatch.setattr(forking(wound), "_modules", defaultdict(list) if wound else {})
    with Cloud(warm=forked, wound=wound) as cloud:
        yield cloud
    for template in forking(wound)._templates.values():
        template.close()


@pytest.fixture
def invoke(cloud):
    return lambda name, event=None: cloud.invoke(name, event, ACCOUNT, REGION)


@pytest.mark.parametrize("package", ["jinja2", "moto", "c7n", "simulation", "custom_actions"])
def test_what_is_not_in_the_archive_cannot_be_imported(make_function, invoke, package):
    make_function("probe", {"main.py": f"import {package}\n" + ECHO})
    invocation = invoke("probe")
    assert invocation.error["errorType"] == "Runtime.ImportModuleError"
    assert invocation.error["errorMessage"] == (
        f"Unable to import module 'main': No module named '{package}'"
    )
    assert invocation.error["errorMessage"] in invocation.log


def test_what_is_in_the_image_can_be_imported(make_function, invoke):
    imports = "import boto3, botocore, s3transfer, jmespath, dateutil.parser, six, urllib3\n"
    make_function("probe", {"main.py": imports + ECHO})
    assert invoke("probe", {"a": 1}).result == {"a": 1}


def test_packages_and_data_files_come_from_the_archive(make_function, invoke):
    source = "def run(event, context):\n    return open('data.json').read()\n"
    make_function(
        "probe", {"pack/__init__.py": "", "pack/it.py": source, "data.json": "[]"}, "pack.it.run"
    )
    assert invoke("probe").result == "[]"


def test_a_warm_container_keeps_its_state(make_function, invoke):
    source = "seen = []\ndef run(event, context):\n    seen.append(event)\n    return seen\n"
    make_function("probe", {"main.py": source})
    first, second = invoke("probe", 1), invoke("probe", 2)
    assert (first.cold, first.result) == (True, [1])
    assert (second.cold, second.result) == (False, [1, 2])
    assert first.init_duration > 0 and second.init_duration == 0


def test_new_code_and_configuration_take_a_new_container(cloud, make_function, invoke):
    source = "import os\ndef run(event, context):\n    return os.environ.get('COLOUR')\n"
    make_function("probe", {"main.py": source})
    assert invoke("probe").result is None
    cloud.client("lambda", ACCOUNT, REGION).update_function_configuration(
        FunctionName="probe", Environment={"Variables": {"COLOUR": "red"}}
    )
    changed = invoke("probe")
    assert (changed.cold, changed.result) == (True, "red")


def test_log_has_the_lines_of_lambda(make_function, invoke):
    source = (
        "import logging\nlogging.getLogger().setLevel('INFO')\n"
        "def run(event, context):\n    print('printed')\n    logging.info('logged')\n"
    )
    make_function("probe", {"main.py": source})
    invocation = invoke("probe")
    lines = invocation.log.splitlines()
    request_id = invocation.request_id
    assert lines[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert lines[1] == "printed"
    assert lines[2].startswith("[INFO]\t") and lines[2].endswith(f"Z\t{request_id}\tlogged")
    assert lines[3] == f"END RequestId: {request_id}"
    assert lines[4].startswith(f"REPORT RequestId: {request_id}\tDuration: ")
    assert "Init Duration" in lines[4] and "Init Duration" not in invoke("probe").log


def test_context_and_environment(make_function, invoke):
    source = """
import os
def run(event, context):
    return [context.function_name, context.invoked_function_arn, context.log_group_name,
            0 < context.get_remaining_time_in_millis() <= 7000, os.environ['AWS_REGION'],
            os.getcwd() == os.environ['LAMBDA_TASK_ROOT'], 'VIRTUAL_ENV' in os.environ]
"""
    arn = make_function("probe", {"main.py": source}, Timeout=7)
    assert invoke("probe").result == ["probe", arn, "/aws/lambda/probe", True, REGION, True, False]


def test_runs_as_its_role(cloud, make_function, invoke):
    source = """
import boto3
def run(event, context):
    return boto3.client('sts').get_caller_identity()['Arn']
"""
    make_function("probe", {"main.py": source})
    assert invoke("probe").result == f"arn:aws:sts::{ACCOUNT}:assumed-role/{ROLE}/probe"
    assert [call.operation for call in cloud.call_log.by("probe")] == ["GetCallerIdentity"]


def test_an_unknown_function_is_named(make_function, invoke):
    make_function("probe", {"main.py": ECHO})
    with pytest.raises(LookupError, match="no function g in .* there are: probe"):
        invoke("g")


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (FAIL, "ValueError", "no luck"),
        ("def run(event, context):\n    return {1, 2}\n", "Runtime.MarshalError", "marshal"),
        ("def other():\n    pass\n", "Runtime.HandlerNotFound", "'run' missing on module 'main'"),
        ("1 / 0\n", "ZeroDivisionError", "division"),
        ("import os\ndef run(e, c):\n    os._exit(3)\n", "Runtime.ExitError", "exit status 3"),
        (
            "import os\ndef run(e, c):\n    os.kill(os.getpid(), 9)\n",
            "Runtime.ExitError",
            "SIGKILL",
        ),
    ],
)
def test_errors_are_those_of_lambda(make_function, invoke, source, kind, message):
    make_function("probe", {"main.py": source})
    invocation = invoke("probe")
    assert invocation.error["errorType"] == kind
    assert message in invocation.error["errorMessage"]
    assert message in invocation.log


def test_stack_trace_shows_the_function_only(make_function, invoke):
    make_function("probe", {"main.py": FAIL})
    (frame,) = invoke("probe").error["stackTrace"]
    assert "main.py" in frame and "no luck" in frame


def test_a_timeout_kills_the_container(make_function, invoke):
    source = """
import time
def run(event, context):
    print('in')
    time.sleep(event)
    return 'out'
"""
    make_function("probe", {"main.py": source}, Timeout=1)
    invoke("probe", 0)
    started = time.monotonic()
    late = invoke("probe", 60)
    assert time.monotonic() - started < 5
    assert late.error["errorType"] == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in late.log
    assert "in" in late.log.splitlines()
    after = invoke("probe", 0)
    assert (after.cold, after.result) == (True, "out")


def test_a_killed_container_is_an_error_and_the_next_one_is_cold(cloud, make_function, invoke):
    source = """
import boto3
def run(event, context):
    return boto3.client('sts').get_caller_identity()['Account']
"""
    make_function("probe", {"main.py": source})
    cloud.before("sts:GetCallerIdentity", lambda call: cloud.functions.kill("probe"))
    killed = invoke("probe")
    assert killed.error["errorType"] == "Runtime.ExitError"
    after = invoke("probe")
    assert (after.cold, after.result) == (True, ACCOUNT)


def test_two_retries_then_the_dead_letter_queue(cloud, make_function):
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    queue = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
    make_function("probe", {"main.py": FAIL}, DeadLetterConfig={"TargetArn": arn})
    cloud.functions.invoke_later("probe", {"a": 1}, ACCOUNT, REGION)
    cloud.wait_idle()

    assert [one.attempt for one in cloud.invocations] == [1, 2, 3]
    assert len({one.request_id for one in cloud.invocations}) == 1
    assert [one.dead_letter for one in cloud.invocations] == [None, None, arn]
    (message,) = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    assert json.loads(message["Body"]) == {"a": 1}
    attributes = message["MessageAttributes"]
    assert attributes["RequestID"]["StringValue"] == cloud.invocations[0].request_id
    assert attributes["ErrorCode"]["StringValue"] == "200"
    assert attributes["ErrorMessage"]["StringValue"] == "no luck"


@pytest.mark.parametrize("cloud", ["forked, wound time"], indirect=True)
def test_no_concurrency_runs_nothing_and_keeps_the_event(cloud, make_function, invoke):
    sqs = cloud.client("sqs", ACCOUNT, REGION)
    queue = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
    make_function("probe", {"main.py": ECHO}, DeadLetterConfig={"TargetArn": arn})
    functions = cloud.client("lambda", ACCOUNT, REGION)
    functions.put_function_concurrency(FunctionName="probe", ReservedConcurrentExecutions=0)
    shown = functions.get_function(FunctionName="probe")
    assert shown["Concurrency"] == {"ReservedConcurrentExecutions": 0}

    cloud.functions.invoke_later("probe", {"a": 1}, ACCOUNT, REGION)
    cloud.wait_idle()
    with pytest.raises(TooManyRequests):
        invoke("probe")

    assert cloud.invocations == []
    seen = [(one.asynchronous, one.dead_letter) for one in cloud.functions.throttled]
    assert seen == [(True, arn), (False, None)]
    (message,) = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    assert json.loads(message["Body"]) == {"a": 1}
    assert message["MessageAttributes"]["ErrorCode"]["StringValue"] == "429"

    functions.put_function_concurrency(FunctionName="probe", ReservedConcurrentExecutions=1)
    assert invoke("probe", 7).result == 7


def test_a_retry_that_succeeds_ends_it(cloud, make_function):
    source = """
seen = []
def run(event, context):
    seen.append(event)
    if len(seen) == 1:
        raise ValueError('no luck')
"""
    make_function("probe", {"main.py": source})
    cloud.functions.invoke_later("probe", {}, ACCOUNT, REGION)
    cloud.wait_idle()
    assert [one.error is None for one in cloud.invocations] == [False, True]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "no dead-letter queue"),
        ({"TargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:none"}, "NonExistentQueue"),
        ({"TargetArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:topic"}, "not an SQS queue"),
    ],
)
def test_why_there_is_no_dead_letter_is_kept(cloud, make_function, config, reason):
    make_function("probe", {"main.py": FAIL}, DeadLetterConfig=config)
    cloud.functions.invoke_later("probe", {}, ACCOUNT, REGION)
    cloud.wait_idle()
    assert reason in cloud.invocations[-1].dead_letter


def test_dead_letter_config_is_shown_and_changed(cloud, make_function):
    make_function("probe", {"main.py": ECHO}, DeadLetterConfig={"TargetArn": "arn:1"})
    functions = cloud.client("lambda", ACCOUNT, REGION)
    shown = functions.get_function_configuration(FunctionName="probe")
    assert shown["DeadLetterConfig"] == {"TargetArn": "arn:1"}
    functions.update_function_configuration(
        FunctionName="probe", DeadLetterConfig={"TargetArn": "arn:2"}
    )
    shown = functions.get_function_configuration(FunctionName="probe")
    assert shown["DeadLetterConfig"] == {"TargetArn": "arn:2"}


@pytest.mark.parametrize("cloud", ["forked, wound time"], indirect=True)
def test_a_permission_is_given_once_and_the_recursion_configuration_is_kept(cloud, make_function):
    make_function("probe", {"main.py": ECHO})
    functions = cloud.client("lambda", ACCOUNT, REGION)
    permission = {
        "FunctionName": "probe",
        "StatementId": "rule",
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
    }
    functions.add_permission(**permission)
    with pytest.raises(functions.exceptions.ResourceConflictException):
        functions.add_permission(**permission)
    functions.remove_permission(FunctionName="probe", StatementId="rule")
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_policy(FunctionName="probe")

    name = {"FunctionName": "probe"}
    assert functions.get_function_recursion_config(**name)["RecursiveLoop"] == "Terminate"
    functions.put_function_recursion_config(**name, RecursiveLoop="Allow")
    assert functions.get_function_recursion_config(**name)["RecursiveLoop"] == "Allow"
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.put_function_recursion_config(FunctionName="none", RecursiveLoop="Allow")


@pytest.mark.parametrize("cloud", ["from nothing, real time"], indirect=True)
def test_wait_idle_times_out_and_raises_what_broke(cloud, make_function):
    make_function("probe", {"main.py": "import time\ndef run(e, c):\n    time.sleep(0.5)\n"})
    cloud.functions.invoke_later("probe", {}, ACCOUNT, REGION)
    with pytest.raises(TimeoutError, match="1 invocations still running"):
        cloud.wait_idle(timeout=0.1)
    cloud.functions.invoke_later("missing", {}, ACCOUNT, REGION)
    with pytest.raises(LookupError, match="no function missing"):
        cloud.wait_idle()


CLOCK = """
import time
from datetime import datetime
def run(event, context):
    before = time.time(), time.monotonic(), context.get_remaining_time_in_millis()
    for seconds in event:
        time.sleep(seconds)
    after = time.time(), time.monotonic(), context.get_remaining_time_in_millis()
    return [after[0] - before[0], after[1] - before[1], (before[2] - after[2]) / 1000]
"""


def test_sleep_takes_its_time_as_the_function_sees_it(cloud, make_function, invoke):
    make_function("probe", {"main.py": CLOCK}, Timeout=5)
    invoke("probe", [0, 2])
    started = time.monotonic()
    again = invoke("probe", [1, 1])  # each invocation has its own time-out
    waited = time.monotonic() - started

    assert again.error is None and not again.cold
    assert again.result == [pytest.approx(2, abs=0.5)] * 3
    assert again.duration == pytest.approx(2, abs=0.5)
    assert again.slept == ([1, 1] if cloud.wound else [])
    assert (waited < 1) is cloud.wound


def test_sleeps_that_add_up_time_out(cloud, make_function, invoke):
    source = """
import time
def run(event, context):
    for n in range(4):
        print('step', n)
        time.sleep(0.3)
"""
    make_function("probe", {"main.py": source}, Timeout=1)
    late = invoke("probe")
    assert late.error["errorType"] == "Sandbox.Timedout"
    assert "step 3" in late.log and late.duration == pytest.approx(1.2, abs=0.5)
    assert invoke("probe").cold


BOTH = {
    "other.py": "import os\nseen = [os.environ.get('AWS_LAMBDA_FUNCTION_NAME')]\n",
    "own/__init__.py": "",
    "own/main.py": (
        "import os, other\nstate, key = [], os.environ['AWS_ACCESS_KEY_ID']\n"
        "def run(event, context):\n"
        "    state.append(event)\n"
        "    other.seen.append(event)\n"
        "    text = open('config.json').read()\n"
        "    return [state, other.seen, key, os.environ['AWS_ACCESS_KEY_ID'], text]\n"
    ),
}


@pytest.mark.parametrize("cloud", ["forked, real time"], indirect=True)
def test_a_fork_has_its_own_state_credentials_and_policy(cloud, make_function, invoke):
    make_function("probe", BOTH | {"config.json": "first"}, "own.main.run")
    make_function("other", BOTH | {"config.json": "second"}, "own.main.run")
    keys = set()
    for name, text, kind in (
        ("probe", "first", subprocess.Popen),
        ("probe", "first", ForkedProcess),
        ("other", "second", ForkedProcess),
    ):
        one, again = invoke(name, 1), invoke(name, 2)
        (container,) = cloud.functions._idle[cloud.functions._config(name, ACCOUNT, REGION)]
        assert isinstance(container._process, kind)
        cloud.functions.discard_warm()
        assert not container.alive

        assert (one.cold, again.cold) == (True, False) and not one.error and not again.error
        imported_as, *seen = one.result[1]
        # the package of others was imported once, without anybody's environment
        assert imported_as == (name if kind is subprocess.Popen else None)
        assert (one.result[0], seen) == ([1], [1]) and again.result[0] == [1, 2]
        assert one.result[2] == one.result[3] and one.result[4] == text
        keys.add(one.result[2])
    assert len(keys) == 2  # one for each function


@pytest.mark.parametrize("cloud", ["forked, real time"], indirect=True)
def test_a_template_that_cannot_import_says_so(cloud, make_function, invoke):
    make_function("probe", {"main.py": ECHO})
    invoke("probe")
    cloud.functions.discard_warm()
    for modules in forking(False)._modules.values():
        modules.append("no_such_module")
    with pytest.raises(RuntimeError, match="No module named 'no_such_module'"):
        invoke("probe")


def test_by_the_api_and_what_it_logs(cloud, make_function):
    client = cloud.client("lambda", ACCOUNT, REGION)
    logs = cloud.client("logs", ACCOUNT, REGION)
    make_function("echo", {"main.py": ECHO})
    make_function("fail", {"main.py": FAIL})

    done = client.invoke(FunctionName="echo", Payload=b'{"a": 1}')
    failed = client.invoke(FunctionName="fail", Payload=b"{}")

    assert json.loads(done["Payload"].read()) == {"a": 1} and "FunctionError" not in done
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorMessage"] == "no luck"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="gone", Payload=b"{}")
    client.put_function_concurrency(FunctionName="echo", ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        cloud.session(ACCOUNT, REGION).client(
            "lambda", config=Config(retries={"total_max_attempts": 1})
        ).invoke(FunctionName="echo", Payload=b"{}")
    lines = logs.filter_log_events(logGroupName="/aws/lambda/echo", filterPattern="got")["events"]
    assert ["{'a': 1}" in line["message"] for line in lines] == [True]
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.filter_log_events(logGroupName="/aws/lambda/gone")
