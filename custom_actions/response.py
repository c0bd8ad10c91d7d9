"""The response framework: what a step reports, and how a failed step becomes a failed policy."""

from botocore.exceptions import ClientError
from c7n.actions import EventAction
from c7n.exceptions import PolicyExecutionError
from c7n.manager import resources
from c7n.utils import get_retry, type_schema

from custom_actions import clients

OUTCOMES = "c7n:response"

# Custodian's own retry (c7n.query.QueryResourceManager.retry) knows the throttling codes but not
# EC2's 5xx codes, which botocore tries only twice more.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
retry = get_retry(
    (
        "EC2ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "Throttling",
        "ThrottlingException",
        "InternalError",
        "InternalFailure",
        "ServiceUnavailable",
        "Unavailable",
    ),
    max_attempts=6,
)


class ResponseAction(EventAction):
    """One step of a response: does it to each resource and leaves an outcome there.

    A subclass implements `respond(resource, event)`, which returns an outcome made by
    `self.outcome(...)` or raises. Whatever it raises becomes a failed outcome, so that the next
    resource, the next step and the mail still have their turn; `fail-unless-complete` at the end
    of the policy turns failed outcomes into a failed run. A resource that an earlier step found
    exempt is left alone by every later one.

    An outcome is a dictionary: `step` (the action's name in a policy), `status` (see STATUSES),
    `detail` (a sentence for a person) and `error` (None, or what failed). `facts` is what makes
    two outcomes the same for `notify-once`. Outcomes are collected, in the order of the steps,
    in `resource["c7n:response"]`.
    """

    STATUSES = ("done", "unchanged", "skipped", "exempt", "planned", "failed")

    def process(self, resources, event=None):
        for resource in resources:
            try:
                outcome = self.left_alone(resource) or self.respond(resource, event)
            except Exception as error:  # noqa: BLE001 - a bug in one step must not stop the others
                self.log.exception("policy:%s %s failed", self.policy_name, self.type)
                outcome = self.failed(error)
            resource.setdefault(OUTCOMES, []).append(outcome)
            self.log.info(
                "policy:%s resource:%s step:%s status:%s %s",
                self.policy_name,
                resource.get(self.manager.resource_type.id),
                outcome["step"],
                outcome["status"],
                outcome["error"] or outcome["detail"],
            )

    def respond(self, resource, event):
        """Do the step to one resource (Custodian's dictionary of it) and return its outcome."""
        raise NotImplementedError

    def left_alone(self, resource):
        """The outcome for a resource that an earlier step found exempt, or None."""
        if any(o["status"] == "exempt" for o in resource.get(OUTCOMES, ())):
            return self.outcome("exempt", "The instance is exempt.")
        return None

    def outcome(self, status, detail, error=None, facts=(), **more):
        """An outcome of this step; `more` are the keys that only this step has."""
        return {
            "step": self.type,
            "status": status,
            "detail": detail,
            "error": error,
            "facts": sorted(facts),
            **more,
        }

    def failed(self, error, detail="The step could not be done."):
        """The outcome of a step that raised `error`."""
        return self.outcome("failed", detail, error=describe(error), facts=[error_code(error)])

    @property
    def policy_name(self):
        return self.manager.data.get("name")

    @property
    def dryrun(self):
        """True when the policy's `execution-options` (or the command line) say `dryrun: true`."""
        return self.manager.config.dryrun is True

    def client(self, service="ec2"):
        """A client of the policy's account and region; see custom_actions/clients.py."""
        return clients.client(self.manager.session_factory, service)


def error_code(error):
    """What kind of error it is, without the parts that differ from call to call."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__


def describe(error):
    """An error as `Code: message`, on one line."""
    message = error.response["Error"].get("Message") if isinstance(error, ClientError) else error
    return " ".join(f"{error_code(error)}: {message}".split())


def tags_of(resource, key="Tags"):
    """A resource's tags as a dictionary; EC2 calls the list `Tags`, on interfaces `TagSet`."""
    return {tag["Key"]: tag["Value"] for tag in resource.get(key) or ()}


def register(name, action, *resource_types):
    """Register an action by its name in policies, with these resources or with all of AWS.

    It works for resources that Custodian loads later, too (as c7n.actions.notify does): importing
    them here would cost every cold start.
    """

    def add(registry, resource_class):
        if not resource_types or resource_class.type in resource_types:
            resource_class.action_registry.register(name, action)

    for resource_class in resources.values():
        add(resources, resource_class)
    resources.subscribe(add)


class FailUnlessComplete(EventAction):
    """Fails the policy when any step before it left a failed outcome.

    Put it last, behind the mail. A policy that raises makes Lambda try again (twice for an
    asynchronous invocation) and then hand the event to the function's dead-letter queue; on the
    command line Custodian ends with a non-zero exit code. Without it a failed step would be named
    in the mail and nowhere else.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-or-fail
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - fail-unless-complete

    Raises `PolicyExecutionError` with the policy, the resource, the step and the error of each
    failed outcome. Needs no IAM permission. Custodian runs actions in list order and stops at the
    first that raises (c7n.policy.LambdaMode.run_resource_set, PullMode.run).
    """

    schema = type_schema("fail-unless-complete")
    permissions = ()

    def process(self, resources, event=None):
        failures = [
            f"resource:{resource.get(self.manager.resource_type.id)} "
            f"step:{outcome['step']} error:{outcome['error']}"
            for resource in resources
            for outcome in resource.get(OUTCOMES, ())
            if outcome["status"] == "failed"
        ]
        if failures:
            raise PolicyExecutionError(
                f"policy:{self.manager.data.get('name')} is not complete: " + "; ".join(failures)
            )


register("fail-unless-complete", FailUnlessComplete)
