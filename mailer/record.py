"""The finding and the response as one JSON document, for a SIEM or a ticket system.

Every message goes to every destination in `response_records` of mailer.yml, whatever its `to` says,
with the same guarantee as a mail: the message stays until the destination has taken the document.
The document is described by docs/response-record.schema.json; a change that a reader could trip
over gets a new number in `schema`.
"""

import json

from .errors import Failure, Permanent
from .message import Message, digest
from .parcel import Parcel
from .secrets import Secrets
from .topic import Topics
from .web import JSON, post

SCHEMA = "guardduty-response/record/1"


def document(message: Message) -> dict:
    """The document of one message. Field by field as in docs/response-record.schema.json."""
    data, finding = message.data, message.finding
    notice = data["event"].get("c7n:notice") or {}
    return {
        "schema": SCHEMA,
        "id": message.key,
        "sent_at": message.sent_at.isoformat(timespec="seconds"),
        "policy": data["policy"].get("name"),
        "account_id": data.get("account_id"),
        "region": data.get("region"),
        "headline": notice.get("headline"),
        "observe_only": bool(notice.get("observe_only")),
        "isolated": bool(notice.get("isolated")),
        "finding": finding,
        "resources": [
            {
                "id": resource.get("InstanceId") or resource.get("account_id"),
                "type": data["policy"].get("resource"),
                "tags": {tag["Key"]: tag["Value"] for tag in resource.get("Tags") or []},
                "response": resource.get("c7n:response") or [],
            }
            for resource in data["resources"]
        ],
    }


class Records:
    """The transport of records.

    destinations: of mailer.yml, each `{topic: ARN}` or `{webhook: URL, authorization: reference}`.
    """

    name = "record"

    def __init__(self, destinations: list[dict], topics: Topics, secrets: Secrets):
        self._destinations = destinations
        self._topics = topics
        self._secrets = secrets

    def parcels(self, message: Message) -> list[Parcel]:
        """One for each destination."""
        if not self._destinations:
            return []
        body = json.dumps(document(message), ensure_ascii=False)
        try:
            body.encode()
        except UnicodeEncodeError:  # a lone surrogate, which JSON can only carry escaped
            body = json.dumps(document(message))
        return [
            Parcel((_label(place),), self._sending(place, body, message.key))
            for place in self._destinations
        ]

    def _sending(self, place: dict, body: str, key: str):
        def send(targets: list[str]) -> list[Failure]:
            if "topic" in place:
                attribute = {"DataType": "String", "StringValue": SCHEMA}
                self._topics.publish(place["topic"], body, MessageAttributes={"schema": attribute})
                return []
            headers = JSON | {"Idempotency-Key": key}
            if "authorization" in place:
                reference = place["authorization"]
                headers["Authorization"] = self._secrets.reveal("authorization", reference)
            post(self._secret_url(place["webhook"]), body.encode(), headers)
            return []

        return send

    def _secret_url(self, url: str) -> str:
        """A webhook's address may be a secret itself, then a reference stands in its place."""
        if url.startswith(("https://", "http://")):
            return url
        url = self._secrets.reveal("webhook", url)
        if not url.startswith("https://"):
            raise Permanent("webhook: the secret is no https address")
        return url


def _label(place: dict) -> str:
    """A destination for a log; the path of a webhook may be secret."""
    if "topic" in place:
        return f"record {place['topic']}"
    return f"record webhook {digest(place['webhook'])[:8]}"
