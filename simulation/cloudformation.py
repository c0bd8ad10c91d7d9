"""Where moto differs from CloudFormation in what the templates of infra/ say.

Resource types that it passes over: it warns, and the stack comes up without them. moto finds them
among the subclasses of CloudFormationModel, so defining them is enough. They are created only:
changing or deleting such a stack is not simulated.
"""

import json
from unittest import mock

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends


def no_value_is_no_element():
    """`AWS::NoValue` leaves no element in a list. moto leaves None there."""
    clean = parsing.clean_json

    def clean_json(template, resources):
        cleaned = clean(template, resources)
        if isinstance(template, list):
            return [element for element in cleaned if element is not None]
        return cleaned

    return mock.patch.object(parsing, "clean_json", clean_json)


class Subscription(CloudFormationModel):
    """AWS::SNS::Subscription of an endpoint to a topic."""

    def __init__(self, arn: str):
        self.physical_resource_id = arn

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SNS::Subscription"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
    ):
        properties = cloudformation_json["Properties"]
        unknown = set(properties) - {"TopicArn", "Protocol", "Endpoint"}
        if unknown:
            raise NotImplementedError(f"AWS::SNS::Subscription: {sorted(unknown)}")
        subscription = sns_backends[account_id][region_name].subscribe(
            properties["TopicArn"], properties["Endpoint"], properties["Protocol"]
        )
        return cls(subscription.arn)


class TopicPolicy(CloudFormationModel):
    """AWS::SNS::TopicPolicy on topics given by their ARNs. moto does not enforce it."""

    def __init__(self, name: str):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SNS::TopicPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
    ):
        properties = cloudformation_json["Properties"]
        policy = json.dumps(properties["PolicyDocument"])
        for topic in properties["Topics"]:
            sns_backends[account_id][region_name].set_topic_attribute(topic, "policy", policy)
        return cls(resource_name)


class QueuePolicy(CloudFormationModel):
    """AWS::SQS::QueuePolicy on queues given by their URLs. moto does not enforce it."""

    def __init__(self, name: str):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SQS::QueuePolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
    ):
        properties = cloudformation_json["Properties"]
        policy = json.dumps(properties["PolicyDocument"])
        for url in properties["Queues"]:
            queue = url.rpartition("/")[2]
            sqs_backends[account_id][region_name].set_queue_attributes(queue, {"Policy": policy})
        return cls(resource_name)
