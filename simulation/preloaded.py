"""What the processes of `deploy.custodian` are forked with: Custodian and the pack, imported.

Nothing of the cloud. What is remembered here are answers that depend on installed files alone.
"""

import functools
import gc
import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import botocore.hooks
import c7n.cli  # noqa: F401
import c7n.schema
from c7n import mu
from c7n.resources import load_resources
from jsonschema import Draft7Validator

import custom_actions.__main__  # noqa: F401
import custom_actions.archive as compiling
import deployment.__main__  # noqa: F401

from .quick_botocore import read_models

RESOURCES = ("aws.ec2", "aws.account", "aws.iam-user", "aws.security-group")
load_resources(RESOURCES)

# Each handler of each client is inspected. All are kept: that is for a process that ends soon.
botocore.hooks.accepts_kwargs = functools.cache(botocore.hooks.accepts_kwargs)
read_models("ec2", "iam", "lambda", "events", "sts", "logs", "sns")


# Custodian checks the schema that it makes for the resources of a file each time.
_check = Draft7Validator.check_schema
_checked = [c7n.schema.generate({resource}) for resource in RESOURCES]
for _schema in _checked:
    _check(_schema)
Draft7Validator.check_schema = lambda schema: None if schema in _checked else _check(schema)
gc.freeze()  # all of this stays: the processes that are forked need not look through it for garbage


def remember_archives(folder: Path) -> None:
    """Have an archive be built once of the same files: afterwards it is a copy from `folder`.

    The archive is the one that Custodian built, without the policy, which it adds to the copy.
    """

    def remembering(build):
        def archive(packages=None, *more):
            kept = folder / _digest({"c7n", *(packages or ())}, *more)
            if not kept.exists():
                made = build(packages, *more).close()
                copy = kept.with_suffix(f".{os.getpid()}")
                copy.write_bytes(made.get_bytes())
                copy.rename(kept)
            return mu.PythonPackageArchive(cache_file=kept)

        return archive

    mu.custodian_archive = remembering(mu.custodian_archive)
    compiling.compiled_archive = remembering(compiling.compiled_archive)


def _digest(packages: set[str], *more: str) -> str:
    """Of the files of packages, and of whatever builds archives out of them here."""
    files = hashlib.sha256(repr((sorted(packages), more, sys.version)).encode())
    for package in sorted(packages):
        root = Path(find_spec(package).origin).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.parent.name != "__pycache__":
                content = path.read_bytes()
                files.update(f"\0{package}/{path.relative_to(root)} {len(content)}\0".encode())
                files.update(content)
    return files.hexdigest()
