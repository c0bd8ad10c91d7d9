"""SNS: the ARN of a topic in a policy's `to`. Its subscribers get the text of the mail.

Only topics that a policy names and mailer.yml lists: c7n_mailer also takes them from tags of the
instance, by which whoever may tag an instance could lead findings into an account of their own.

Permission: sns:Publish, see topics.py.
"""

from ..message import Message
from ..text import as_text
from ..topics import ARN, Topics
from ..transport import Means, Parcel, Transport

SUBJECT = 100  # characters; SNS refuses longer ones, and any that is not ASCII


class Sns(Transport):
    """Topics in `recipients` of mailer.yml, whose `cross_accounts` has the roles for those of
    other accounts."""

    name = "sns"

    def __init__(self, means: Means):
        super().__init__(means)
        self._topics = Topics(means.config, means.session)

    def accepts(self, target: str) -> bool:
        return bool(ARN.fullmatch(target))

    def parcels(self, message: Message, targets: list[str]) -> list[Parcel]:
        """One for each topic; Permanent when there is no such template."""
        data, template = message.data, message.template
        text = self.means.templates.render(template, data, data["resources"], targets[0])
        if template.endswith("html"):
            text = as_text(text)
        subject = message.subject[:SUBJECT].encode("ascii", "replace").decode()
        return [Parcel.to_one(topic, self._publish, topic, text, subject) for topic in targets]

    def _publish(self, topic: str, text: str, subject: str) -> None:
        self._topics.publish(topic, text, Subject=subject)
