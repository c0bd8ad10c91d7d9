"""The mailer as a Lambda function, fed by the queue.

c7n.mu, Custodian's own deployer, publishes it: made when it is not there, else updated where it
differs. The archive holds this package, its templates, the checked configuration, and c7n_mailer
with what that imports, as Python source only, so that it does not matter where it was built.

Permissions, of the person who deploys: lambda:GetFunction, CreateFunction, UpdateFunctionCode,
UpdateFunctionConfiguration, TagResource, UntagResource, ListEventSourceMappings,
CreateEventSourceMapping, UpdateEventSourceMapping, PutFunctionRecursionConfig; iam:PassRole on the
role of mailer.yml; sqs:GetQueueAttributes on the queue; iam:ListAccountAliases, to say where.
https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
"""

import json
import logging
from pathlib import Path

from c7n.mu import LambdaFunction, LambdaManager, PythonPackageArchive
from c7n.utils import get_account_alias_from_sts

from .config import HERE, ConfigError, environment_references
from .errors import AWS_ERRORS

log = logging.getLogger("mailer")

NAME = "guardduty-response-mailer"
# What c7n_mailer's e-mail delivery imports at its top, whether it is used or not, and what those
# import, without what the Lambda image has (boto3, jmespath, dateutil, six, urllib3).
PACKAGES = (
    "c7n_mailer", "jinja2", "markupsafe", "yaml", "requests", "certifi", "charset_normalizer",
    "idna", "ldap3", "pyasn1", "redis", "jwt", "sendgrid", "python_http_client", "ecdsa",
    "jsonpatch", "jsonpointer",
)  # fmt: skip
BATCH = 10  # messages given to the function at once
# The least that AWS allows: fewer containers, each of which remembers only what it sent itself.
CONCURRENCY = 2


class QueueEvents:
    """The queue as event source of a function, for c7n.mu.

    c7n.mu.SQSSubscription does the same without partial batch responses: then one message that
    fails would have all of its batch delivered again.
    """

    def __init__(self, client, queue_arn: str):
        self.client = client
        self.queue_arn = queue_arn

    def add(self, function, existing) -> bool:
        """Make or update the mapping."""
        wanted = {
            "FunctionName": function.name,
            "BatchSize": BATCH,
            "Enabled": True,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "ScalingConfig": {"MaximumConcurrency": CONCURRENCY},
        }
        mappings = self.client.list_event_source_mappings(
            FunctionName=function.name, EventSourceArn=self.queue_arn
        )["EventSourceMappings"]
        if mappings:
            self.client.update_event_source_mapping(UUID=mappings[0]["UUID"], **wanted)
        else:
            self.client.create_event_source_mapping(EventSourceArn=self.queue_arn, **wanted)
        return True


def deploy(config: dict, session, templates: Path | None = None) -> int:
    """Make or update the function; exit code 0. config: checked, see config.load. ConfigError when
    it cannot work as a function."""
    if "role" not in config:
        raise ConfigError("role: missing; the function runs as the role of infra/mailer.yml")
    hidden = environment_references(config)
    if hidden:
        raise ConfigError(
            f"{', '.join(hidden)}: env: does not work for the function; use secretsmanager: or kms:"
        )
    queue = session.client("sqs").get_queue_attributes(
        QueueUrl=config["queue_url"], AttributeNames=["QueueArn", "VisibilityTimeout"]
    )["Attributes"]
    if int(queue["VisibilityTimeout"]) < config["timeout"]:
        raise ConfigError(
            f"timeout: {config['timeout']} seconds are more than the visibility timeout of the "
            f"queue, {queue['VisibilityTimeout']}"
        )
    function = LambdaFunction(
        {
            "name": config.get("lambda_name", NAME),
            "description": config.get(
                "lambda_description", "Delivers the messages of the GuardDuty response policies"
            ),
            "tags": config.get("lambda_tags", {}),
            "handler": "mailer.handler.run",
            "runtime": config["runtime"],
            "memory_size": config["memory"],
            "timeout": config["timeout"],
            "role": config["role"],
            "subnets": config["subnets"],
            "security_groups": config["security_groups"],
            "events": [QueueEvents(session.client("lambda"), queue["QueueArn"])],
        },
        archive(config, templates or HERE / "templates"),
    )
    made = LambdaManager(lambda: session).publish(function)
    # The function puts messages back on the queue that feeds it (queue.py). After some 16 rounds
    # Lambda would take that for a mistake and stop it: after four hours of four days.
    # https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
    session.client("lambda").put_function_recursion_config(
        FunctionName=function.name, RecursiveLoop="Allow"
    )
    _, _, _, region, account_id, *_ = made["FunctionArn"].split(":")
    log.info(
        "deployed: %s in %s%s, %s, fed by %s",
        function.name, account_id, alias(session), region, queue["QueueArn"],
    )  # fmt: skip
    return 0


def alias(session) -> str:
    """The alias of the account in parentheses; "" where it has none, or IAM does not tell it."""
    try:
        found = get_account_alias_from_sts(session)
    except AWS_ERRORS:
        return ""
    return f" (alias {found})" if found else ""


def archive(config: dict, templates: Path) -> PythonPackageArchive:
    """The function's code, the same bytes for the same input: what did not change is not sent."""
    made = PythonPackageArchive()
    made.add_modules(_left_out, PACKAGES)
    for path in sorted(HERE.rglob("*.py")):
        made.add_file(str(path), f"mailer/{path.relative_to(HERE).as_posix()}")
    for path in sorted(templates.glob("*.j2")):
        made.add_file(str(path), f"mailer/templates/{path.name}")
    made.add_contents("mailer/config.json", json.dumps(config, sort_keys=True))
    return made.close()


def _left_out(path: str) -> bool:
    """Compiled modules are of this machine; every package here has a Python form too. The other
    clouds and tests are dead weight."""
    return path.endswith((".so", ".pyd")) or "/tests/" in path or "/gcp_mailer/" in path
