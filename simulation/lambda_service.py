"""Lambda as a service: warm containers, asynchronous invocation, retries, dead letters.

moto keeps functions but needs Docker to run them. Here they are run by `lambda_runtime`, from the
archive and the configuration that moto was given. Where this differs from Lambda: the two retries
come at once (Lambda waits one minute, then two), there is no event age limit, and of reserved
concurrency only 0 counts, which throttles all: an asynchronous event then goes to the dead-letter
queue without a try.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

import json
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from moto.awslambda.models import LambdaFunction, lambda_backends

from .lambda_runtime import Container, FunctionConfig, Launcher

RETRIES = 2
CONCURRENCY = 8


@dataclass
class Invocation:
    """One attempt to run a function.

    attempt: 1 for the first, up to 3. cold: whether a container was started for it. error:
    Lambda's error object (errorType, errorMessage, stackTrace) or None. duration: seconds of the
    handler; init_duration: seconds before it, of a cold start, else 0. slept: the sleeps in which
    nobody waited, in seconds, see `Cloud`; they are part of `duration`.
    dead_letter: on a last attempt that failed, the ARN of the queue that took the event, or the
    reason why none did.
    """

    function_name: str
    account_id: str
    region: str
    request_id: str
    attempt: int
    cold: bool
    event: object
    result: object
    error: dict | None
    duration: float
    init_duration: float
    log: str
    started: float
    slept: list[float] = field(default_factory=list)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    dead_letter: str | None = None


@dataclass
class Throttled:
    """An event for which no try was made, since the function's reserved concurrency is 0.

    asynchronous: whether Lambda had taken the event. dead_letter: then as in `Invocation`.
    """

    function_name: str
    account_id: str
    region: str
    event: object
    asynchronous: bool
    dead_letter: str | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class TooManyRequests(Exception):
    """What a synchronous invocation is answered when it is throttled."""


class LambdaService:
    """Runs the functions that moto holds, of all accounts and regions.

    environment: `(account_id, region, role ARN, session name) -> dict`, the credentials and the
    endpoint as environment variables. client: `(service, account_id, region, role ARN)` -> a boto3
    client; of an administrator without the last. folder: for unpacked archives. launcher: starts
    the containers.
    """

    def __init__(self, environment: Callable, client: Callable, folder: Path, launcher: Launcher):
        self.invocations: list[Invocation] = []
        self.throttled: list[Throttled] = []
        self._environment = environment
        self._client = client
        self._folder = folder
        self._launcher = launcher
        self._changed = threading.Condition()
        self._pending = 0
        self._broken: Exception | None = None
        self._closed = False
        self._unpacking = threading.Lock()
        self._idle: dict[FunctionConfig, list[Container]] = defaultdict(list)
        self._busy: set[Container] = set()
        self._subscribers: list[Callable[[Invocation], object]] = []
        self._workers = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="lambda")

    def subscribe(self, callback: Callable[[Invocation], object]) -> Callable[[], None]:
        """Have `callback(invocation)` called after each. Returns a function that ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def invoke(self, function_name: str, event: object, account_id: str, region: str) -> Invocation:
        """Run a function once and wait, as a synchronous invocation does: no retry.

        TooManyRequests when its reserved concurrency is 0.
        """
        config = self._config(function_name, account_id, region)
        if _may_not_run(config):
            self.throttled.append(Throttled(function_name, account_id, region, event, False))
            raise TooManyRequests(f"{function_name}: Rate exceeded")
        return self._attempt(config, event, str(uuid.uuid4()), attempt=1)

    def invoke_later(self, function_name: str, event: object, account_id: str, region: str) -> None:
        """Queue an event for a function, as an asynchronous invocation does."""
        with self._changed:
            self._pending += 1
        self._workers.submit(self._until_done, function_name, event, account_id, region)

    def wait_idle(self, timeout: float = 60) -> None:
        """Wait until no asynchronous invocation is queued or running; TimeoutError after that.

        Raises what kept the simulation itself from running a function, for example a deleted one.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._pending == 0, timeout):
                raise TimeoutError(f"{self._pending} invocations still running after {timeout} s")
            broken, self._broken = self._broken, None
        if broken:
            raise broken

    def kill(self, function_name: str) -> int:
        """Kill the running containers of a function, as a crash would. Returns how many."""
        with self._changed:
            running = [one for one in self._busy if one.config.name == function_name]
        for container in running:
            container.kill()
        return len(running)

    def discard_warm(self) -> None:
        """Drop all warm containers: the next invocation of each function is a cold start."""
        with self._changed:
            idle = [one for containers in self._idle.values() for one in containers]
            self._idle.clear()
        for container in idle:
            container.close()

    def close(self) -> None:
        """Stop everything, running functions too."""
        with self._changed:
            self._closed = True
            busy = list(self._busy)
        for container in busy:
            container.kill()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self.discard_warm()

    def _until_done(self, function_name: str, event: object, account_id: str, region: str) -> None:
        """One asynchronous event: first try, retries, dead letter."""
        request_id = str(uuid.uuid4())
        try:
            for attempt in range(1, RETRIES + 2):
                config = self._config(function_name, account_id, region)
                if _may_not_run(config):
                    dead_letter = self._bury(config, event, request_id, 429, "Rate exceeded")
                    where = function_name, account_id, region
                    self.throttled.append(Throttled(*where, event, True, dead_letter))
                    return
                last = attempt == RETRIES + 1
                invocation = self._attempt(config, event, request_id, attempt, last)
                if invocation.error is None or self._closed:
                    return
        except Exception as error:  # noqa: BLE001  wait_idle raises it
            self._broken = error
        finally:
            with self._changed:
                self._pending -= 1
                self._changed.notify_all()

    def _attempt(
        self,
        config: FunctionConfig,
        event: object,
        request_id: str,
        attempt: int,
        last: bool = False,
    ) -> Invocation:
        started, began = time.monotonic(), datetime.now(UTC)
        container = self._take(config)
        cold = container.cold
        try:
            outcome = container.run(event, request_id)
        finally:
            self._give_back(container)
        invocation = Invocation(
            function_name=config.name,
            account_id=config.account_id,
            region=config.region,
            request_id=request_id,
            attempt=attempt,
            cold=cold,
            event=event,
            result=outcome.result,
            error=outcome.error,
            duration=outcome.duration,
            init_duration=outcome.init_duration,
            log=outcome.log,
            started=started,
            slept=outcome.slept,
            at=began,
        )
        if outcome.error and last:
            message = outcome.error["errorMessage"]
            invocation.dead_letter = self._bury(config, event, request_id, 200, message)
        with self._changed:
            self.invocations.append(invocation)
        for subscriber in list(self._subscribers):
            subscriber(invocation)
        return invocation

    def _take(self, config: FunctionConfig) -> Container:
        """A warm container, or a new one. A function that was changed gets new ones."""
        container = self._take_idle(config)
        if container is None:
            task_root = self._folder / config.code_sha256.replace("/", "_")
            with self._unpacking:
                if not task_root.exists():
                    code = _function(config.name, config.account_id, config.region).code_bytes
                    self._launcher.unpack(code, config.code_sha256, task_root)
            environment = self._environment(
                config.account_id, config.region, config.role, config.name
            )
            container = Container(config, task_root, self._launcher, environment)
        with self._changed:
            self._busy.add(container)
        return container

    def _take_idle(self, config: FunctionConfig) -> Container | None:
        with self._changed:
            while self._idle[config]:
                container = self._idle[config].pop()
                if container.alive:
                    return container
        return None

    def _give_back(self, container: Container) -> None:
        with self._changed:
            self._busy.discard(container)
            if container.alive:
                self._idle[container.config].append(container)
                return
        container.close()

    def _config(self, function_name: str, account_id: str, region: str) -> FunctionConfig:
        function = _function(function_name, account_id, region)
        return FunctionConfig(
            arn=function.function_arn,
            name=function.function_name,
            account_id=account_id,
            region=region,
            runtime=function.run_time,
            handler=function.handler,
            role=function.role,
            timeout=int(function.timeout),
            memory_size=int(function.memory_size),
            code_sha256=function.code_sha_256,
            variables=tuple(sorted(function.environment_vars.items())),
            dead_letter_arn=getattr(function, "dead_letter_config", {}).get("TargetArn"),
        )

    def _bury(
        self, config: FunctionConfig, event: object, request_id: str, code: int, message: str
    ) -> str:
        """Send the event to the function's dead-letter queue, with the function's role."""
        target = config.dead_letter_arn
        if not target:
            return "no dead-letter queue"
        if target.split(":")[2] != "sqs":
            return f"{target} is not an SQS queue"
        queues = self._client("sqs", config.account_id, config.region)
        sqs = self._client("sqs", config.account_id, config.region, config.role)
        attributes = {
            "RequestID": ("String", request_id),
            "ErrorCode": ("Number", str(code)),
            "ErrorMessage": ("String", message[:1024] or "-"),
        }
        try:
            # the role may send, and need not be able to look for the queue
            url = queues.get_queue_url(QueueName=target.rpartition(":")[2])["QueueUrl"]
            sqs.send_message(
                QueueUrl=url,
                MessageBody=json.dumps(event),
                MessageAttributes={
                    name: {"DataType": kind, "StringValue": value}
                    for name, (kind, value) in attributes.items()
                },
            )
        except Exception as error:  # noqa: BLE001  Lambda drops the event and counts a metric
            return f"{target}: {error}"
        return target


def _may_not_run(config: FunctionConfig) -> bool:
    function = _function(config.name, config.account_id, config.region)
    return function.reserved_concurrency == 0


def _function(name: str, account_id: str, region: str) -> LambdaFunction:
    """moto's function, or LookupError."""
    functions = lambda_backends[account_id][region].list_functions()
    for function in functions:
        if function.function_name == name:
            return function
    names = ", ".join(sorted(function.function_name for function in functions)) or "none"
    raise LookupError(f"no function {name} in {account_id} {region}; there are: {names}")
