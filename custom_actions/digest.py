"""One mail a day about the findings that are too low to be mailed each by itself.

`low-findings` asks GuardDuty for them and leaves what it found with the account; `digest-headline`
writes the first line of the mail, which Custodian's own `notify` sends.
"""

import contextlib
from datetime import UTC, datetime, timedelta

from c7n.actions import EventAction
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.filters import Filter
from c7n.utils import chunks, type_schema

from custom_actions import autonomy, central, clients, guardduty
from custom_actions.finding import is_sample, mapping, text
from custom_actions.finding_file import camel_case
from custom_actions.headline import NOTICE
from custom_actions.registry import register
from custom_actions.response import describe
from custom_actions.words import one_line, subject

DIGEST = "c7n:digest"

# What a mail shows; the rest is counted. A message of SNS holds 256 KiB.
ROWS = 50
RESOURCES = 5  # of a row

# Findings that one run reads, the newest: 20 calls that list them, 20 that read them.
MOST = 1000

# A run begins a little late or early, and GuardDuty shows an update a little later than its time.
# What was updated around the turn of the day stands in two digests, and not in none.
OVERLAP = timedelta(minutes=5)


class LowFindings(Filter):
    """Passes the account when GuardDuty has findings of low severity, and leaves them with it.

    Active ones (not archived) below a severity that were updated lately, of this account and
    region. They are grouped by type; a finding that was updated several times is there once.
    Where none was, nothing passes, and so nothing is mailed.

    :example:

    .. code-block:: yaml

        policies:
          - name: low-findings-of-a-day
            resource: account
            mode:
              type: periodic
              schedule: cron(0 6 * * ? *)
              role: guardduty-response-finding-digest
              packages: [custom_actions]
              handler: custom_actions.handler.run
            filters:
              - type: low-findings
                below: 4
                hours: 24
            actions:
              - digest-headline
              - type: notify
                template: digest.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response

    Arguments: `below`, a whole number (default 4: GuardDuty calls 1 to 3.9 low); what is of it or
    above is for `finding-notify`, so give both the same. `hours` (default 24) before the time of
    the schedule's event, or before now where a person runs it; make it the schedule's own interval.
    `all-clear: true` passes the account too when there is nothing, for a mail that says so.

    In GuardDuty's administrator account, which has the findings of its members as well, they are
    counted, each account by itself, where the policy is deployed with `MEMBER_ROLE`
    (custom_actions/central.py), and are left out else.

    Writes `c7n:digest` on the account: `below`, `hours`, `findings` (their number), `more` (whether
    there are more than the 1000 that are read), `types` (their number), `rows`: the 50 types
    that were seen last, each with `type`, `account`, `sample`, `severity` (the highest),
    `findings`, `count` (how often they were seen), `last_seen`, `resources` (the first five) and
    `others` (how many more); and `others`, how many rows more.

    Raises PolicyExecutionError where GuardDuty cannot be asked, or is not enabled: silence would
    look like a quiet day. The function ends in an error, is tried twice more, and the event lies in
    the dead-letter queue.

    IAM: guardduty:ListDetectors, guardduty:ListFindings, guardduty:GetFindings.

    Limits: of more than 1000 findings the newest are read, and the mail says so. An event that
    EventBridge delivers twice is mailed twice, and what was updated in the five minutes around the
    run may stand in the next digest again. GuardDuty keeps findings for 90 days. Never run against
    AWS.

    Sources: https://docs.aws.amazon.com/guardduty/latest/APIReference/API_ListFindings.html (the
    criteria; numbers are whole ones)
    https://docs.aws.amazon.com/guardduty/latest/APIReference/API_GetFindings.html (50 at a time)
    https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_findings-severity.html
    """

    schema = type_schema(
        "low-findings",
        **{
            "below": {"type": "integer", "minimum": 2, "maximum": 10},
            "hours": {"type": "integer", "minimum": 1, "maximum": 90 * 24},
            "all-clear": {"type": "boolean"},
        },
    )
    schema_alias = False
    permissions = ("guardduty:ListDetectors", "guardduty:ListFindings", "guardduty:GetFindings")

    def process(self, resources, event=None):
        below, hours = self.data.get("below", 4), self.data.get("hours", 24)
        since = begun(event) - timedelta(hours=hours) - OVERLAP
        try:
            findings, more = self.read(below, since)
        except (ClientError, PolicyExecutionError) as error:
            config = self.manager.config
            raise PolicyExecutionError(
                f"policy:{self.manager.data.get('name')} account:{config.account_id} "
                f"region:{config.region} the low findings could not be read: {describe(error)}. "
                "Nothing was mailed"
            ) from error
        if not findings and not self.data.get("all-clear"):
            return []
        rows = grouped(findings)
        for resource in resources:
            resource[DIGEST] = {
                "below": below,
                "hours": hours,
                "findings": len(findings),
                "more": more,
                "types": len({row["type"] for row in rows}),
                "rows": rows[:ROWS],
                "others": len(rows[ROWS:]),
            }
        return resources

    def read(self, below, since):
        """(findings in the spelling of events, the newest first; whether there are more)."""
        client = clients.client(self.manager.session_factory, "guardduty")
        detectors = client.list_detectors()["DetectorIds"]
        if not detectors:
            raise PolicyExecutionError("GuardDuty is not enabled here, it has no detector")
        criterion = {
            "severity": {"LessThan": below},
            "updatedAt": {"GreaterThanOrEqual": int(since.timestamp() * 1000)},
            "service.archived": {"Equals": ["false"]},
        }
        if central.OPTION not in mapping(self.manager.data, "mode"):
            criterion["accountId"] = {"Equals": [self.manager.config.account_id]}
        findings, more = [], False
        for detector in detectors:  # an account has one in a region
            ids, beyond = guardduty.newest(client, detector, criterion, MOST)
            more = more or beyond
            for some in chunks(ids, 50):
                got = client.get_findings(DetectorId=detector, FindingIds=some)["Findings"]
                findings += map(camel_case, got)
        return findings, more


def begun(event):
    """The time that a schedule's event is about; now, where there is none."""
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(text(event or {}, "time"))
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.now(UTC)


def grouped(findings):
    """One row for each type, of each account, samples by themselves; the one seen last first."""
    rows = {}
    for finding in findings:
        key = text(finding, "accountId"), text(finding, "type"), is_sample({"detail": finding})
        rows.setdefault(key, []).append(finding)
    made = [row(*key, of_type) for key, of_type in rows.items()]
    return sorted(made, key=lambda one: one["last_seen"], reverse=True)


def row(account, kind, sample, findings):
    services = [mapping(finding, "service") for finding in findings]
    counts = [service.get("count") for service in services]
    resources = list(dict.fromkeys(map(subject, findings)))
    severities = [finding.get("severity") for finding in findings]
    return {
        "type": one_line(kind, 128),
        "account": account,
        "sample": sample,
        "severity": max((s for s in severities if isinstance(s, int | float)), default=0),
        "findings": len(findings),
        "count": sum(n if isinstance(n, int) else 1 for n in counts),
        "last_seen": max(
            text(service, "eventLastSeen") or text(finding, "updatedAt")
            for service, finding in zip(services, findings, strict=True)
        ),
        "resources": [one_line(name, 200) for name in resources[:RESOURCES]],
        "others": len(resources[RESOURCES:]),
    }


class DigestHeadline(EventAction):
    """Writes the first line of the digest's mail, which `notify` behind it sends.

    :example:

    .. code-block:: yaml

        policies:
          - name: low-findings-of-a-week
            resource: account
            mode:
              type: periodic
              schedule: rate(7 days)
              role: guardduty-response-finding-digest
              packages: [custom_actions]
              handler: custom_actions.handler.run
            filters:
              - type: low-findings
                hours: 168
            actions:
              - digest-headline
              - type: notify
                template: digest.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response

    Writes `event["c7n:notice"]`: `headline`, and `autonomy`, how far the policies of the deploy may
    go. Needs no IAM permission and changes nothing.
    """

    schema = type_schema("digest-headline")
    permissions = ()

    def process(self, resources, event=None):
        event[NOTICE] = {
            "headline": headline(resources[0][DIGEST]),
            "autonomy": autonomy.of(self.manager.config),
        }


def headline(digest):
    """`GuardDuty Digest | 12 findings of 3 types below severity 4 in the last 24 hours`."""
    found, types, more = digest["findings"], digest["types"], digest["more"]
    kinds = f" of {types} type{'s' * (types != 1)}" if types else ""
    number = f"{'more than ' if more else ''}{found or 'no'} finding{'s' * (found != 1)}{kinds}"
    span = f"below severity {digest['below']} in the last {digest['hours']} hours"
    return one_line(f"GuardDuty Digest | {number} {span}. Nothing was changed.")


register("low-findings", LowFindings, "account")
register("digest-headline", DigestHeadline, "account")
