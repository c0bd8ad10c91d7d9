"""Slack: `slack://#channel`, `slack://address`, `slack://tag/KEY`, `slack://owners`,
`slack://webhook/#channel` and `https://hooks.slack.com/...` in a policy's `to`.

c7n_mailer resolves and renders; its own sending is not used: it takes every refusal for a success,
a rate limit too. The template is `slack_template` of the action, here `slack` by default.
https://docs.slack.dev/reference/methods/chat.postMessage
"""

from c7n_mailer.slack_delivery import SlackDelivery

from ..errors import Permanent, Temporary
from ..message import Message, digest
from ..stock import SILENT, require_template, require_text
from ..transport import Parcel, Transport
from ..web import JSON, post, said

API = "https://slack.com/api/chat.postMessage"
TEMPLATE = "slack"
# Slack's own words for what the message, its channel or our configuration is to blame for.
WRONG = {"channel_not_found", "is_archived", "invalid_blocks", "msg_too_long", "no_text"}


class Slack(Transport):
    """Channels and persons with `slack_token` of mailer.yml, one channel with `slack_webhook`."""

    name = "slack"
    secret_keys = ("slack_token", "slack_webhook")

    def accepts(self, target: str) -> bool:
        return target.startswith(("slack://", "https://hooks.slack.com/"))

    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """One for each channel or person; Permanent when a target resolves to nobody."""
        config, action = self.means.config, message.data["action"]
        secrets = {
            key: self.means.secrets.reveal(key, config[key])
            for key in self.secret_keys
            if config.get(key)
        }
        if not secrets:
            raise Permanent("neither slack_token nor slack_webhook is in mailer.yml")
        template = action.get("slack_template", TEMPLATE)
        require_template(config, template)
        data = message.data | {"action": action | {"slack_template": template}}
        delivery = SlackDelivery(config | secrets, SILENT, self.means.addresses)
        texts = delivery.get_to_addrs_slack_messages_map(data)
        for text in texts.values():
            require_text(template, text)
        if not texts:
            named = ", ".join(map(label, targets))
            raise Permanent(f"no channel, person or webhook among {named}")
        token = secrets.get("slack_token")
        return [
            Parcel.to_one(f"slack {label(place)}", send, place, text.encode(), token)
            for place, text in texts.items()
        ]


def send(place: str, body: bytes, token: str | None) -> None:
    """place: the address of a webhook, or what the body names as its channel."""
    if place.startswith(("https://", "http://")):
        post(place, body, JSON)
        return
    answer = said(post(API, body, JSON | {"Authorization": f"Bearer {token}"}))
    if answer.get("ok") is not True:
        reason = str(answer.get("error", "an answer that is not Slack's"))
        raise (Permanent if reason in WRONG else Temporary)(f"Slack: {reason}")


def label(target: str) -> str:
    """A target for a log: the path of a webhook is its secret."""
    return f"webhook {digest(target)[:8]}" if target.startswith("http") else target
