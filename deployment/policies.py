"""The policies of a folder that become functions; those of opt-in/ only where they are named."""

import functools

import yaml
from c7n.config import Config
from c7n.exceptions import PolicyValidationError
from c7n.loader import PolicyLoader
from c7n.utils import load_file

from custom_actions import archive
from deployment.errors import Refused
from deployment.targets import ROOT

FOLDER = ROOT / "policies"


@functools.cache
def policies(folder=FOLDER, mode=None):
    """All that have a mode, opt-in or not: {name: data}, the one that mails findings first.

    mode: the type of it, to look at these alone.

    Raises Refused when one is not valid. c7n-org by itself says a line of an action that it does
    not know, deploys nothing and ends well.
    """
    files = sorted(folder.rglob("*.yml"))
    try:
        loaded = list(_loaded(files, mode))
    except INVALID as error:
        raise Refused(f"{_culprit(files, mode) or folder} is not valid: {error}") from error
    found = {policy.name: policy.data for policy in loaded if "mode" in policy.data}
    if not found:
        raise Refused(f"{folder} has no policy with a mode.")
    return dict(sorted(found.items(), key=lambda one: one[0] != "finding-notify"))


INVALID = (PolicyValidationError, OSError, ValueError, yaml.YAMLError)


def _loaded(files, mode):
    """Custodian's policies of files, valid. All at once: for each load it makes a schema of the
    resources anew, and checks that too, which takes longer than all else."""
    loader, every = PolicyLoader(Config.empty()), []
    for file in files:
        content = load_file(str(file))
        loader.structure.validate(content)
        every += [
            one
            for one in content["policies"]
            if mode is None or mode == (one.get("mode") or {}).get("type")
        ]
    for policy in loader.load_data({"policies": every}, "policies") if every else ():
        policy.validate()
        yield policy


def _culprit(files, mode):
    """The file that is not valid by itself; None when they only do not go together."""
    for file in files:
        try:
            list(_loaded([file], mode))
        except INVALID:
            return file
    return None


def opt_ins(folder=FOLDER):
    """The names of those that a deploy leaves out unless they are named."""
    return set(policies(folder / "opt-in")) if (folder / "opt-in").exists() else set()


def wanted(folder, named):
    """The names that a command works with: those that are named, else all but the opt-in ones.

    Raises Refused when one is not there.
    """
    every = policies(folder)
    if unknown := set(named) - set(every):
        has = ", ".join(every)
        raise Refused(f"{folder} has no policy {', '.join(sorted(unknown))}. It has: {has}.")
    return set(named) or set(every) - opt_ins(folder)


def build_archives(chosen):
    """Build what the functions of these policies have in common now, so that processes which are
    forked have it."""
    for policy in chosen:
        if policy["mode"].get("runtime") == archive.THIS_RUNTIME:
            archive.compiled_archive(policy["mode"].get("packages"), policy["resource"])


def function_name(policy):
    """The name of its function and of its rule; policy: its data."""
    return policy["mode"].get("function-prefix", "custodian-") + policy["name"]


def short(name):
    """The policy's name, of a function's."""
    return name.removeprefix("custodian-")
