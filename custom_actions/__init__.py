"""Response steps for Cloud Custodian, one per module.

Importing the package registers every action and filter with Custodian.
"""

from custom_actions import (  # noqa: F401
    access_key,
    connections,
    evidence,
    finding,
    guard,
    headline,
    isolate,
    notify,
    response,
    service,
    sessions,
)
