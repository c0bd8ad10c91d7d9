"""Slack: `slack://#channel`, `slack://address`, `slack://tag/KEY`, `slack://owners`,
`slack://webhook/#channel` and `https://hooks.slack.com/...` in a policy's `to`.

c7n_mailer resolves and renders; its own sending is not used: it takes every refusal for a success,
a rate limit too. The template is `slack_template` of the action, here `slack` by default.
https://docs.slack.dev/reference/methods/chat.postMessage
"""

import json

from c7n_mailer.slack_delivery import SlackDelivery

from .errors import Failure, Permanent, Temporary
from .mail import SILENT, Addresses
from .message import Message, digest
from .parcel import Parcel
from .rendering import require, require_text
from .secrets import Secrets
from .web import JSON, post

API = "https://slack.com/api/chat.postMessage"
TEMPLATE = "slack"
# Slack's own words for what the message, its channel or our configuration is to blame for.
WRONG = {"channel_not_found", "is_archived", "invalid_blocks", "msg_too_long", "no_text"}


class Slack:
    """The transport of Slack. config: `slack_token` or `slack_webhook`, references to secrets."""

    name = "slack"

    def __init__(self, config: dict, addresses: Addresses, secrets: Secrets):
        self._config = config
        self._addresses = addresses
        self._secrets = secrets

    def parcels(self, message: Message) -> list[Parcel]:
        """One for each channel or person; Permanent when a target resolves to nobody."""
        data = message.data
        action = data["action"]
        if not any(is_slack_target(target) for target in action["to"]):
            return []
        if not (self._config.get("slack_token") or self._config.get("slack_webhook")):
            raise Permanent("neither slack_token nor slack_webhook is in mailer.yml")
        config = self._config | {
            key: self._secrets.reveal(key, self._config[key])
            for key in ("slack_token", "slack_webhook")
            if self._config.get(key)
        }
        template = action.get("slack_template", TEMPLATE)
        require(self._config, template)
        data = data | {"action": action | {"slack_template": template}}
        delivery = SlackDelivery(config, SILENT, self._addresses)
        texts = delivery.get_to_addrs_slack_messages_map(data)
        for text in texts.values():
            require_text(template, text)
        if not texts:
            named = ", ".join(map(label, action["to"]))
            raise Permanent(f"no channel, person or webhook among {named}")
        return [
            Parcel((f"slack {label(target)}",), self._posting(target, text, config["slack_token"]))
            for target, text in texts.items()
        ]

    def _posting(self, target: str, text: str, token: str | None):
        def send(recipients: list[str]) -> list[Failure]:
            body = text.encode()
            if target.startswith("https://") or target.startswith("http://"):
                post(target, body, JSON)
                return []
            answer = post(API, body, JSON | {"Authorization": f"Bearer {token}"})
            accepted(answer)
            return []

        return send


def accepted(answer) -> None:
    """Slack says with status 200 that it refused."""
    try:
        said = answer.json()
    except json.JSONDecodeError:
        said = {}
    if said.get("ok") is not True:
        reason = str(said.get("error", "an answer that is not Slack's"))
        raise (Permanent if reason in WRONG else Temporary)(f"Slack: {reason}")


def is_slack_target(target: str) -> bool:
    return target.startswith(("slack://", "https://hooks.slack.com/"))


def label(target: str) -> str:
    """A target for a log: the path of a webhook is its secret."""
    return f"webhook {digest(target)[:8]}" if target.startswith("http") else target
