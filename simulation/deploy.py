"""Deploying to the simulated cloud with the tools that deploy to AWS."""

import functools
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import tools
from .cloud import ADMINISTRATOR, Cloud
from .cloudformation import expanded  # its import registers resource types with moto
from .lambda_template import folder_of_this_process

ROOT = Path(__file__).parents[1]
INFRA = ROOT / "infra"
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["simulation.preloaded"])


def stack(
    cloud: Cloud,
    template: str,
    account_id: str,
    region: str,
    name: str | None = None,
    **parameters: str,
) -> dict[str, str]:
    """Create a CloudFormation stack and return its outputs.

    template: the name of a file in infra/. name: of the stack, the template's own by default.
    parameters: the template's. RuntimeError with the reason when it does not come up.
    """
    cloudformation = cloud.client("cloudformation", account_id, region)
    name = name or Path(template).stem
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=expanded((INFRA / template).read_text()),
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    made = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    if made["StackStatus"] != "CREATE_COMPLETE":
        raise RuntimeError(f"{name}: {made['StackStatus']} {made.get('StackStatusReason', '')}")
    return {output["OutputKey"]: output["OutputValue"] for output in made.get("Outputs", [])}


def mailer_stack(cloud: Cloud, account_id: str, region: str, **parameters: str) -> dict[str, str]:
    """The central mail queue, with its alarms; its outputs MailQueueUrl and MailQueueArn.

    parameters: more of infra/mailer.yml. The administrator may send, as one who runs the mailer.
    """
    parameters = {
        "AlarmTopicArn": alarm_topic(account_id, region),
        "SenderArns": administrator(account_id),
    } | parameters
    return stack(cloud, "mailer.yml", account_id, region, "guardduty-response-mailer", **parameters)


def alarm_stack(cloud: Cloud, account_id: str, region: str) -> None:
    """The alarms of what is deployed to an account and region."""
    parameters = {"AlarmTopicArn": alarm_topic(account_id, region)}
    stack(cloud, "alarms.yml", account_id, region, "guardduty-response-alarms", **parameters)


def administrator(account_id: str) -> str:
    """The role that the simulation works as in an account."""
    return f"arn:aws:iam::{account_id}:role/{ADMINISTRATOR}"


def alarm_topic(account_id: str, region: str) -> str:
    """Where alarms go. Nobody listens there, see `alarms.ringing`."""
    return f"arn:aws:sns:{region}:{account_id}:security-alarms"


def account_stack(
    cloud: Cloud, account_id: str, region: str, mail_queue_arn: str, **parameters: str
) -> None:
    """What one account and region needs before a deploy; more parameters of infra/account.yml.

    The administrator may publish, and the role `responder`: those who release.
    """
    responder = administrator(account_id).replace(ADMINISTRATOR, "responder")
    parameters = {
        "MailQueueArn": mail_queue_arn,
        "PublisherArns": f"{administrator(account_id)},{responder}",
    } | parameters
    stack(cloud, "account.yml", account_id, region, "guardduty-response", **parameters)


def custodian(
    cloud: Cloud,
    arguments: Sequence[str | Path],
    account_id: str,
    region: str,
    role: str = ADMINISTRATOR,
) -> subprocess.CompletedProcess:
    """`python -m custom_actions custodian ARGUMENTS` in an account and region, as a role.

    Returns the finished process, stdout and stderr in `stdout`; RuntimeError with both when it
    ends in an error.
    """
    arguments = ["custodian", *arguments]
    environment = cloud.environment(account_id, region, role)
    return _checked(_forked(cloud, "custom_actions", "main", arguments, environment))


def deployment(
    cloud: Cloud,
    arguments: Sequence[str | Path],
    account_id: str,
    region: str,
    role: str = ADMINISTRATOR,
) -> subprocess.CompletedProcess:
    """`python -m deployment ARGUMENTS`, as `custodian`, but whatever the exit code is."""
    environment = cloud.environment(account_id, region, role)
    del environment["AWS_DEFAULT_REGION"]  # every command says its region itself
    return _forked(cloud, "deployment", "run", arguments, environment)


def _forked(
    cloud: Cloud,
    module: str,
    function: str,
    arguments: Sequence[str | Path],
    environment: dict[str, str],
) -> subprocess.CompletedProcess:
    """A process forked from a server that has imported Custodian and read AWS's service models.

    That is most of the time of a deploy.
    """
    arguments = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory(dir=cloud.folder) as folder:
        output = Path(folder) / "output"
        process = FORKSERVER.Process(
            target=tools.run,
            args=(
                module,
                function,
                arguments,
                environment,
                ROOT,
                output,
                _archives() if cloud.warm else None,
                cloud.wound,
            ),
        )
        process.start()
        process.join()
        finished = subprocess.CompletedProcess(
            [module, *arguments], process.exitcode, output.read_text()
        )
        process.close()
    return finished


@functools.cache
def _archives() -> Path:
    """Where this process keeps the archives that it has built."""
    return folder_of_this_process("archives-")


def c7n_org(
    cloud: Cloud, arguments: Sequence[str | Path], account_id: str, region: str
) -> subprocess.CompletedProcess:
    """`python -m custom_actions c7n-org ARGUMENTS`, as `custodian`; it forks workers itself."""
    finished = subprocess.run(
        [sys.executable, "-m", "custom_actions", "c7n-org", *map(str, arguments)],
        cwd=ROOT,
        env=cloud.environment(account_id, region),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return _checked(finished)


def deploy(
    cloud: Cloud,
    policies: Sequence[str | Path],
    account_id: str,
    region: str,
    autonomy: str | None = "contain",
    role: str = ADMINISTRATOR,
    **variables: str,
) -> subprocess.CompletedProcess:
    """`custodian run` of policy files, which deploys those with a Lambda mode.

    autonomy: the variable of that name, as `make deploy MODE=...` sets it; None leaves it unset.
    variables: others, with `_` for `-`: `member_role`, `max_per_hour`, `evidence_bucket`.
    """
    arguments = ["run", "--region", region, "-s", cloud.folder / "custodian", *policies]
    said = {name.replace("_", "-"): value for name, value in variables.items()}
    said |= {"autonomy": autonomy} if autonomy else {}
    if said:
        file = cloud.folder / "vars.yml"
        file.write_text("".join(f'{name}: "{value}"\n' for name, value in said.items()))
        arguments[1:1] = ["--vars-file", file]
    return custodian(cloud, arguments, account_id, region, role)


def release(
    cloud: Cloud,
    folder: Path,
    instance: str,
    account_id: str,
    region: str,
    record: str = "",
    groups: str = "",
    archive: str = "",
    policy: str | Path = "policies/ec2-release.yml",
    role: str = ADMINISTRATOR,
) -> subprocess.CompletedProcess:
    """What `make release` runs; it writes into `folder`. RuntimeError when it is not complete."""
    said = {"instance": instance, "record": record, "groups": groups, "archive": archive}
    return by_hand(cloud, folder, policy, account_id, region, role, **said)


def by_hand(
    cloud: Cloud,
    folder: Path,
    policy: str | Path,
    account_id: str,
    region: str,
    role: str = ADMINISTRATOR,
    **said: str,
) -> subprocess.CompletedProcess:
    """What a target of make that a person uses runs; it writes into `folder`.

    said: the variables of the policy. RuntimeError when it is not complete.
    """
    variables = folder / "vars.yml"
    variables.write_text("".join(f'{name}: "{value}"\n' for name, value in said.items()))
    arguments = ["run", "--region", region, "--cache-period", "0", "-s", folder / "output"]
    arguments += ["--vars-file", variables, policy]
    return custodian(cloud, arguments, account_id, region, role)


def _checked(finished: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    if finished.returncode:
        command = " ".join(finished.args)
        raise RuntimeError(f"{command}: exit {finished.returncode}\n{finished.stdout}")
    return finished
