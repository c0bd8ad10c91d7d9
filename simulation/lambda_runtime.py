"""A Lambda execution environment: one child process that can import what the real one can.

The child is a fresh `python -I -S -B`, so neither this virtual environment, nor the repository, nor
PYTHONPATH is visible. Its path is the archive that was uploaded, a folder with the packages that
the Lambda Python image has, and the standard library. The current folder is the archive's.

What differs from Lambda: the interpreter is the one that runs the simulation, whatever the
function's `Runtime` says; memory is measured but not limited; `/tmp` is this machine's; the archive
folder is writable for a handler that tries; an import of more than ten seconds is not started anew.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# Importable in the Lambda Python image without being in the archive.
IMAGE_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3")
# Seconds that Lambda gives the import of the handler's module before it counts as the function's.
INIT_TIMEOUT = 10
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


@dataclass(frozen=True)
class FunctionConfig:
    """What of a function's configuration matters to run it. `timeout` is in seconds."""

    arn: str
    name: str
    account_id: str
    region: str
    runtime: str
    handler: str
    role: str
    timeout: int
    memory_size: int
    code_sha256: str
    variables: tuple[tuple[str, str], ...] = ()
    dead_letter_arn: str | None = None


@dataclass
class Outcome:
    """The end of one run. error: Lambda's error object or None. duration: seconds of the handler,
    without the import of its module; init_duration: seconds of that, 0 when warm. slept: the sleeps
    that wound the clock, in seconds; they are part of `duration`."""

    result: object
    error: dict | None
    duration: float
    init_duration: float
    log: str
    slept: list[float]


def image_packages(folder: Path) -> Path:
    """Fill a folder with links to IMAGE_PACKAGES as they are installed here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in IMAGE_PACKAGES:
        origin = Path(find_spec(name).origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / source.name).symlink_to(source)
    return folder


def unpack(code: bytes, folder: Path) -> Path:
    """Unpack an archive, given as its bytes, into a folder."""
    with zipfile.ZipFile(io.BytesIO(code)) as archive:
        archive.extractall(folder)
    return folder


def interpreter(descriptor: int, wound: bool) -> list[str]:
    """The command of bootstrap.py on a socket: isolated, no site-packages, writes no bytecode."""
    clock = "wound" if wound else "real"
    return [sys.executable, "-I", "-S", "-B", "-u", str(BOOTSTRAP), str(descriptor), clock]


class Launcher:
    """Starts containers, each from nothing.

    folder: for what all containers share. wound: whether their `time.sleep` winds the clock
    forward instead of waiting, see `bootstrap.WoundClock`.
    """

    def __init__(self, folder: Path, wound: bool = False):
        self.runtime = image_packages(folder / "runtime")
        self.wound = wound

    def unpack(self, code: bytes, code_sha256: str, task_root: Path) -> None:
        """Make the folder that holds the archive."""
        unpack(code, task_root)

    def start(
        self,
        config: FunctionConfig,
        environment: dict[str, str],
        task_root: Path,
        channel: int,
        log: int,
    ) -> subprocess.Popen:
        """Start a container. environment: all of it. channel, log: descriptors, the child's."""
        return subprocess.Popen(
            interpreter(channel, self.wound),
            cwd=task_root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[channel],
        )

    def imported(self, config: FunctionConfig, modules: list[str]) -> None:
        """Notice what a cold start has imported."""


class Container:
    """One execution environment, cold until its first `run`.

    config: of the function. task_root: the folder that `launcher.unpack` made. environment:
    credentials and endpoint, as `Cloud.environment` gives them.
    """

    def __init__(
        self,
        config: FunctionConfig,
        task_root: Path,
        launcher: Launcher,
        environment: dict[str, str],
    ):
        self.config = config
        self.cold = True
        self._launcher = launcher
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._channel, theirs = socket.socketpair()
        self._received = b""
        stream_name = time.strftime("%Y/%m/%d/[$LATEST]") + uuid.uuid4().hex
        variables = environment | {
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": config.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_size),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": stream_name,
            "LAMBDA_TASK_ROOT": str(task_root),
            "LAMBDA_RUNTIME_DIR": str(launcher.runtime),
            "SIMULATION_FUNCTION_ARN": config.arn,
            "_HANDLER": config.handler,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
        }
        with theirs:
            self._process = launcher.start(
                config,
                variables | dict(config.variables),
                task_root,
                theirs.fileno(),
                self._log.fileno(),
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, event: object, request_id: str) -> Outcome:
        """Run the handler on one event. A container that timed out or died is not alive after."""
        log_start = self._log_size()
        memory, init_duration = 0, 0.0
        slept: list[float] = []
        started = time.monotonic()
        try:
            if self.cold:
                ready = self._receive(INIT_TIMEOUT + self.config.timeout)
                init_duration = time.monotonic() - started
                memory = ready["max_memory"]
                if "error" in ready:
                    self._process.wait()
                    raise FunctionError(ready["error"])
                self._launcher.imported(self.config, ready["modules"])
                started = time.monotonic()
            request = {
                "event": event,
                "request_id": request_id,
                "timeout": self.config.timeout,
            }
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            answer = self._receive(self.config.timeout, slept)
            memory = answer["max_memory"]
            result, error = answer.get("result"), answer.get("error")
        except FunctionError as failure:
            result, error = None, failure.error
        except TimeoutError:
            self.kill()
            message = f"{request_id} Task timed out after {self.config.timeout:.2f} seconds"
            result, error = None, {"errorType": "Sandbox.Timedout", "errorMessage": message}
        except OSError:
            result, error = None, self._exit_error(request_id)
        duration = time.monotonic() - started + sum(slept)
        report = (
            f"REPORT RequestId: {request_id}\tDuration: {duration * 1000:.2f} ms"
            f"\tMemory Size: {self.config.memory_size} MB\tMax Memory Used: {memory} MB"
        )
        if self.cold:
            report += f"\tInit Duration: {init_duration * 1000:.2f} ms"
        self.cold = False
        log = self._framed_log(request_id, log_start, error, report)
        return Outcome(result, error, duration, init_duration, log, slept)

    def kill(self) -> None:
        """End the child as a crash would."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the child and free what it held."""
        self.kill()
        self._channel.close()
        self._log.close()

    def _receive(self, timeout: float, slept: list[float] | None = None) -> dict:
        """One JSON line from the child. TimeoutError, or ConnectionError when the child is gone.

        slept: takes the sleeps that wound the child's clock; they count for the time-out.
        """
        deadline = time.monotonic() + timeout
        while True:
            while b"\n" not in self._received:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._channel.settimeout(left)
                data = self._channel.recv(1 << 16)
                if not data:
                    raise ConnectionError("the child is gone")
                self._received += data
            self._channel.settimeout(None)
            line, _, self._received = self._received.partition(b"\n")
            message = json.loads(line)
            if "slept" not in message:
                return message
            slept.append(message["slept"])
            deadline -= message["slept"]

    def _exit_error(self, request_id: str) -> dict:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed the channel but lives
            self.kill()
            code = self._process.returncode
        how = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        message = f"RequestId: {request_id} Error: Runtime exited with error: {how}"
        return {"errorType": "Runtime.ExitError", "errorMessage": message}

    def _log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def _framed_log(self, request_id: str, start: int, error: dict | None, report: str) -> str:
        """What was written since `start`, between Lambda's own lines."""
        written = os.pread(self._log.fileno(), self._log_size() - start, start)
        lines = [f"START RequestId: {request_id} Version: $LATEST"]
        lines += written.decode("utf-8", "replace").rstrip("\n").splitlines()
        if error and error["errorType"] in ("Sandbox.Timedout", "Runtime.ExitError"):
            lines.append(error["errorMessage"])
        return "\n".join([*lines, f"END RequestId: {request_id}", report, ""])


class FunctionError(Exception):
    """Carries Lambda's error object."""

    def __init__(self, error: dict):
        super().__init__(error["errorMessage"])
        self.error = error
