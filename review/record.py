"""What a revision of the pack is and does: one JSON document, which `make review` compares.

Each revision records itself, in its own checkout and with its own code. So what one says and
another does not know of is left out of the comparison; FORMAT is raised when the same key means
something else.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path

import click
import yaml
from c7n.config import Config
from c7n.loader import PolicyLoader

from custom_actions import autonomy
from deployment.policies import FOLDER, opt_ins
from deployment.policies import policies as deployable
from deployment.targets import ROOT, listed
from infra import permissions

from .functions import functions
from .replay import replayed

FORMAT = 1
# How IAM calls the services of clients that it has another word for.
SERVICES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}
ROLES = "guardduty-response-"
ACCOUNT, REGION = permissions.ACCOUNT, "us-west-2"  # of rules that are shown; any will do


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def record(folder, output):
    """Write this revision as JSON, with what it does with the findings of a folder; see review."""
    output.write_text(json.dumps(recorded(folder), default=str))


def recorded(folder: Path, root: Path = ROOT) -> dict:
    """format: FORMAT. policies: see `described`. targets: [{account, region, mode}], where
    accounts.yml has the pack. findings: {path in the folder: see Stage.play, or {problem}}.

    root: where policies/, accounts.yml and mailer/mailer.yml are. Raises Refused when a policy is
    not valid.
    """
    plays = replayed(folder, root)
    return {
        "format": FORMAT,
        "policies": described(root / FOLDER.name, plays),
        "targets": targets(root / "accounts.yml"),
        "findings": {told.pop("finding"): told for told in plays},
    }


def described(folder: Path, plays) -> dict:
    """{name: {file, opt_in, data, pattern, needs, lacks, allowed}} of all policies of a folder.

    pattern: of the rule that a deploy makes, None for a policy that is not for findings. needs: the
    IAM actions that its steps declare, and that it called in `plays`. allowed: what the role of its
    function in infra/account.yml may, a line each; lacks: what of `needs` it may not. Both are None
    where there is no such role.
    """
    deployable(folder)  # refuses what is not valid
    rules = functions(folder, ACCOUNT, REGION)
    loader = PolicyLoader(Config.empty(account_id=ACCOUNT, region=REGION))
    found = {}
    for file in sorted(folder.rglob("*.yml")):
        data = yaml.safe_load(file.read_text())["policies"]
        for policy in loader.load_data({"policies": data}, str(file)):
            needs = set().union(*permissions.needs(policy).values()) | called(policy.name, plays)
            role = role_of(policy)
            found[policy.name] = {
                "file": file.relative_to(folder.parent).as_posix(),
                "opt_in": policy.name in opt_ins(folder),
                "data": next(one for one in data if one["name"] == policy.name),
                "pattern": rules[policy.name].pattern if policy.name in rules else None,
                "needs": sorted(needs),
                "lacks": None if role is None else sorted(n for n in needs if not may(role, n)),
                "allowed": None if role is None else sorted(lines(role)),
            }
    return found


def role_of(policy) -> list[permissions.Statement] | None:
    """The statements of the role that a policy names, where infra/account.yml has it."""
    name = str(policy.data.get("mode", {}).get("role", ""))
    return permissions.roles().get(name.removeprefix(ROLES)) if name.startswith(ROLES) else None


def may(role: list[permissions.Statement], action: str) -> bool:
    """Whether an action is allowed, and not denied on everything, by its name."""
    by = [s for s in role if any(fnmatchcase(action, pattern) for pattern in s.actions)]
    denied = any(s.effect == "Deny" and s.resources == ["*"] and not s.condition for s in by)
    return not denied and any(s.effect == "Allow" for s in by)


def lines(role: list[permissions.Statement]) -> set[str]:
    return {
        f"{s.effect} {action} on {', '.join(map(str, s.resources))}"
        + (f" if {json.dumps(s.condition, default=str, sort_keys=True)}" if s.condition else "")
        for s in role
        for action in s.actions
    }


def called(policy: str, plays) -> set[str]:
    """The IAM actions of the calls that a policy made; IAM has an action for each call here."""
    calls = [call["call"] for one in plays for call in _calls(one, policy)]
    pairs = [call.split(":") for call in calls]
    return {f"{SERVICES.get(service, service)}:{operation}" for service, operation in pairs}


def _calls(told: dict, policy: str) -> list[dict]:
    return told.get("policies", {}).get(policy, {}).get("calls", [])


def targets(file: Path) -> list[dict]:
    """The accounts and regions of accounts.yml, and the mode that it has for each, or None."""
    return [
        {
            "account": f"{target.name} ({target.account_id})",
            "region": target.region,
            "mode": target.account.get("vars", {}).get(autonomy.OPTION),
        }
        for target in listed(file)
    ]
