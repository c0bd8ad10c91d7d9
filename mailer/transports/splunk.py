"""Splunk's HTTP Event Collector: `splunkhec://INDEX` in a policy's `to`.

c7n_mailer makes the events, one for each resource and index; its own sending is not used: it has no
time-out, sleeps, and writes the whole event into the log.
https://docs.splunk.com/Documentation/Splunk/latest/RESTREF/RESTinput#services.2Fcollector
"""

import copy
import json
from collections.abc import Iterator

from c7n_mailer.splunk_delivery import SplunkHecDelivery

from ..errors import Permanent, Temporary
from ..message import Message
from ..stock import SILENT
from ..transport import Parcel, Transport
from ..web import is_safe, post, said

SCHEME = "splunkhec://"
NEEDED = ("splunk_hec_url", "splunk_hec_token")
BUSY = {8, 9}  # Splunk's own codes: internal error, server busy


class Splunk(Transport):
    """Indexes behind `splunk_hec_url` of mailer.yml, with `splunk_hec_token`."""

    name = "splunk"
    secret_keys = ("splunk_hec_token",)

    @classmethod
    def check(cls, config: dict) -> Iterator[str]:
        yield from super().check(config)
        if "splunk_hec_token" in config and not is_safe(config.get("splunk_hec_url", "")):
            yield "splunk_hec_url: must be an https address"

    def accepts(self, target: str) -> bool:
        return target.startswith(SCHEME)

    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """One for each index, with the events of all resources in one request."""
        config = self.means.config
        missing = [key for key in NEEDED if not config.get(key)]
        if missing:
            raise Permanent(f"{' and '.join(missing)} missing in mailer.yml")
        # HEC's time is in seconds. c7n_mailer adds to what it is given, hence the copy.
        seconds = message.sent / 1000
        delivery = SplunkHecDelivery(config, None, SILENT)
        events = delivery.get_splunk_payloads(copy.deepcopy(message.data), seconds)
        if not events:
            raise Permanent("the message has no resource, so there is no event for Splunk")
        bodies: dict[str, list[str]] = {}
        for event in events:
            bodies.setdefault(event["index"], []).append(json.dumps(event))
        return [
            Parcel.to_one(SCHEME + index, self._post, "\n".join(bodies[index]).encode())
            for index in sorted(bodies)
        ]

    def _post(self, body: bytes) -> None:
        url, reference = (self.means.config[key] for key in NEEDED)
        token = self.means.secrets.reveal("splunk_hec_token", reference)
        answer = said(post(url, body, {"Authorization": f"Splunk {token}"}))
        if str(answer.get("text", "")).lower() != "success":
            kind = Temporary if answer.get("code") in BUSY else Permanent
            raise kind(f"Splunk: {answer.get('text') or 'an answer that is not of HEC'}")
