"""A sample finding through the real path, from GuardDuty to the mail, and how long it took."""

import itertools
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import click
from botocore.exceptions import BotoCoreError, ClientError

from custom_actions.finding import is_archived, is_sample
from custom_actions.finding_file import camel_case
from deployment import logs
from deployment.errors import Refused, reason
from deployment.everywhere import everywhere
from deployment.models import share_models
from deployment.targets import ROOT, targeted
from mailer.config import ConfigError, load, unchanged
from mailer.deploy import NAME
from mailer.errors import one_line

TYPE = "UnauthorizedAccess:EC2/MaliciousIPCaller.Custom"
NOTIFY, ISOLATE = "custodian-finding-notify", "custodian-ec2-isolate"
# Seconds between two looks; the last one over and over. GuardDuty takes up to five minutes.
DELAYS = (0.5, 1, 2, 3, 5, 10)
TIMEOUT = 600
UPDATE = (
    "GuardDuty had this sample before, and may send an update of it only as often as the "
    "detector's FindingPublishingFrequency says (six hours by default): try again then"
)
NOT_INVOKED = (
    "make status; is the rule enabled, may EventBridge invoke the function, did the event end in "
    "make dlq?"
)


@dataclass
class Station:
    """Where the sample has to come by. seconds: since it was asked for, None when it did not.
    is_well: whether what it said there is what a sample is to be answered."""

    name: str
    seconds: float | None
    says: str
    is_well: bool


@dataclass(frozen=True)
class Mail:
    """The mailer's function: account and region of the queue, and its name."""

    account_id: str
    region: str
    function: str


class NotReached(Exception):
    """Waiting on would not help; the message says why."""


@click.command()
@targeted
@click.option("--timeout", type=click.IntRange(1, 3600), default=TIMEOUT, help="seconds")
@click.option("--mailer", type=Path, default=ROOT / "mailer" / "mailer.yml", help="mailer.yml")
def probe(targets, timeout, mailer):
    """Ask GuardDuty for a sample finding and wait until it has been mailed.

    A sample changes nothing: ec2-isolate leaves it out, which is what this waits for, and its mail
    begins with [SAMPLE]. The stations: GuardDuty lists it; finding-notify has mailed it;
    ec2-isolate has left it out; the mailer has delivered it. Ends with 1 and the first one that it
    did not reach.

    The mailer is looked for where queue_url of mailer.yml is: in the account that is probed, else
    with the caller's own credentials.

    IAM: guardduty:ListDetectors, guardduty:CreateSampleFindings, guardduty:ListFindings,
    guardduty:GetFindings, logs:FilterLogEvents.
    """
    mail = mail_of(mailer)
    if len(targets) > 1:
        results = everywhere(stations, targets, timeout, mail, doing="Waiting")
    else:
        results = everywhere(stations, targets, timeout, mail, click.echo)
    failed = False
    for result in results:
        found = [Station(**one) for one in result.answer or ()]
        if len(targets) > 1:
            click.echo(f"\n{result.target}")
            for one in found:
                click.echo(line(one))
        missed = next((one for one in found if not one.is_well), None)
        failed = failed or missed is not None or result.error is not None
        if result.error:
            click.echo(f"FAILED in {result.target}: {result.error}")
        elif missed:
            click.echo(f"FAILED in {result.target} at {missed.name!r}: {missed.says}")
        else:
            click.echo(f"The sample has gone the whole way in {result.target}.")
    sys.exit(1 if failed else 0)


def mail_of(path):
    """Where the mailer is, by mailer.yml. Raises Refused when that does not say."""
    try:
        config = load(path)
    except (ConfigError, OSError) as error:
        raise Refused(f"{error}.") from error
    if examples := unchanged(config, ("queue_url",)):
        raise Refused(f"{'; '.join(examples)}.")
    account_id = urlsplit(config["queue_url"]).path.split("/")[1]
    return Mail(account_id, config["region"], config.get("lambda_name", NAME))


def line(station):
    at = "   -  " if station.seconds is None else f"{station.seconds:6.1f}"
    return f"{at} s  {station.name}: {station.says}"


def stations(target, timeout, mail, tell=lambda text: None):
    """Every station of one probe, as dictionaries; `tell` is called with a line for each."""
    path = Probe(target, timeout, mail)
    found = []
    for station in path.stations():
        tell(line(station))
        found.append(asdict(station))
    return found


class Probe:
    """One sample in one account and region."""

    def __init__(self, target, timeout, mail):
        self.target, self.mail = target, mail
        self.session = target.session()
        self.guardduty = self.session.client("guardduty")
        self.deadline = time.monotonic() + timeout
        self.began = self.sample = None
        self.is_update = False

    def stations(self):
        detectors = self.guardduty.list_detectors()["DetectorIds"]
        if not detectors:
            yield Station("GuardDuty", None, "is off in this region: turn it on", False)
            return
        before = self.samples(detectors[0])
        answer = self.guardduty.create_sample_findings(DetectorId=detectors[0], FindingTypes=[TYPE])
        # AWS's clock, by which the logs go, not this machine's
        self.began = served_at(answer)
        listed = self.wait("GuardDuty lists it", lambda: self.listed(detectors[0], before), "")
        yield listed
        if not listed.is_well:
            return
        hint = f"{UPDATE}; else: {NOT_INVOKED}" if self.is_update else NOT_INVOKED
        yield self.wait("finding-notify has mailed it", self.notified, hint)
        yield self.wait("ec2-isolate has left it out", self.left_out, hint)
        yield self.wait(
            "the mailer has delivered it",
            self.delivered,
            "does the topic guardduty-response have its subscription, is the mailer deployed (make "
            "deploy-mailer), what says make mail-dlq?",
        )

    def wait(self, name, look, hint):
        """Look until there is an answer, or the time is over."""
        for delay in itertools.chain(DELAYS, itertools.repeat(DELAYS[-1])):
            left = self.deadline - time.monotonic()
            try:
                if answer := look():
                    at, says, is_well = answer
                    seconds = max((at - self.began).total_seconds(), 0)
                    return Station(name, seconds, one_line(says), is_well)
            except NotReached as error:
                return Station(name, None, str(error), False)
            except (ClientError, BotoCoreError) as error:
                return Station(name, None, reason(error), False)
            if left <= 0:
                break
            time.sleep(min(delay, max(left, 0)))
        return Station(name, None, f"not in time. {hint}".strip(), False)

    def samples(self, detector):
        """The samples of the type that GuardDuty has: {id: finding in the spelling of events}."""
        ids = self.guardduty.list_findings(
            DetectorId=detector,
            FindingCriteria={"Criterion": {"type": {"Equals": [TYPE]}}},
            SortCriteria={"AttributeName": "updatedAt", "OrderBy": "DESC"},
            MaxResults=50,
        )["FindingIds"]
        asked = {"DetectorId": detector, "FindingIds": ids}
        found = map(camel_case, self.guardduty.get_findings(**asked)["Findings"] if ids else ())
        return {one["id"]: one for one in found if is_sample({"detail": one})}

    def listed(self, detector, before):
        for name, finding in self.samples(detector).items():
            earlier = before.get(name)
            if earlier and earlier["updatedAt"] == finding["updatedAt"]:
                continue
            if is_archived({"detail": finding}):
                raise NotReached(
                    f"finding {name} is archived: a suppression rule of GuardDuty takes samples, "
                    "and EventBridge gets none"
                )
            self.sample, self.is_update = name, earlier is not None
            which = "an update of an earlier sample" if self.is_update else "new"
            return datetime.now(UTC), f"finding {name}, {which}", True
        return None

    def notified(self):
        return self.answer(NOTIFY, lambda said: said == "done")

    def left_out(self):
        return self.answer(ISOLATE, lambda said: said.startswith("nothing to do"))

    def answer(self, function, is_well):
        """What a function has logged at its end (custom_actions/handler.py), or its error."""
        found = logs.lines(self.session, function, self.sample, self.began)
        for at, text in reversed(found):
            _, ended, said = text.partition(" ended: ")
            if ended:
                return at, said, is_well(said)
        for at, text in reversed(found):
            if text.startswith("[ERROR]"):
                return at, text, False
        return None

    def delivered(self):
        found = logs.lines(self.mailers_session(), self.mail.function, self.sample, self.began)
        for at, text in found:
            if "delivered: policy=finding-notify" in text:
                return at, text[text.index("delivered:") :], True
        for at, text in reversed(found):
            if "NOT DELIVERED" in text:
                return at, text[text.index("NOT DELIVERED") :], False
        return None

    def mailers_session(self):
        mail = self.mail
        if mail.account_id == self.target.account_id:
            return replace(self.target, region=mail.region).session()
        session = share_models(boto3.Session(region_name=mail.region))
        mine = session.client("sts").get_caller_identity()["Account"]
        if mine != mail.account_id:
            raise NotReached(
                f"not seen: the mailer is in account {mail.account_id}, these credentials are of "
                f"{mine}. Look there for finding {self.sample} in the log of {mail.function}"
            )
        return session


def served_at(answer):
    """When AWS answered, to the second."""
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
