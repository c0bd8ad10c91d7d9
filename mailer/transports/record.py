"""The finding and the response as one JSON document, for a SIEM or a ticket system.

Every message goes to every destination in `response_records` of mailer.yml, whatever its `to` says,
with the same guarantee as a mail: the message stays until the destination has taken the document.
The document is described by docs/response-record.schema.json; a change that a reader could trip
over gets a new number in `schema`.
"""

import json
from collections.abc import Iterator

from ..errors import Permanent
from ..message import Message, digest, resource_id
from ..secrets import NO_REFERENCE, is_reference
from ..topics import ARN, Topics
from ..transport import Means, Parcel, Transport
from ..web import JSON, is_safe, post

SCHEMA = "guardduty-response/record/1"
KEY = "response_records"


class Record(Transport):
    """The destinations in `response_records` of mailer.yml, each `{topic: ARN}` or `{webhook: URL,
    authorization: reference}`; the URL may be a reference too."""

    name = "record"
    every_message = True
    own_keys = (KEY,)

    @classmethod
    def check(cls, config: dict) -> Iterator[str]:
        places = config.get(KEY, [])
        if not isinstance(places, list):
            yield f"{KEY}: must be a list"
            return
        for number, place in enumerate(places):
            yield from (f"{KEY}.{number}{problem}" for problem in _problems(place))

    @classmethod
    def references(cls, config: dict) -> Iterator[tuple[str, object]]:
        for number, place in enumerate(config.get(KEY, [])):
            yield from ((f"{KEY}.{number}.{key}", value) for key, value in place.items())

    def __init__(self, means: Means):
        super().__init__(means)
        self._places = means.config.get(KEY, [])
        self._topics = Topics(means.config, means.session)

    def accepts(self, target: str) -> bool:
        return False

    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """One for each destination."""
        if not self._places:
            return []
        # A lone surrogate has no UTF-8; Python's escape of it is JSON's as well.
        text = json.dumps(document(message), ensure_ascii=False)
        body = text.encode("utf-8", "backslashreplace")
        return [
            Parcel.to_one(_label(place), self._send, place, body, message.identity)
            for place in self._places
        ]

    def _send(self, place: dict, body: bytes, key: str) -> None:
        if "topic" in place:
            attribute = {"DataType": "String", "StringValue": SCHEMA}
            self._topics.publish(
                place["topic"], body.decode(), MessageAttributes={"schema": attribute}
            )
            return
        headers = JSON | {"Idempotency-Key": key}
        if "authorization" in place:
            reference = place["authorization"]
            headers["Authorization"] = self.means.secrets.reveal("authorization", reference)
        post(self._address(place["webhook"]), body, headers)

    def _address(self, webhook: str) -> str:
        """A webhook's address may be a secret itself, then a reference stands in its place."""
        if webhook.startswith(("https://", "http://")):
            return webhook
        url = self.means.secrets.reveal("webhook", webhook)
        if not url.startswith("https://"):
            raise Permanent("webhook: the secret is no https address")
        return url


def document(message: Message) -> dict:
    """The document of one message. Field by field as in docs/response-record.schema.json."""
    data = message.data
    notice = data["event"].get("c7n:notice") or {}
    return {
        "schema": SCHEMA,
        "id": message.identity,
        "sent_at": message.sent_at.isoformat(timespec="seconds"),
        "policy": data["policy"].get("name"),
        "account_id": data.get("account_id"),
        "region": data.get("region"),
        "headline": notice.get("headline"),
        "observe_only": bool(notice.get("observe_only")),
        "isolated": bool(notice.get("isolated")),
        "finding": message.finding,
        "resources": [
            {
                "id": resource_id(resource),
                "type": data["policy"].get("resource"),
                "tags": {tag["Key"]: tag["Value"] for tag in resource.get("Tags") or []},
                "response": resource.get("c7n:response") or [],
            }
            for resource in data["resources"]
        ],
    }


def _label(place: dict) -> str:
    """A destination for a log; the path of a webhook may be secret."""
    if "topic" in place:
        return f"record {place['topic']}"
    return f"record webhook {digest(place['webhook'])[:8]}"


def _problems(place: object) -> Iterator[str]:
    if not isinstance(place, dict) or len({"topic", "webhook"} & set(place)) != 1:
        yield ": must have either topic or webhook"
        return
    unknown = set(place) - {"topic", "webhook", "authorization"}
    if unknown:
        yield f": does not know {', '.join(sorted(unknown))}"
    topic, webhook, authorization = map(place.get, ("topic", "webhook", "authorization"))
    if "topic" in place and not ARN.fullmatch(str(topic)):
        yield ".topic: must be the ARN of an SNS topic"
    if "webhook" in place and not (is_safe(str(webhook)) or is_reference(str(webhook))):
        yield ".webhook: must be an https address or the reference to a secret"
    if "authorization" in place and not is_reference(str(authorization)):
        yield f".authorization: {NO_REFERENCE}"
