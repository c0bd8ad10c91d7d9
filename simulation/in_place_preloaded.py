"""What the processes of functions are forked with: Custodian, the pack, botocore's models.

What is remembered are answers that depend on installed files alone.
"""

import functools

import botocore.session
from botocore.loaders import JSONFileLoader
from c7n.resources import load_resources

import custom_actions.handler  # noqa: F401

NOBODY = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}

load_resources(("aws.ec2", "aws.account", "aws.iam-user"))

_load = functools.cache(JSONFileLoader().load_file)
JSONFileLoader.load_file = lambda self, path: _load(path)
for _service in ("ec2", "iam", "sns", "sts", "elbv2", "autoscaling", "elb"):
    botocore.session.Session().create_client(_service, "us-east-1", **NOBODY)
