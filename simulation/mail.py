"""The pack's own mailer on the mail queue, delivering to the sink.

`Mailer` is `python -m mailer` in this process; `deploy_mailer` is `python -m mailer deploy`, after
which the function delivers by itself, as soon as a message is on the queue. Both take
`mailer/mailer.yml`; only the queue and the mail server in it are replaced.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import yaml

from mailer import config as configuration
from mailer.loop import Loop
from mailer.queue import Queue
from mailer.secrets import Secrets

from .cloud import Cloud
from .smtp import MailSink

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "mailer" / "mailer.yml"


def settings(
    cloud: Cloud, sink: MailSink, region: str, queue_url: str, config: Path, **changes
) -> Path:
    """A mailer.yml for the simulation: the shipped one (or `config`) with the queue, the sink as
    mail server and the `changes`; a key that is None is left out. Returns the file."""
    read = yaml.safe_load(config.read_text())
    if "accounts" in read:
        read["accounts"] = str(config.parent / read["accounts"])
    made = read | {
        "queue_url": queue_url,
        "endpoint_url": cloud.endpoint,
        "region": region,
        "smtp_server": "127.0.0.1",
        "smtp_port": sink.port,
        "smtp_ssl": False,
    }
    for secret in ("smtp_username", "smtp_password", "profile"):
        made.pop(secret, None)
    made |= changes
    path = cloud.folder / "mailer.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in made.items() if v is not None}))
    return path


class Mailer:
    """The mailer of one queue.

    account_id, region, queue_url: of the mail queue. config: a mailer.yml, see `settings`.
    templates: the folder of the templates, by default the pack's. changes: of mailer.yml.
    """

    def __init__(
        self,
        cloud: Cloud,
        sink: MailSink,
        account_id: str,
        region: str,
        queue_url: str,
        config: Path = CONFIG,
        templates: Path | None = None,
        **changes,
    ):
        self._cloud = cloud
        self._where = account_id, region
        self._templates = templates
        self._lock = threading.Lock()
        self.config_file = settings(cloud, sink, region, queue_url, config, **changes)
        session = cloud.session(account_id, region)
        loaded = configuration.load(self.config_file)
        courier = configuration.courier(loaded, session, Secrets(session), templates)
        self.loop = Loop(Queue(session.client("sqs"), queue_url), courier)

    def deliver_all(self) -> int:
        """Deliver what is on the queue now and return how many messages were delivered.

        RuntimeError, with a line for each, when some could not be; they stay on the queue.
        """
        with self._lock:
            before = self.loop.delivered
            self.loop.kept.clear()
            self.loop.once(passes=1)
            if self.loop.kept:
                raise RuntimeError("\n".join(self.loop.kept.values()))
            return self.loop.delivered - before

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Deliver each message as soon as it was published, for as long as the context lasts.

        At the end the queue is emptied once more, and what went wrong on the way is raised.
        """
        published = threading.Event()
        ended = threading.Event()
        errors: list[Exception] = []

        def follow() -> None:
            last = False
            while not last:
                published.wait()
                published.clear()
                last = ended.is_set()
                try:
                    self.deliver_all()
                except Exception as error:  # noqa: BLE001  raised at the end
                    errors.append(error)

        def notice(call) -> None:
            if call.operation == "Publish" and call.error_code is None:
                published.set()

        thread = threading.Thread(target=follow, name="mailer", daemon=True)
        thread.start()
        unsubscribe = self._cloud.call_log.subscribe(notice)
        try:
            yield
        finally:
            unsubscribe()
            ended.set()
            published.set()
            thread.join()
        if errors:
            raise errors[0]

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess:
        """`python -m mailer`, by default with `--once`."""
        return subprocess.run(
            self.command(*arguments or ["--once"]),
            cwd=ROOT,
            env=self._cloud.environment(*self._where),
            capture_output=True,
            text=True,
        )

    def command(self, *arguments: str) -> list[str]:
        """The command line of the mailer, for a process that a test controls itself."""
        own = ["--config", str(self.config_file)]
        if self._templates:
            own += ["--templates", str(self._templates)]
        return [sys.executable, "-m", "mailer", *own, *arguments]


def deploy_mailer(
    cloud: Cloud,
    sink: MailSink,
    account_id: str,
    region: str,
    stack: dict[str, str],
    config: Path = CONFIG,
    **changes,
) -> subprocess.CompletedProcess:
    """`python -m mailer deploy`: from now on the function empties the queue.

    stack: the outputs of infra/mailer.yml. changes: of mailer.yml. RuntimeError with the output
    when it fails.
    """
    changes = {"role": stack["MailerRoleArn"]} | changes
    path = settings(cloud, sink, region, stack["MailQueueUrl"], config, **changes)
    finished = subprocess.run(
        [sys.executable, "-m", "mailer", "deploy", "--config", str(path)],
        cwd=ROOT,
        env=cloud.environment(account_id, region),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if finished.returncode:
        raise RuntimeError(f"mailer deploy: exit {finished.returncode}\n{finished.stdout}")
    return finished
