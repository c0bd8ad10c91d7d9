"""Puts right what would keep a function of the response from being invoked."""

from functools import partial

from c7n.utils import type_schema

from custom_actions.api_call import FUNCTION
from custom_actions.registry import register
from custom_actions.response import Change, NothingToDo, NotReadBack, Step, ignoring

GONE = "it is gone: make deploy REGION=... MODE=<the mode that you had>"


class RestoreResponse(Step):
    """Enables the rule of a function of the response again, and lifts a throttle of zero.

    Only these two, since nobody loses anything by them and they need no knowledge of what was
    deployed: a rule that is disabled is enabled, whatever its pattern says; a reserved concurrency
    of 0, by which Lambda refuses every invocation, is taken off, and a reservation that the policy
    names is set again when it is gone or was lowered. Both are read back. It looks at what is so
    now, not at what the call says. What else was changed (code, configuration, permission, target,
    pattern) or is gone, only a deploy knows: see `explain-call`.

    :example:

    .. code-block:: yaml

        policies:
          - name: response-keep
            resource: account
            mode:
              type: cloudtrail
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
              events:
                - source: events.amazonaws.com
                  event: DisableRule
                  ids: eventID
            filters:
              - type: response-call
                functions: [custodian-ec2-isolate]
            actions:
              - type: restore-response
                reserved: {custodian-ec2-isolate: 10}
              - fail-unless-complete

    Arguments: `reserved`, {function: its reserved concurrency, as it is deployed}; none by default.

    The function is the one that `response-call` found; without that filter, or for a call about
    something else, there is nothing to do.

    Limits: a rule or a function that is gone is told, not made again. A reservation other than 0 of
    a function that `reserved` does not name stays: a person may have made it. There is no revert:
    `make deploy MODE=observe` is how a person stops a function.

    IAM: events:DescribeRule and events:EnableRule on rules; lambda:GetFunctionConcurrency,
    lambda:PutFunctionConcurrency and lambda:DeleteFunctionConcurrency on functions.

    Sources: https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_DescribeRule.html,
    API_EnableRule.html there;
    https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionConcurrency.html,
    API_DeleteFunctionConcurrency.html and API_GetFunctionConcurrency.html there.
    """

    schema = type_schema(
        "restore-response",
        reserved={
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
    )
    permissions = (
        "events:DescribeRule",
        "events:EnableRule",
        "lambda:GetFunctionConcurrency",
        "lambda:PutFunctionConcurrency",
        "lambda:DeleteFunctionConcurrency",
    )

    def look(self, run):
        """The rule and the concurrency of the function; None where there is no such thing."""
        name = run.resource.get(FUNCTION)
        if name is None:
            raise NothingToDo("The call is about no function of the response.")
        missing = "ResourceNotFoundException"
        rule = ignoring(missing, self.client("events").describe_rule, Name=name)
        found = ignoring(missing, self.client("lambda").get_function_concurrency, FunctionName=name)
        return rule, found

    def changes(self, run):
        rule, found = run.view
        yield self.of(
            "the rule",
            rule,
            holds=rule is not None and rule["State"] != "DISABLED",
            make=partial(self.client("events").enable_rule, Name=run.resource[FUNCTION]),
        )
        reserved = (found or {}).get("ReservedConcurrentExecutions")
        wanted = self.data.get("reserved", {}).get(run.resource[FUNCTION])
        yield self.of(
            "the concurrency of the function",
            found,
            holds=(reserved or 0) >= wanted if wanted else reserved != 0,
            make=partial(self.reserve, run.resource[FUNCTION], wanted),
        )

    def of(self, name, found, holds, make):
        """The change; where there is nothing that could be changed, that is said."""
        if found is None:
            return Change(name, excused=GONE)
        return Change(
            name,
            holds=holds,
            make=make,
            unseen=NotReadBack("AWS goes on showing it as it was"),
        )

    def reserve(self, name, wanted):
        client = self.client("lambda")
        if wanted:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=wanted)
        else:
            client.delete_function_concurrency(FunctionName=name)

    def is_wanting(self, run):
        return bool(run.fresh)

    def status(self, run):
        gone = any(change.excused for change in run.changes)
        return "skipped" if gone and not run.made else super().status(run)

    def plan(self, run):
        return f"Would put right: {', '.join(change.name for change in run.fresh)}."

    def tell(self, run):
        rule, found = run.view
        told = [f"Its rule is {rule['State'].lower()}."] if rule else []
        if found is not None:
            reserved = found.get("ReservedConcurrentExecutions")
            told.append(
                "It shares the concurrency of the account."
                if reserved is None
                else f"Its reserved concurrency is {reserved}."
            )
        return " ".join(told)

    def more(self, run):
        return {"guarded": {"what": "the response to findings", "about": run.resource[FUNCTION]}}


register("restore-response", RestoreResponse, "account")
