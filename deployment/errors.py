"""What is said when something can't be done."""

import click
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
)
from c7n.exceptions import PolicyExecutionError, PolicyValidationError


class Refused(click.ClickException):
    """Nothing was changed, and why. Exit code 2, as for wrong options."""

    exit_code = 2

    def show(self, file=None):
        click.echo(f"{self.message} Nothing was changed.", err=True)


NOT_ENABLED = "not valid here: often a region that is not enabled in the account"
NO_STACK = "deploy infra/account.yml here first"
# What AWS's codes mean here, and what to do.
MEANING = {
    "ExpiredToken": "the credentials have expired: log in again",
    "ExpiredTokenException": "the credentials have expired: log in again",
    "InvalidClientTokenId": NOT_ENABLED,
    "UnrecognizedClientException": NOT_ENABLED,
    "AuthFailure": NOT_ENABLED,
    "OptInRequired": "the region or the service is not enabled in the account",
    "AWS.SimpleQueueService.NonExistentQueue": NO_STACK,
    "QueueDoesNotExist": NO_STACK,
    "RegionDisabledException": "enable the region in the account",
}


# errors whose words say all
OURS = (click.ClickException, PolicyExecutionError, PolicyValidationError, ValueError)


def reason(error):
    """One line about an error of AWS or botocore: the operation, AWS's words, what it means."""
    if isinstance(error, click.ClickException):  # of this package, for people
        return error.message
    if isinstance(error, NoCredentialsError):
        return "no AWS credentials: log in, or set AWS_PROFILE"
    if isinstance(error, ProfileNotFound):
        return f"{error}: see `aws configure list-profiles`"
    if isinstance(error, EndpointConnectionError):
        return f"{error} Is the region spelt right, and is there a network?"
    if isinstance(error, ClientError):
        code, message = (error.response["Error"].get(key, "") for key in ("Code", "Message"))
        meant = f" ({MEANING[code]})" if code in MEANING else ""
        return " ".join(f"{error.operation_name}: {code}: {message}{meant}".split())
    named = "" if isinstance(error, OURS) else f"{type(error).__name__}: "
    return " ".join(f"{named}{error}".split())
