"""The call log: every AWS API call that reaches the simulated cloud, and faults on purpose.

moto answers every call of every service through one method, `BaseResponse.call_action`. It is
wrapped here, so that operation, account, caller and parameters are those that moto itself
understood, whatever the protocol (query, JSON, REST). S3 is the exception: moto dispatches it on
its own, so of its calls those in `OF_S3` alone are logged and can be made to fail.

Hooks run in the thread of the request, before moto sees it. They may make calls of their own.
"""

import contextlib
import functools
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from unittest import mock

from moto.core.exceptions import ServiceException
from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS, XFormedDict
from moto.core.request import determine_request_protocol
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import get_service_model
from moto.s3.responses import S3Response

ACCESS_KEY = re.compile(r'<AccessKeyId>([^<]+)</AccessKeyId>|"AccessKeyId":\s*"([^"]+)"')
# moto's dictionaries are shared by all threads, and one that changes while another reads it is an
# error 500, which AWS does not give. So these are answered one at a time; those of a group work on
# the same ones. None makes a call while it is answered, as Lambda's Invoke does: none waits for
# itself.
ONE_AT_A_TIME = (("ec2", "autoscaling", "elb", "elbv2"), ("iam",), ("events",))
OF_S3 = ("get_object", "put_object", "list_objects_v2", "list_object_versions")
ERROR_CODE = re.compile(r'<Code>([^<]+)</Code>|"__type":\s*"(?:[^"#]*#)?([^"]+)"')


class ApiError(ServiceException):
    """An error that a hook answers with instead of moto, in the protocol of the call.

    `code` and `message` are AWS's, `status` is the HTTP status. botocore retries by code
    (throttling) and by status (500, 502, 503, 504).
    """

    def __init__(self, code: str, message: str | None = None, status: int = 400):
        super().__init__(code, message or f"{code}, on purpose of the simulation")
        self.status = status


@dataclass
class Call:
    """One API call.

    `caller` is the name of a Lambda function, or of the role that the access key was issued for,
    or the access key itself. `started` and `duration` are in seconds of the monotonic clock.
    `parameters` are shaped as boto3 takes them; {} where moto cannot parse them. `status` and
    `error_code` are None until the call has been answered; `injected` says that a hook answered.
    """

    service: str
    operation: str
    account_id: str
    region: str
    access_key: str
    caller: str
    parameters: dict
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.monotonic)
    duration: float | None = None
    status: int | None = None
    error_code: str | None = None
    injected: bool = False

    def __str__(self) -> str:
        outcome = self.error_code or self.status
        return f"{self.caller} {self.service}:{self.operation} {outcome}"


Callback = Callable[[Call], object]


@dataclass
class Hook:
    """What happens before a call is answered; it goes away after `times` (None: stays)."""

    operation: str
    callback: Callback
    when: Callback | None
    times: int | None
    skip: int

    def take(self, call: Call) -> bool:
        """True when this hook applies to the call; counts it."""
        names = (call.operation, f"{call.service}:{call.operation}", f"{call.service}:*")
        if self.operation not in names:
            return False
        if self.times == 0 or (self.when and not self.when(call)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class CallLog:
    """The log, its subscribers and the hooks. `calls` is in the order in which calls ended."""

    def __init__(self):
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        locks = [dict.fromkeys(services, threading.Lock()) for services in ONE_AT_A_TIME]
        self._answering = {name: lock for each in locks for name, lock in each.items()}
        self._callers: dict[str, str] = {}
        self._hooks: list[Hook] = []
        self._subscribers: list[Callback] = []

    def clear(self) -> None:
        """Forget calls and hooks; names of callers and subscribers stay."""
        with self._lock:
            self.calls.clear()
            self._hooks.clear()

    def name(self, access_key: str, caller: str) -> None:
        """From now on calls signed with this key are by `caller`."""
        self._callers[access_key] = caller

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Have `callback(call)` called after each call. Returns a function that ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def before(
        self,
        operation: str,
        callback: Callback,
        when: Callback | None = None,
        times: int | None = 1,
        skip: int = 0,
    ) -> Hook:
        """Have `callback(call)` run before moto answers.

        operation: `ModifyNetworkInterfaceAttribute`, or with its service `ec2:...`, or `ec2:*`.
        callback: what it returns is ignored, but for an ApiError, which becomes the answer. To
        have a function die before a call takes effect, kill it and return an ApiError.
        when: a predicate of the call. times: how often; None means always. skip: let that many
        matching calls pass first.
        """
        hook = Hook(operation, callback, when, times, skip)
        with self._lock:
            self._hooks.append(hook)
        return hook

    def fail(
        self, operation: str, code: str, message: str | None = None, status: int = 400, **options
    ) -> Hook:
        """Answer the next call (or `times` calls) of this operation with an error.

        The options are those of `before`. botocore retries throttling and 5xx by itself: mind
        that one call of the client may be several here.
        """
        return self.before(operation, lambda call: ApiError(code, message, status), **options)

    def throttle(self, service: str, rate: float, when: Callback | None = None) -> Hook:
        """From now on refuse all but `rate` calls a second of a service, as EC2 does.

        A bucket holds `rate` calls and is filled at that rate.
        https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
        """
        left, filled, lock = rate, time.monotonic(), threading.Lock()

        def take(_):
            nonlocal left, filled
            with lock:
                now = time.monotonic()
                left, filled = min(rate, left + (now - filled) * rate), now
                if left < 1:
                    return ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)
                left -= 1
                return None

        return self.before(f"{service}:*", take, when=when, times=None)

    def remove(self, hook: Hook) -> None:
        """Take a hook off before it is used up."""
        with self._lock:
            self._hooks.remove(hook)

    def by(self, caller: str) -> list[Call]:
        """The calls of one caller: a Lambda function's name or a role's."""
        return [call for call in self.calls if call.caller == caller]

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Log moto's calls for as long as the context lasts."""
        answer = BaseResponse.call_action

        def call_action(response: BaseResponse):
            return self._handle(response, answer)

        BaseResponse.call_action = call_action
        try:
            with mock.patch.multiple(S3Response, **{of: self._of_s3(of) for of in OF_S3}):
                yield
        finally:
            BaseResponse.call_action = answer

    def _of_s3(self, name: str) -> Callable:
        """A method of moto's S3, which does not go by way of call_action, with its call logged."""
        method = getattr(S3Response, name)

        def handled(response: S3Response, *arguments):
            operation = "".join(map(str.capitalize, name.split("_")))
            return self._handle(response, lambda one: method(one, *arguments), operation)

        return functools.wraps(method)(handled)

    def _handle(self, response: BaseResponse, answer: Callable, operation: str | None = None):
        call = Call(
            service=response.boto3_service_name,
            operation=operation or response._get_action() or "?",
            account_id=response.current_account,
            region=response.region,
            access_key=response.access_key,
            caller=self._callers.get(response.access_key, response.access_key),
            parameters=_parameters(response),
        )
        try:
            error = self._run_hooks(call)
            if error:
                call.injected = True
                status = error.status
                with warnings.catch_warnings():
                    # moto remarks on codes that the service's model does not list, as most are not.
                    warnings.simplefilter("ignore")
                    _, headers, body = response.serialized(ActionResult(error))
                headers["status"] = str(status)
            else:
                with self._answering.get(call.service, contextlib.nullcontext()):
                    status, headers, body = answer(response)
            call.status = status
            if status >= 400:
                call.error_code = _first_group(ERROR_CODE, body) or str(status)
            elif call.operation.startswith("AssumeRole"):
                # Credentials that a function gets by assuming a role are still the function's.
                role = call.parameters.get("RoleArn", "").rpartition("/")[2]
                issued = _first_group(ACCESS_KEY, body)
                self._callers[issued] = self._callers.get(call.access_key, role)
            return status, headers, body
        except Exception as error:
            call.error_code = type(error).__name__
            raise
        finally:
            call.duration = time.monotonic() - call.started
            with self._lock:
                self.calls.append(call)
            for subscriber in list(self._subscribers):
                subscriber(call)

    def _run_hooks(self, call: Call) -> ApiError | None:
        with self._lock:
            due = [hook for hook in self._hooks if hook.take(call)]
        for hook in due:
            result = hook.callback(call)
            if isinstance(result, ApiError):
                return result
        return None


def _parameters(response: BaseResponse) -> dict:
    """The request's parameters as boto3 would take them."""
    parsed = getattr(response, "params", None)
    if parsed is None:
        try:
            service = get_service_model(response.boto3_service_name)
            operation = service.operation_model(response._get_action())
            parsed = _parse(response, service, operation)
        except Exception:  # noqa: BLE001  the log must never be why a call fails
            return {}
    if isinstance(parsed, XFormedDict):
        parsed = parsed.original_dict()
    return dict(parsed or {})


def _parse(response: BaseResponse, service, operation: OperationModel):
    request = response.normalized_request
    parser = PROTOCOL_PARSERS[determine_request_protocol(service, request.content_type)]
    return parser(operation, map_type=dict).parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": request.data,
            "url_path": request.path,
            "url_params": response.uri_match,
        }
    )


def _first_group(pattern: re.Pattern, body: str | bytes) -> str | None:
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
    found = pattern.search(text)
    return next((group for group in found.groups() if group), None) if found else None
