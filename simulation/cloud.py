"""The simulated cloud: a moto server in this process, made to behave where the story needs it.

    with Cloud() as cloud:
        cloud.client("ec2", ACCOUNT, REGION).describe_instances()
        subprocess.run([...], env=cloud.environment(ACCOUNT, REGION))
        cloud.put_event(event)
        cloud.wait_idle()

moto's state belongs to the process, so there can be only one Cloud at a time.
"""

import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path
from unittest import mock

import boto3
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.loaders import Loader
from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.organizations.models import organizations_backends
from werkzeug.serving import make_server

from . import direct, function_logs, quick_import  # noqa: F401
from .calls import Call, CallLog
from .change_sets import corrected_change_sets
from .cloudformation import keys_have_their_policies, no_value_is_no_element
from .cloudtrail import event_history
from .ec2 import corrected_ec2
from .ecs import corrected_ecs
from .eventbridge import Undelivered, delivering_to_lambda
from .guardduty import findings_by_api
from .iam import corrected_iam
from .lambda_api import corrected_lambda, invoked_by_api
from .lambda_runtime import Launcher
from .lambda_service import Invocation, LambdaService
from .lambda_template import forking
from .load_balancing import corrected_load_balancing
from .quick_moto import quick_moto
from .s3 import corrected_s3
from .sns import corrected_sns
from .sqs import feeding_from_queues, old_messages_are_held, queues_have_policies
from .ssm import corrected_ssm
from .stack_sets import corrected_stack_sets

# The role that AWS Organizations makes in member accounts; whoever works in one is this role.
ADMINISTRATOR = "OrganizationAccountAccessRole"
NO_FILE = os.devnull

logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Session(boto3.Session):
    """A boto3 session whose clients talk to the simulated cloud, whatever this machine's AWS
    configuration and proxies say."""

    loader = Loader()

    def __init__(self, endpoint: str, region: str, credentials: dict[str, str]):
        core = botocore.session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, NO_FILE, None),
                "credentials_file": (None, None, NO_FILE, None),
                "ca_bundle": (None, None, None, None),
            }
        )
        core.register_component("data_loader", self.loader)
        super().__init__(botocore_session=core, region_name=region, **credentials)
        self.endpoint = endpoint
        self.events.register("before-send", _answer_here)

    def client(self, service_name, *args, endpoint_url=None, config=None, **kwargs):
        # a text of ours: botocore puts its own together anew, of thirty parts, for each call
        config = Config(proxies={}, user_agent="simulation").merge(config or Config())
        url = endpoint_url or self.endpoint
        return super().client(service_name, *args, endpoint_url=url, config=config, **kwargs)


class Cloud:
    """A context manager; see the module.

    warm: what is made anew from the same files is kept in this process: containers are forked from
    a warm interpreter (but for the first of each code, see `lambda_template`), and
    `deploy.custodian` builds each archive once. Else each container starts from nothing.
    wound: in containers and in `deploy.custodian`, `time.sleep` winds the clock forward instead of
    waiting; the time-out of a function strikes at the time that the function sees.

    What it offers beside its methods:

    endpoint: the URL of the server. call_log: see `calls.CallLog`. functions: see
    `lambda_service.LambdaService`. undelivered: see `eventbridge.Undelivered`. administrators:
    {account: GuardDuty's administrator of it}. folder: a temporary folder that lasts as long.
    """

    running: "Cloud | None" = None

    def __init__(self, warm: bool = False, wound: bool = False):
        self.warm = warm
        self.wound = wound

    def __enter__(self) -> "Cloud":
        if Cloud.running:
            raise RuntimeError("moto's state belongs to the process: only one Cloud at a time")
        Cloud.running = self
        self.call_log = CallLog()
        self.undelivered: list[Undelivered] = []
        self.administrators: dict[str, str] = {}
        self._credentials: dict[tuple[str, str, str], dict[str, str]] = {}
        self._clients: dict[tuple[str, str, str, str], object] = {}
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, Cloud, "running", None)
            # no TemporaryDirectory: see lambda_template.folder_of_this_process
            self.folder = Path(tempfile.mkdtemp(prefix="cloud-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.home = self.folder / "home"
            self.home.mkdir()
            stack.enter_context(quick_moto())
            # Of moto's 1300 public AMIs none is needed; each account and region would load them.
            stack.enter_context(mock.patch.dict(os.environ, MOTO_EC2_LOAD_DEFAULT_AMIS="false"))
            _forget_moto_state()
            # Before the environment is as it was: to reset, moto makes its backends once more.
            stack.callback(_forget_moto_state)
            stack.enter_context(corrected_ec2())
            stack.enter_context(corrected_load_balancing())
            stack.enter_context(corrected_ecs())
            stack.enter_context(corrected_iam())
            stack.enter_context(findings_by_api())
            stack.enter_context(corrected_ssm())
            stack.enter_context(corrected_lambda())
            stack.enter_context(no_value_is_no_element())
            stack.enter_context(corrected_change_sets())
            stack.enter_context(corrected_stack_sets())
            stack.enter_context(event_history(self.call_log))
            stack.enter_context(old_messages_are_held())
            stack.enter_context(keys_have_their_policies())
            stack.enter_context(corrected_sns())
            stack.enter_context(corrected_s3())
            stack.enter_context(queues_have_policies())
            stack.enter_context(self.call_log.recording())
            self.endpoint = stack.enter_context(_serving())
            self.functions = LambdaService(
                self.environment,
                self.client,
                self.folder,
                forking(self.wound) if self.warm else Launcher(self.folder, self.wound),
            )
            stack.callback(self.functions.close)
            self.functions.subscribe(function_logs.write)
            stack.enter_context(invoked_by_api(self.functions))
            stack.enter_context(feeding_from_queues(self.functions.invoke, self.client))
            stack.enter_context(
                delivering_to_lambda(self.functions.invoke_later, self.undelivered.append)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def enter_context(self, context):
        """Enter a context that lasts as long as the cloud, as `ExitStack.enter_context`."""
        return self._stack.enter_context(context)

    def reset(self) -> None:
        """Forget all resources, calls, hooks and invocations; the server goes on."""
        self.wait_idle()
        self.functions.discard_warm()
        self.functions.invocations.clear()
        self.functions.throttled.clear()
        self.call_log.clear()
        self.undelivered.clear()
        self.administrators.clear()
        self._credentials.clear()
        self._clients.clear()
        _forget_moto_state()

    # Who is calling

    def credentials(
        self, account_id: str, role: str = ADMINISTRATOR, session_name: str = "simulation"
    ) -> dict[str, str]:
        """Keys of a role, by name or ARN, as arguments of `boto3.Session`.

        They come from sts:AssumeRole, because that is how moto tells accounts apart; the role need
        not exist unless IAM is enforced. Calls made with them have the role's name as `caller`,
        or the session's name when that is given.
        """
        arn = role if role.startswith("arn:") else f"arn:aws:iam::{account_id}:role/{role}"
        known = (arn, session_name, account_id)
        if known not in self._credentials:
            anybody = {"aws_access_key_id": "AKIASIMULATION000000", "aws_secret_access_key": "x"}
            sts = _session().client("sts", "us-east-1", endpoint_url=self.endpoint, **anybody)
            issued = sts.assume_role(RoleArn=arn, RoleSessionName=session_name)["Credentials"]
            if session_name != "simulation":
                self.call_log.name(issued["AccessKeyId"], session_name)
            self._credentials[known] = {
                "aws_access_key_id": issued["AccessKeyId"],
                "aws_secret_access_key": issued["SecretAccessKey"],
                "aws_session_token": issued["SessionToken"],
            }
        return self._credentials[known]

    def session(self, account_id: str, region: str, role: str = ADMINISTRATOR) -> Session:
        """A boto3 session in an account and region."""
        return Session(self.endpoint, region, self.credentials(account_id, role))

    def client(self, service: str, account_id: str, region: str, role: str = ADMINISTRATOR):
        """A boto3 client in an account and region. Making one is slow, so they are kept."""
        key = (service, account_id, region, role)
        if key not in self._clients:
            self._clients[key] = _session().client(
                service,
                region_name=region,
                endpoint_url=self.endpoint,
                **self.credentials(account_id, role),
            )
        return self._clients[key]

    def environment(
        self,
        account_id: str,
        region: str,
        role: str = ADMINISTRATOR,
        session_name: str = "simulation",
    ) -> dict[str, str]:
        """The whole environment for a subprocess: credentials, endpoint, and nothing of this
        machine's own AWS configuration or proxies."""
        keys = self.credentials(account_id, role, session_name)
        return {name.upper(): value for name, value in keys.items()} | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_CONFIG_FILE": NO_FILE,
            "AWS_SHARED_CREDENTIALS_FILE": NO_FILE,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
        }

    # What happens

    def put_event(self, event: dict) -> None:
        """Give an EventBridge event to the default bus of its own account and region, and a finding
        to that of GuardDuty's administrator account too (`administrators`).

        event: as EventBridge delivers it; its `id` is not kept, the bus gives a new one, and its
        `account`, which is that of the bus. What GuardDuty writes there for a member is not
        documented; the finding names the member in `detail.accountId`.
        """
        buses = [event["account"]]
        if event["source"] == "aws.guardduty" and event["account"] in self.administrators:
            buses.append(self.administrators[event["account"]])
        for account_id in buses:
            self._put_event(event, account_id)

    def _put_event(self, event: dict, account_id: str) -> None:
        events = self.client("events", account_id, event["region"])
        entry = {
            "Source": event["source"],
            "DetailType": event["detail-type"],
            "Detail": json.dumps(event["detail"]),
            "Resources": event.get("resources", []),
        }
        if "time" in event:
            entry["Time"] = event["time"]
        answer = events.put_events(Entries=[entry])
        if answer["FailedEntryCount"] or "ErrorCode" in answer["Entries"][0]:
            raise ValueError(f"EventBridge refuses the event: {answer['Entries']}")

    def invoke(self, function_name: str, event: object, account_id: str, region: str) -> Invocation:
        """Run a function once, wait, and return what happened: no retries."""
        return self.functions.invoke(function_name, event, account_id, region)

    def wait_idle(self, timeout: float = 60) -> None:
        """Wait until all asynchronous invocations and their retries are over."""
        self.functions.wait_idle(timeout)

    @property
    def invocations(self) -> list[Invocation]:
        return self.functions.invocations

    @property
    def calls(self) -> list[Call]:
        return self.call_log.calls

    def fail(self, operation: str, code: str, **options):
        """See `CallLog.fail`."""
        return self.call_log.fail(operation, code, **options)

    def before(self, operation: str, callback, **options):
        """See `CallLog.before`."""
        return self.call_log.before(operation, callback, **options)


def _forget_moto_state() -> None:
    """What POST /moto-api/reset does."""
    BackendDict.reset()
    reset_model_data()
    organizations_backends.master_accounts.clear()  # which moto itself forgets to


def _answer_here(request: AWSPreparedRequest, **_) -> AWSResponse | None:
    """The answer to a call of this process, when it is for the cloud that runs in it."""
    cloud = Cloud.running
    if cloud is None or not request.url.startswith(cloud.endpoint):
        return None
    return direct.answer(_application(), request)


@functools.cache
def _session() -> Session:
    """What the clients of all clouds are made from, since making a session is slow too. It has no
    credentials and no endpoint of its own."""
    return Session("", "us-east-1", {})


@functools.cache
def _application():
    """moto's application. It makes a Flask application for each service at the first request; they
    hold no state of AWS, so the clouds of a process share them."""
    return DomainDispatcherApplication(create_backend_app)


@contextlib.contextmanager
def _serving():
    """moto's server in a thread, on a free port of 127.0.0.1; gives its URL."""
    server = make_server(
        "127.0.0.1", 0, _application(), threaded=True, request_handler=MotoRequestHandler
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="moto", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
