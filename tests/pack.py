"""The pack deployed to the simulated cloud, and its mails before the mailer has them."""

import base64
import contextlib
import json
import logging
import re
import zlib
from dataclasses import dataclass

from c7n_mailer.sqs_queue_processor import MailerSqsQueueIterator

from deployment.template import look
from simulation.cloud import Cloud

ACCOUNT, REGION = "111122223333", "us-west-2"
# The parameters of infra/account.yml with which it has the roles of all opt-in policies.
OPT_IN = {
    name: "yes"
    for name, said in look("account.yml")["Parameters"].items()
    if "policies/opt-in/" in said.get("Description", "")
}
RECENT = re.compile(r"begun=20(?!01)\d\d")


@dataclass
class Pack:
    cloud: Cloud
    queue_url: str

    def restore(self):
        self.cloud.wait_idle()
        self.cloud.call_log.clear()  # faults too
        self.an_hour_passes()
        self.cloud.call_log.clear()
        self.cloud.invocations.clear()
        self.messages()

    def an_hour_passes(self):
        """For the brake: what the forensic groups say of isolations was an hour ago."""
        ec2 = self.cloud.client("ec2", ACCOUNT, REGION)
        marked = [{"Name": "tag:forensic:group", "Values": ["true"]}]
        for group in ec2.describe_security_groups(Filters=marked)["SecurityGroups"]:
            tags = [tag for tag in group["Tags"] if RECENT.search(tag["Value"])]
            for tag in tags:
                tag["Value"] = RECENT.sub("begun=2001", tag["Value"])
            if tags:
                ec2.create_tags(Resources=[group["GroupId"]], Tags=tags)

    def isolate(self, event):
        """Invoke ec2-isolate once, as Lambda does for one try; the outcomes are in `.result`."""
        return self.cloud.invoke("custodian-ec2-isolate", event, ACCOUNT, REGION)

    def deliver(self, event):
        """Put the finding on the event bus and wait for everything that follows from it."""
        self.cloud.put_event(event)
        self.cloud.wait_idle()

    def messages(self):
        """Take the messages of `notify` off the mail queue, as the mailer would read them."""
        sqs = self.cloud.client("sqs", ACCOUNT, REGION)
        found = []
        for message in MailerSqsQueueIterator(sqs, self.queue_url, logging.getLogger(), timeout=0):
            found.append(unpack(message["Body"]))
            sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def dead_letters(self):
        sqs = self.cloud.client("sqs", ACCOUNT, REGION)
        url = sqs.get_queue_url(QueueName="guardduty-response-dlq")["QueueUrl"]
        got = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages", [])
        for message in got:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return got


def unpack(body):
    """A message of `notify` as it stands on the queue, wrapped by SNS or not."""
    with contextlib.suppress(ValueError):
        body = json.loads(body)["Message"]
    return json.loads(zlib.decompress(base64.b64decode(body)))
