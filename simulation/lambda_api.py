"""The API of Lambda: where moto 5.2.5 forgets or accepts what Lambda keeps or refuses.

The rule is that of simulation/ec2.py: each correction says what moto does, what AWS does and the
source. How functions run is the business of `lambda_service`.
"""

import contextlib
import json
from collections.abc import Iterator
from unittest import mock
from urllib.parse import unquote

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend, LambdaFunction, LambdaStorage
from moto.awslambda.policy import Policy
from moto.awslambda.responses import LambdaResponse
from moto.awslambda.urls import url_paths

from .lambda_service import TooManyRequests


class ResourceConflict(LambdaClientError):
    code = 409


class UnknownFunction(LambdaClientError):
    code = 404


class Throttled(LambdaClientError):
    code = 429


@contextlib.contextmanager
def corrected_lambda() -> Iterator[None]:
    """Apply the corrections until the end of the block."""
    with (
        kept_dead_letter_config(),
        zero_concurrency_is_shown(),
        permissions_are_given_once(),
        versions_go_with_the_function(),
    ):
        yield


def invoked_by_api(service) -> contextlib.AbstractContextManager:
    """Invoke runs the function in the simulation; moto would start Docker.

    service: `LambdaService`. Synchronous, or as `Event`; not `DryRun`, no log in the answer.
    https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
    """

    def invoke(self, function_name, qualifier, body, headers, response_headers):
        name, where = function_name.split(":")[-1], (self.account_id, self.region_name)
        if all(one.function_name != name for one in self.list_functions()):
            raise UnknownFunction("ResourceNotFoundException", f"Function not found: {name}")
        event = json.loads(body or "{}")
        if headers.get("X-Amz-Invocation-Type") == "Event":
            service.invoke_later(name, event, *where)
            return ""
        try:
            invocation = service.invoke(name, event, *where)
        except TooManyRequests as error:
            raise Throttled("TooManyRequestsException", str(error)) from None
        if invocation.error:
            response_headers["x-amz-function-error"] = "Unhandled"
        return json.dumps(invocation.error or invocation.result)

    return mock.patch.object(LambdaBackend, "invoke", invoke)


def zero_concurrency_is_shown():
    """GetFunction shows a reserved concurrency of 0, which moto takes for none.

    https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
    """
    show = LambdaFunction.get_code

    def get_code(self):
        shown = show(self)
        if self.reserved_concurrency == 0:
            shown["Concurrency"] = {"ReservedConcurrentExecutions": 0}
        return shown

    return mock.patch.object(LambdaFunction, "get_code", get_code)


def permissions_are_given_once():
    """AddPermission is refused for a statement id that the policy has; moto adds a second one.

    https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
    """
    add = Policy.add_statement

    def add_statement(self, raw, qualifier=None):
        name = json.loads(raw).get("StatementId")
        if any(statement.get("Sid") == name for statement in self.statements):
            raise ResourceConflict(
                "ResourceConflictException",
                f"The statement id ({name}) provided already exists. Please provide a new "
                "statement id, or remove the existing statement.",
            )
        return add(self, raw, qualifier)

    return mock.patch.object(Policy, "add_statement", add_statement)


def versions_go_with_the_function():
    """DeleteFunction without a version deletes all of them; moto stumbles (500) where the code was
    updated before. https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunction.html
    """
    delete = LambdaStorage.del_function

    def del_function(self, name_or_arn, qualifier=None):
        if qualifier:
            return delete(self, name_or_arn, qualifier)
        name = self.get_function_by_name_or_arn_with_qualifier(name_or_arn).function_name
        for arn in [arn for arn, known in self._arns.items() if known.function_name == name]:
            del self._arns[arn]
        del self._functions[name]
        return None

    return mock.patch.object(LambdaStorage, "del_function", del_function)


@contextlib.contextmanager
def kept_dead_letter_config() -> Iterator[None]:
    """Have moto keep `DeadLetterConfig`, which it takes and forgets."""
    create, update, show = (
        LambdaFunction.__init__,
        LambdaFunction.update_configuration,
        LambdaFunction.get_configuration,
    )

    def __init__(self, account_id, spec, *args, **kwargs):
        create(self, account_id, spec, *args, **kwargs)
        self.dead_letter_config = spec.get("DeadLetterConfig") or {}

    def update_configuration(self, config_updates):
        if "DeadLetterConfig" in config_updates:
            self.dead_letter_config = config_updates["DeadLetterConfig"] or {}
        return update(self, config_updates)

    def get_configuration(self, *args, **kwargs):
        configuration = show(self, *args, **kwargs)
        if self.dead_letter_config:
            configuration["DeadLetterConfig"] = self.dead_letter_config
        return configuration

    LambdaFunction.__init__ = __init__
    LambdaFunction.update_configuration = update_configuration
    LambdaFunction.get_configuration = get_configuration
    try:
        yield
    finally:
        LambdaFunction.__init__ = create
        LambdaFunction.update_configuration = update
        LambdaFunction.get_configuration = show


# moto does not know the recursion configuration. It lists what it answers for once in a process,
# so this is there from the import on.
# https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionRecursionConfig.html


def put_function_recursion_config(self):
    function = _named(self)
    function.recursive_loop = self._get_param("RecursiveLoop")
    return 200, {}, json.dumps({"RecursiveLoop": function.recursive_loop})


def get_function_recursion_config(self):
    loop = getattr(_named(self), "recursive_loop", "Terminate")
    return 200, {}, json.dumps({"RecursiveLoop": loop})


def _named(response: LambdaResponse) -> LambdaFunction:
    return response.backend.get_function(unquote(response.path.rsplit("/", 2)[-2]))


LambdaResponse.put_function_recursion_config = put_function_recursion_config
LambdaResponse.get_function_recursion_config = get_function_recursion_config
url_paths[
    r"{0}/(?P<api_version>[^/]+)/functions/(?P<function_name>[\w_:%-]+)/recursion-config$"
] = LambdaResponse.dispatch
