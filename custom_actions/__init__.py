"""Response steps for Cloud Custodian, one per module.

Importing the package registers every action with Custodian.
"""

import os

if "LAMBDA_TASK_ROOT" in os.environ:
    import custom_actions.time_zones  # noqa: F401 - first, see there

from custom_actions import (  # noqa: F401
    access_key,
    connections,
    evidence,
    guard,
    headline,
    isolate,
    notify,
    response,
    service,
    sessions,
)
