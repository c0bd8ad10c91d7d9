"""A finding played through the functions of all policies that are for findings.

The cloud around it is the simulation, in which the finding's instance stands with exactly its own
ids and two neighbours. The event goes to each rule; a function whose rule matches runs once, one
after the other in the order of `functions`. Topic and mail queue exist; the mailer makes mails of
what lies on the queue. Nothing goes to AWS: endpoint and credentials are the simulation's.

What differs from a deployment is named where it is shown: docs/review.md.
"""

import contextlib
import json
import logging
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from c7n.mu import get_exec_options
from c7n.utils import get_partition
from moto.moto_api._internal import mock_random

from custom_actions import autonomy
from custom_actions.response import MISSHAPEN, describe
from deployment.expected import Expected
from mailer.queue import Queue
from simulation.calls import Call
from simulation.cloud import Cloud
from simulation.in_place import invoke
from simulation.world import build

from . import decision
from .functions import functions
from .mails import Mails, config
from .normal import ids
from .shape import oddities

TOPIC, QUEUE = "guardduty-response", "guardduty-response-mail"
HERE, NOWHERE = "127.0.0.1", "http://127.0.0.1:9"
NOT_TOLD = ("AssumeRole", "GetCallerIdentity")  # who is calling, which Lambda knows


class Stage:
    """Where findings are played, one after the other; a context manager.

    root: of a checkout, with `policies/` and `mailer/mailer.yml`. mode: observe, ask or contain.
    """

    def __init__(self, root: Path, mode: str = autonomy.CONTAIN):
        self.root = root
        self.functions = cache(partial(functions, root / "policies", mode=mode))

    def __enter__(self) -> "Stage":
        with contextlib.ExitStack() as stack:
            self._cloud = stack.enter_context(Cloud(warm=True))
            self._mails = partial(Mails, config=config(self.root / "mailer" / "mailer.yml"))
            stack.enter_context(silent("mailer"))  # what it says is among the mails
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def play(self, event: dict) -> dict:
        """Play the EventBridge event of a finding. Returns, ready for JSON:

        id, type, account, region: of the finding. ids: those of AWS in it. oddities: what is wrong
        with it, see review/shape.py. target: its instance, None when EC2 has none. isolated: the
        instances of its world whose interfaces hold one group alone afterwards, one without rules.
        regrouped: those whose groups have changed.
        policies: {name: see `_policy`}. problem: None, or why it could not be played.
        """
        detail = event["detail"]
        told = {
            "id": detail.get("id"),
            "type": detail.get("type"),
            "account": event["account"],
            "region": event["region"],
            "ids": sorted(ids(json.dumps(event))),
            "oddities": oddities(event),
            "target": None,
            "isolated": [],
            "regrouped": [],
            "policies": {},
            "problem": None,
        }
        self._cloud.reset()
        mock_random.seed(0)  # two plays of the same have the same ids
        try:
            world = build(self._cloud, event)
            queue = self._mail_queue(event["account"], event["region"])
            called = self.functions(event["account"], event["region"])
        except (*MISSHAPEN, ValueError, BotoCoreError, ClientError) as error:
            told["problem"] = (
                "what the finding is about cannot be built in the simulation: "
                f"{'; '.join(told['oddities']) or describe(error)}"
            )
            return told
        told["target"] = world.target
        before = world.snapshot()
        for name, function in called.items():
            told["policies"][name] = self._policy(function, event)
        session = self._cloud.session(event["account"], event["region"])
        for mail in self._mails(session).read(queue):
            told["policies"][mail.pop("policy")]["mails"].append(mail)
        after = world.snapshot()
        told["isolated"] = [instance for instance in after if world.is_isolated(instance)]
        told["regrouped"] = [i for i in after if groups(before[i]) != groups(after[i])]
        return told

    def _mail_queue(self, account_id: str, region: str) -> Queue:
        sns, sqs = (self._cloud.client(name, account_id, region) for name in ("sns", "sqs"))
        topic = sns.create_topic(Name=TOPIC)["TopicArn"]
        url = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        arn = f"arn:{get_partition(region)}:sqs:{region}:{account_id}:{QUEUE}"
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": admitting(topic, arn)})
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return Queue(sqs, url)

    def _policy(self, function: Expected, event: dict) -> dict:
        """What one policy makes of it.

        unmatched: the fields of its rule that do not match, a line each. filters: those that were
        asked, [{filter, passed}]. stopped: why a filter stopped it, or None. steps: the outcomes.
        error: of the function, or None. calls: [{call, error, parameters}] in their order. mails:
        filled in later. log: of the function.
        """
        unmatched = [str(field) for field in decision.mismatches(function.pattern, event)]
        told = {
            "unmatched": unmatched,
            "filters": [],
            "stopped": None,
            "steps": [],
            "error": None,
            "calls": [],
            "mails": [],
            "log": "",
        }
        if unmatched:
            return told
        self._cloud.call_log.clear()
        ran = self._invoke(function, event)
        told["error"], told["log"] = ran["error"], ran["log"]
        answer = (ran["answer"] or {}).get(function.policy)
        told["steps"] = ran["steps"]
        told["filters"] = [
            {"filter": seen["filter"], "passed": seen["after"] > 0} for seen in ran["filters"]
        ]
        if ran["filters"] and not ran["filters"][-1]["after"]:
            manager = function.func.policy.resource_manager
            told["stopped"] = decision.why(manager.filters[len(ran["filters"]) - 1], event)
        elif isinstance(answer, str):
            told["stopped"] = answer
        told["calls"] = [shown(call) for call in self._cloud.call_log.by(function.name)]
        told["calls"] = [call for call in told["calls"] if call]
        return told

    def _invoke(self, function: Expected, event: dict) -> dict:
        policy = function.func.policy
        config = {
            "execution-options": get_exec_options(policy.options),
            "policies": [policy.data],
        }
        role = function.config["Role"]
        where = policy.options.account_id, policy.options.region
        environment = self._cloud.environment(*where, role, session_name=function.name) | {
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.config["MemorySize"]),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "replay",
            "SIMULATION_FUNCTION_ARN": f"{function.name}",
        }
        # a webhook of a policy gets no further than this machine
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), NOWHERE) | {"NO_PROXY": HERE}
        return invoke(config, function.config["Timeout"], event, environment)


@contextlib.contextmanager
def silent(name: str) -> Iterator[None]:
    """Have a logger say nothing."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def admitting(topic: str, queue: str) -> str:
    """The policy by which a queue takes the messages of a topic."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def shown(call: Call) -> dict | None:
    """A call as it is told; None for what only says who is calling."""
    if call.operation in NOT_TOLD:
        return None
    parameters = {key: value for key, value in call.parameters.items() if value is not None}
    if call.operation == "Publish":
        parameters = {"TopicArn": parameters.get("TopicArn")}  # the rest is the mail, see there
    return {
        "call": f"{call.service}:{call.operation}",
        "parameters": parameters,
        "error": call.error_code,
    }


def groups(instance: dict) -> list:
    """The groups of each interface, in a snapshot of a world."""
    return [[group["id"] for group in one["groups"]] for one in instance["interfaces"]]
