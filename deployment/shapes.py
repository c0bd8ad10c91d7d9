"""The shapes of what a person says on the command line; anything else is refused."""

import re

import click

from custom_actions.finding import INSTANCE_ID
from deployment.errors import Refused


class Shaped(click.ParamType):
    """Text of one shape; what the text is called stands in the error."""

    def __init__(self, pattern, name):
        self.pattern, self.name = re.compile(pattern), name

    def convert(self, value, param, ctx):
        if not self.pattern.fullmatch(value):
            raise Refused(
                f"{param.opts[0].strip('-').upper().replace('-', '_')}={value} is not {self.name}."
            )
        return value


INSTANCE = Shaped(INSTANCE_ID, "the id of an EC2 instance")
FINDING = Shaped(r"[\w./@+-]*", "the id of a finding, nor a path without blanks")
GROUP = Shaped(r"sg-[0-9a-f]{8,17}", "the id of a security group")
RECORD = Shaped(r"[\w-]*", "the word that a release asks for")
GROUPS = Shaped(
    r"( ?eni-[0-9a-f]+=sg-[0-9a-f]+(,sg-[0-9a-f]+)*)*",
    "eni-...=sg-...,sg-... with a blank between two interfaces",
)
BUCKET = Shaped(r"([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?", "the name of a bucket, nor none")
NAME = Shaped(r"[\w+=,.@-]{1,128}", "a name that IAM takes")
