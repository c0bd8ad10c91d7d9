"""What the finding mail says happens next: the filters of the policies that act, copied.

`finding-headline` of policies/finding-notify.yml has them as `followed-by`, so that its function
decides as theirs do, and a reviewer sees by what. Nobody writes it by hand: `make catalogue` does.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import click
import yaml
from c7n.filters import EventFilter

from deployment import policies
from deployment.errors import Refused
from deployment.targets import ROOT
from review.functions import function

FILE = Path("policies/finding-notify.yml")
# The action with the comments above its argument, then the argument, until the next action.
BLOCK = re.compile(
    r"^(?P<action>      - type: finding-headline\n(?:        #.*\n)*)(?:        .*\n)*",
    re.MULTILINE,
)


class Dumper(yaml.SafeDumper):
    """Lists that stand inside of what they belong to, and no anchors."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


@click.command("followed-by")
def followed_by():
    """Write what policies/finding-notify.yml says of the policies that act on findings."""
    there = policies.policies(policies.FOLDER, "guard-duty")
    path = ROOT / FILE
    path.write_text(written(path.read_text(), there, policies.opt_ins()))


def written(text: str, there: dict[str, dict], opt_in: Iterable[str]) -> str:
    """The text of finding-notify with what follows by the policies for findings, by their data.

    Raises Refused where it has no place for that.
    """
    follow = {
        name: entry(policy, name in opt_in)
        for name, policy in sorted(there.items())
        if any(action_type(action) == "notify-once" for action in policy["actions"])
    }
    dumped = yaml.dump({"followed-by": follow}, Dumper=Dumper, sort_keys=False, width=100)
    block = "".join(f"        {line}\n" for line in dumped.splitlines())
    made, count = BLOCK.subn(lambda found: found["action"] + block, text)
    if count != 1:
        raise Refused(f"{FILE} has no action `      - type: finding-headline`, or several.")
    return made


def entry(policy: dict, opt_in: bool) -> dict:
    """What one policy is for and asks of a finding. Its mail, by notify-once, says what it did."""
    made = function(policy, "123456789012", "us-east-1")
    asked = made.pattern["detail"].get("resource", {}).get("resourceType")
    filters = made.func.policy.resource_manager.filters
    return {
        "title": policy["metadata"]["title"],
        "resource": policy["resource"],
        **({"resource-types": asked} if asked else {}),
        **({"opt-in": True} if opt_in else {}),
        "filters": [f.data for f in filters if isinstance(f, EventFilter)],
    }


def action_type(action: str | dict) -> str:
    return action if isinstance(action, str) else action["type"]
