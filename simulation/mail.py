"""c7n-mailer on the mail queue, delivering to the sink.

What renders and sends is the stock mailer's own processor with `mailer/mailer.yml` and
`mailer/templates`. Only its loop is replaced: the command waits ten seconds for a further message
before it ends, here the queue is read when something was published. `run_command` is the command.
"""

import contextlib
import logging
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import c7n_mailer
import yaml
from c7n_mailer.cli import get_and_validate_mailer_config
from c7n_mailer.sqs_queue_processor import (
    MailerSqsQueueIterator,
    MailerSqsQueueProcessor,
)

from .cloud import Cloud
from .smtp import MailSink

ROOT = Path(__file__).parents[1]
MAILER = ROOT / "mailer"
LOGGER = logging.getLogger("custodian-mailer")


class Mailer:
    """The mailer of one queue.

    account_id, region, queue_url: of the mail queue. config: a mailer.yml; its address of the
    queue and of the SMTP server are replaced. templates: the folder of the templates.
    """

    def __init__(
        self,
        cloud: Cloud,
        sink: MailSink,
        account_id: str,
        region: str,
        queue_url: str,
        config: Path = MAILER / "mailer.yml",
        templates: Path = MAILER / "templates",
    ):
        self._cloud = cloud
        self._where = account_id, region
        self._templates = templates
        self._lock = threading.Lock()
        self.config_file = cloud.folder / "mailer.yml"
        settings = yaml.safe_load(config.read_text())
        settings |= {
            "queue_url": queue_url,
            "endpoint_url": cloud.endpoint,
            "region": region,
            "smtp_server": "127.0.0.1",
            "smtp_port": sink.port,
            "smtp_ssl": False,
        }
        for secret in ("smtp_username", "smtp_password", "profile"):
            settings.pop(secret, None)
        self.config_file.write_text(yaml.safe_dump(settings))

        # The file's own checks and defaults, and the folders in the command's order.
        self._settings = get_and_validate_mailer_config(Namespace(config=self.config_file))
        self._settings["templates_folders"] = [
            str(Path(c7n_mailer.__file__).parent / "msg-templates"),
            str(ROOT),
            str(templates),
        ]
        session = cloud.session(account_id, region)
        self._sqs = session.client("sqs")
        self._processor = MailerSqsQueueProcessor(self._settings, session, LOGGER)

    def deliver_all(self) -> int:
        """Deliver what is on the queue now and return how many messages that were.

        As in the command, a message that the mailer could not render raises and stays, and one
        that SMTP refused is logged and deleted.
        """
        queue_url = self._settings["queue_url"]
        messages = MailerSqsQueueIterator(self._sqs, queue_url, LOGGER, timeout=0)
        messages.msg_attributes = ["mtype", "recipient"]
        count = 0
        with self._lock:
            for message in messages:
                self._processor.process_sqs_message(message)
                messages.ack(message)
                count += 1
        return count

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

    def run_command(self) -> subprocess.CompletedProcess:
        """`c7n-mailer --run`, once. It takes at least ten seconds."""
        command = [Path(sys.executable).with_name("c7n-mailer"), "--run", "-c", self.config_file]
        return subprocess.run(
            [*command, "-t", self._templates],
            cwd=ROOT,
            env=self._cloud.environment(*self._where),
            capture_output=True,
            text=True,
        )
