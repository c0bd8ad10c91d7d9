"""A policy's function run in this process: for tests that need it hundreds of times.

    function = InProcess(cloud, "policies/ec2-isolate.yml", ACCOUNT, REGION)
    (resource,) = function.run(event)              # resource["c7n:response"]: the outcomes
    cloud.fail("ec2:CreateTags", "UnauthorizedOperation"); function.run(event)
    with pytest.raises(Died):
        function.run(event, dies_after=7)          # the seventh call has taken effect

The policy, the actions, the clients and their retries are the real ones and talk to the cloud as a
function does; what is missing is the archive, the isolated interpreter and Lambda's retries and
time-outs: that is what `Cloud.invoke` is for. An invocation takes a few times less than there, and
a death costs no new container. Sleeps are noted in `slept` and not waited for.
"""

import time
from pathlib import Path
from unittest import mock

import yaml
from c7n.config import Config
from c7n.policy import PolicyCollection
from c7n.resources import load_resources
from c7n.structure import StructureParser
from c7n.utils import reset_session_cache

from custom_actions.handler import MODES

from .cloud import Cloud, Session

ROOT = Path(__file__).parents[1]


class Died(BaseException):
    """Ends a run as a crash does: no `except Exception` of the code under test sees it."""


class InProcess:
    """One policy as a function.

    policy: a file (relative to the repository), or the policy itself as a dictionary. Its calls are
    in the call log under the name that Custodian gives the function. slept: seconds of each sleep
    of the last run.
    """

    def __init__(self, cloud: Cloud, policy: str | Path | dict, account_id: str, region: str):
        if not isinstance(policy, dict):
            (policy,) = yaml.safe_load((ROOT / policy).read_text())["policies"]
        self.name = f"custodian-{policy['name']}"
        self.slept: list[float] = []
        self._cloud = cloud
        self._data = {"policies": [policy]}
        self._where = account_id, region
        self._calls = 0
        self._dies_after: int | None = None
        self._session: Session | None = None
        self._role = policy["mode"]["role"]
        load_resources(StructureParser().get_resource_types(self._data))

    def run(
        self, event: dict, dies_after: int | None = None, cold: bool = True, **options
    ) -> list[dict]:
        """Run it once; returns the resources, and raises what the policy raises.

        dies_after: die when that many calls of this run have been answered. cold: with sessions and
        clients of its own, as in a new container; a warm run has those of the run before.
        options: execution options of the policy, for example dryrun=True.
        """
        account_id, region = self._where
        if cold or self._session is None:
            self._session = self._new_session()
            reset_session_cache()
        config = Config.empty(
            account_id=account_id, region=region, cache=None, output_dir="/tmp", **options
        )
        (policy,) = PolicyCollection.from_data(self._data, config, self)
        policy.validate()
        mode = MODES[policy.data["mode"]["type"]](policy)
        self._calls, self._dies_after = 0, dies_after
        self.slept = []
        with mock.patch.object(time, "sleep", self.slept.append):
            return mode.run(event, None)

    region = property(lambda self: self._where[1])

    def __call__(self, assume=True, region=None) -> Session:
        """Custodian's session factory."""
        return self._session

    def _new_session(self) -> Session:
        account_id, region = self._where
        keys = self._cloud.credentials(account_id, self._role, self.name)
        session = Session(self._cloud.endpoint, region, keys)
        session.events.register("after-call", self._count)
        session.events.register("after-call-error", self._count)
        return session

    def _count(self, **_) -> None:
        self._calls += 1
        if self._calls == self._dies_after:
            raise Died(f"after call {self._calls}")
