"""The pack's command line, as a process that is forked with everything imported.

Only this module and what it imports is preloaded (see `deploy.custodian`), nothing of the cloud.
"""

import functools
import os
import sys
from pathlib import Path

import botocore.session
import c7n.cli  # noqa: F401
from botocore.loaders import JSONFileLoader
from c7n.resources import load_resources

import custom_actions.__main__ as command_line

from .bootstrap import WoundClock

load_resources(("aws.ec2", "aws.account", "aws.iam-user", "aws.security-group"))
# botocore reads a model again for each session, and Custodian makes several sessions.
_load = functools.cache(JSONFileLoader().load_file)
JSONFileLoader.load_file = lambda self, path: _load(path)
for service in ("ec2", "iam", "lambda", "events", "sts", "logs", "sns"):
    botocore.session.Session().get_service_model(service)


def custodian(
    arguments: list[str], environment: dict[str, str], folder: Path, output: Path, wound: bool
):
    """Take over environment and output, then be `python -m custom_actions custodian ...`.

    wound: see `Cloud`.
    """
    if wound:
        WoundClock().install()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["custom_actions", "custodian", *arguments]
    command_line.main()
