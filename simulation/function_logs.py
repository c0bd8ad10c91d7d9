"""What functions log, in CloudWatch Logs: moto writes it only for functions that it runs itself.

Each line is an event here; Lambda makes one of all lines of a traceback. The role is not asked
whether it may. The filter pattern of FilterLogEvents is moto's own, which takes a regular
expression (`%...%`) for everything.
https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html
"""

import time

from moto.logs.models import logs_backends

from .lambda_service import Invocation


def write(invocation: Invocation) -> None:
    """Put the log of an invocation into the log group of its function."""
    backend = logs_backends[invocation.account_id][invocation.region]
    group, stream = f"/aws/lambda/{invocation.function_name}", invocation.request_id
    backend.ensure_log_group(group)
    if stream not in backend.groups[group].streams:
        backend.create_log_stream(group, stream)
    at = int(time.time() * 1000)
    lines = [line for line in invocation.log.splitlines() if line]
    backend.put_log_events(group, stream, [{"timestamp": at, "message": one} for one in lines])
