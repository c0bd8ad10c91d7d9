"""Deactivate an IAM user's access key that is in the wrong hands; and the way back.

Custodian's built-in `remove-keys` with `disable: true` does not keep the pack's promises: in
guard-duty mode it breaks on the key that Custodian itself annotates, without that annotation it
disables every key of the user, and it reads nothing back
(tests/iam-user-deactivate-access-key/test_builtin_remove_keys.py).

Sources: https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAccessKey.html;
https://aws.amazon.com/blogs/security/what-to-do-if-you-inadvertently-expose-an-aws-access-key/
(deactivate before you delete; what was issued with the key stays valid). Not run against AWS.
"""

from datetime import UTC, datetime
from functools import partial

from c7n.exceptions import PolicyExecutionError
from c7n.utils import type_schema

from custom_actions import record
from custom_actions.finding import ENTITY_NAME, FINDING_ID, USER_KEY_ID, finding_id, user_key
from custom_actions.record import DEACTIVATED_KEYS, tags_of
from custom_actions.registry import register
from custom_actions.response import Change, NothingToDo, Revert, Step


class OfUser:
    """What the step and its revert share: one key of one user, whose tags are the record."""

    def key_status(self, user_name, key_id):
        """`Active`, `Inactive`, or None when the user has no such key."""
        pages = self.client("iam").get_paginator("list_access_keys").paginate(UserName=user_name)
        keys = [key for page in pages for key in page["AccessKeyMetadata"]]
        return next((key["Status"] for key in keys if key["AccessKeyId"] == key_id), None)

    def change(self, run, user_name, key_id, wanted, **more):
        return Change(
            f"{user_name}/{key_id}",
            holds=run.view == wanted,
            make=partial(
                self.client("iam").update_access_key,
                UserName=user_name,
                AccessKeyId=key_id,
                Status=wanted,
            ),
            end=wanted.lower(),
            unseen=PolicyExecutionError(f"IAM still does not show {key_id} as {wanted}"),
            **more,
        )


class DeactivateAccessKey(OfUser, Step):
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
              role: guardduty-response-iam-user-deactivate-access-key
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

    IAM: iam:GetUser, iam:ListAccessKeys, iam:UpdateAccessKey, iam:TagUser.

    Limits: it stops what uses the key, at once and everywhere, whoever it is. Temporary
    credentials that were issued with the key (sts:GetSessionToken, up to 36 hours; sessions of
    roles) go on; a finding about such a key fails with that reason. A password is not touched.
    """

    schema = type_schema("deactivate-access-key")
    permissions = ("iam:GetUser", "iam:ListAccessKeys", "iam:UpdateAccessKey", "iam:TagUser")
    recording = ("access key",)

    def look(self, run):
        user, key = run.resource, user_key(run.event, self.manager.config.account_id)
        finding_id(run.event)  # one without it could not be reverted by what the mail says
        if (user["UserName"], user["UserId"]) != (key.user_name, key.user_id):
            raise PolicyExecutionError(
                f"the finding is about user {key.user_name} with the id {key.user_id}, but IAM's "
                f"is {user['UserName']} with {user['UserId']}. Nothing was changed"
            )
        run.tags = tags_of(user)
        run.memory["key"] = key
        status = self.key_status(key.user_name, key.key_id)
        if status is None:
            raise NothingToDo(
                f"User {key.user_name} has no access key {key.key_id} any more.",
                facts=[f"{key.user_name}/{key.key_id}:absent"],
                revoked=False,
                **self.about(key),
            )
        return status

    def about(self, key):
        return {"user": key.user_name, "access_key": key.key_id}

    def changes(self, run):
        key = run.memory["key"]
        words = (key.key_id,) if run.view == "Active" else ()
        yield self.change(
            run, key.user_name, key.key_id, "Inactive", key=DEACTIVATED_KEYS, words=words
        )

    def read_tags(self, run):
        user_name = run.resource["UserName"]
        return tags_of(self.client("iam").get_user(UserName=user_name)["User"])

    def tag(self, run, tags):
        self.client("iam").tag_user(UserName=run.resource["UserName"], Tags=tags)

    def plan(self, run):
        key = run.memory["key"]
        return f"Would deactivate access key {key.key_id} of user {key.user_name}."

    def tell(self, run):
        key = run.memory["key"]
        if not run.holding:
            return f"IAM does not show that access key {key.key_id} is deactivated."
        return (
            f"Access key {key.key_id} of user {key.user_name} is deactivated, not deleted. Other "
            "keys of the user and temporary credentials issued before go on."
        )

    def more(self, run):
        about = {"revoked": bool(run.holding), **self.about(run.memory["key"])}
        if run.holding:
            about["verified_at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        return about


class ReactivateAccessKey(OfUser, Revert):
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

    def look(self, run):
        user, key_id, finding = (self.data[k] for k in ("user", "access-key", "finding"))
        well_formed = (
            ENTITY_NAME.fullmatch(user)
            and USER_KEY_ID.fullmatch(key_id)
            and FINDING_ID.fullmatch(finding)
        )
        if not well_formed:
            raise PolicyExecutionError(
                f"user {user!r}, access key {key_id!r}, finding {finding!r}: not well-formed"
            )
        pages = self.client("iam").get_paginator("list_user_tags").paginate(UserName=user)
        run.tags = {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}
        if key_id not in (record.from_tags(run.tags, DEACTIVATED_KEYS) or ()):
            raise NothingToDo(f"Nothing to revert: {key_id} of user {user} is not recorded.")
        return self.key_status(user, key_id)

    def changes(self, run):
        if run.view is not None:
            yield self.change(run, self.data["user"], self.data["access-key"], "Active")

    def forget(self, run):
        """Take the key out of the record, and the mark of its finding off the user."""
        iam, user = self.client("iam"), self.data["user"]
        others = record.from_tags(run.tags, DEACTIVATED_KEYS)
        others.remove(self.data["access-key"])
        stay = record.as_tags(DEACTIVATED_KEYS, others) if others else []
        if stay:
            iam.tag_user(UserName=user, Tags=stay)
        gone = {*record.tag_keys(run.tags, DEACTIVATED_KEYS)} - {tag["Key"] for tag in stay}
        gone.add(record.notified_key(self.data["finding"]))
        iam.untag_user(UserName=user, TagKeys=sorted(gone))

    def plan(self, run):
        return f"Would reactivate {self.data['access-key']} of user {self.data['user']}."

    def tell(self, run):
        key_id, user = self.data["access-key"], self.data["user"]
        if not run.changes:
            return f"User {user} has no access key {key_id} any more; the record is removed."
        if not run.holding:
            return f"IAM does not show that access key {key_id} of user {user} is active again."
        return f"Access key {key_id} of user {user} is active again."


register("deactivate-access-key", DeactivateAccessKey, "iam-user")
register("reactivate-access-key", ReactivateAccessKey, "account")
