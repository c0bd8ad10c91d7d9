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
    UNTOUCHED = "Nothing was changed."

    def show(self, file=None):
        click.echo(f"{self.message} {self.UNTOUCHED}", err=True)


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
    "ResourceConflictException": "somebody else changes it: wait a minute, then again",
}


# errors whose words say all
OURS = (click.ClickException, PolicyExecutionError, PolicyValidationError, ValueError)


def printable(text):
    """Text of AWS, a tag or a finding, without what a terminal would take for a command."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text))


def reason(error):
    """One line about an error of AWS or botocore: the operation, AWS's words, what it means."""
    if isinstance(error, click.ClickException):  # of this package, for people
        said = error.message
    elif isinstance(error, NoCredentialsError):
        said = "no AWS credentials: log in, or set AWS_PROFILE"
    elif isinstance(error, ProfileNotFound):
        said = f"{error}: see `aws configure list-profiles`"
    elif isinstance(error, EndpointConnectionError):
        said = f"{error} Is the region spelt right, and is there a network?"
    elif isinstance(error, ClientError):
        code, message = (error.response["Error"].get(key, "") for key in ("Code", "Message"))
        meant = f" ({MEANING[code]})" if code in MEANING else ""
        said = f"{error.operation_name}: {code}: {message}{meant}"
    else:
        said = str(error) if isinstance(error, OURS) else f"{type(error).__name__}: {error}"
    return printable(" ".join(said.split()))
