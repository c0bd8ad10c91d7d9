"""A response to GuardDuty findings for Cloud Custodian.

Importing the package registers every action with Custodian.
"""

from custom_actions import headline, notify, response, steps  # noqa: F401
