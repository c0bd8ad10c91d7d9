"""The command line; make has a target for each command.

Exit codes: 0 all is well; 1 something is not, and was named; 2 refused, nothing was changed.
"""

import importlib
import logging
import os
import pkgutil
import sys

import click

import custom_actions.__main__  # noqa: F401 - the pack and its deploy, in worker processes too
import deployment
from deployment.errors import reason

log = logging.getLogger("deployment")


@click.group(help=deployment.__doc__)
def main():
    """All commands of the modules of this package."""


for module in pkgutil.iter_modules(deployment.__path__, "deployment."):
    if module.name != __name__ and not module.name.endswith("__main__"):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, click.Command):
                main.add_command(found)


def run():
    """Be the command line: an error is a line, and with VERBOSE=1 in the environment a trace."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if os.environ.get("VERBOSE"):
        for name in ("deployment", "custodian"):
            logging.getLogger(name).setLevel(logging.DEBUG)
    else:
        # traces of what becomes a line in the end
        logging.getLogger("custodian").setLevel(logging.CRITICAL)
    try:
        main()
    except Exception as error:  # noqa: BLE001  whatever it is, a person reads a line
        log.debug("", exc_info=True)
        sys.exit(f"error: {reason(error)} (VERBOSE=1 shows where)")


if __name__ == "__main__":
    run()
