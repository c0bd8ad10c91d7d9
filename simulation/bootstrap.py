"""What runs inside the simulated Lambda container: Lambda's own Python bootstrap, in small.

Started by `lambda_runtime.Container` as `python -I -S -B bootstrap.py FD TIME`, so that nothing but
the standard library is importable until `sys.path` is set below. Over the socket FD it writes one
JSON line when the handler has been imported (or why it could not be), then reads one invocation a
line and answers each with one line. stdout, stderr and logging are the function's log.

TIME is `real`, or `wound`: then `time.sleep` does not wait, see `WoundClock`.

As `bootstrap.py FD TIME template` it is no container but what containers are forked from, see
`serve_template` and `lambda_template`.

Errors, their names and the log format follow awslambdaric, the open source of Lambda's runtime.
"""

import functools
import gc
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
import traceback

LOG_FORMAT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"


class WoundClock:
    """A clock that `time.sleep` winds forward instead of waiting.

    `time.time`, `time.monotonic` and `time.perf_counter` agree with it; `datetime.now` does not,
    nor do time-outs of locks and sockets. Two threads that sleep at once wind it twice.

    report: called with the seconds of each sleep that ends before the function's time-out; None
    outside of an invocation. expire: called when a sleep would last longer; it does not return.
    """

    def __init__(self):
        self.ahead = 0.0
        self.deadline = None
        self.report = self.expire = None

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        left = None if self.deadline is None else self.deadline - time.time()
        if left is not None and seconds > left:
            self.expire(seconds)
        self.ahead += seconds
        if self.report:
            self.report(seconds)

    def install(self) -> "WoundClock":
        """Have the module `time` tell this time. To be done before others import from it."""
        for name in ("time", "monotonic", "perf_counter"):
            setattr(time, name, self._ahead_of(getattr(time, name)))
        time.sleep = self.sleep
        return self

    def _ahead_of(self, clock):
        return lambda: clock() + self.ahead


class Context:
    """The context object that a handler gets as its second argument."""

    def __init__(self, request_id: str, deadline: float):
        self.aws_request_id = request_id
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = os.environ["SIMULATION_FUNCTION_ARN"]
        self.identity = None
        self.client_context = None
        self._deadline = deadline

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.time()) * 1000))


class RequestIdFilter(logging.Filter):
    """Adds the request id to each record."""

    request_id = ""

    def filter(self, record):
        record.aws_request_id = self.request_id
        return True


def error_answer(error_type: str, message: str, error: BaseException | None = None) -> dict:
    """The error object that Lambda returns, also printed to the log as Lambda does."""
    # Without the frame of this file, as Lambda does.
    stack = traceback.format_tb(error.__traceback__.tb_next) if error else []
    print(f"[ERROR] {error_type}: {message}\n{''.join(stack)}", flush=True)
    return {"error": {"errorType": error_type, "errorMessage": message, "stackTrace": stack}}


def import_handler():
    """The function named by _HANDLER (`module.function`), or an error answer."""
    module_name, _, function_name = os.environ["_HANDLER"].rpartition(".")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {error}"
        return None, error_answer("Runtime.ImportModuleError", message, error)
    except Exception as error:  # noqa: BLE001  whatever it is, Lambda reports it
        return None, error_answer(type(error).__name__, str(error), error)
    handler = getattr(module, function_name, None)
    if handler is None:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        return None, error_answer("Runtime.HandlerNotFound", message)
    return handler, None


def invoke(handler, request: dict, deadline: float) -> dict:
    """Run the handler once."""
    try:
        result = handler(request["event"], Context(request["request_id"], deadline))
    except Exception as error:  # noqa: BLE001  whatever it is, Lambda reports it
        return error_answer(type(error).__name__, str(error), error)
    try:
        return {"result": json.loads(json.dumps(result))}
    except (TypeError, ValueError) as error:
        return error_answer("Runtime.MarshalError", f"Unable to marshal response: {error}", error)


def main(channel: socket.socket, clock: WoundClock | None) -> None:
    """Be a container until the channel is closed."""
    # Lambda's order: the archive first, then what the image has, then the standard library.
    sys.path[:0] = [os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"]]
    request_id = RequestIdFilter()
    log_handler = logging.StreamHandler(sys.stdout)
    log_handler.setFormatter(logging.Formatter(LOG_FORMAT, "%Y-%m-%dT%H:%M:%S"))
    log_handler.addFilter(request_id)
    logging.Formatter.converter = time.gmtime
    logging.root.addHandler(log_handler)

    stream = channel.makefile("rw", encoding="utf-8")

    def send(message: dict) -> None:
        stream.write(json.dumps(message) + "\n")
        stream.flush()

    def answer(message: dict) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        message["max_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        send(message)

    def expire(seconds: float) -> None:
        send({"slept": seconds})
        while True:
            signal.pause()  # until it is killed for its time-out

    handler, failure = import_handler()
    answer(failure or {"modules": list(sys.modules)})
    if failure:
        return
    if clock:
        clock.report, clock.expire = lambda seconds: send({"slept": seconds}), expire
    for line in stream:
        request = json.loads(line)
        request_id.request_id = request["request_id"]
        deadline = time.time() + request["timeout"]
        if clock:
            clock.deadline = deadline
        answer(invoke(handler, request, deadline))


def remember_services(services: list[str]) -> None:
    """Have botocore read its data about services once for all containers, not once in each."""
    if not services:
        return
    loader = sys.modules["botocore.loaders"].JSONFileLoader
    load = functools.cache(loader().load_file)
    loader.load_file = lambda self, path: load(path)
    session = sys.modules["boto3"].Session("nobody", "nothing", region_name="us-east-1")
    for service in services:
        session.client(service)


def serve_template(control: socket.socket, clock: WoundClock | None) -> None:
    """Import what stdin names, then fork a container for each request over `control`.

    A request is a JSON line (environment, folder) with three file descriptors: the container's
    channel, its log, and a pipe. Into the pipe goes the container's process id at once, and its
    wait status when it has ended, as eight bytes each.
    """

    def tell(pipe: int, number: int) -> None:
        os.write(pipe, number.to_bytes(8, "little"))

    preload = json.load(sys.stdin)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.path[:0] = preload["path"]
    for name in preload["modules"]:
        importlib.import_module(name)
    remember_services(preload["services"])
    del sys.path[: len(preload["path"])]
    gc.freeze()  # what all containers share is no garbage of theirs

    pipes: dict[int, int] = {}

    def reap(*_) -> None:
        while pipes:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if not process_id:
                return
            pipe = pipes.pop(process_id)
            tell(pipe, status)
            os.close(pipe)

    signal.signal(signal.SIGCHLD, reap)
    while True:
        data, descriptors, *_ = socket.recv_fds(control, 1 << 16, 3)
        if not data:
            return
        request = json.loads(data)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        process_id = os.fork()
        if not process_id:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            channel, log, pipe = descriptors
            for other in (pipe, control.fileno(), *pipes.values()):
                os.close(other)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            os.environ.clear()
            os.environ.update(request["environment"])
            time.tzset()
            os.chdir(request["folder"])
            main(socket.socket(fileno=channel), clock)
            return
        channel, log, pipe = descriptors
        os.close(channel)
        os.close(log)
        pipes[process_id] = pipe
        tell(pipe, process_id)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


if __name__ == "__main__":
    descriptor, kind, *role = sys.argv[1:]
    run = serve_template if role else main
    run(socket.socket(fileno=int(descriptor)), WoundClock().install() if kind == "wound" else None)
