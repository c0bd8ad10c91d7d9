"""What runs inside the simulated Lambda container: Lambda's own Python bootstrap, in small.

Started by `lambda_runtime.Container` as `python -I -S -B bootstrap.py FD`, so that nothing but the
standard library is importable until `sys.path` is set below. Over the socket FD it writes one JSON
line when the handler has been imported (or why it could not be), then reads one invocation a line
and answers each with one line. stdout, stderr and logging are the function's log.

Errors, their names and the log format follow awslambdaric, the open source of Lambda's runtime.
"""

import importlib
import json
import logging
import os
import resource
import socket
import sys
import time
import traceback

LOG_FORMAT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"


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


def invoke(handler, request: dict) -> dict:
    """Run the handler once."""
    try:
        result = handler(request["event"], Context(request["request_id"], request["deadline"]))
    except Exception as error:  # noqa: BLE001  whatever it is, Lambda reports it
        return error_answer(type(error).__name__, str(error), error)
    try:
        return {"result": json.loads(json.dumps(result))}
    except (TypeError, ValueError) as error:
        return error_answer("Runtime.MarshalError", f"Unable to marshal response: {error}", error)


def main(channel: socket.socket) -> None:
    request_id = RequestIdFilter()
    log_handler = logging.StreamHandler(sys.stdout)
    log_handler.setFormatter(logging.Formatter(LOG_FORMAT, "%Y-%m-%dT%H:%M:%S"))
    log_handler.addFilter(request_id)
    logging.Formatter.converter = time.gmtime
    logging.root.addHandler(log_handler)

    stream = channel.makefile("rw", encoding="utf-8")

    def answer(message: dict) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        message["max_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
        stream.write(json.dumps(message) + "\n")
        stream.flush()

    handler, failure = import_handler()
    answer(failure or {})
    if failure:
        return
    for line in stream:
        request = json.loads(line)
        request_id.request_id = request["request_id"]
        answer(invoke(handler, request))


if __name__ == "__main__":
    # Lambda's order: the archive first, then what the image has, then the standard library.
    sys.path[:0] = [os.environ["LAMBDA_TASK_ROOT"], os.environ["LAMBDA_RUNTIME_DIR"]]
    main(socket.socket(fileno=int(sys.argv[1])))
