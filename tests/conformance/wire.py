"""The wire between a step and AWS: it notes each call, and refuses, swallows or ends at one."""

import json
import re
from types import SimpleNamespace

import boto3
import stages
from c7n.config import Config
from c7n.manager import resources as registry
from c7n.policy import PolicyCollection
from c7n.resources import load_resources

import custom_actions  # noqa: F401 - registers the steps
from custom_actions.response import OUTCOMES

RECORDS = ("CreateTags", "DeleteTags", "TagUser", "UntagUser", "TagRole", "UntagRole")
# IAM's names of what is called otherwise
NAMES = {"s3:ListObjectsV2": "s3:ListBucket"}
PREFIXES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}


# What ids begin with, and the names that stages give.
KINDS = "i|eni|sg|acl|vol|snap|subnet|vpc|web|group|build|classic"


class Died(BaseException):
    """The process is gone: no `except Exception` sees it."""


class Wire:
    """The session of the steps. `calls` are those of the last run, as <service>:<operation>.

    A fault is a function of (number of the call, its name) that returns an error code to refuse
    it, SWALLOW to answer without doing it, or None. `edit(operation, answer)` changes answers.
    """

    SWALLOW = object()

    def __init__(self):
        self.session = boto3.Session("testing", "testing", region_name=stages.REGION)
        self.session.events.register("before-call.*.*", self.before)
        self.session.events.register("after-call.*.*", self.after)
        self.calls, self.fault, self.last, self.edit = [], None, None, None

    def factory(self, assume=True, region=None):
        return self.session

    factory.region = stages.REGION

    def before(self, model, **kw):
        service = model.service_model.service_name
        name = f"{PREFIXES.get(service, service)}:{model.name}"
        name = NAMES.get(name, name)
        self.calls.append(name)
        answer = self.fault and self.fault(len(self.calls) - 1, name)
        if answer is self.SWALLOW:
            return SimpleNamespace(status_code=200), {"ResponseMetadata": {}}
        if answer:
            error = {"Code": answer, "Message": "refused on purpose"}
            return SimpleNamespace(status_code=403), {"Error": error, "ResponseMetadata": {}}
        return None

    def after(self, model, parsed, **kw):
        if self.edit:
            self.edit(model.name, parsed)
        if self.last is not None and len(self.calls) > self.last:
            raise Died

    def run(self, kind, resource, event, name, data=None, dryrun=False, fault=None, last=None):
        """Run one step on a resource; returns its outcome.

        last: number of the call after whose answer the process dies.
        """
        options = Config.empty(
            account_id=stages.ACCOUNT, region=stages.REGION, cache=None, output_dir="/dev/shm"
        )
        options["dryrun"] = dryrun
        policy = {"name": "conformance", "resource": kind, "actions": [{"type": name, **data}]}
        # not through the loader, which makes the schema of all of AWS anew for each
        (loaded,) = PolicyCollection.from_data({"policies": [policy]}, options, self.factory)
        (action,) = loaded.resource_manager.actions
        self.calls, self.fault, self.last = [], fault, last
        try:
            action.process([resource], event)
        finally:
            self.fault = self.last = None
        return resource[OUTCOMES][-1]


class Play:
    """One stage, and its step and revert run on it."""

    def __init__(self, aws, stage):
        self.wire, self.stage = aws.wire, stage
        self.began = self.state()

    @property
    def calls(self):
        return self.wire.calls

    def is_record(self, call):
        """Whether a write is one of the record, and not the work of the step itself."""
        return is_record(call) and not self.stage.records_are_the_work

    @property
    def writes(self):
        return [c for c in self.calls if not is_read(c)]

    def step(self, **options):
        stage = self.stage
        return self.wire.run(
            stage.kind, stage.resource(), stage.event, stage.step, data=stage.data(), **options
        )

    def revert(self, **options):
        stage = self.stage
        return self.wire.run(
            stage.revert_kind,
            stage.revert_resource(),
            None,
            stage.revert,
            data=stage.revert_data(),
            **options,
        )

    def state(self):
        """The state without ids and times, which differ from stage to stage."""
        return anonymous(self.stage.state())

    def extra(self):
        return getattr(self.stage, "extra", lambda: None)()


def is_read(call):
    return call.partition(":")[2].startswith(("Describe", "Get", "List"))


def is_record(call):
    return call.partition(":")[2] in RECORDS


def points_of_death(calls):
    """Numbers of the calls after which a death leaves something else than the one before it.

    After a read AWS is as it was after the write before.
    """
    return [number for number, call in enumerate(calls) if not (number and is_read(call))]


def anonymous(state):
    names = {}

    def name(match):
        return names.setdefault(match[0], f"{match[1]}#{len(names)}")

    text = json.dumps(state, sort_keys=True, default=str)
    text = re.sub(rf"\b({KINDS})-[0-9a-f]+(/[0-9a-f]{{16}})?\b", name, text)
    text = re.sub(r"\b(AROA|AKIA)[A-Z0-9]+\b", name, text)
    return json.loads(re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+(Z|\+00:00)?", "<time>", text))


def registered(base):
    """The registered steps of a kind: {(resource, name): class}."""
    kinds = ("ec2", "account", "iam-user", "security-group")
    load_resources(tuple(f"aws.{kind}" for kind in kinds))
    return {
        (kind, name): action
        for kind in kinds
        for name, action in registry.get(kind).action_registry.items()
        if isinstance(action, type) and issubclass(action, base)
    }


def refusing_write(number, code="UnauthorizedOperation"):
    """A fault that refuses the write of this number, counted from 0."""
    writes = []

    def fault(_, call):
        if is_read(call):
            return None
        writes.append(call)
        return code if len(writes) == number + 1 else None

    return fault
