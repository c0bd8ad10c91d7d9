"""The SQS double: who may send and receive, and queues as event source of Lambda functions.

moto invokes functions through Docker, inside of SendMessage. Here a thread for each event source
mapping takes messages off the queue with the function's own role, as Lambda does, invokes the
function, and deletes what it did not report as failed. Where this differs from Lambda: one batch at
a time, no batching window, no filter, no slowing down when the function fails, and a message that
has become visible again is noticed after INTERVAL.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from unittest import mock

from moto.awslambda.models import EventSourceMapping, LambdaBackend, lambda_backends
from moto.sqs.exceptions import ReceiptHandleIsInvalid, SQSException
from moto.sqs.models import DEFAULT_SENDER_ID, Message, SQSBackend, sqs_backends
from moto.sqs.responses import SQSResponse

from . import policies

# The calls that a queue's policy may be about -> what IAM calls them.
ENFORCED = {
    "send_message": "sqs:SendMessage",
    "send_message_batch": "sqs:SendMessage",
    "receive_message": "sqs:ReceiveMessage",
    "delete_message": "sqs:DeleteMessage",
    "change_message_visibility": "sqs:ChangeMessageVisibility",
    "get_queue_attributes": "sqs:GetQueueAttributes",
}
# moto's own is what SNS has been seen to have: AIDA...
SENDER = contextvars.ContextVar("SENDER", default=DEFAULT_SENDER_ID)
INTERVAL = 0.1  # seconds between two looks at a queue where nothing new has come
LOGGER = logging.getLogger(__name__)


def old_messages_are_held():
    """ChangeMessageVisibility of a message that was sent long ago.

    moto refuses what would be hidden later than 12 hours after it was sent, which for an older one
    is always. With SQS the 12 hours begin when it was received; that limit is not modelled.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
    """

    def change_message_visibility(self, queue_name, receipt_handle, visibility_timeout):
        queue = self.get_queue(queue_name)
        for message in queue._messages:
            if message.had_receipt_handle(receipt_handle):
                message.change_visibility(visibility_timeout)
                if message.visible and message in queue.pending_messages:
                    queue.pending_messages.remove(message)
                return
        raise ReceiptHandleIsInvalid

    return mock.patch.object(SQSBackend, "change_message_visibility", change_message_visibility)


def queues_have_policies():
    """The calls in ENFORCED are refused where the queue's policy says so, and reach the queue of
    the account that the URL names.

    moto enforces no policy, takes the caller's queue of that name, and says one SenderId for all.
    SQS has the id of the role with its session for a role, AROA...:session. SQS: within an account
    an identity's own policy suffices, which callers are taken to have; of another account the
    queue's has to allow it as well.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-using-identity-based-policies.html
    """

    def owner(response) -> str:
        _, _, account_id = (
            (response._get_param("QueueUrl") or "").rpartition("/")[0].rpartition("/")
        )
        return account_id if account_id.isdigit() else response.current_account

    def enforced(name: str, action: str):
        original = getattr(SQSResponse, name)

        @functools.wraps(original)
        def call(self):
            account_id = owner(self)
            queue = self.sqs_backend.queues.get(self._get_queue_name())
            if queue is not None:
                request = policies.called(self, action, queue.queue_arn)
                if not policies.admits(queue.policy, request, account_id):
                    raise SQSException(
                        "AccessDenied",
                        f"User: {request.principal} is not authorized to perform: {action} on "
                        f"resource: {queue.queue_arn}: its policy does not allow it",
                    )
            token = SENDER.set(policies.user_id(self) or DEFAULT_SENDER_ID)
            try:
                return original(self)
            finally:
                SENDER.reset(token)

        return mock.patch.object(SQSResponse, name, call)

    made = Message.__init__

    def make(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.sender_id = SENDER.get()

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Message, "__init__", make))
    backend = property(lambda self: sqs_backends[owner(self)][self.region])
    stack.enter_context(mock.patch.object(SQSResponse, "sqs_backend", backend))
    for name, action in ENFORCED.items():
        stack.enter_context(enforced(name, action))
    return stack


@contextlib.contextmanager
def feeding_from_queues(invoke: Callable, client: Callable) -> Iterator[None]:
    """Have event source mappings of queues work, for as long as the context lasts.

    invoke: `LambdaService.invoke`. client: `(service, account_id, region, role ARN)` -> a boto3
    client.
    """
    create = LambdaBackend.create_event_source_mapping
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def create_event_source_mapping(self, spec):
        mapping = create(self, spec)
        queue = sqs_backends[mapping.account_id][mapping.region].queues.get(
            mapping.event_source_arn.split(":")[5]
        )
        if queue is not None and mapping.event_source_arn.split(":")[2] == "sqs":
            queue.lambda_event_source_mappings.clear()  # moto's own way of delivering
            thread = threading.Thread(
                target=_feed, args=(mapping, queue, invoke, client, ended), daemon=True
            )
            threads.append(thread)
            thread.start()
        return mapping

    LambdaBackend.create_event_source_mapping = create_event_source_mapping
    try:
        yield
    finally:
        LambdaBackend.create_event_source_mapping = create
        ended.set()
        for thread in threads:
            thread.join(timeout=1)  # a function that still runs is killed after this


def _feed(mapping: EventSourceMapping, queue, invoke: Callable, client: Callable, ended) -> None:
    """Until the mapping is gone, or `ended`."""
    account_id, region = mapping.account_id, mapping.region
    url = f"https://sqs.{region}.amazonaws.com/{account_id}/{queue.name}"
    while not ended.is_set():
        backend = lambda_backends[account_id][region]
        if backend.get_event_source_mapping(mapping.uuid) is not mapping:
            return
        queue.wait_for_messages(INTERVAL)
        name = mapping.function_arn.split(":")[6]
        functions = [one for one in backend.list_functions() if one.function_name == name]
        if not mapping.enabled or not queue.messages or not functions:
            continue  # without its function a mapping does nothing
        (function,) = functions
        sqs = client("sqs", account_id, region, function.role)
        try:
            messages = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(mapping.batch_size, 10),
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if not messages:
                continue
            event = {"Records": [as_record(one, mapping) for one in messages]}
            invocation = invoke(function.function_name, event, account_id, region)
            for message in _delivered(messages, invocation, mapping):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        except Exception as error:  # noqa: BLE001  Lambda goes on, and so does this
            if not ended.is_set():
                LOGGER.warning("%s: %s", mapping.event_source_arn, error)
                ended.wait(INTERVAL)


def as_record(message: dict, mapping: EventSourceMapping) -> dict:
    """A message of ReceiveMessage as it stands in Lambda's event."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {
            name: {key[0].lower() + key[1:]: item for key, item in value.items()}
            | {"stringListValues": [], "binaryListValues": []}
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": mapping.event_source_arn,
        "awsRegion": mapping.region,
    }


def _delivered(messages: list[dict], invocation, mapping: EventSourceMapping) -> list[dict]:
    """The messages that Lambda deletes after an invocation."""
    if invocation.error:
        return []
    if "ReportBatchItemFailures" not in (mapping.function_response_types or []):
        return messages
    failures = (invocation.result or {}).get("batchItemFailures") or []
    failed = [failure.get("itemIdentifier") for failure in failures]
    known = {message["MessageId"] for message in messages}
    if not all(failed) or not set(failed) <= known:
        return []  # an answer that Lambda does not understand fails the whole batch
    return [message for message in messages if message["MessageId"] not in failed]
