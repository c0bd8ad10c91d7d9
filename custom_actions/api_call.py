"""What the guards make of an API call as CloudTrail reports it: what it is about, what it means.

Most of a call is the caller's to choose. It is compared with what the policy names, and shown;
it never says what is changed.
"""

import re

from c7n.exceptions import PolicyValidationError
from c7n.filters import Filter
from c7n.utils import jmespath_compile, jmespath_search, type_schema
from jmespath.exceptions import JMESPathError

from custom_actions.finding import mapping
from custom_actions.registry import register
from custom_actions.response import ResponseAction

# Where `response-call` leaves the name of the function that a call is about.
FUNCTION = "c7n:function"

# CloudTrail writes Lambda's calls with the version of the API: UpdateFunctionCode20150331v2.
# https://docs.aws.amazon.com/lambda/latest/dg/logging-using-cloudtrail.html
API_VERSION = re.compile(r"20\d{6}(v\d+)?$")


def call_name(event):
    """The name of the call, without the version of the API."""
    return API_VERSION.sub("", str(mapping(event, "detail").get("eventName")))


class ResponseCall(Filter):
    """Passes when the call is about a function of the response, or about the rule that starts it.

    Custodian gives both the same name, `custodian-<policy>`. Which are the pack's is said by the
    policy, never by the event or by a tag. Lambda takes a name, a part of an ARN or a whole one,
    with or without a version behind it: each part of it is looked at. A rule of this name on
    another event bus passes as well; what is looked at and put right is always the one here.

    :example:

    .. code-block:: yaml

        policies:
          - name: response-watch
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
                functions: [custodian-ec2-isolate, custodian-finding-notify]
            actions:
              - restore-response
              - fail-unless-complete

    Arguments: `functions`, the names. The name that was found is left on the resource, for
    `restore-response`. Needs no IAM permission.
    """

    schema = type_schema(
        "response-call",
        required=["functions"],
        functions={"type": "array", "minItems": 1, "items": {"type": "string"}},
    )
    schema_alias = False
    permissions = ()

    def process(self, resources, event=None):
        asked = mapping(event, "detail", "requestParameters")
        parts = {
            part
            for key in ("functionName", "rule", "name", "resource")
            for part in str(asked.get(key) or "").split(":")
        }
        found = [name for name in self.data["functions"] if name in parts]
        for resource in resources if found else ():
            resource[FUNCTION] = found[0]
        return resources if found else []


class ExplainCall(ResponseAction):
    """Says in the mail of a guard what a call means and what a person has to do about it.

    For the calls that a guard does not put right, because a machine cannot know whether they were
    meant, or has not got what it takes. It changes nothing.

    :example:

    .. code-block:: yaml

        policies:
          - name: guardduty-watch
            resource: account
            mode:
              type: cloudtrail
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
              events:
                - source: guardduty.amazonaws.com
                  event: DeleteDetector
                  ids: eventID
            actions:
              - type: explain-call
                what: what finds threats
                about: requestParameters.detectorId
                calls:
                  DeleteDetector: GuardDuty is off. Switch it on again.
              - type: notify-call
                template: guard.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments:

    - `calls`: {name of the call, without a version of the API: what it means and what to do}. A
      call that is not here needs no explanation.
    - `what`, `about`: how the first line of the mail goes on after "called ...": "on <what>", and
      which thing it names, a JMESPath expression in the call. By default what is isolated, and the
      resource. The text that it finds may be an attacker's, and is shown on one line.

    The outcome is `skipped`, which the mail calls NOTHING put right, or `unchanged` for other
    calls. Needs no IAM permission.
    """

    schema = type_schema(
        "explain-call",
        required=["calls"],
        calls={"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
        what={"type": "string"},
        about={"type": "string"},
    )
    permissions = ()

    def validate(self):
        try:
            jmespath_compile(self.data.get("about", "@"))
        except JMESPathError as error:
            raise PolicyValidationError(
                f"policy:{self.policy_name} action:{self.type} about: {error}"
            ) from error
        return self

    def respond(self, resource, event):
        meaning = self.data["calls"].get(call_name(event))
        if meaning is None:
            return self.outcome("unchanged", "This call leaves nothing to a person.")
        guarded = {"what": self.data.get("what"), "about": self.named(event)}
        return self.outcome("skipped", meaning, guarded=guarded)

    def named(self, event):
        """What the call names, or None: the mail then names the resource."""
        try:
            return (
                jmespath_search(self.data["about"], event["detail"])
                if "about" in self.data
                else None
            )
        except JMESPathError:
            return None  # a field of the call is of another kind than documented


register("response-call", ResponseCall, "account")
register("explain-call", ExplainCall)
