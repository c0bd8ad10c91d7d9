"""The version of the pack, and the tag of a function that says from which one it was deployed.

The tag also says that a function is the pack's: what is removed is found by it.
"""

VERSION = "0.1.0"
VERSION_TAG = "guardduty-response:version"
