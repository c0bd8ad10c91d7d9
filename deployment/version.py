"""The version of the pack, and the tag that says which one a function is of."""

VERSION = "0.1.0"
TAG = "guardduty-response:version"  # of each function that a deploy makes
