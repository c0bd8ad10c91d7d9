"""The archive of a function with compiled modules in it, so that no cold start compiles them.

Custodian's archive holds Python source only, and a function's folder cannot be written: each cold
start would compile all it imports. Importing this module makes Custodian's Lambda modes deploy
functions with both; `custom_actions.__main__` does, and nothing that runs in a function.

The compiled form of `pkg/module.py` lies where Python looks for it, in `pkg/__pycache__/`, and is
of the kind that Python does not compare with the source (PEP 552, unchecked hash), whatever time
the source has where it is unpacked. An interpreter of another version leaves it alone. A second
deploy from the same version of Python makes the same bytes, so Custodian sees nothing to change.
"""

import functools
import importlib.util
import logging
import marshal
import re
import sys
import tempfile
from pathlib import Path, PurePosixPath

import c7n.resources
from c7n import mu
from c7n.mu import PolicyLambda, PythonPackageArchive
from c7n.policy import LambdaMode
from c7n.resources.resource_map import ResourceMap

log = logging.getLogger("custodian.serverless")

THIS_RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"  # as mode.runtime has it
ARCHIVE = "archive.zip"
UNCHECKED_HASH = (0b01).to_bytes(4, "little")
# What every function imports of c7n.resources (load_providers there).
ALWAYS = ("aws", "resource_map", "securityhub", "sfn", "ssm")


class CompiledArchive(PythonPackageArchive):
    """Custodian's archive, with the compiled form beside each module.

    left_out: a predicate of a path in the archive; a module that it is true of stays source.
    """

    def __init__(self, modules, left_out):
        self.left_out = left_out
        super().__init__(modules)

    def add_contents(self, dest, contents):
        super().add_contents(dest, contents)
        path = PurePosixPath(dest)
        if path.suffix == ".py" and not self.left_out(path):
            cached = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
            super().add_contents(str(cached), compiled(contents, dest))


class CompiledPolicyLambda(PolicyLambda):
    """Custodian's function of a policy, its modules compiled where they are of use there."""

    def __init__(self, policy):
        self.policy = policy
        if self.runtime != THIS_RUNTIME:
            log.warning(
                "policy:%s runs on %s and is deployed from %s: its modules are left uncompiled, "
                "which makes cold starts slower. Deploy it from %s.",
                policy.name,
                self.runtime,
                THIS_RUNTIME,
                self.runtime,
            )

    @functools.cached_property
    def archive(self):
        """Built when it is asked for: who wants to know what a function is need not wait."""
        if self.runtime == THIS_RUNTIME:
            return compiled_archive(self.packages, self.policy.resource_type)
        return mu.custodian_archive(self.packages)


def compiled_archive(packages, resource_type):
    """What c7n.mu.custodian_archive makes, compiled; the policy is added to it later."""
    folder = built(tuple(sorted({"c7n", *(packages or ())})), resource_type)
    return PythonPackageArchive(cache_file=Path(folder.name) / ARCHIVE)


@functools.cache
def built(modules, resource_type):
    """The folder with the archive of these modules, made once for a process and those it forks.

    It takes half a second, and a deploy to many accounts needs the same few again and again.
    """
    folder = tempfile.TemporaryDirectory(prefix="archive-")
    archive = CompiledArchive(modules, other_resources(resource_type)).close()
    (Path(folder.name) / ARCHIVE).write_bytes(archive.get_bytes())
    return folder


@functools.cache
def compiled(source, name):
    """The bytes of a .pyc file, which depend on source, name and Python version alone.

    py_compile would do, but for one thing: what marshal writes by itself (version 3 and up) depends
    on what else the process holds. Version 2 does not.
    https://github.com/python/cpython/issues/78274
    """
    source = source.encode() if isinstance(source, str) else source
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    header = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + importlib.util.source_hash(source)
    return header + marshal.dumps(code, 2)


def other_resources(resource_type):
    """A predicate of the modules of c7n.resources that a policy does not import.

    They are 120 of 210 modules and two thirds of all bytes. What their source imports is followed;
    a module that is imported in another way than at the top is compiled by the function.
    """
    folder = Path(c7n.resources.__file__).parent
    of_type = ResourceMap[f"aws.{resource_type.removeprefix('aws.')}"].split(".")[2]
    pending, used = [*ALWAYS, of_type], {"__init__"}
    while pending:
        name = pending.pop()
        if name not in used:
            used.add(name)
            source = (folder / f"{name}.py").read_text()
            pending += re.findall(r"^(?:from|import) c7n\.resources\.(\w+)", source, re.MULTILINE)
    return lambda path: path.parent == PurePosixPath("c7n/resources") and path.stem not in used


# The property by which a mode says what it deploys; Custodian has no registry for it.
LambdaMode.policy_lambda = property(lambda mode: CompiledPolicyLambda)
