"""Deactivate an IAM user's access key that is in the wrong hands; and the way back.

Custodian's built-in `remove-keys` with `disable: true` does not keep the pack's promises: in
guard-duty mode it breaks on the key that Custodian itself annotates, without that annotation it
disables every key of the user, and it reads nothing back
(tests/iam-user-deactivate-access-key/test_builtin_remove_keys.py).

Sources: https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html;
https://aws.amazon.com/blogs/security/what-to-do-if-you-inadvertently-expose-an-aws-access-key/
(deactivate before you delete; what was issued with the key stays valid). Not run against AWS.
"""

import time
from datetime import UTC, datetime

from c7n.exceptions import ClientError, PolicyExecutionError
from c7n.manager import resources
from c7n.utils import type_schema

from custom_actions.finding import (
    ENTITY_NAME,
    FINDING_ID,
    USER_KEY_ID,
    finding_id,
    user_key,
)
from custom_actions.record import DEACTIVATED_KEYS, as_tags, from_tags, notified_key, tag_keys
from custom_actions.response import FailUnlessComplete, ResponseAction, describe, retry, tags_of
from custom_actions.sessions import READ_BACK_DELAYS


def key_statuses(iam, user_name):
    """The status of each access key of a user: {key id: 'Active' or 'Inactive'}."""
    pages = iam.get_paginator("list_access_keys").paginate(UserName=user_name)
    return retry(
        lambda: {k["AccessKeyId"]: k["Status"] for p in pages for k in p["AccessKeyMetadata"]}
    )


def set_status(iam, user_name, key_id, status):
    """Set the status of one key and read it back."""
    retry(iam.update_access_key, UserName=user_name, AccessKeyId=key_id, Status=status)
    for delay in READ_BACK_DELAYS:
        time.sleep(delay)
        if key_statuses(iam, user_name).get(key_id) == status:
            return
    raise PolicyExecutionError(f"IAM still does not show {key_id} as {status}")


class DeactivateAccessKey(ResponseAction):
    """Deactivates the one access key that the finding names, and reads that back.

    Never deletes it, and never touches another key of the user. Nothing is done unless IAM's user
    of that name has the id that the finding names. A key that was active is recorded on the user
    (`forensic:deactivated-keys`) before the change, for `reactivate-access-key`.

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-user-deactivate-stolen-key
            resource: iam-user
            mode:
              type: guard-duty
              role: guardduty-response
              packages: [custom_actions]
              handler: custom_actions.handler.run
            filters:
              - type: event
                key: detail.type
                value: UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom
            actions:
              - deactivate-access-key
              - fail-unless-complete

    No arguments. The outcome has besides `revoked` (true only when IAM shows the key inactive),
    `user`, `access_key` and `verified_at`. `unchanged`: the key is inactive already, or the user
    has no such key (any more). Dry run: reads, changes nothing.

    IAM: iam:ListAccessKeys, iam:UpdateAccessKey, iam:TagUser, besides iam:GetUser of Custodian.

    Limits: it stops what uses the key, at once and everywhere, whoever it is. Temporary
    credentials that were issued with the key (sts:GetSessionToken, up to 36 hours; sessions of
    roles) go on; a finding about such a key fails with that reason. A password is not touched.
    """

    schema = type_schema("deactivate-access-key")
    permissions = ("iam:ListAccessKeys", "iam:UpdateAccessKey", "iam:TagUser")

    def respond(self, user, event):
        key = user_key(event, self.manager.config.account_id)
        finding_id(event)  # a finding without one could not be reverted by what the mail says
        if (user["UserName"], user["UserId"]) != (key.user_name, key.user_id):
            raise PolicyExecutionError(
                f"the finding is about user {key.user_name} with the id {key.user_id}, but IAM's "
                f"is {user['UserName']} with {user['UserId']}. Nothing was changed"
            )
        iam = self.client("iam")
        about = {"user": key.user_name, "access_key": key.key_id}
        status = key_statuses(iam, key.user_name).get(key.key_id)
        fact = f"{key.user_name}/{key.key_id}"
        if status is None:
            return self.outcome(
                "unchanged",
                f"User {key.user_name} has no access key {key.key_id} any more.",
                facts=[f"{fact}:absent"],
                revoked=False,
                **about,
            )
        if status == "Active" and self.dryrun:
            detail = f"Would deactivate access key {key.key_id} of user {key.user_name}."
            return self.outcome("planned", detail, revoked=False, **about)
        failure = None
        if status == "Active":
            failure = self.record(iam, user, key.key_id)
            set_status(iam, key.user_name, key.key_id, "Inactive")
        return self.outcome(
            "failed" if failure else "done" if status == "Active" else "unchanged",
            f"Access key {key.key_id} of user {key.user_name} is deactivated, not deleted. Other "
            "keys of the user and temporary credentials issued before go on.",
            error=failure,
            facts=[f"{fact}:{'not-recorded' if failure else 'inactive'}"],
            revoked=True,
            verified_at=datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
        )

    def record(self, iam, user, key_id):
        """Add the key to the user's record, unless it is there; returns what failed."""
        recorded = from_tags(tags_of(user), DEACTIVATED_KEYS) or []
        if key_id in recorded:
            return None
        try:
            tags = as_tags(DEACTIVATED_KEYS, [*recorded, key_id])
            retry(iam.tag_user, UserName=user["UserName"], Tags=tags)
        except ClientError as error:
            self.log.error("not recorded on %s: access key %s", user["UserName"], key_id)
            return f"access key {key_id} could not be recorded on the user: {describe(error)}"
        return None


class ReactivateAccessKey(ResponseAction):
    """Makes a key active again that `deactivate-access-key` deactivated. Run by a person.

    A key that is not recorded on the user was not deactivated by this pack and stays as it is.

    :example:

    .. code-block:: yaml

        policies:
          - name: iam-user-reactivate-one
            resource: account
            actions:
              - type: reactivate-access-key
                user: build-server
                access-key: AKIAIOSFODNN7EXAMPLE
                finding: 9ab2c3d4e5f60718293a4b5c6d7e8f90
              - fail-unless-complete

    On resource account, because on iam-user Custodian would read every user of the account first.

    Arguments: `user`, the name of the user; `access-key`, the id of the key; `finding`, the id of
    the finding, whose mark of the mail goes with the record. All three are in the mail.

    Archive the finding in GuardDuty first: an update of an active finding deactivates again. A key
    that is known to others should be replaced, not reactivated.

    IAM: iam:ListUserTags, iam:ListAccessKeys, iam:UpdateAccessKey, iam:TagUser, iam:UntagUser.
    """

    schema = type_schema(
        "reactivate-access-key",
        required=["user", "access-key", "finding"],
        **{key: {"type": "string"} for key in ("user", "access-key", "finding")},
    )
    permissions = (
        "iam:ListUserTags",
        "iam:ListAccessKeys",
        "iam:UpdateAccessKey",
        "iam:TagUser",
        "iam:UntagUser",
    )

    def respond(self, account, event):
        iam, name, key_id = self.client("iam"), self.data["user"], self.data["access-key"]
        well_formed = (
            ENTITY_NAME.fullmatch(name)
            and USER_KEY_ID.fullmatch(key_id)
            and FINDING_ID.fullmatch(self.data["finding"])
        )
        if not well_formed:
            raise PolicyExecutionError(
                f"user {name!r}, access key {key_id!r}, finding {self.data['finding']!r}: "
                "not well-formed"
            )
        pages = iam.get_paginator("list_user_tags").paginate(UserName=name)
        tags = retry(lambda: {t["Key"]: t["Value"] for p in pages for t in p["Tags"]})
        recorded = from_tags(tags, DEACTIVATED_KEYS) or []
        if key_id not in recorded:
            return self.outcome(
                "unchanged", f"Nothing to revert: {key_id} of user {name} is not recorded."
            )
        if self.dryrun:
            return self.outcome("planned", f"Would reactivate {key_id} of user {name}.")
        if key_id in key_statuses(iam, name):
            set_status(iam, name, key_id, "Active")
            detail = f"Access key {key_id} of user {name} is active again."
        else:
            detail = f"User {name} has no access key {key_id} any more; the record is removed."
        self.forget(iam, name, tags, [k for k in recorded if k != key_id])
        return self.outcome("done", detail)

    def forget(self, iam, user_name, tags, others):
        """Take the key out of the record and the mark of its finding off the user."""
        stay = as_tags(DEACTIVATED_KEYS, others) if others else []
        if stay:
            retry(iam.tag_user, UserName=user_name, Tags=stay)
        gone = set(tag_keys(tags, DEACTIVATED_KEYS)) - {t["Key"] for t in stay}
        gone.add(notified_key(self.data["finding"]))
        retry(iam.untag_user, UserName=user_name, TagKeys=sorted(gone))


def _register(registry, resource_class):
    # See custom_actions/headline.py for why not by decorators.
    actions = resource_class.action_registry
    if resource_class.type == "iam-user":
        actions.register("deactivate-access-key", DeactivateAccessKey)
        actions.register("fail-unless-complete", FailUnlessComplete)
    elif resource_class.type == "account":
        actions.register("reactivate-access-key", ReactivateAccessKey)


resources.subscribe(_register)
