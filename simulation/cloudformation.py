"""Where moto differs from CloudFormation in what the templates of infra/ say.

Resource types that it passes over: it warns, and the stack comes up without them. moto finds them
among the subclasses of CloudFormationModel, so defining them is enough. An update sets them anew;
of a stack that is deleted, alarms and subscriptions go.

`expanded` does what CloudFormation's transform AWS::LanguageExtensions does, which moto ignores.
"""

import functools
import json
import re
from unittest import mock

from moto.cloudformation import parsing
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.common_models import CloudFormationModel
from moto.kms.models import KmsBackend
from moto.scheduler.models import scheduler_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from deployment.template import written_out


def no_value_is_no_element():
    """`AWS::NoValue` leaves no element in a list. moto leaves None there."""
    clean = parsing.clean_json

    def clean_json(template, resources):
        cleaned = clean(template, resources)
        if isinstance(template, list):
            return [element for element in cleaned if element is not None]
        return cleaned

    return mock.patch.object(parsing, "clean_json", clean_json)


def keys_have_their_policies():
    """The policy of a key of a stack is a text, as KMS has it, and its tags are spelled as there.
    moto keeps the template's mapping, over which its own calls to the key stumble, and fails over
    CloudFormation's `Key` and `Value`, where KMS has `TagKey` and `TagValue`."""
    create = KmsBackend.create_key

    def create_key(self, policy, key_usage, key_spec, description, tags, *args, **kwargs):
        text = json.dumps(policy) if isinstance(policy, dict) else policy
        spelled = [
            {f"Tag{name.removeprefix('Tag')}": value for name, value in tag.items()}
            for tag in tags or []
        ]
        return create(self, text, key_usage, key_spec, description, spelled, *args, **kwargs)

    return mock.patch.object(KmsBackend, "create_key", create_key)


class SetAnew:
    """What an update makes as the creation does, over what was there."""

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        cls.delete_from_cloudformation_json(
            original_resource.physical_resource_id, cloudformation_json, account_id, region_name
        )
        return cls.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name
    ):
        """Of most nothing is left when what they belong to goes."""


class Subscription(SetAnew, CloudFormationModel):
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
        unknown = set(properties) - {"TopicArn", "Protocol", "Endpoint", "RedrivePolicy"}
        if unknown:
            raise NotImplementedError(f"AWS::SNS::Subscription: {sorted(unknown)}")
        subscription = sns_backends[account_id][region_name].subscribe(
            properties["TopicArn"], properties["Endpoint"], properties["Protocol"]
        )
        if "RedrivePolicy" in properties:
            redrive = json.dumps(properties["RedrivePolicy"])
            subscription.attributes["RedrivePolicy"] = redrive
        return cls(subscription.arn)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name
    ):
        sns_backends[account_id][region_name].unsubscribe(resource_name)


class TopicPolicy(SetAnew, CloudFormationModel):
    """AWS::SNS::TopicPolicy on topics given by their ARNs. simulation/sns.py enforces it."""

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


class QueuePolicy(SetAnew, CloudFormationModel):
    """AWS::SQS::QueuePolicy on queues given by their URLs. simulation/sqs.py enforces it."""

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


class Alarm(SetAnew, CloudFormationModel):
    """AWS::CloudWatch::Alarm on one metric."""

    NUMBERS = {
        "Period": int,
        "EvaluationPeriods": int,
        "DatapointsToAlarm": int,
        "Threshold": float,
    }
    # property -> argument of moto's put_metric_alarm
    ARGUMENTS = {
        name: re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix("Alarm")).lower()
        for name in (
            *("AlarmName", "AlarmDescription", "Namespace", "MetricName", "Dimensions"),
            *("Statistic", *NUMBERS, "ComparisonOperator", "TreatMissingData"),
        )
    } | {"AlarmActions": "alarm_actions"}

    def __init__(self, name: str):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "AlarmName"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudWatch::Alarm"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
    ):
        properties = cloudformation_json["Properties"]
        unknown = set(properties) - set(cls.ARGUMENTS)
        if unknown:
            raise NotImplementedError(f"AWS::CloudWatch::Alarm: {sorted(unknown)}")
        cloudwatch_backends[account_id][region_name].put_metric_alarm(
            **{
                cls.ARGUMENTS[name]: cls.NUMBERS.get(name, lambda given: given)(value)
                for name, value in properties.items()
            }
        )
        return cls(properties["AlarmName"])

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name
    ):
        cloudwatch_backends[account_id][region_name].delete_alarms([resource_name])


class Schedule(CloudFormationModel):
    """AWS::Scheduler::Schedule in the default group. moto runs no schedule."""

    def __init__(self, name: str):
        self.physical_resource_id = name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Scheduler::Schedule"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name, cloudformation_json, account_id, region_name, **kwargs
    ):
        properties = dict(cloudformation_json["Properties"])
        scheduler_backends[account_id][region_name].create_schedule(
            name=properties.pop("Name"),
            description=properties.pop("Description"),
            schedule_expression=properties.pop("ScheduleExpression"),
            flexible_time_window=properties.pop("FlexibleTimeWindow"),
            target=properties.pop("Target"),
            state="ENABLED",
            **dict.fromkeys(
                ("group_name", "kms_key_arn", "schedule_expression_timezone", "start_date")
                + ("end_date", "action_after_completion")
            ),
        )
        if properties:
            raise NotImplementedError(f"AWS::Scheduler::Schedule: {sorted(properties)}")
        return cls(cloudformation_json["Properties"]["Name"])


@functools.cache
def expanded(template: str, parameters: tuple[tuple[str, str], ...] = ()) -> str:
    """A template with its loops (Fn::ForEach) written out; any other as it is."""
    if "AWS::LanguageExtensions" not in template:
        return template
    return json.dumps(written_out(template, dict(parameters)))
