"""The credentials that a finding names, checked before anything is done with them.

A finding's text fields are not trusted: what is not a well-formed id or name of IAM raises
PolicyExecutionError, so that nothing is changed. The caller compares what is left with what IAM
itself says about the role or user of that name.

Sources: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html (prefixes of
unique ids), https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html (lengths).
"""

import re
from dataclasses import dataclass

from c7n.exceptions import PolicyExecutionError

INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
ENTITY_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")  # of a role or a user
ROLE_ID = re.compile(r"AROA[A-Z0-9]{12,124}")
USER_KEY_ID = re.compile(r"AKIA[A-Z0-9]{12,124}")
TEMPORARY_KEY_ID = re.compile(r"ASIA[A-Z0-9]{12,124}")
# A real one is 32 hexadecimal digits; it becomes part of policy names and tag keys.
FINDING_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class RoleSession:
    """A session of a role: `principalId` of a finding is `<role_id>:<name>`."""

    role_name: str
    role_id: str
    name: str

    @property
    def instance_id(self):
        """The instance that EC2 made the session for, or None when it names no instance."""
        return self.name if INSTANCE_ID.fullmatch(self.name) else None


def role_session(event, account_id):
    """The role session that a finding of this account is about."""
    details = _details(event, account_id)
    if details.get("userType") != "AssumedRole":
        raise PolicyExecutionError(
            f"the finding is about a {details.get('userType')!r}, not about an AssumedRole"
        )
    role_id, colon, name = str(details.get("principalId")).partition(":")
    if not colon or not ROLE_ID.fullmatch(role_id):
        raise PolicyExecutionError(
            f"principalId {details.get('principalId')!r} is not a role id and a session name"
        )
    return RoleSession(_name(details, "role"), role_id, name)


@dataclass(frozen=True)
class UserKey:
    """A long-term access key of an IAM user: `principalId` of a finding is the user's id."""

    user_name: str
    user_id: str
    key_id: str


def user_key(event, account_id):
    """The access key that a finding of this account is about."""
    details = _details(event, account_id)
    if details.get("userType") != "IAMUser":
        raise PolicyExecutionError(
            f"the finding is about a {details.get('userType')!r}, not about an IAMUser"
        )
    key_id = str(details.get("accessKeyId"))
    if TEMPORARY_KEY_ID.fullmatch(key_id):
        raise PolicyExecutionError(
            f"{key_id} is a temporary key of the user; such a key cannot be deactivated"
        )
    if not USER_KEY_ID.fullmatch(key_id):
        raise PolicyExecutionError(f"{details.get('accessKeyId')!r} is not an access key id")
    return UserKey(_name(details, "user"), str(details.get("principalId")), key_id)


def finding_id(event):
    """The id of the finding, which is the name of its incident."""
    found = event["detail"].get("id")
    if not isinstance(found, str) or not FINDING_ID.fullmatch(found):
        raise PolicyExecutionError(f"{found!r} is not the id of a finding")
    return found


def _details(event, account_id):
    detail = event["detail"]
    if detail.get("accountId") != account_id:
        raise PolicyExecutionError(f"the finding is of account {detail.get('accountId')}")
    resource = detail.get("resource")
    details = resource.get("accessKeyDetails") if isinstance(resource, dict) else None
    if not isinstance(details, dict):
        raise PolicyExecutionError("the finding names no credentials")
    return details


def _name(details, kind):
    name = details.get("userName")
    if not isinstance(name, str) or not ENTITY_NAME.fullmatch(name):
        raise PolicyExecutionError(f"{name!r} is not the name of a {kind}")
    return name
