"""The command line; make has a target for each command.

Exit codes: 0 all is well; 1 something is not, and was named; 2 refused.
"""

import importlib
import logging
import os

import click

import review

# Nothing here is for AWS. A profile of this shell that does not exist would stop the imports below.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ |= dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)


# Which module has a command: only that one is imported, moto alone takes seconds.
COMMANDS = {
    "replay": "replay",
    "review": "review",
    "record": "record",
    "coverage": "coverage",
    "mutate": "mutate",
    "catalogue": "catalogue",
    "finding-types": "finding_types",
    "followed-by": "followed_by",
    "new-policy": "scaffold",
    "new-step": "scaffold",
}


class Commands(click.Group):
    """The commands of the modules of this package."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, cmd_name):
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"review.{COMMANDS[cmd_name]}")
        return next(
            found
            for found in vars(module).values()
            if isinstance(found, click.Command) and found.name == cmd_name
        )


@click.group(cls=Commands, help=review.__doc__)
def main():
    """All commands."""


def run():
    """Be the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    main()


if __name__ == "__main__":
    run()
