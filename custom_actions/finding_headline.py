"""The first line of the finding mail, and what it says of what follows."""

from c7n.actions import EventAction
from c7n.exceptions import PolicyValidationError
from c7n.filters import EventFilter
from c7n.utils import type_schema

from custom_actions import autonomy, timeline
from custom_actions.finding import FindingFilter, instance_ids, is_sample, mapping, text
from custom_actions.headline import NOTICE
from custom_actions.record import FINDING, ISOLATED_AT, STATE, case_id
from custom_actions.registry import register
from custom_actions.words import STORED, one_line, subject


def finding_headline(event):
    """`GuardDuty Finding | ID: ...: The EC2 instance ... may be compromised ...`."""
    finding = mapping(event, "detail")
    count = mapping(finding, "service").get("count")
    what, kind = subject(finding), one_line(finding.get("type"), 128)
    if kind.startswith("Policy:") or what.startswith(STORED):
        told = (
            f"GuardDuty reports {kind or 'a finding'} about the {what}; it should be investigated"
        )
    else:
        told = f"The {what} may be compromised and should be investigated"
    line = f"GuardDuty Finding | ID: {one_line(finding.get('id'), 64) or '(none)'}: {told}"
    if isinstance(count, int) and count > 1:
        line += f" (seen {count} times)"
    return one_line(f"[SAMPLE] {line}" if is_sample(event) else line)


class FindingHeadline(EventAction):
    """Writes the first line of the finding mail, which `notify` behind it sends.

    :example:

    .. code-block:: yaml

        policies:
          - name: finding-mail
            resource: account
            mode:
              type: guard-duty
              role: guardduty-response-finding-notify
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - type: finding-headline
                followed-by:
                  ec2-isolate:
                    title: Isolate a compromised EC2 instance
                    resource: ec2
                    resource-types: [Instance]
                    filters:
                      - type: guard-duty-finding
                        types: [{prefix: CryptoCurrency:EC2/}]
              - type: notify
                template: finding.html
                subject: '{{ event["c7n:notice"].headline }}'
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response

    Arguments: `followed-by`, the policies that act on findings, from which the mail says what
    happens next: of each its `title`, its `resource`, the `resource-types` of its rule where that
    asks for some, those of its `filters` that ask the finding, and `opt-in: true` where no deploy
    takes it unless it is named. `make catalogue` copies all of it from their files.

    Writes `event["c7n:notice"]`: `headline`; `sample`, whether the finding is one; `autonomy`, how
    far the policies of the deploy may go; `instances`, the ids that the finding names; `case`, the
    incident that the instance is in by its tags, or None; and `next`, what follows by each policy
    that is for findings of this type (`policy`, `title`, `opt-in`, and `refusal`, why it does not
    act, or None), or None where `followed-by` is not said. What the resource itself decides
    (whether it is there, exempt, held back) is for the mail of that policy. And `event["c7n:run"]`:
    when the function received the finding. Needs no IAM permission and changes nothing.
    """

    schema = type_schema(
        "finding-headline",
        **{
            "followed-by": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["title", "resource", "filters"],
                    "properties": {
                        "title": {"type": "string"},
                        "resource": {"enum": ["account", "ec2", "iam-user"]},
                        "resource-types": {"type": "array", "items": {"type": "string"}},
                        "filters": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                        "opt-in": {"type": "boolean"},
                    },
                },
            }
        },
    )
    permissions = ()

    def validate(self):
        for name, policy in self.data.get("followed-by", {}).items():
            for element in self.filters(policy):
                if not isinstance(element, EventFilter):
                    raise PolicyValidationError(
                        f"policy:{self.manager.data.get('name')} action:{self.type} followed-by "
                        f"{name}: the filter {element.type} does not ask the finding"
                    )
                element.validate()
        return self

    def process(self, resources, event=None):
        event[NOTICE] = {
            "headline": finding_headline(event),
            "sample": is_sample(event),
            "autonomy": autonomy.of(self.manager.config),
            "instances": instance_ids(event),
            "case": case_by_tags(event),
            "next": list(self.followed(event)) if "followed-by" in self.data else None,
        }
        event[timeline.RUN] = timeline.this_run()

    def followed(self, event):
        """What the policies for findings of this type do with the event."""
        for name, policy in self.data.get("followed-by", {}).items():
            filters = self.filters(policy)
            if not any(isinstance(f, FindingFilter) and f.unlisted(event) for f in filters):
                yield {
                    "policy": name,
                    "title": policy["title"],
                    "opt-in": policy.get("opt-in", False),
                    "refusal": refusal(policy, filters, event),
                }

    def filters(self, policy):
        return [self.manager.filter_registry.factory(f, self.manager) for f in policy["filters"]]


def refusal(policy, filters, event):
    """Why a policy does not act on an event, by what the event alone says, or None."""
    kind = mapping(event, "detail", "resource").get("resourceType")
    wanted = policy.get("resource-types", [kind])
    if kind not in wanted:
        return f"the resource is of type {kind!r}, not {' or '.join(wanted)}"
    if policy["resource"] == "ec2" and not instance_ids(event):
        return "the finding names no instance"
    for element in filters:
        if isinstance(element, FindingFilter):
            reason = element.refusal(event)
        else:
            data = element.data
            reason = f"{str(data.get('key')).removeprefix('detail.')} is not {data.get('value')}"
            reason = None if element.process([{}], event) else reason
        if reason:
            return reason
    return None


def case_by_tags(event):
    """The case that the instance of a finding is in, by its tags as GuardDuty saw them, or None.

    Whoever may tag the instance can write them: `name` is that of record.case_id where the time of
    the incident can be read, else empty; `finding` is the one that began it.
    """
    instance = mapping(event, "detail", "resource", "instanceDetails")
    listed = instance.get("tags")
    tags = {
        text(tag, "key"): text(tag, "value")
        for tag in (listed if isinstance(listed, list) else ())
        if isinstance(tag, dict)
    }
    if not tags.get(FINDING) and not tags.get(STATE):
        return None
    named, began = instance_ids(event), tags.get(ISOLATED_AT, "")
    return {
        "name": case_id(named[0], began) if named and began else "",
        "state": tags.get(STATE, ""),
        "finding": tags.get(FINDING, ""),
    }


register("finding-headline", FindingHeadline, "account")
