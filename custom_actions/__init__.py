"""A response to GuardDuty findings for Cloud Custodian.

Importing the package registers every action and filter with Custodian.
"""

from custom_actions import finding, headline, notify, response, steps  # noqa: F401
