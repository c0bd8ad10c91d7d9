"""A response to GuardDuty findings for Cloud Custodian.

Importing the package registers every action and filter with Custodian.
"""

import os

if "LAMBDA_TASK_ROOT" in os.environ:
    import custom_actions.time_zones  # noqa: F401 - first, see there
else:
    import custom_actions.by_hand  # noqa: F401 - a person's, who waits for no cold start

from custom_actions import (  # noqa: F401
    api_call,
    digest,
    finding,
    finding_headline,
    isolated,
    notify,
    response,
    steps,
)
