"""Response steps for Cloud Custodian, one per module.

Importing the package registers every action with Custodian.
"""

from custom_actions import headline, isolate, notify, response  # noqa: F401
