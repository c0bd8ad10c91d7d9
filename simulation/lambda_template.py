"""Containers forked from a warm interpreter, for where a cold start is not the point.

The first container of a code in this process starts from nothing and says which modules the import
of its handler needed. From those a template is made: an interpreter, isolated like any container,
that has imported what does *not* belong to the function's own package (for the pack: boto3 and, out
of the archive, c7n; not custom_actions). Each later container of that code is forked from it and
then does what a fresh one does: it takes its own environment, log and folder, imports the handler
and waits for events. So the function's own modules, and whatever an invocation makes (sessions,
clients, credentials), are as new as after a cold start.

What differs from a cold start: modules of others were imported without the function's credentials,
forks of one template hash alike, and the files of the archive are shared between the containers of
this process, so that a handler that writes into its own package is noticed by the others.
"""

import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import zipfile
from pathlib import Path

from .lambda_runtime import FunctionConfig, Launcher, interpreter, unpack

# Custodian writes the policy there; else the archives of the pack's functions are the same.
POLICY = "config.json"
# What the pack's functions call: templates that know Custodian have read botocore's data about it.
SERVICES = ("autoscaling", "ec2", "elb", "elbv2", "iam", "sns", "sts")


class ForkedProcess:
    """A child of a template, with what a container needs of `subprocess.Popen`.

    pipe: see `bootstrap.serve_template`. EOFError when the template is gone.
    """

    def __init__(self, pipe: int):
        self._pipe = open(pipe, "rb", buffering=0)  # noqa: SIM115  lives as long as the process
        self._lock = threading.Lock()
        self.pid = self._read()
        self.returncode: int | None = None

    def _read(self) -> int:
        data = self._pipe.read(8)
        if not data:
            raise EOFError
        return int.from_bytes(data, "little")

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(f"container {self.pid}", timeout)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        """The exit code, when it is there within `timeout` seconds."""
        if self.returncode is None:
            ready, *_ = select.select([self._pipe], [], [], timeout)
            with self._lock:
                if ready and self.returncode is None:
                    self.returncode = os.waitstatus_to_exitcode(self._read())
        return self.returncode


class Template:
    """The interpreter that containers are forked from.

    task_root, runtime: the folders to import from. modules: what to import, in this order.
    variables: the environment variables of the function's configuration. wound: see `Cloud`.
    """

    def __init__(
        self,
        task_root: Path,
        runtime: Path,
        modules: list[str],
        variables: dict[str, str],
        wound: bool,
    ):
        self._lock = threading.Lock()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*interpreter(theirs.fileno(), wound), "template"],
                cwd=task_root,
                env={"LANG": "en_US.UTF-8", "TZ": ":UTC"} | variables,
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        path = [str(task_root), str(runtime)]
        services = SERVICES if "c7n" in modules else ()
        preload = {"path": path, "modules": modules, "services": services}
        with self._process.stdin as stdin:
            stdin.write(json.dumps(preload).encode())

    def fork(
        self, environment: dict[str, str], folder: Path, channel: int, log: int
    ) -> ForkedProcess:
        """Start a container; see `Launcher.start`. RuntimeError when the template has ended."""
        request = json.dumps({"environment": environment, "folder": str(folder)}).encode()
        ours, theirs = os.pipe()
        with self._lock:  # one request at a time: the socket knows no messages
            try:
                socket.send_fds(self._control, [request], [channel, log, theirs])
                os.close(theirs)
                return ForkedProcess(ours)
            except (EOFError, OSError) as error:
                self._control.close()
                self._process.wait()
                self._log.seek(0)
                raise RuntimeError(
                    f"a template of containers has ended: {self._log.read().decode()}"
                ) from error

    def close(self) -> None:
        """End it; its containers go on until they are killed."""
        self._control.close()
        self._process.wait()
        self._log.close()


class ForkingLauncher(Launcher):
    """Starts the first container of a code from nothing, and forks the others."""

    def __init__(self, folder: Path, wound: bool):
        super().__init__(folder, wound)
        self._folder = folder
        self._lock = threading.Lock()
        self._digests: dict[str, str] = {}  # of the code without the policy, by code_sha256
        self._modules: dict[tuple, list[str]] = {}
        self._templates: dict[tuple, Template] = {}

    def unpack(self, code: bytes, code_sha256: str, task_root: Path) -> None:
        """Fill a folder with links to the one copy of this code, and with the policy."""
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            contents = {info.filename: (info.CRC, info.file_size) for info in archive.infolist()}
            policy = archive.read(POLICY) if contents.pop(POLICY, None) else None
        digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()
        shared = self._folder / digest
        with self._lock:
            self._digests[code_sha256] = digest
            if not shared.exists():
                unpack(code, shared)
                (shared / POLICY).unlink(missing_ok=True)
        task_root.mkdir()
        for entry in shared.iterdir():
            (task_root / entry.name).symlink_to(entry)
        if policy is not None:
            (task_root / POLICY).write_bytes(policy)

    def start(
        self,
        config: FunctionConfig,
        environment: dict[str, str],
        task_root: Path,
        channel: int,
        log: int,
    ) -> subprocess.Popen | ForkedProcess:
        template = self._template(config)
        if template is None:
            return super().start(config, environment, task_root, channel, log)
        return template.fork(environment, task_root, channel, log)

    def imported(self, config: FunctionConfig, modules: list[str]) -> None:
        own = config.handler.replace("/", ".").partition(".")[0]
        with self._lock:
            self._modules.setdefault(
                self._key(config),
                [name for name in modules if name.partition(".")[0] not in (own, "__main__")],
            )

    def _template(self, config: FunctionConfig) -> Template | None:
        key = self._key(config)
        with self._lock:
            if key not in self._templates and key in self._modules:
                self._templates[key] = Template(
                    self._folder / key[0],
                    self.runtime,
                    self._modules[key],
                    dict(config.variables),
                    self.wound,
                )
            return self._templates.get(key)

    def _key(self, config: FunctionConfig) -> tuple:
        return self._digests[config.code_sha256], config.handler, config.variables

    def close(self) -> None:
        for template in self._templates.values():
            template.close()


def folder_of_this_process(prefix: str) -> Path:
    """A temporary folder that goes with this process. One of `TemporaryDirectory` would go with the
    first worker that is forked from it."""
    folder, pid = tempfile.mkdtemp(prefix=prefix), os.getpid()
    atexit.register(lambda: os.getpid() == pid and shutil.rmtree(folder, ignore_errors=True))
    return Path(folder)


@functools.cache
def forking(wound: bool) -> ForkingLauncher:
    """The launcher of this process: templates and code outlive a cloud."""
    launcher = ForkingLauncher(folder_of_this_process("lambda-"), wound)
    pid = os.getpid()
    atexit.register(lambda: os.getpid() == pid and launcher.close())  # before the folder goes
    return launcher
