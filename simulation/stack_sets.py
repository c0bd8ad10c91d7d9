"""Where moto differs from CloudFormation in service-managed StackSets; see change_sets.py.

Not simulated: automatic deployment to accounts that come later, failure tolerance, CallAs.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

from moto.cloudformation.models import (
    CloudFormationBackend,
    StackInstance,
    StackInstances,
    StackSet,
)
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult


@contextlib.contextmanager
def corrected_stack_sets() -> Iterator[None]:
    """Apply the corrections until the end of the block."""
    with (
        targets_are_shown(),
        the_management_account_is_left_out(),
        an_instance_fails_by_itself(),
        an_update_reaches_the_stacks(),
        results_are_of_each_stack(),
    ):
        yield


@contextlib.contextmanager
def targets_are_shown():
    """DescribeStackSet shows units, regions and automatic deployment. moto forgets them.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_StackSet.html
    """
    create, update = (
        CloudFormationResponse.create_stack_set,
        CloudFormationResponse.update_stack_set,
    )
    add = StackSet.create_stack_instances

    def remembering(function):
        def call(self):
            answer = function(self)
            name = self._get_param("StackSetName")
            stack_set = self.cloudformation_backend.describe_stack_set(name)
            stack_set.auto_deployment = self._get_param("AutoDeployment")
            return answer

        return call

    def create_stack_instances(self, accounts, regions, deployment_targets, parameters):
        units = (deployment_targets or {}).get("OrganizationalUnitIds", [])
        for name, new in (("organizational_unit_ids", units), ("regions", regions)):
            setattr(self, name, list(dict.fromkeys([*getattr(self, name, []), *new])))
        return add(self, accounts, regions, deployment_targets, parameters)

    with (
        mock.patch.object(CloudFormationResponse, "create_stack_set", remembering(create)),
        mock.patch.object(CloudFormationResponse, "update_stack_set", remembering(update)),
        mock.patch.object(StackSet, "create_stack_instances", create_stack_instances),
    ):
        yield


def the_management_account_is_left_out():
    """ "CloudFormation doesn't deploy stacks to the management account." moto does.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stacksets-orgs-associate-stackset-with-org.html
    """
    create = StackInstances.create_instances

    def create_instances(self, accounts, regions, parameters, targets, permission_model):
        before = list(self.stack_instances)
        with contextlib.ExitStack() as stack:
            if permission_model == "SERVICE_MANAGED":
                backend = self.org_backend
                members = [a for a in backend.accounts if a.id != a.master_account_id]
                stack.enter_context(mock.patch.object(backend, "accounts", members))
            create(self, accounts, regions, parameters, targets, permission_model)
        return [i.to_dict() for i in self.stack_instances if i not in before]

    return mock.patch.object(StackInstances, "create_instances", create_instances)


@contextlib.contextmanager
def an_instance_fails_by_itself():
    """A stack that cannot be made is OUTDATED with its reason. With moto the call fails.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_StackInstanceSummary.html
    """
    make, show = StackInstance.__init__, StackInstance.to_dict

    def __init__(self, *args, **kwargs):
        self.failure = None
        try:
            make(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  of whatever service
            self.failure = str(error)

    def to_dict(self):
        shown = show(self)
        if self.failure:
            shown |= {"Status": "OUTDATED", "StatusReason": self.failure}
            shown["StackInstanceStatus"] = {"DetailedStatus": "FAILED"}
        return shown

    with (
        mock.patch.object(StackInstance, "__init__", __init__),
        mock.patch.object(StackInstance, "to_dict", to_dict),
    ):
        yield


def an_update_reaches_the_stacks():
    """UpdateStackSet without targets updates every stack. moto updates the StackSet alone.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_UpdateStackSet.html
    """
    update = CloudFormationBackend.update_stack_set

    def update_stack_set(self, stackset_name, template, description, parameters, *args, **kwargs):
        answer = update(self, stackset_name, template, description, parameters, *args, **kwargs)
        stack_set = self.describe_stack_set(stackset_name)
        stack_set.instances.template = stack_set.template
        for instance in stack_set.stack_instances:
            if instance.failure:
                old = vars(instance)
                instance.__init__(
                    *(old[n] for n in ("account_id", "region_name", "stackset_id", "stack_name")),
                    name=instance.name,
                    template=stack_set.template,
                    parameters=stack_set.parameters,
                    permission_model=instance.permission_model,
                )
            else:
                instance.stack.update(stack_set.template, parameters=dict(stack_set.parameters))
        answer["Instances"] = [{i.account_id: i.region_name} for i in stack_set.stack_instances]
        return answer

    return mock.patch.object(CloudFormationBackend, "update_stack_set", update_stack_set)


@contextlib.contextmanager
def results_are_of_each_stack():
    """ListStackSetOperationResults lists the accounts of the units, each with its own outcome.

    moto lists those that were given by number, all with the outcome of the operation.
    """
    add = CloudFormationBackend.create_stack_instances

    def create_stack_instances(self, name, *args, **kwargs):
        stack_set = self.describe_stack_set(name)
        before = list(stack_set.stack_instances)
        id_ = add(self, name, *args, **kwargs)
        new = [i for i in stack_set.stack_instances if i not in before]
        operation = stack_set.get_operation(id_)
        operation["Instances"] = [{i.account_id: i.region_name} for i in new]
        if any(i.failure for i in new):
            operation["Status"] = "FAILED"
        return id_

    def list_stack_set_operation_results(self):
        name, id_ = self._get_param("StackSetName"), self._get_param("OperationId")
        stack_set = self.cloudformation_backend.describe_stack_set(name)
        pairs = [p for one in stack_set.get_operation(id_)["Instances"] for p in one.items()]
        found = [stack_set.instances.get_instance(*pair) for pair in pairs]
        summaries = [
            {
                "Account": i.account_id,
                "Region": i.region_name,
                "Status": "FAILED" if i.failure else "SUCCEEDED",
                "StatusReason": i.failure,
            }
            for i in found
        ]
        return ActionResult({"Summaries": summaries})

    with (
        mock.patch.object(CloudFormationBackend, "create_stack_instances", create_stack_instances),
        mock.patch.object(
            CloudFormationResponse,
            "list_stack_set_operation_results",
            list_stack_set_operation_results,
        ),
    ):
        yield
