"""What can go wrong with a delivery, and whether trying again can help."""

from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

AWS_ERRORS = (ClientError, BotoCoreError)  # what a call of boto3 raises
# Of an AWS service: the request itself is wrong, and will be wrong again.
REFUSED_CODES = {"NotFound", "InvalidParameter", "InvalidParameterValue", "MessageRejected"}
LONGEST = 300  # characters of an error that somebody else wrote


class Permanent(Exception):
    """Trying again gives the same: a person has to repair the message or the configuration."""


class Temporary(Exception):
    """Trying again later may help."""


@dataclass(frozen=True)
class Failure:
    """One target that did not get the message. `target` and `reason` are fit for a log."""

    target: str
    reason: str
    permanent: bool

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}"


def are_permanent(failures: list[Failure]) -> bool:
    """Whether trying again can help none of them."""
    return all(one.permanent for one in failures)


def failure(target: str, error: Exception) -> Failure:
    """An exception as a Failure. What is not of the network or of AWS is of the message."""
    return Failure(target, describe(error), is_permanent(error))


def is_permanent(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in REFUSED_CODES
    # smtplib's and requests' exceptions are OSErrors.
    return not isinstance(error, (Temporary, OSError, BotoCoreError))


def describe(error: Exception) -> str:
    """An exception in one line, without its traceback."""
    text = one_line(error)
    if isinstance(error, (Permanent, Temporary)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: object, longest: int = LONGEST) -> str:
    """Text that somebody else wrote, on one line, without control characters, not too long."""
    # Some more than fits, since white space shrinks; of megabytes nobody needs every letter.
    line = "".join(c if c.isprintable() else " " for c in str(text)[: longest * 10])
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
