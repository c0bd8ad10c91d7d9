"""What the processes of functions are forked with: Custodian, the pack, botocore's models."""

from c7n.resources import load_resources

import custom_actions.handler  # noqa: F401

from .quick_botocore import read_models

load_resources(("aws.ec2", "aws.account", "aws.iam-user"))
read_models("ec2", "iam", "sns", "sts", "elbv2", "autoscaling", "elb")
