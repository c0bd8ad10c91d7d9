"""What a deploy from here would make of the policies in an account and region.

Custodian and the pack work it out themselves, as they do when they deploy; nothing is called on AWS
but what the modes of the policies ask for.
"""

import contextlib
import copy
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

from c7n import mu
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.utils import reset_session_cache

from custom_actions import autonomy, provision  # noqa: F401 - what a deploy does besides Custodian

# `custodian run` writes none into the archive, `c7n-org run` the default one, which does nothing.
TRACERS = (None, "default")


@dataclass(frozen=True)
class Expected:
    """The function of a policy and its rule as a deploy would make them.

    func: Custodian's PolicyLambda. config: of the function, as `create_function` takes it, with
    the tags. pattern: of the rule, {} where it has a schedule; schedule: None where it has none.
    made: makes the function anew with another tracer.
    """

    policy: str
    func: mu.PolicyLambda
    config: dict
    pattern: dict
    schedule: str | None
    made: Callable

    def has_code(self, sha256):
        """Whether a deploy from here would upload just this code."""
        return any(self.made(t).get_archive().get_checksum() == sha256 for t in TRACERS)

    @property
    def name(self):
        return self.func.name


def load(policy):
    load_resources((f"aws.{policy['resource'].removeprefix('aws.')}",))


def expected(target, session, policy, said):
    """The Expected of one policy (its data) in a target; session: of the target.

    said: Custodian's variables besides those of the account: what the function has by a former
    deploy.
    """
    load(policy)
    made = functools.partial(function, target, session, policy, said)
    func = made(None)
    (source,) = func.get_events(None)
    pattern = json.loads(source.render_event_pattern() or "{}")
    schedule = source.data.get("schedule")
    return Expected(policy["name"], func, func.get_config(), pattern, schedule, made)


def function(target, session, policy, said, tracer):
    # as c7n-org does for each account
    config = Config.empty(
        region=target.region, account_id=target.account_id, output_dir="", tracer=tracer
    )
    data = {"policies": [copy.deepcopy(policy)]}
    (made,) = PolicyCollection.from_data(data, config, lambda *_, **__: session)
    reset_session_cache()  # Custodian's, which has that of another account
    variables = {**said, **target.account.get("vars", {})} | {
        autonomy.OPTION: said[autonomy.OPTION]
    }
    made.expand_variables(made.get_variables(variables))
    made.ctx = contextlib.nullcontext()  # no output of a run
    log = logging.getLogger("custodian.serverless")
    with (
        mock.patch.object(mu, "LambdaManager", Describing),
        mock.patch.object(log, "disabled", True),
    ):
        try:
            return made.provision()
        finally:
            reset_session_cache()  # what comes next in this process has its own


class Describing:
    """In the place of Custodian's LambdaManager: gives back the function, and deploys nothing."""

    def __init__(self, session_factory):
        pass

    def publish(self, func, **_):
        return func
