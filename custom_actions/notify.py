"""The remediation mail is sent once for each outcome.

What was mailed last is remembered where the response acted: in a tag of the instance, of the role
or of the user. `mailed` and `remember` of each action say where; all else is the same.
"""

import contextlib
import hashlib
import json

from c7n.actions import Notify
from c7n.actions.notify import ResourceMessageBuffer
from c7n.exceptions import PolicyExecutionError
from c7n.utils import local_session, type_schema

from custom_actions import autonomy, central, clients, timeline
from custom_actions.finding import FINDING_ID, finding_id, is_sequence, mapping
from custom_actions.forensic_group import describe_group
from custom_actions.headline import (
    NOTICE,
    SUBJECT,
    credential_headline,
    fate,
    guard_headline,
    release_headline,
    remediation_headline,
    sequence_headline,
)
from custom_actions.instance import describe_instance
from custom_actions.record import (
    BY_HAND,
    FINDING,
    GROUP,
    GUARDED,
    INCIDENT,
    NOTIFIED,
    ROLE,
    STATE,
    WAITED,
    as_tags,
    marks,
    notified_key,
    short_id,
    tags_of,
)
from custom_actions.registry import register
from custom_actions.response import OUTCOMES, REFUSED, UNRESOLVED, ResponseAction, describe

# How many events of one resource are remembered: 28 characters each, two tags.
MARKS = 18

# Characters of a packed message. SNS and SQS take 256 KiB, with what SNS puts around it.
LARGEST = 240_000

# Of each instance of an attack sequence the mail shows no more than this.
SHOWN = ("InstanceId", "Tags", OUTCOMES)
# Where its headline says what became of it: custom_actions/headline.py, `fate`.
FATE = "c7n:fate"


WOULD_MAIL = "Would mail what was done."


def digest(outcomes):
    """What two responses share that came to the same end; done and unchanged are the same end."""
    ends = [
        [o["step"], "ok" if o["status"] in ("done", "unchanged") else o["status"], o["facts"]]
        for o in outcomes
    ]
    return hashlib.sha256(json.dumps(ends).encode()).hexdigest()[:16]


def digest_of_all(resources):
    """The digest of one, as ever; of several one that says what became of each."""
    digests = {r["InstanceId"]: digest(r[OUTCOMES]) for r in resources if len(resources) > 1}
    if not digests:
        return digest(resources[0][OUTCOMES])
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


class OneMessage(ResourceMessageBuffer):
    """What `notify` packs, all of it into one message: one mail, whatever its size would be."""

    full = False


def who_by_hand(resource):
    """Who runs the response as a person, as far as AWS knows; None for a function."""
    return resource.get(BY_HAND, {}).get("who")


class NotifyOnce(ResponseAction, Notify):
    """Mails what the steps before it did, once for each outcome: Custodian's `notify`.

    GuardDuty sends an updated finding again and again, EventBridge delivers at least once and
    Lambda tries a failed function twice more. This action mails when the outcome of the steps
    before it is not the one that was mailed last of this finding, which is recorded on the instance
    (`forensic:notified`, of the newest findings) after SNS has accepted the message. So a function
    that dies, or that SNS refuses, mails when it is tried again; one that fails in the same way
    again does not, and neither do two findings of one instance that are updated in turn. In a
    guard, whose event is an API call, each call is an incident of its own
    (`forensic:notified-guard`).

    Of an attack sequence, which names several instances, there is one mail about all of them, again
    only when the outcome of one has changed; the mark is kept on each that may be written. It has
    to fit into one message: of many instances details are left out, which the mail then says.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-isolate-and-tell
            resource: ec2
            mode:
              type: guard-duty
              role: guardduty-response-ec2-isolate
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - isolate-instance
              - type: notify-once
                template: remediation.html
                to: [resource-owner, account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments: those of `notify` but `subject`, `from` and `cc`: the subject is the headline, which
    is also in `event["c7n:notice"]` for the template, with `isolated`, `observe_only`, `autonomy`
    and, where it is left to a person, the `command` that does it; of several instances `instances`
    and `isolated_instances`, how many, and `left_out`, what did not fit.

    Of two deployments that act on an instance, its account's own and that of GuardDuty's
    administrator (custom_actions/central.py), the one that began the incident mails, as the
    seal says. The other waits for that, half a minute at most, then sends its own.

    Limits: two deployments that begin with different instances of an attack sequence both mail.
    Where nothing may be written to the instance (exempt, terminated, held back, dry run),
    or to a group without the tag forensic:group=true, each delivery is mailed. A function that dies
    between SNS's acceptance and the tag mails again, and so do two invocations at the same moment.
    The mail about a failure is sent again when the tag itself is refused, and that of a finding
    which is not among the newest 18 of the instance. `notify` asks for the account's alias
    (iam:ListAccountAliases); where IAM refuses, the mail goes without it.

    Source: c7n.actions.notify.Notify.
    """

    schema = type_schema(
        "notify-once",
        required=["to", "transport", "template"],
        **{
            key: Notify.schema["properties"][key]
            for key in ("to", "owner_absent_contact", "template", "assume_role")
        },
        transport={
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "topic"],
            "properties": {
                "type": {"enum": ["sns"]},
                "topic": {"type": "string"},
                "attributes": {"type": "object"},
            },
        },
    )
    permissions = (
        "sns:Publish",
        "iam:ListAccountAliases",
        "ec2:CreateTags",
        "ec2:DescribeInstances",
        "ec2:DescribeSecurityGroups",
    )

    message_buffer_class = OneMessage

    # Outcomes after which nothing may be written to the resource.
    untouched = frozenset({"exempt", "skipped", "withheld"})

    # The command by which a person does what the pack left to one: make target, what is named
    commands = {
        "ec2": ("isolate", "INSTANCE"),
        "security-group": ("empty-forensic-group", "GROUP"),
    }

    def get_permissions(self):
        read = {"ec2": "ec2:DescribeInstances", "security-group": "ec2:DescribeSecurityGroups"}
        other = set(read.values()) - {read.get(self.manager.type)}
        return tuple(p for p in self.permissions if p not in other)

    def left_alone(self, resource):
        return None  # that an instance is exempt is told as well

    def process(self, resources, event=None):
        if len(resources) > 1 and is_sequence(event):
            self.leave(resources, self.tell, resources, event)
        else:
            super().process(resources, event)

    def respond(self, resource, event):
        return self.tell([resource], event)

    def tell(self, resources, event):
        """Mail what became of the resources, which is one but for an attack sequence."""
        current = digest_of_all(resources)
        known = [r for r in resources if UNRESOLVED not in r]
        (first, *others), mode = resources, autonomy.of(self.manager.config)
        # of several none is asked for a mark that it cannot have
        marked = [r for r in known if not (others and statuses_of(r) <= self.untouched)]
        if any(self.mailed(resource, event) == current for resource in marked):
            return self.outcome("unchanged", "This outcome has been mailed before.")
        if self.dryrun and BY_HAND in first:
            return self.outcome("planned", WOULD_MAIL)  # to who asked; nobody else wants to know
        statuses = set().union(*map(statuses_of, resources))
        left = {"withheld", "planned"} if mode == autonomy.ASK else {"withheld"}
        undone = [r for r in known if statuses_of(r) & left]
        command = None
        if undone:
            command = self.command_for_each(undone, event) if others else self.command(first, event)
        if others:
            notice = self.notice_of_several(resources, event["detail"], command)
        else:
            notice = self.notice(first, event["detail"], first[OUTCOMES], command)
        incidents = {r["InstanceId"]: r.get(INCIDENT) for r in resources} if others else None
        event[NOTICE] = {
            **notice,
            "observe_only": "planned" in statuses,
            "autonomy": mode,
            "command": command,
            # with it the mailer tells an incident after a release from the one before
            "incident": incidents or first.get(INCIDENT),
            "by_hand": who_by_hand(first),
        }
        self.send(resources, event)
        refused = None
        for resource in () if self.dryrun else known:
            if not statuses_of(resource) <= self.untouched:
                try:
                    self.remember(resource, event, current)
                except REFUSED as error:  # told; with the mark on one of several none mails again
                    refused = error
        if refused:
            raise refused
        return self.outcome("done", "The message was accepted by SNS.")

    def command(self, resource, event):
        """The command by which a person does it, or None."""
        finding = mapping(event, "detail").get("id") or tags_of(resource).get(FINDING)
        return self.make(resource[self.manager.resource_type.id], finding)

    def command_for_each(self, instances, event):
        """The one by which a person does it to each of these, which a shell takes."""
        ids = " ".join(instance["InstanceId"] for instance in instances)
        return f"for i in {ids}; do {self.make('$i', mapping(event, 'detail').get('id'))}; done"

    def make(self, resource_id, finding):
        target, name = self.commands[self.manager.type]
        command = f"make {target} {name}={resource_id} REGION={self.manager.config.region}"
        if isinstance(finding, str) and FINDING_ID.fullmatch(finding):
            command += f" FINDING={finding}"
        return command

    def notice(self, resource, detail, outcomes, command):
        """What the subject and the template say first; `detail` is the event's."""
        resource_id = resource[self.manager.resource_type.id]
        if "eventID" in detail:
            headline = guard_headline(detail, resource_id, outcomes, command)
        else:
            who = who_by_hand(resource)
            headline = remediation_headline(detail, resource_id, outcomes, command, who)
        return {
            "headline": headline,
            "isolated": any(o.get("isolated") for o in outcomes),
        }

    def notice_of_several(self, instances, detail, command):
        results = {instance["InstanceId"]: instance[OUTCOMES] for instance in instances}
        isolated = sum(any(o.get("isolated") for o in each) for each in results.values())
        return {
            "headline": sequence_headline(detail, results, command),
            "isolated": isolated == len(results),
            "isolated_instances": isolated,
            "instances": len(results),
        }

    def send(self, resources, event):
        clients.do_without_alias(local_session(self.manager.session_factory))
        event = {key: value for key, value in event.items() if key != WAITED}
        run = timeline.this_run()
        event[timeline.RUN] = run | {"account": central.deployment(self.manager.config)}
        if len(resources) == 1:
            told = [{k: v for k, v in resources[0].items() if k != BY_HAND}]
        else:
            told, event = self.fitting(resources, event)
        Notify.process(self, told, event)

    def fitting(self, instances, event):
        """What the mail about several instances is made of, with less of it until it fits."""
        for left_out, told in (
            (None, in_full),
            ("the details of steps that went well, and long tags", in_short),
            (
                "all details of the steps, all tags but the name, and most of the finding; the log "
                "of the function has the steps, GuardDuty the finding",
                in_a_line,
            ),
        ):
            shown = [told(i) | {FATE: fate(i[OUTCOMES])} for i in instances]
            event = event | {NOTICE: event[NOTICE] | {"left_out": left_out}}
            if told is in_a_line:
                event["detail"] = without_sequence(event["detail"])
            message = {"event": event, "resources": shown, "policy": self.manager.data}
            if len(self.pack(message)) + len(json.dumps(self.data)) < LARGEST:
                break
        return shown, event

    def mailed(self, resource, event):
        """The digest of the outcome that was mailed last of this event, or None."""
        tags = central.once_another_is_done(self, resource, event, lambda: self.tags_now(resource))
        return self.marks_in(tags, event).get(short_id(event))

    def remember(self, resource, event, current):
        """Keep the digest of what SNS has just accepted, as the newest of those that are kept.

        Not on an instance that was released meanwhile: the mark would outlive the incident.
        """
        tags = self.tags_now(resource)
        if INCIDENT in resource and STATE not in tags:
            self.log.warning("released meanwhile: no mark of the mail is kept")
            return
        if self.manager.type == "security-group" and tags.get(GROUP) != "true":
            self.log.warning("the role may not tag this group: no mark of the mail is kept")
            return
        known = self.marks_in(tags, event)
        known.pop(short_id(event), None)
        words = [f"{about}:{mark}" for about, mark in known.items()][1 - MARKS :]
        words.append(f"{short_id(event)}:{current}")
        self.client().create_tags(
            Resources=[resource[self.manager.resource_type.id]],
            Tags=as_tags(self.key(event), words),
        )

    def marks_in(self, tags, event):
        """What was mailed last of each event: {event: digest}, the oldest first."""
        return marks(tags, self.key(event))

    def tags_now(self, resource):
        """The tags read anew: another response to the same resource may have mailed meanwhile."""
        read = describe_instance if self.manager.type == "ec2" else describe_group
        try:
            return tags_of(read(self.client(), resource[self.manager.resource_type.id]))
        except REFUSED as error:
            self.log.warning("the tags are those of the beginning: %s", describe(error))
            return tags_of(resource)

    def key(self, event):
        """The key of the tag that keeps it: a guard's mail is not the finding's."""
        return GUARDED if "eventID" in event["detail"] else NOTIFIED

    def expand_variables(self, message):
        return {**super().expand_variables(message), "subject": SUBJECT}


def statuses_of(resource):
    return {outcome["status"] for outcome in resource[OUTCOMES]}


def in_full(instance):
    return {key: instance[key] for key in SHOWN if key in instance}


def in_short(instance):
    """The isolation, the word of the record, and what failed."""
    kept = [
        outcome | {"detail": outcome["detail"][:200], "facts": []}
        for outcome in instance[OUTCOMES]
        if "isolated" in outcome or "record" in outcome or outcome["status"] == "failed"
    ]
    tags = [tag for tag in instance["Tags"] if len(tag["Key"] + tag["Value"]) <= 100]
    return {"InstanceId": instance["InstanceId"], "Tags": tags[:10], OUTCOMES: kept}


def in_a_line(instance):
    isolation = next((o for o in instance[OUTCOMES] if "isolated" in o), instance[OUTCOMES][0])
    kept = ("step", "status", "isolated", "verified_at", "withheld")
    outcome = {key: isolation[key] for key in kept if key in isolation}
    outcome |= {"detail": isolation["detail"][:100], "error": (isolation["error"] or "")[:100]}
    tags = [{"Key": "Name", "Value": t["Value"][:100]} for t in instance["Tags"] if is_name(t)]
    return {"InstanceId": instance["InstanceId"], "Tags": tags, OUTCOMES: [outcome]}


def is_name(tag):
    return tag["Key"] == "Name"


def without_sequence(detail):
    """A finding without what an attack sequence lists, which are hundreds at most."""
    service = {k: v for k, v in mapping(detail, "service").items() if k != "detection"}
    return detail | {"service": service}


class NotifyOnceOfRole(NotifyOnce):
    """Mails what was done about a role's sessions, once for each outcome of a finding.

    The mark is a tag of the role, one for each finding (`forensic:notified:<finding id>`), since
    a role can be in several incidents at once. `restore-role-sessions` takes it off.

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-revoke-and-tell
            resource: account
            mode:
              type: guard-duty
              role: guardduty-response-iam-role-revoke-sessions
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - revoke-role-sessions
              - type: notify-once
                template: credentials.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments as on ec2. `event["c7n:notice"]` holds `headline`, `revoked` and `observe_only`.

    Limits: those on ec2; and without a role that is known to be the finding's (it does not exist,
    has another id, the finding is malformed) there is nothing to write to, and each try of each
    delivery is mailed, which is three mails. So it is where IAM lets nobody tag the role, or the
    role has 50 tags.

    Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_TagRole.html
    """

    permissions = ("sns:Publish", "iam:ListAccountAliases", "iam:TagRole")
    untouched = frozenset({"exempt"})
    target = "revoke-sessions"

    def command(self, resource, event):
        with contextlib.suppress(PolicyExecutionError):
            return (
                f"make {self.target} FINDING={finding_id(event)} "
                f"REGION={self.manager.config.region}"
            )
        return None

    def notice(self, resource, finding, outcomes, command):
        return {
            "headline": credential_headline(finding, outcomes, command, who_by_hand(resource)),
            "revoked": any(o.get("revoked") for o in outcomes),
        }

    def mailed(self, resource, event):
        entity = self.entity(resource)
        return tags_of(entity).get(self.key(event)) if entity else None

    def remember(self, resource, event, current):
        entity, key = self.entity(resource), self.key(event)
        if entity is None or key is None:
            self.log.warning("nothing to keep the mark of the mail on")
            return
        self.tag(entity, [{"Key": key, "Value": current}])

    def key(self, event):
        """The key of the mark; None for a finding without a usable id: that is mailed too."""
        try:
            return notified_key(finding_id(event))
        except PolicyExecutionError:
            return None

    def entity(self, account):
        return account.get(ROLE)

    def tag(self, role, tags):
        self.client("iam").tag_role(RoleName=role["RoleName"], Tags=tags)


class NotifyOnceOfUser(NotifyOnceOfRole):
    """Mails what was done about a user's access key, once for each outcome of a finding.

    The mark is a tag of the user, one for each finding (`forensic:notified:<finding id>`).

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-user-deactivate-and-tell
            resource: iam-user
            mode:
              type: guard-duty
              role: guardduty-response-iam-user-deactivate-access-key
              packages: [custom_actions]
              handler: custom_actions.handler.run
            actions:
              - deactivate-access-key
              - type: notify-once
                template: credentials.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments and notice as for a role.

    Limits: as for a role.

    Source: https://docs.aws.amazon.com/IAM/latest/APIReference/API_TagUser.html
    """

    permissions = ("sns:Publish", "iam:ListAccountAliases", "iam:TagUser")
    target = "deactivate-key"

    def entity(self, user):
        return user

    def tag(self, user, tags):
        self.client("iam").tag_user(UserName=user["UserName"], Tags=tags)


class NotifyCall(NotifyOnce):
    """Mails what a guard of the account did about a call; there is no resource to write to.

    :example:

    .. code-block:: yaml

        policies:
          - name: guardduty-off
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
                calls:
                  DeleteDetector: GuardDuty is off. Switch it on again.
              - type: notify-call
                template: guard.html
                to: [account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments and notice: those of `notify-once` in a guard.

    Limits: nothing remembers the mail. An event that EventBridge delivers twice is mailed twice,
    and a guard that fails is mailed at each of its three tries.

    Source: c7n.actions.notify.Notify.
    """

    schema = {
        **NotifyOnce.schema,
        "properties": {**NotifyOnce.schema["properties"], "type": {"enum": ["notify-call"]}},
    }
    permissions = ("sns:Publish", "iam:ListAccountAliases")

    def command(self, resource, event):
        # each function then keeps the mode that it has
        return f"make deploy REGION={self.manager.config.region}"

    def mailed(self, resource, event):
        return None

    def remember(self, resource, event, current):
        """There is nothing to keep the mark on."""


class NotifyRelease(NotifyOnce):
    """Mails at the end of a release what was put back and what was not.

    :example:

    .. code-block:: yaml

        policies:
          - name: ec2-release-and-tell
            resource: ec2
            filters:
              - InstanceId: i-0abc1234def567890
            actions:
              - release-instance
              - type: notify-release
                template: release.html
                to: [resource-owner, account-emails]
                transport:
                  type: sns
                  topic: guardduty-response
              - fail-unless-complete

    Arguments: those of `notify-once`. The notice names who ran it, as far as AWS knows
    (sts:GetCallerIdentity: the role and its session, or the user). Each run that put something
    back, or failed to, is mailed.

    Source: c7n.actions.notify.Notify; a policy without a mode has no event, so the message gets
    one that holds the notice alone.
    """

    schema = {
        **NotifyOnce.schema,
        "properties": {
            **NotifyOnce.schema["properties"],
            "type": {"enum": ["notify-release"]},
        },
    }
    permissions = ("sns:Publish", "iam:ListAccountAliases", "sts:GetCallerIdentity")

    def respond(self, instance, event):
        if {o["status"] for o in instance[OUTCOMES]} <= {"unchanged", "skipped"}:
            return self.outcome("unchanged", "Nothing was put back: there is nothing to tell.")
        if self.dryrun:
            return self.outcome("planned", WOULD_MAIL)
        who = self.client("sts").get_caller_identity()["Arn"]
        notice = {
            "headline": release_headline(instance["InstanceId"], who, instance[OUTCOMES]),
            "who": who,
        }
        self.send([instance], {NOTICE: notice, "detail": {}})
        return self.outcome("done", "The message was accepted by SNS.")


register("notify-once", NotifyOnce, "ec2", "security-group")
register("notify-once", NotifyOnceOfRole, "account")
register("notify-once", NotifyOnceOfUser, "iam-user")
register("notify-call", NotifyCall, "account")
register("notify-release", NotifyRelease, "ec2")
