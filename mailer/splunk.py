"""Splunk's HTTP Event Collector: `splunkhec://INDEX` in a policy's `to`.

c7n_mailer makes the events, one for each resource and index; its own sending is not used: it has no
time-out, sleeps, and writes the whole event into the log.
https://docs.splunk.com/Documentation/Splunk/latest/RESTREF/RESTinput#services.2Fcollector
"""

import copy
import json

from c7n_mailer.splunk_delivery import SplunkHecDelivery

from .errors import Failure, Permanent, Temporary
from .mail import SILENT
from .message import Message
from .parcel import Parcel
from .secrets import Secrets
from .web import post

SCHEME = "splunkhec://"
NEEDED = ("splunk_hec_url", "splunk_hec_token")
BUSY = {8, 9}  # Splunk's own codes: internal error, server busy


class Splunk:
    """The transport of Splunk. config: `splunk_hec_url`, `splunk_hec_token` (a reference)."""

    name = "splunk"

    def __init__(self, config: dict, secrets: Secrets):
        self._config = config
        self._secrets = secrets
        self._delivery = SplunkHecDelivery(config, None, SILENT)

    def parcels(self, message: Message) -> list[Parcel]:
        """One for each index, with the events of all resources in one request."""
        if not any(is_splunk_target(target) for target in message.data["action"]["to"]):
            return []
        missing = [key for key in NEEDED if not self._config.get(key)]
        if missing:
            raise Permanent(f"{' and '.join(missing)} missing in mailer.yml")
        # HEC's time is in seconds. c7n_mailer adds to what it is given, hence the copy.
        seconds = message.sent / 1000
        events = self._delivery.get_splunk_payloads(copy.deepcopy(message.data), seconds)
        if not events:
            raise Permanent("the message has no resource, so there is no event for Splunk")
        parcels = []
        for index in sorted({event["index"] for event in events}):
            body = "\n".join(json.dumps(event) for event in events if event["index"] == index)
            parcels.append(Parcel((SCHEME + index,), self._posting(body.encode())))
        return parcels

    def _posting(self, body: bytes):
        def send(targets: list[str]) -> list[Failure]:
            token = self._secrets.reveal("splunk_hec_token", self._config["splunk_hec_token"])
            answer = post(
                self._config["splunk_hec_url"], body, {"Authorization": f"Splunk {token}"}
            )
            try:
                said = answer.json()
            except ValueError:
                said = {}
            if str(said.get("text", "")).lower() != "success":
                kind = Temporary if said.get("code") in BUSY else Permanent
                raise kind(f"Splunk: {said.get('text') or 'an answer that is not of HEC'}")
            return []

        return send


def is_splunk_target(target: str) -> bool:
    return target.startswith(SCHEME)
