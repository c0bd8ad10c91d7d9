"""The command line; make has a target for each command.

Exit codes: 0 all is well; 1 something is not, and was named; 2 refused.
"""

import importlib
import logging
import pkgutil

import click

import review


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
