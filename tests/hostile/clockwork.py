"""An AWS in this process that can be put back as it was, and a wire on which everything goes wrong.

    with aws() as wire:
        before = wire.aws.freeze()
        ...
        wire.aws.thaw(before)              # as it was, within 3 ms

One call is one number, counted from the begin of a run. `Trouble` says what happens to one of them.
"""

import contextlib
import copy
import copyreg
import functools
import hashlib
import io
import pickle
import random
import sys
import threading
import time
from datetime import datetime
from types import SimpleNamespace

import boto3
import flows
import pytest
import stages
from botocore.exceptions import ConnectionClosedError
from c7n.executor import MainThreadExecutor
from c7n.resources import load_resources
from c7n.utils import reset_session_cache
from moto import mock_aws
from moto.core.base_backend import BackendDict
from moto.core.common_models import BaseModel
from moto.moto_api._internal import mock_random
from wire import PREFIXES, is_read

from custom_actions import deadline
from custom_actions.response import ResponseAction
from simulation.ec2 import corrected_ec2
from simulation.ecs import corrected_ecs
from simulation.iam import corrected_iam
from simulation.load_balancing import corrected_load_balancing
from simulation.quick_moto import quick_moto

RESOURCES = ("account", "ec2", "iam-user", "security-group")

# What AWS answers to whom it refuses, or asks to come back later.
REFUSED = {"ec2": "UnauthorizedOperation"}
THROTTLED = {"ec2": "RequestLimitExceeded", "sns": "Throttled"}


@contextlib.contextmanager
def aws():
    """An AWS in this process, and the wire to it; nobody waits, and threads do as they are told."""
    load_resources(tuple(f"aws.{kind}" for kind in RESOURCES))
    reset_session_cache()
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        # Each comes with a snapshot, and moto looks at all of them for every DescribeSnapshots.
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setattr(time, "sleep", lambda seconds: None)
        # or the number of a call would be another one each time
        patch.setattr(ResponseAction, "executor_factory", MainThreadExecutor)
        # which remembers all objects that there ever were
        patch.setattr(BaseModel, "__new__", lambda cls, *_, **__: object.__new__(cls))
        stop_the_clock(patch)
        flows.prepare(patch)
        with (
            corrected_ec2(),
            corrected_load_balancing(),
            corrected_iam(),
            corrected_ecs(),
            quick_moto(),
        ):
            yield Wire()
    reset_session_cache()


class Moto:
    """All that moto holds. It can be put back as it was at any time, and does nothing twice.

    `version` stands for everything that was written so far, in order; ids are drawn by it. So the
    same call at the same version has the same answer and the same next version, and thousands of
    runs begin alike: what was answered once is recalled. moto itself is brought to a version only
    when something new is asked of it. The time is not in it: no answer that matters has one.
    """

    MOST = 4_000
    keeps = True  # the state after each write: of no use where none is done twice

    def __init__(self):
        self.version = self.loaded = ""
        self.answers, self.states = {}, {}

    def watch(self, session):
        session.events.register("before-call.*.*", self.recall)
        session.events.register("after-call.*.*", self.remember)
        return session

    def freeze(self):
        """What brings it back to now, for `thaw`."""
        self.keep()
        return self.version, self.states[self.version]

    def thaw(self, frozen):
        """Bring all of it back as it was at `freeze`."""
        self.version, state = frozen
        self.states[self.version] = state

    def keep(self):
        """Keep the state of moto as that of the version; a reference to a backend stays one."""
        if self.version in self.states:
            return
        held = backends()
        frozen = io.BytesIO()
        pickler = pickle.Pickler(frozen, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = copyreg.dispatch_table | {
            type(backend): reference for backend in held.values()
        }
        pickler.dump({name: vars(backend) for name, backend in held.items()})
        self.states[self.version] = frozen.getvalue()

    def load(self):
        """Bring moto to the version."""
        if self.loaded == self.version:
            return
        held = backends()
        for name, attributes in pickle.loads(self.states[self.version]).items():
            vars(held[name]).clear()
            vars(held[name]).update(attributes)
        self.loaded = self.version

    def recall(self, model, params, context, **kw):
        request = (params["url"], params["url_path"], params["query_string"], params["body"])
        key = f"{self.version} {model.name} {request}"
        status, answer, after = self.answers.get(key, (None, None, None))
        if status and (after == self.version or after in self.states):
            self.version = after
            return SimpleNamespace(status_code=status), pickle.loads(answer)
        self.load()
        if not is_read(f":{model.name}"):
            self.loaded = self.version = hashlib.sha256(key.encode()).hexdigest()
            mock_random.seed(self.version)
        context["remembered as"] = key
        return None

    def remember(self, parsed, context, http_response, **kw):
        key = context.pop("remembered as", None)
        if key is None:
            return
        if len(self.states) > self.MOST:
            self.answers.clear()
            self.states.clear()
        if self.keeps:
            self.keep()
        self.answers[key] = http_response.status_code, pickle.dumps(parsed), self.version


def reference(backend):
    """How a backend is pickled: as who it is, not as what it holds."""
    (service,) = (d.service_name for d in BackendDict._instances if d.backend is type(backend))
    return find_backend, (service, backend.account_id, backend.region_name)


def find_backend(*name):
    return backends()[name]


def backends():
    """{(service, account, region): backend}."""
    return {
        (every.service_name, account, region): backend
        for every in BackendDict._instances
        for account, region, backend in every.iter_backends()
    }


class Trouble:
    """What happens to one call. `at` is its number; see `KINDS` for `kind`."""

    KINDS = ("refused", "throttled", "broken", "cut", "missing", "deep", "stale", "slow")

    def __init__(self, at, kind):
        self.at, self.kind = at, kind
        self.struck = None  # the name of the call that it came to


def session():
    return boto3.Session("testing", "testing", region_name=stages.REGION)


class StoppedClock(datetime):
    """It is always the same second: what is written is the same each time, and recalled."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 25, 9, 0, 0, tzinfo=tz)


def stop_the_clock(patch):
    for name, module in list(sys.modules.items()):
        if name.startswith("custom_actions.") and vars(module).get("datetime") is datetime:
            patch.setattr(module, "datetime", StoppedClock)


class Factory:
    """Custodian's session factory; it also keeps on it what it runs."""

    def __init__(self, session):
        self.session, self.region = session, stages.REGION

    def __call__(self, assume=True, region=None):
        return self.session


class Wire:
    """The session of everything that runs. `calls` are those of the last run.

    gate: a function that each call of a thread waits at, see schedules.py. watched: whether the
    calls are counted; the tests' own are not.
    """

    def __init__(self):
        self.aws = Moto()
        self.client = functools.cache(self.aws.watch(session()).client)  # the tests' own
        self.session = session()
        # Custodian's notify makes a client for each mail, which takes as long as an isolation
        self.session.client = functools.cache(self.session.client)
        self.session.events.register("before-call.*.*", self.before)
        self.session.events.register("after-call.*.*", self.after)
        self.factory = Factory(self.session)
        self.calls, self.trouble, self.gate = [], None, None
        self.earlier = self.present = None  # AWS before the last write, and now
        self.is_late = False

    @contextlib.contextmanager
    def run(self, trouble=None):
        self.calls, self.trouble, self.earlier, self.is_late = [], trouble, None, False
        try:
            yield
        finally:
            self.trouble = None

    def get_remaining_time_in_millis(self):
        """The wire is Lambda's context too."""
        return 30_000 if self.is_late else 290_000

    def before(self, model, **kw):
        answer = self.strike(model)
        deadline.end_calls()  # which is asked when a call is sent: what is recalled is not
        return answer or self.aws.recall(model, **kw)

    def strike(self, model):
        service = model.service_model.service_name
        name = f"{PREFIXES.get(service, service)}:{model.name}"
        if self.gate:
            self.gate(threading.current_thread(), name)
        number = len(self.calls)
        self.calls.append(name)
        trouble = self.trouble
        if trouble is None:
            return None
        if trouble.kind == "stale" and number < trouble.at and not is_read(name):
            self.earlier = self.aws.freeze()
        if trouble.kind == "throttled" and trouble.struck == name and self.in_a_row:
            return self.refusal(THROTTLED.get(service, "Throttling"), 400)  # however often
        self.in_a_row = False
        if number != trouble.at:
            return None
        trouble.struck = name
        if trouble.kind == "refused":
            return self.refusal(REFUSED.get(service, "AccessDenied"), 403)
        if trouble.kind == "throttled":
            self.in_a_row = True
            return self.refusal(THROTTLED.get(service, "Throttling"), 400)
        if trouble.kind == "broken":
            return self.refusal("InternalError", 500)
        if trouble.kind == "slow":
            self.is_late = True
        if trouble.kind == "stale" and self.earlier:
            self.present = self.aws.freeze()
            self.aws.thaw(self.earlier)
        return None

    in_a_row = False

    @staticmethod
    def refusal(code, status):
        error = {"Code": code, "Message": "on purpose"}
        return SimpleNamespace(status_code=status), {
            "Error": error,
            "ResponseMetadata": {"HTTPStatusCode": status},
        }

    def after(self, parsed, **kw):
        self.aws.remember(parsed, **kw)
        if self.present is not None:
            self.aws.thaw(self.present)
            self.present = None
        trouble = self.trouble
        if trouble is None or trouble.at != len(self.calls) - 1 or trouble.struck is None:
            return
        if trouble.kind == "cut":
            raise ConnectionClosedError(endpoint_url="https://on.purpose")
        if trouble.kind in ("missing", "deep") and "Error" not in parsed:
            drop_a_field(parsed, trouble)


def drop_a_field(answer, trouble):
    """Take one field out of an answer: its first one, or one further down, which is drawn."""
    fields = list(paths({k: v for k, v in answer.items() if k != "ResponseMetadata"}))
    first = trouble.kind == "missing"
    fields = fields[:1] if first else [path for path in fields if len(path) > 1]
    if not fields:
        return
    *way, last = random.Random(f"{trouble.at} {trouble.struck}").choice(fields)
    for key in way:
        answer = answer[key]
    del answer[last]
    trouble.field = ".".join(map(str, (*way, last)))


def paths(answer, way=()):
    """The ways to all fields of an answer; of a list, into its first item."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            yield (*way, key)
            yield from paths(value, (*way, key))
    elif isinstance(answer, list) and answer:
        yield from paths(answer[0], (*way, 0))


def unshared(event):
    """An event of one's own: a run writes into it."""
    return copy.deepcopy(event)
