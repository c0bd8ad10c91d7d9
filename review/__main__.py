"""The command line; make has a target for each command.

Exit codes: 0 all is well; 1 something is not, and was named; 2 refused.
"""

import importlib
import logging
import os
import pkgutil

import click

import review

# Nothing here is for AWS. A profile of this shell that does not exist would stop the imports below.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ |= dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)


@click.group(help=review.__doc__)
def main():
    """All commands of the modules of this package."""


for module in pkgutil.iter_modules(review.__path__, "review."):
    if not module.name.endswith("__main__"):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, click.Command):
                main.add_command(found)


def run():
    """Be the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    main()


if __name__ == "__main__":
    run()
