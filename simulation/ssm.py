"""Commands of Systems Manager, which moto 5.2.5 takes for any instance and ends at once, well.

It also sends each command to all instances of the region.

AWS refuses an instance that no agent has registered (InvalidInstanceId) and a document that does
not exist (InvalidDocument), knows nothing of an invocation for a moment after it was sent, and says
how it is until it ends. Here a test says of an instance that it has an agent, how many looks its
command takes, and how it ends. Nothing here was run against AWS.
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetCommandInvocation.html
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

from moto.core.exceptions import JsonRESTError
from moto.ssm.models import Command, SimpleSystemManagerBackend, ssm_backends

DOES_NOT_EXIST = "InvocationDoesNotExist"


@dataclass
class Agent:
    """looks: how often a command is shown as not over. None: always. ends: its last status."""

    looks: int | None
    ends: str


def agent(
    account_id: str, region: str, instance_id: str, looks: int | None = 0, ends: str = "Success"
) -> None:
    """Have an instance be managed by Systems Manager."""
    _agents(ssm_backends[account_id][region])[instance_id] = Agent(looks, ends)


def commands(account_id: str, region: str, instance_id: str) -> list[Command]:
    """What was sent to an instance."""
    return ssm_backends[account_id][region].get_commands_by_instance_id(instance_id)


@contextlib.contextmanager
def corrected_ssm() -> Iterator[None]:
    """Apply it until the end of the block."""
    send = SimpleSystemManagerBackend.send_command

    def send_command(self, *, document_name: str, instance_ids: list[str], **more) -> Command:
        if document_name not in self._documents:
            raise JsonRESTError("InvalidDocument", "")
        if unknown := [one for one in instance_ids if one not in _agents(self)]:
            raise JsonRESTError("InvalidInstanceId", f"Instances not in a valid state: {unknown}")
        sent = send(self, document_name=document_name, instance_ids=[*instance_ids], **more)
        # without targets moto sends it to every instance of the region as well
        sent.instance_ids = instance_ids
        sent.invocations = [one for one in sent.invocations if one["InstanceId"] in instance_ids]
        for invocation in sent.invocations:
            invocation |= {"looks": 0, "agent": _agents(self)[invocation["InstanceId"]]}
        return sent

    def get_command_invocation(
        self, command_id: str, instance_id: str, plugin_name: str | None
    ) -> dict:
        sent = self.get_command_by_id(command_id)
        known = sent.get_invocation(instance_id, plugin_name)
        known["looks"] += 1
        if known["looks"] == 1:
            raise JsonRESTError(DOES_NOT_EXIST, "")
        looks, ends = known["agent"].looks, known["agent"].ends
        is_over = looks is not None and known["looks"] > looks + 1
        shown = {key: value for key, value in known.items() if key not in ("looks", "agent")}
        return shown | {"Status": ends if is_over else "InProgress"}

    with mock.patch.multiple(
        SimpleSystemManagerBackend,
        send_command=send_command,
        get_command_invocation=get_command_invocation,
    ):
        yield


def _agents(backend: SimpleSystemManagerBackend) -> dict[str, Agent]:
    return vars(backend).setdefault("agents", {})
