"""The SNS double: who may publish and subscribe, what is pending, what reaches a queue.

Each correction says what moto does and what SNS does, with its source. Nothing here was run
against AWS.
"""

import contextlib
import copy
import functools
import json
import logging
import secrets
from collections.abc import Iterator
from unittest import mock

from moto.core.responses import ActionResult
from moto.kms.models import kms_backends
from moto.moto_server.werkzeug_app import UNSIGNED_ACTIONS
from moto.sns.exceptions import SNSException, SNSInvalidParameter
from moto.sns.models import SNSBackend, Subscription, sns_backends
from moto.sns.responses import SNSResponse
from moto.sqs.models import Queue, sqs_backends

from . import policies
from .organizations import organization_of

LOGGER = logging.getLogger(__name__)
SERVICE = "sns.amazonaws.com"
# Those that SNS delivers from to other regions:
# https://docs.aws.amazon.com/sns/latest/dg/sns-cross-region-delivery.html
OPT_IN = {
    *("af-south-1", "ap-east-1", "ap-south-2", "ap-southeast-3", "ap-southeast-4", "ca-west-1"),
    *("eu-central-2", "eu-south-1", "eu-south-2", "il-central-1", "me-central-1", "me-south-1"),
}


class AuthorizationError(SNSException):
    code = "AuthorizationError"


@contextlib.contextmanager
def corrected_sns() -> Iterator[None]:
    """Apply the corrections until the end of the block."""
    with (
        topics_have_policies(),
        topics_know_all_their_subscriptions(),
        subscriptions_across_accounts_are_pending(),
        pending_subscriptions_are_listed_as_such(),
        queues_get_what_their_policies_admit(),
    ):
        yield


def topics_have_policies():
    """Publish and Subscribe are refused where the topic's policy says so.

    moto enforces no policy. SNS: within an account an identity's own policy suffices, which
    callers are taken to have; of another account the topic's has to allow it as well.
    https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-language-evaluation-logic.html
    """

    def enforced(name: str, action: str):
        original = getattr(SNSResponse, name)

        @functools.wraps(original)
        def call(self):
            arn = self._get_param("TopicArn") or self._get_param("TargetArn")
            topic = _topic(arn)
            request = policies.called(self, action, arn)
            # Another name of aws:SourceAccount, in the policy that a topic has at first.
            owner = request.context["aws:PrincipalAccount"]
            request.context["AWS:SourceOwner"] = owner
            if topic and not policies.admits(topic.policy, request, topic.account_id):
                raise AuthorizationError(
                    f"User: {request.principal} is not authorized to perform: {action} on "
                    f"resource: {arn}: its policy does not allow it"
                )
            return original(self)

        return mock.patch.object(SNSResponse, name, call)

    stack = contextlib.ExitStack()
    stack.enter_context(enforced("publish", "SNS:Publish"))
    stack.enter_context(enforced("publish_batch", "SNS:Publish"))
    stack.enter_context(enforced("subscribe", "SNS:Subscribe"))
    return stack


def topics_know_all_their_subscriptions():
    """A topic delivers to subscriptions that other accounts have made too, and lists them.

    moto looks for them in the topic's own account.
    """

    def _get_topic_subscriptions(self, topic):
        region = topic.sns_backend.region_name
        return [
            subscription
            for account in list(sns_backends)
            for subscription in sns_backends[account][region].subscriptions.values()
            if subscription.topic is topic
        ]

    return mock.patch.object(SNSBackend, "_get_topic_subscriptions", _get_topic_subscriptions)


def subscriptions_across_accounts_are_pending():
    """Who subscribes a queue of another account waits for that account to confirm it.

    In moto every subscription is confirmed. SNS sends the queue a message with a token; whoever
    owns the queue subscribes it without that.
    https://docs.aws.amazon.com/sns/latest/dg/sns-send-message-to-sqs-cross-account.html
    ConfirmSubscription needs a signature only for AuthenticateOnUnsubscribe:
    https://docs.aws.amazon.com/sns/latest/api/API_ConfirmSubscription.html
    """
    subscribe, respond = SNSBackend.subscribe, SNSResponse.subscribe

    def subscribe_or_ask(self, topic_arn, endpoint, protocol):
        known = set(self.subscriptions)
        subscription = subscribe(self, topic_arn, endpoint, protocol)
        if protocol == "sqs" and subscription.arn not in known:
            subscription.account_id = endpoint.split(":")[4]
            if subscription.account_id != self.account_id:
                subscription.token = secrets.token_hex(64)
                subscription.attributes |= {
                    "PendingConfirmation": "true",
                    "ConfirmationWasAuthenticated": "false",
                }
        if _is_pending(subscription):
            _ask(subscription)
        return subscription

    def answer(self):
        result = respond(self)
        made = self.backend.subscriptions[result.result["SubscriptionArn"]]
        if _is_pending(made) and self._get_param("ReturnSubscriptionArn") not in (True, "true"):
            return ActionResult({"SubscriptionArn": "pending confirmation"})
        return result

    def confirm_subscription(self):
        arn, token = self._get_param("TopicArn"), self._get_param("Token")
        for subscription in _of(_topic(arn)):
            if getattr(subscription, "token", None) == token:
                authenticated = self._get_param("AuthenticateOnUnsubscribe") in (True, "true")
                subscription.attributes |= {
                    "PendingConfirmation": "false",
                    "ConfirmationWasAuthenticated": str(authenticated).lower(),
                }
                return ActionResult({"SubscriptionArn": subscription.arn})
        raise SNSInvalidParameter("Invalid parameter: Token")

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(SNSBackend, "subscribe", subscribe_or_ask))
    responses = {"subscribe": answer, "confirm_subscription": confirm_subscription}
    stack.enter_context(mock.patch.multiple(SNSResponse, **responses))
    # moto's server knows no unsigned call of SNS; the region is that of the topic anyway.
    unsigned = {"ConfirmSubscription": ("sns", "us-east-1")}
    stack.enter_context(mock.patch.dict(UNSIGNED_ACTIONS, unsigned))
    return stack


def pending_subscriptions_are_listed_as_such():
    """A subscription that is not confirmed is listed without its ARN.

    moto has none. SNS: `SubscriptionArn` is `PendingConfirmation`.
    https://docs.aws.amazon.com/sns/latest/api/API_ListSubscriptions.html (examples; reported)
    """
    stack = contextlib.ExitStack()
    for name in ("list_subscriptions", "list_subscriptions_by_topic"):
        original = getattr(SNSResponse, name)

        def listing(self, original=original):
            answer = original(self)
            answer.result["Subscriptions"] = [
                {
                    "SubscriptionArn": "PendingConfirmation",
                    "Owner": one.owner,
                    "Protocol": one.protocol,
                    "Endpoint": one.endpoint,
                    "TopicArn": one.topic_arn,
                }
                if _is_pending(one)
                else one
                for one in answer.result["Subscriptions"]
            ]
            return answer

        stack.enter_context(mock.patch.object(SNSResponse, name, listing))
    return stack


def queues_get_what_their_policies_admit():
    """SNS delivers to a queue when its policy, and that of its key, let SNS do so for the topic.

    moto delivers always, and looks for the queue in the topic's account. What SNS cannot deliver
    goes to the dead-letter queue of the subscription, or is lost.
    https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html
    https://docs.aws.amazon.com/sns/latest/dg/sns-dead-letter-queues.html
    """
    publish = Subscription.publish

    def deliver(self, *args, **kwargs):
        if self.protocol != "sqs":
            return publish(self, *args, **kwargs)
        if _is_pending(self):
            return None
        targets = [self]
        redrive = self.attributes.get("RedrivePolicy")
        if redrive:
            targets.append(copy.copy(self))
            targets[1].endpoint = json.loads(redrive)["deadLetterTargetArn"]
            targets[1].account_id = targets[1].endpoint.split(":")[4]
        for target in targets:
            if refused := _refusal(target):
                LOGGER.warning("SNS cannot deliver: %s", refused)
                continue
            return publish(target, *args, **kwargs)
        return None

    return mock.patch.object(Subscription, "publish", deliver)


def principal(topic_region: str, queue_region: str) -> str:
    """What SNS is called when it delivers from one region to another: the opt-in region has its
    own SNS. https://docs.aws.amazon.com/sns/latest/dg/sns-cross-region-delivery.html"""
    if topic_region == queue_region:
        return SERVICE
    for region in (queue_region, topic_region):
        if region in OPT_IN:
            return f"sns.{region}.amazonaws.com"
    return SERVICE


def _refusal(subscription: Subscription) -> str | None:
    """Why SNS cannot put a message of a subscription on its queue."""
    _, _, _, region, account, name = subscription.endpoint.split(":")
    queue = sqs_backends[account][region].queues.get(name)
    if queue is None:
        return f"there is no queue {subscription.endpoint}"
    topic = subscription.topic
    between = {region, topic.sns_backend.region_name}
    if len(between) == 2 and between <= OPT_IN:
        return f"SNS does not deliver from one opt-in region to another: {subscription.endpoint}"
    organization = organization_of(topic.account_id)
    context = {"aws:SourceArn": topic.arn, "aws:SourceAccount": topic.account_id}
    context |= {"aws:SourceOrgID": organization} if organization else {}
    service = principal(topic.sns_backend.region_name, region)
    request = policies.Request("sqs:SendMessage", queue.queue_arn, service, context)
    if not policies.admits(queue.policy, request, account):
        return f"the policy of {queue.queue_arn} does not admit {service} for {topic.arn}"
    return _refusal_of_key(queue, service, context)


def _refusal_of_key(queue: Queue, service: str, context: dict) -> str | None:
    """Why SNS cannot use the key of a queue. The policy of the key alias/aws/sqs, which nobody can
    change, names no service.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
    """
    if not queue.kms_master_key_id:
        return None
    backend = kms_backends[queue.account_id][queue.region]
    name = queue.kms_master_key_id
    key = backend.keys.get(backend.any_id_to_key_id(name))
    if key is None:
        return f"{queue.queue_arn}: there is no key {name} that SNS may use"
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        request = policies.Request(action, key.arn, service, context)
        if policies.effect(key.policy, request) != "Allow":
            return f"the policy of {key.arn} does not allow {service} {action}"
    return None


def _ask(subscription: Subscription) -> None:
    """The message that asks the queue's account to confirm."""
    if refused := _refusal(subscription):
        LOGGER.warning("SNS cannot ask for the confirmation: %s", refused)
        return
    topic = subscription.topic
    _, _, _, region, account, queue = subscription.endpoint.split(":")
    message = subscription.get_post_data(
        f"You have chosen to subscribe to the topic {topic.arn}.\nTo confirm the subscription, "
        "visit the SubscribeURL included in this message.",
        secrets.token_hex(16),
        "",
    ) | {"Type": "SubscriptionConfirmation", "Token": subscription.token}
    del message["UnsubscribeURL"]
    message["SubscribeURL"] = (
        f"https://sns.{topic.sns_backend.region_name}.amazonaws.com/?Action=ConfirmSubscription"
        f"&TopicArn={topic.arn}&Token={subscription.token}"
    )
    sqs_backends[account][region].send_message(queue, json.dumps(message))


def _is_pending(subscription: Subscription) -> bool:
    return subscription.attributes.get("PendingConfirmation") == "true"


def _topic(arn: str | None):
    parts = (arn or "").split(":")
    if len(parts) != 6:
        return None
    return sns_backends[parts[4]][parts[3]].topics.get(arn)


def _of(topic) -> list[Subscription]:
    return topic.sns_backend._get_topic_subscriptions(topic) if topic else []
