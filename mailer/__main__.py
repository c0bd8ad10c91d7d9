"""The command line.

python -m mailer --config mailer/mailer.yml --once   deliver what is on the queue, then end
python -m mailer --config mailer/mailer.yml          go on until SIGTERM or SIGINT
python -m mailer deploy                              make or update the function that does it
python -m mailer dead-letters list | send-back       what the dead-letter queue holds
python -m mailer test --to someone@company.example   one test mail, from here

Exit codes: 0 all delivered (or stopped cleanly); 1 something could not be, a line for each on
stderr; 2 the configuration or the queue is not usable.
"""

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from c7n_mailer.utils import session_factory

from . import dead_letters, deploy, trial
from .config import CHANGE, HERE, ConfigError, courier, load, unchanged
from .errors import AWS_ERRORS, Permanent, describe
from .loop import PASSES, Loop
from .queue import Queue
from .secrets import HidingFormatter, Secrets

log = logging.getLogger("mailer")

# Of what is marked CHANGE in mailer.yml, what the commands use
USED = {"deploy": CHANGE, "test": ("from_address", "smtp_server")}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mailer", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    for one, default in ((parser, HERE / "mailer.yml"), (shared, argparse.SUPPRESS)):
        one.add_argument("--config", type=Path, default=default, help="mailer/mailer.yml")
    parser.add_argument("--templates", type=Path, help="folder, by default mailer/templates")
    parser.add_argument("--once", action="store_true", help="end when the queue is empty")
    parser.add_argument(
        "--tries", type=int, default=PASSES, metavar="N",
        help=f"with --once: how often to try what can be tried again, {PASSES} by default",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("deploy", parents=[shared], help="make or update the function")
    dead = commands.add_parser(
        "dead-letters", parents=[shared], help="what could not be delivered at all"
    )
    dead.add_argument("action", choices=("list", "send-back"))
    dead.add_argument("--finding", help="only the messages about this finding id")
    trying = commands.add_parser("test", parents=[shared], help="one test mail, from here")
    trying.add_argument("--to", required=True, help="an address that mailer.yml knows")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = load(options.config)
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    of_others = tuple(key for key in CHANGE if key != "role")
    if examples := unchanged(config, USED.get(options.command, of_others)):
        print(*examples, "Nothing was changed or sent.", sep="\n", file=sys.stderr)
        return 2
    session = session_factory(config)
    secrets = Secrets(session)
    log_to_stderr(secrets)
    try:
        return run(options, config, session, secrets)
    except (*AWS_ERRORS, ConfigError, Permanent) as error:
        log.error("%s", describe(error))
    except Exception:  # noqa: BLE001  through the log, which hides secrets; Python's own does not
        log.critical("a fault of the mailer itself", exc_info=True)
    return 2


def run(options: argparse.Namespace, config: dict, session, secrets: Secrets) -> int:
    if options.command == "deploy":
        return deploy.deploy(config, session, options.templates)
    if options.command == "test":
        deliverer = courier(config, session, secrets, options.templates)
        return trial.run(config, deliverer, secrets, options.to)
    sqs = session.client("sqs", endpoint_url=config["endpoint_url"])
    queue = Queue(sqs, config["queue_url"])
    deliverer = courier(config, session, secrets, options.templates)
    if options.command == "dead-letters":
        return dead_letters.run(options.action, queue, deliverer, options.finding)
    return deliver(queue, deliverer, options.tries if options.once else None)


def deliver(queue: Queue, courier, tries: int | None) -> int:
    """`tries` passes over the queue, or without end when it is None."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    loop = Loop(queue, courier, stop)
    try:
        if tries is None:
            loop.forever()
            log.info("stopped")
            return 0
        loop.once(tries)
    finally:
        courier.close()
    for line in loop.kept.values():
        log.warning(line)
    log.info("delivered: %s messages, kept: %s", loop.delivered, len(loop.kept))
    if stop.is_set():
        log.warning("stopped before the queue was empty")
    return 1 if loop.kept or stop.is_set() else 0


def log_to_stderr(secrets: Secrets) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        HidingFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"), secrets)
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
