"""The engine of the response: what a step reports, and the one way in which a step does its work.

A step says how to look and which changes it wants; a revert takes its changes from the record.
Everything else stands here, once: the looks and their delays, dry run, recording before acting,
errors that stop nothing else, the read-back, and what is reported.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError
from c7n.actions import EventAction
from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import clients, deadline, record, timeline
from custom_actions.registry import register

OUTCOMES = "c7n:response"

# Why a resource that a finding names is nothing to act on, where others of that finding are.
UNRESOLVED = "c7n:unresolved"

# What AWS, or the network, may answer to one call. Anything else that a step raises is a bug of
# this pack, which fails the step under its own name.
REFUSED = (ClientError, BotoCoreError, PolicyExecutionError)

# What reading an answer raises when a field of it is missing or of another kind.
MISSHAPEN = (KeyError, IndexError, TypeError, AttributeError)

# Seconds before each look. The first is the look before anything is changed; the others read back,
# because what AWS describes is eventually consistent.
DELAYS = (0, 0, 0.2, 0.5, 1, 2)


class ResponseAction(EventAction):
    """An action that leaves an outcome on each resource.

    A subclass implements `respond(resource, event)`, which returns an outcome made by
    `self.outcome(...)` or raises. Whatever it raises becomes a failed outcome, so that the next
    resource, the next step and the mail still have their turn; `fail-unless-complete` at the end
    of the policy turns failed outcomes into a failed run. A resource that an earlier step found
    exempt, or withheld the response from, is left alone by every later one. Where a person runs
    the policy and Custodian has no event, it is the one that the filter `by-hand` left with the
    resource.

    An outcome is a dictionary: `step` (the action's name in a policy), `status` (see STATUSES),
    `detail` (a sentence for a person) and `error` (None, or what failed). `facts` is what makes
    two outcomes the same for `notify-once`. Outcomes are collected, in the order of the steps,
    in `resource["c7n:response"]`.

    `gate`: what stands behind this one is left alone when it fails. Its outcome then has `passed`.
    """

    gate = False
    nothing = {}  # what its outcome has besides, where nothing was looked at

    STATUSES = ("done", "unchanged", "skipped", "exempt", "planned", "withheld", "failed")

    def process(self, resources, event=None):
        for resource in resources:
            timeline.about(self.type, resource.get(self.manager.resource_type.id))
            own = event or resource.get(record.BY_HAND, {}).get("event")
            self.leave([resource], self.respond_unless_left_alone, resource, own)

    def respond_unless_left_alone(self, resource, event):
        return self.left_alone(resource) or self.respond(resource, event)

    def leave(self, resources, respond, *args):
        """Leave the outcome that `respond` returns, or what it raises, on each of the resources."""
        try:
            outcome = respond(*args)
        except Exception as error:  # noqa: BLE001 - a bug in one step must not stop the others
            self.log.exception("policy:%s %s failed", self.policy_name, self.type)
            outcome = self.failed(readable(error))
        for resource in resources:
            resource.setdefault(OUTCOMES, []).append(outcome)
            self.log.info(
                "policy:%s resource:%s step:%s status:%s %s",
                self.policy_name,
                resource.get(self.manager.resource_type.id),
                outcome["step"],
                outcome["status"],
                outcome["error"] or outcome["detail"],
            )
        timeline.about(None, None)

    def respond(self, resource, event):
        """Do the step to one resource (Custodian's dictionary of it) and return its outcome."""
        raise NotImplementedError

    def left_alone(self, resource):
        """The outcome for a resource that an earlier step left alone for all of them, or None.

        Also behind a gate that failed: service and sessions after the groups, or not. And one that
        an attack sequence names and that is not there.
        """
        if why := resource.get(UNRESOLVED):
            return self.outcome(
                "skipped", f"Not done here: {why}.", facts=["unresolved"], **self.nothing
            )
        for earlier in resource.get(OUTCOMES, ()):
            if earlier.get("passed") is False:
                return self.outcome("skipped", f"Not begun, because {earlier['step']} failed.")
            if earlier["status"] == "exempt":
                return self.outcome("exempt", "The instance is exempt.")
            if earlier["status"] == "withheld":
                return self.outcome("withheld", f"Left alone, as {earlier['step']} says.")
        return None

    def outcome(self, status, detail, error=None, facts=(), **more):
        """An outcome of this step; `more` are the keys that only this step has."""
        return {
            "step": self.type,
            "status": status,
            "detail": detail,
            "error": error,
            "facts": sorted(facts),
            **({"passed": status != "failed"} if self.gate else {}),
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
        """A client of the policy's account and region, see custom_actions/clients.py."""
        return clients.client(self.manager.session_factory, service)


class NothingToDo(Exception):
    """Raised by a look: why there is nothing to change, as the outcome's detail and status."""

    def __init__(self, detail, status="unchanged", facts=(), **more):
        super().__init__(detail)
        self.detail, self.status, self.facts, self.more = detail, status, facts, more


class LookAgain(Exception):
    """Raised by a change that somebody else was faster with: the next look decides."""


class NotReadBack(PolicyExecutionError):
    """A change was accepted, and AWS goes on showing something else."""


class UnexpectedAnswer(PolicyExecutionError):
    """An answer of AWS, or an event, lacks a field or has it of another kind."""


class Impossible(PolicyExecutionError):
    """Raised by a change that AWS cannot make to this resource, whoever tries and how often."""


class ReleasedMeanwhile(PolicyExecutionError):
    """Raised by a look: a person gave the instance its groups back while the step was at work."""


def readable(error):
    """An error as one that tells a person something: no Python error is an outcome."""
    if not isinstance(error, MISSHAPEN):
        return error
    what = f"no {error}" if isinstance(error, KeyError) else f"{error}"
    return UnexpectedAnswer(f"an answer is not as documented ({what}); the log has the place")


@dataclass
class Change:
    """One thing that a step wants, as a look shows it.

    name: what errors call it. The same name in the next look is the same change.
    holds: whether it is so already.
    make: makes it so; raises what AWS answers.
    words: what is recorded before it is made, under the tag `key` (custom_actions/record.py); none
    for what a person has made so.
    error: why it cannot be had; a step sets it where there is nothing to make.
    excused: why it cannot be had of this resource, ever: told, and no failure. `make` says so by
    raising `Impossible`.
    flaws: {code: text} of what is wrong with it although it holds, or no further try could mend.
    fact, end: its name and the word for "it holds" among the outcome's facts.
    unseen: the error when it was made and AWS goes on showing something else.
    item: whatever the step itself needs to know about it later.
    """

    name: str
    holds: bool = False
    make: Callable[[], None] | None = None
    words: tuple = ()
    key: str | None = None
    error: Exception | None = None
    excused: str | None = None
    flaws: dict = field(default_factory=dict)
    fact: str | None = None
    end: str = "done"
    unseen: Exception = PolicyExecutionError("EC2 does not show it yet, it may come later")
    item: object = None
    tried: bool = False

    def after(self, earlier):
        """This look at the change, with what the looks before have left of it."""
        if earlier is not None:
            self.tried = earlier.tried
            self.error = self.error or earlier.error
            self.excused = self.excused or earlier.excused
        if self.holds:
            self.error = self.excused = None  # its answer was lost, or somebody else made it so
        return self

    @property
    def is_fresh(self):
        return not (self.holds or self.tried or self.error or self.excused)

    @property
    def is_settled(self):
        return bool(self.holds or self.error or self.excused)

    @property
    def problem(self):
        """What is wrong with it, on one line, or None."""
        texts = [describe(self.error)] if self.error else []
        return "; ".join([*texts, *self.flaws.values()]) or None

    @property
    def ending(self):
        """What became of it, in a word that two equal outcomes share."""
        if self.error:
            return error_code(self.error)
        return "excused" if self.excused else next(iter(self.flaws), self.end)


class Run:
    """One resource on its way through one step.

    begun: when this run did. view: what the last look returned. tags: the resource's own, if the
    look has read them. changes: as the last look shows them; seen: whether there was one. made:
    whether this run made a change. errors: {part: error} of what failed beside the changes;
    unread: of what could not be read. recorded: {tag key: words} that this run has put on record,
    or tried to. memory: what the step keeps of a look.
    """

    def __init__(self, resource, event):
        self.resource = resource
        self.event = event
        self.begun = datetime.now(UTC)
        self.view = None
        self.tags = {}
        self.changes = []
        self.seen = False
        self.made = False
        self.errors = {}
        self.unread = {}
        self.recorded = {}
        self.memory = {}

    def read(self, part, call, *args, default=None, **request):
        """The answer of a call of a look; the default, with the error kept, when it is refused.

        The error stays until the same part is read.
        """
        try:
            answer = call(*args, **request)
        except (*REFUSED, *MISSHAPEN) as error:
            self.unread[part] = readable(error)
            return default
        self.unread.pop(part, None)
        return answer

    def attempt(self, part, call, *args, **request):
        """Do a call beside the changes; whether it was taken. The error is kept."""
        try:
            call(*args, **request)
        except REFUSED as error:
            self.errors[part] = error
            return False
        return True

    def see(self, changes):
        """Take over what a look brought. What it does not bring any more is nobody's wish now."""
        earlier = {change.name: change for change in self.changes}
        self.seen = True
        self.changes = [change.after(earlier.get(change.name)) for change in changes]
        self.made |= any(change.holds and change.tried for change in self.changes)

    @property
    def fresh(self):
        return [change for change in self.changes if change.is_fresh]

    @property
    def holding(self):
        return [change for change in self.changes if change.holds]

    @property
    def excuses(self):
        """What cannot be had of this resource: {name of the change: why}."""
        return {change.name: change.excused for change in self.changes if change.excused}

    @property
    def problems(self):
        """Everything that failed: {name of the change or part: text}."""
        found = {change.name: change.problem for change in self.changes if change.problem}
        beside = {part: describe(error) for part, error in (self.errors | self.unread).items()}
        return found | beside


class Step(ResponseAction):
    """One response step, by looks and changes.

    A subclass says what it is about; all methods take the `Run`:

    - `look` reads, changes nothing, and returns the view (anything the step likes), or raises
      `NothingToDo`. It sets `run.tags` when changes have words. The view before is `run.view`.
    - `changes` lists what the step wants, given the view. It calls nothing.
    - `plan` and `tell` say in a sentence what would be done, and what is so now.
    - `more` adds keys to the outcome; `nothing` are the same keys where nothing was looked at.
    - `conclude`, for what comes after the last look.
    - `recording` is what the words of its record are, for the error when it is refused.

    The engine looks, records the words of the changes, makes those that are fresh, keeps the error
    of each, and looks again, until all hold or have failed. What appears between two looks is a
    fresh change of the next one. A change that was refused is not tried again: that is for the
    next run, by Lambda or a person. When the function's time is nearly over the rest is reported as
    not done (custom_actions/deadline.py).
    """

    recording = ()

    def look(self, run):
        raise NotImplementedError

    def changes(self, run):
        raise NotImplementedError

    def plan(self, run):
        raise NotImplementedError

    def tell(self, run):
        raise NotImplementedError

    def more(self, run):
        return {}

    def conclude(self, run):
        """Do what comes after the last look, such as writing the state."""

    def respond(self, resource, event):
        run = Run(resource, event)
        try:
            with deadline.enforced():
                self.go(run)
        except NothingToDo as reason:
            return self.outcome(
                reason.status, reason.detail, facts=reason.facts, **(self.nothing | reason.more)
            )
        if self.dryrun and self.is_wanting(run):
            return self.outcome("planned", self.plan(run), **self.more(run))
        if not self.dryrun:
            self.conclude(run)
        return self.report(run)

    def is_wanting(self, run):
        """Whether a dry run has anything to announce."""
        return not all(change.holds for change in run.changes)

    def go(self, run):
        """Look and make, until nothing is left to do; in a dry run look once."""
        lost = None
        for number, delay in enumerate(DELAYS, 1):
            time.sleep(delay)
            try:
                run.view = self.look(run)
                changes = list(self.changes(run))
            except ReleasedMeanwhile as error:
                if not (run.recorded or any(change.tried for change in run.changes)):
                    raise NothingToDo(str(error), "skipped") from error
                self.leave_to_the_release(run, error)
                return
            except (*REFUSED, *MISSHAPEN) as error:
                if isinstance(error, MISSHAPEN):
                    self.log.exception("policy:%s %s", self.policy_name, self.type)
                if not run.seen:
                    raise
                lost = readable(error)  # what was made is kept; perhaps the next look is answered
                continue
            lost = None
            run.see(changes)
            if self.dryrun:
                return
            self.put_on_record(run)
            fresh = run.fresh if number < len(DELAYS) else ()
            for change in fresh:
                self.make(run, change)
            if not fresh and all(change.is_settled for change in run.changes):
                break
        for change in run.changes:
            if not change.is_settled:
                change.error = lost or change.unseen

    def make(self, run, change):
        try:
            change.make()
        except LookAgain:
            return
        except Impossible as error:
            change.excused = str(error)
        except REFUSED as error:
            change.error = error
        except Exception as error:  # noqa: BLE001 - a bug at one change must not stop the others
            self.log.exception("policy:%s %s %s", self.policy_name, self.type, change.name)
            change.error = readable(error)
        change.tried = True

    def put_on_record(self, run):
        """Add to the record the words of all changes that it does not have; it never loses one.

        What cannot be recorded is done all the same: the mail and the log are then the record.
        """
        if not self.missing_words(run):
            return
        # Read after the state: another response may have recorded meanwhile what it changed.
        run.tags = run.read("the tags", self.read_tags, run, default=run.tags)
        tags, new, missing = [], [], self.missing_words(run)
        for key, words in missing.items():
            # with its own: EC2 may not show yet what this run has written
            present = self.present_words(run, key)
            tags += record.as_tags(key, present + words)
            new += words
            run.recorded.setdefault(key, []).extend(words)
        told = f"the record: {' '.join([*self.recording, *new])} could not be recorded"
        if tags and not run.attempt(told, self.tag, run, tags):
            self.log.error("not recorded on %s: %s", self.resource_id(run), " ".join(new))
        for key, words in missing.items():
            self.note(run, key, words, recorded=told not in run.errors)

    def note(self, run, key, words, recorded):
        """Keep with the resource what this run has recorded, or could not, for `seal-record`."""
        kept = record.RECORDED if recorded else record.UNRECORDED
        run.resource.setdefault(kept, {}).setdefault(key, []).extend(words)

    def missing_words(self, run):
        """The words of changes that are not on record yet: {tag key: words}."""
        wanted = {}
        for change in run.changes:
            if not (change.error or change.excused):
                wanted.setdefault(change.key, []).extend(change.words)
        missing = {
            key: [word for word in words if word not in self.present_words(run, key)]
            for key, words in wanted.items()
        }
        return {key: words for key, words in missing.items() if words}

    def present_words(self, run, key):
        present = record.from_tags(run.tags, key) or []
        return present + [w for w in run.recorded.get(key, ()) if w not in present]

    def read_tags(self, run):
        """The tags that carry the record, as they are now."""
        return run.tags

    def leave_to_the_release(self, run, error):
        """What was made while a person released the instance has to be found by a release."""
        for change in run.changes:
            if not change.is_settled:
                change.error = error
        run.errors["the release"] = error
        for key, words in run.recorded.items():
            run.attempt("the record", self.tag, run, record.as_tags(key, words))

    def tag(self, run, tags):
        """Write tags on the resource that carries the record."""
        self.client().create_tags(Resources=[self.resource_id(run)], Tags=tags)

    def untag(self, run, keys):
        """Remove tags from the resource that carries the record."""
        self.client().delete_tags(
            Resources=[self.resource_id(run)], Tags=[{"Key": key} for key in sorted(keys)]
        )

    def resource_id(self, run):
        """The id of the resource."""
        return run.resource[self.manager.resource_type.id]

    def status(self, run):
        if run.made:
            return "done"
        impossible = run.changes and all(change.excused for change in run.changes)
        return "skipped" if impossible else "unchanged"

    def facts(self, run):
        """What makes two outcomes the same."""
        facts = [f"{change.fact or change.name}:{change.ending}" for change in run.changes]
        beside = (run.errors | run.unread).items()
        return facts + [f"{part}:{error_code(error)}" for part, error in beside]

    def report(self, run):
        problems = run.problems
        excuses = [f"Not possible here: {name}, {why}." for name, why in run.excuses.items()]
        return self.outcome(
            "failed" if problems else self.status(run),
            " ".join([self.tell(run), *excuses]),
            error="; ".join(f"{part}: {text}" for part, text in problems.items()) or None,
            facts=self.facts(run),
            **self.more(run),
        )


class Revert(Step):
    """The way back of a step: its changes come from the record, which goes when all hold.

    `keys` are the tags that hold the record; without any of them there is nothing to revert. What
    no further run could mend is a flaw of a change that holds: it is told, and the record goes.
    """

    keys = ()
    unrecorded = "nothing is recorded."

    def recorded(self, run):
        """The words of each recorded key; raises `NothingToDo` when nothing is recorded.

        They are those that `verify-record` has verified, where the policy has it.
        """
        found = {key: record.from_tags(run.tags, key) for key in self.keys}
        if all(words is None for words in found.values()):
            raise NothingToDo(f"Nothing to revert: {self.unrecorded}")
        for key, words in found.items():
            self.check_verified(run, key, words or [])
        return {key: words or [] for key, words in found.items()}

    def check_verified(self, run, key, words):
        """Raises when the words of a key are not those that `verify-record` has verified."""
        words = sorted(record.held(words))
        if sorted(run.resource.get(record.VERIFIED, {}).get(key, words)) != words:
            raise PolicyExecutionError(f"{key} was changed during the release: run it again")

    def is_wanting(self, run):
        return True  # the record would go at least

    def status(self, run):
        return "done"

    def conclude(self, run):
        if self.is_over(run):
            # attempt, because what was put back is put back whether or not the record goes
            run.attempt("the record", self.forget, run)

    def is_over(self, run):
        """Whether nothing is left that another run could put back."""
        return not (run.errors or run.unread) and all(change.holds for change in run.changes)

    def forget(self, run):
        """Remove the record."""
        self.untag(run, {k for key in self.keys for k in record.tag_keys(run.tags, key)})


def error_code(error):
    """What kind of error it is, without the parts that differ from call to call."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"]
    return type(error).__name__


def is_refusal(error):
    """Whether AWS said no, so that nothing was done. A lost answer or a failure of AWS is none."""
    if not isinstance(error, ClientError):
        return False
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) < 500


# Hundreds of characters that EC2 puts behind what it says; only sts:DecodeAuthorizationMessage can
# read them. https://repost.aws/knowledge-center/ec2-not-auth-launch
ENCODED = re.compile(r"Encoded authorization failure message:?[\s-]*\S+")


def describe(error):
    """An error as `Code: message`, on one line; what only AWS can read of it is cut."""
    message = error.response["Error"].get("Message") if isinstance(error, ClientError) else error
    message = ENCODED.sub("(CloudTrail has the rest, encoded)", str(message))
    return " ".join(f"{error_code(error)}: {message}".split())


def ignoring(code, call, **request):
    """Do a call; None when AWS answers that it is so already, by this error code."""
    try:
        return call(**request)
    except ClientError as error:
        if error_code(error) != code:
            raise
        return None


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
              role: guardduty-response-ec2-isolate
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
        failures = {}
        for resource in resources:
            for outcome in resource.get(OUTCOMES, ()):
                if outcome["status"] == "failed":
                    ids = failures.setdefault((outcome["step"], outcome["error"]), [])
                    ids.append(str(resource.get(self.manager.resource_type.id)))
        if failures:
            raise PolicyExecutionError(
                f"policy:{self.manager.data.get('name')} is not complete: "
                + "; ".join(
                    f"resource:{','.join(ids)} step:{step} error:{error}"
                    for (step, error), ids in failures.items()
                )
            )


register("fail-unless-complete", FailUnlessComplete)
