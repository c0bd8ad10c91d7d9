"""What functions have logged, in CloudWatch Logs."""

import re
from datetime import UTC, datetime

WORD = re.compile(r"[A-Za-z0-9-]{8,64}")


def lines(session, function, word, since):
    """The lines of a function's log that have a word in them: [(time, line)], the oldest first.

    word: an id of letters, digits and dashes, else ValueError. since: an aware datetime. Without a
    log group there is none: the function has never run. IAM: logs:FilterLogEvents.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/regex-expressions.html
    """
    if not WORD.fullmatch(word):
        raise ValueError(f"{word!r} is not an id")
    client = session.client("logs")
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName=f"/aws/lambda/{function}",
        startTime=int(since.timestamp() * 1000),
        # a regular expression: between quotes a part of a word need not be found
        filterPattern=f"%{word}%",
    )
    try:
        found = [event for page in pages for event in page["events"]]
    except client.exceptions.ResourceNotFoundException:
        return []
    # what is before the last tab is Lambda's: level, time, request
    return [
        (
            datetime.fromtimestamp(event["timestamp"] / 1000, UTC),
            event["message"].rstrip().rpartition("\t")[2],
        )
        for event in sorted(found, key=lambda event: event["timestamp"])
        if word in event["message"]
    ]
