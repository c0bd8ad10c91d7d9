"""One message of the mail queue: what `notify` sent, and what has become of it so far.

On the queue stands base64 of zlib of JSON (c7n.actions.notify), as it is or inside the JSON
envelope of SNS. Beside the body travel, as message attributes, the notes of this mailer: see NOTES.
"""

import base64
import contextlib
import hashlib
import json
import re
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from .errors import Permanent, one_line
from .topics import ARN

# A message that was put back as a copy (see queue.py) carries these.
DELIVERED = "mailer-delivered"  # digests of the targets that have it, a blank between two
ATTEMPTS = "mailer-attempts"  # how often it was tried before this copy
FIRST_SENT = "mailer-first-sent"  # milliseconds since 1970
ORIGIN = "mailer-origin"  # the id of the first message
SENDER = "mailer-sender"  # SQS's SenderId of the first message
NOTES = (DELIVERED, ATTEMPTS, FIRST_SENT, ORIGIN, SENDER)

# How SQS's SenderId begins for a role. That of a user, and of SNS (reported), begins with AIDA.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
ROLE = "AROA"
# What SNS itself sends to a queue.
ASKED, ENDED = ABOUT_SUBSCRIPTIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
NOT_OURS = "not a message of Custodian's notify"
# Bytes. `notify` sends 256 KiB at most and such text shrinks to a tenth or so: more is a bomb.
LARGEST = 16 * 2**20
DEEPEST = 100  # lists and mappings inside each other; Python's own limit would stop the mailer
MOST_TARGETS = 100  # in one message
LONGEST_SUBJECT = 998  # characters: what a header line may have
# What the sender of a message does not choose: mailer.yml has the sender, nobody gets a copy.
NOT_CHOSEN = ("from", "cc")


@dataclass
class Message:
    """id, receipt, body: of SQS. origin: the id of the message that this is a copy of, or its own.
    receives: how often SQS gave it out. sent: milliseconds since 1970. attributes: name -> text,
    without the NOTES. sender: SQS's SenderId of the first message, "" where it is not known.
    delivered: digests of the targets that have it; progress: whether one of them got it now.
    attempts: tries before this one, of earlier copies too."""

    id: str
    origin: str
    receipt: str
    body: str
    receives: int
    sent: int
    attributes: dict[str, str] = field(default_factory=dict)
    sender: str = ""
    delivered: set[str] = field(default_factory=set)
    attempts: int = 0
    progress: bool = False

    @classmethod
    def received(cls, raw: dict) -> "Message":
        """From an answer of sqs:ReceiveMessage (all attributes) or a record of Lambda's event,
        which is the same in lower camel case.

        What comes raw from a topic has the attributes that its publisher chose, the notes among
        them. So of the sender a note counts only where a role has sent the copy."""
        if "messageId" in raw:
            raw = {key[0].upper() + key[1:]: value for key, value in raw.items()}
        attributes = {
            name: value.get("StringValue", value.get("stringValue"))
            for name, value in (raw.get("MessageAttributes") or {}).items()
        }
        attributes = {name: value for name, value in attributes.items() if value}
        system = raw["Attributes"]
        receives, now = int(system["ApproximateReceiveCount"]), int(system["SentTimestamp"])
        delivered, attempts, sent, origin, first = (attributes.pop(name, None) for name in NOTES)
        sender = system.get("SenderId", "")
        return cls(
            id=raw["MessageId"],
            origin=origin or raw["MessageId"],
            receipt=raw["ReceiptHandle"],
            body=raw["Body"],
            receives=receives,
            # Whoever may send messages may write notes too; they cannot be of the future.
            sent=min(_number(sent) or now, now),
            attributes=attributes,
            sender=(first or sender) if sender.startswith(ROLE) else sender,
            delivered=set((delivered or "").split()),
            attempts=_number(attempts) + receives - 1,
        )

    def notes(self) -> dict[str, str]:
        """All attributes that a copy of this message carries."""
        notes = {
            ATTEMPTS: str(self.attempts + 1),
            FIRST_SENT: str(self.sent),
            ORIGIN: self.origin,
        }
        if self.sender:
            notes[SENDER] = self.sender
        if self.delivered:
            notes[DELIVERED] = " ".join(sorted(self.delivered))
        return self.attributes | notes

    @property
    def data(self) -> dict:
        """What `notify` sent. Permanent when it is not that."""
        if isinstance(self._opened, Permanent):
            raise self._opened
        return self._opened

    @cached_property
    def _opened(self) -> dict | Permanent:
        try:
            return _checked(self._unpacked())
        except Permanent as error:
            return error

    @cached_property
    def envelope(self) -> dict:
        """What SNS put around it, {} where it did not come from a topic."""
        with contextlib.suppress(ValueError, RecursionError):
            return _mapping_or_empty(json.loads(self.body))
        return {}

    @property
    def topic(self) -> str:
        """The ARN of the topic that it came from, "" when it came from none."""
        arn = str(self.envelope.get("TopicArn"))
        return arn if ARN.fullmatch(arn) else ""

    @property
    def kind(self) -> object:
        """SNS's `Type`: a notification, or that a subscription is to be confirmed, or has ended."""
        return self.envelope.get("Type")

    def _unpacked(self) -> object:
        body = self.envelope.get("Message", self.body)
        try:
            unpack = zlib.decompressobj()
            text = unpack.decompress(base64.b64decode(body, validate=True), LARGEST)
            if unpack.unconsumed_tail:
                raise ValueError(f"more than {LARGEST} bytes")
            return json.loads(text)
        except (ValueError, TypeError, RecursionError, zlib.error) as error:
            raise Permanent(f"{NOT_OURS}: {one_line(error)}") from None

    @property
    def to(self) -> list[str]:
        """The targets that the policy names. Permanent when it also names who sends the mail or who
        gets a copy, which is not for a message to say."""
        chosen = [key for key in NOT_CHOSEN if self.data["action"].get(key)]
        if chosen:
            raise Permanent(
                f"the message has {' and '.join(map(repr, chosen))}: the sender is from_address of "
                "mailer.yml, and whoever is to get a mail stands in `to`"
            )
        return self.data["action"]["to"]

    def addressed(self, targets: list[str]) -> dict:
        """`data` with other targets in `to`, as c7n_mailer wants it."""
        return self.data | {"action": self.data["action"] | {"to": targets}}

    @property
    def template(self) -> str:
        """The template of the mail, without its `.j2`."""
        return self.data["action"].get("template", "default")

    @cached_property
    def subject(self) -> str:
        """The headline of the notice, else the `subject` of the policy, as it stands: neither is
        ever a template. Permanent when it has a line break.

        An encoded word (RFC 2047) in it is broken: who reads the mail would decode it, to a line
        break and a header of the attacker, for example."""
        notice = _mapping(self.data["event"], "c7n:notice")
        text = notice.get("headline") or self.data["action"].get("subject") or ""
        text = str(text or f"Custodian notification - {self.data['policy'].get('name')}")
        if len(text.splitlines()) > 1 or text != text.strip("\r\n"):
            raise Permanent("a line break in the subject")
        return one_line(text, LONGEST_SUBJECT).replace("=?", "= ?")

    @property
    def finding(self) -> dict:
        """The finding of the message, {} where it has none."""
        return _mapping(_mapping(self.data, "event"), "detail")

    @cached_property
    def key(self) -> str:
        """What two messages share that say the same: account, region, policy, finding as of its
        last update, headline and notice, instances. Without a finding, the whole message."""
        if not self.finding.get("id"):
            return digest(self.body)
        data, detail = self.data, self.finding
        return digest(
            data.get("account_id"),
            data.get("region"),
            data["policy"].get("name"),
            data["action"].get("template"),
            detail["id"],
            detail.get("updatedAt"),
            data["event"].get("c7n:notice"),
            [resource_id(resource) for resource in data["resources"]],
        )

    @property
    def identity(self) -> str:
        """The `key`, of this topic: a mail program or a SIEM that drops what it has must not drop
        an administrator's word for a member's that has the same key."""
        return digest(self.topic, self.key)

    def has(self, target: str) -> bool:
        return digest(target) in self.delivered

    def done(self, target: str) -> None:
        self.delivered.add(digest(target))
        self.progress = True

    @property
    def about(self) -> dict[str, str]:
        """Policy, finding, instance, account and region in plain words, "-" where unknown."""
        try:
            data, detail = self.data, self.finding
        except Permanent:
            data, detail = {}, {}
        instance = _mapping(_mapping(detail, "resource"), "instanceDetails").get("instanceId")
        if instance is None and len(data.get("resources", ())) > 1:
            instance = f"{len(data['resources'])} instances"  # of an attack sequence
        region, account = ARN.fullmatch(self.topic).groups() if self.topic else (None, None)
        values = {
            "policy": _mapping(data, "policy").get("name"),
            "finding": detail.get("id"),
            "instance": instance,
            "account": detail.get("accountId") or data.get("account_id") or account,
            "region": data.get("region") or region,
        }
        return {name: one_line(value or "-", 80) for name, value in values.items()}

    @property
    def sent_at(self) -> datetime:
        return datetime.fromtimestamp(self.sent / 1000, UTC)

    def __str__(self) -> str:
        if self.topic and self.kind in ABOUT_SUBSCRIPTIONS:
            return f"{self.kind} of {self.topic}"
        return " ".join(f"{name}={value}" for name, value in self.about.items())


def _checked(data: object) -> dict:
    """`data` when it has the shape that c7n_mailer and the templates rely on, else Permanent."""
    if _is_deep(data):
        raise Permanent(f"{NOT_OURS}: more than {DEEPEST} levels")
    shape = {"policy": dict, "action": dict, "resources": list}
    wrong = [
        key for key, kind in shape.items() if not isinstance(_mapping_or_empty(data).get(key), kind)
    ]
    if wrong:
        raise Permanent(f"{NOT_OURS}: no {' and no '.join(wrong)}")
    if not _are(str, data["action"].get("to")):
        raise Permanent(f"{NOT_OURS}: action.to is not a list of names")
    if len(data["action"]["to"]) > MOST_TARGETS:
        raise Permanent(f"{NOT_OURS}: action.to has more than {MOST_TARGETS} names")
    if not _are(dict, data["resources"]):
        raise Permanent(f"{NOT_OURS}: a resource is not a mapping")
    for resource in data["resources"]:
        tags = resource.get("Tags") or []
        if not _are(dict, tags) or not all(_are(str, [t.get("Key"), t.get("Value")]) for t in tags):
            raise Permanent(f"{NOT_OURS}: the tags of a resource are not keys and values")
    data["event"] = data.get("event") or {}
    if not isinstance(data["event"], dict):
        raise Permanent(f"{NOT_OURS}: the event is not a mapping")
    return data


def _are(kind: type, values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def _number(text: str | None) -> int:
    """A whole number that somebody wrote into an attribute; 0 when it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text or "") else 0


def _mapping_or_empty(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _mapping(parent: dict, key: str) -> dict:
    return _mapping_or_empty(parent.get(key))


def resource_id(resource: dict) -> object:
    """Of an instance or an account, the resources that the policies of the pack have."""
    return resource.get("InstanceId") or resource.get("account_id")


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
