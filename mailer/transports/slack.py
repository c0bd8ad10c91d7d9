"""Slack: `slack://#channel`, `slack://address`, `slack://tag/KEY`, `slack://owners`,
`slack://webhook/#channel` and `https://hooks.slack.com/...` in a policy's `to`.

c7n_mailer finds the person behind an address; its own sending is not used: it takes every refusal
for a success, a rate limit too. `recipients` of mailer.yml lists the target; the channel that a tag
names is listed there as well, and the persons behind `owners` are those that may get a mail. The
template is `slack_template` of the action, here `slack` by default.
https://docs.slack.dev/reference/methods/chat.postMessage
"""

from collections.abc import Iterator

from c7n_mailer.slack_delivery import SlackDelivery

from ..errors import Permanent, Temporary
from ..known import ADDRESS
from ..message import Message
from ..stock import SILENT
from ..transport import Parcel, Transport, label
from ..web import JSON, post, said

SCHEME = "slack://"
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
        secrets = {
            key: self.means.secrets.reveal(key, self.means.config[key])
            for key in self.secret_keys
            if self.means.config.get(key)
        }
        if not secrets:
            raise Permanent("neither slack_token nor slack_webhook is in mailer.yml")
        stock = SlackDelivery(self.means.config | secrets, SILENT, self.means.addresses)
        template = message.data["action"].get("slack_template", TEMPLATE)
        texts = {
            place: self.means.templates.render(template, message.data, resources, recipient)
            for target in targets
            for place, recipient, resources in self._places(stock, message, target)
        }
        if not texts:
            named = ", ".join(map(label, targets))
            raise Permanent(f"no channel, person or webhook among {named}")
        token = secrets.get("slack_token")
        return [
            Parcel.to_one(f"slack {label(place)}", send, place, text.encode(), token)
            for place, text in texts.items()
        ]

    def _places(
        self, stock: SlackDelivery, message: Message, target: str
    ) -> Iterator[tuple[str, str, list[dict]]]:
        """Where a target leads to: the place (see `send`), its name for the template, and the
        resources that it hears of."""
        name, resources = target.removeprefix(SCHEME), message.data["resources"]
        if target.startswith("https://"):
            yield target, target, resources
        elif name.startswith("webhook/#"):
            if webhook := stock.config.get("slack_webhook"):
                yield webhook, name.removeprefix("webhook/#"), resources
        elif name.startswith("#"):
            yield name[1:], name[1:], resources
        elif name.startswith("tag/"):
            yield from self._tagged(stock, message, name.removeprefix("tag/"))
        elif name == "owners":
            found = self.means.addresses.get_emails_to_resources_map(message.data)
            for emails, theirs in found.items():
                for email, user in stock.retrieve_user_im([*emails]).items():
                    yield email, user, theirs
        elif ADDRESS.fullmatch(name):
            for email, user in stock.retrieve_user_im([name]).items():
                yield email, user, resources

    def _tagged(self, stock: SlackDelivery, message: Message, key: str):
        """Where the tag of the first resource leads to, when mailer.yml knows it."""
        tags = {tag["Key"]: tag["Value"] for one in message.data["resources"][:1]
                for tag in one.get("Tags") or []}  # fmt: skip
        value = tags.get(key, "")
        if ADDRESS.fullmatch(value) and self.means.known.address(value):
            yield from self._places(stock, message, SCHEME + value)
        elif self.means.known.target(channel := f"{SCHEME}#{value.removeprefix('#')}"):
            yield from self._places(stock, message, channel)


def send(place: str, body: bytes, token: str | None) -> None:
    """place: the address of a webhook, or what the body names as its channel."""
    if place.startswith(("https://", "http://")):
        post(place, body, JSON)
        return
    answer = said(post(API, body, JSON | {"Authorization": f"Bearer {token}"}))
    if answer.get("ok") is not True:
        reason = str(answer.get("error", "an answer that is not Slack's"))
        raise (Permanent if reason in WRONG else Temporary)(f"Slack: {reason}")
