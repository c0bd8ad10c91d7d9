"""Where moto differs from CloudFormation in change sets, updates and failures of stacks.

The rule is that of simulation/ec2.py: each correction says what moto does, what AWS does and the
source, and its test fails on plain moto. Nothing here was run against AWS.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

from moto.cloudformation import models, parsing
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Event, Stack
from moto.cloudformation.parsing import ResourceMap
from moto.cloudformation.responses import CloudFormationResponse

from .cloudformation import expanded

UNCHANGED = (
    "The submitted information didn't contain changes. "
    "Submit different information to create a change set."
)


@contextlib.contextmanager
def corrected_change_sets() -> Iterator[None]:
    """Apply the corrections until the end of the block."""
    with (
        mock.patch.object(ResourceMap, "build_resource_diff", build_resource_diff),
        mock.patch.object(ChangeSet, "diff", diff),
        change_sets_are_of_what_the_transform_makes(),
        a_stack_is_what_its_change_set_says(),
        what_fails_is_rolled_back(),
    ):
        yield


def build_resource_diff(self, other_template, parameters=None):
    """What an update adds, changes and removes.

    moto takes a resource whose condition is false for one that is there, finds no change by a
    parameter that is used in Fn::Sub or a condition, and lists a change set's changes without its
    parameters. CloudFormation compares what the stack has with what it would have.
    """
    after = ResourceMap(
        self.stack_id,
        self["AWS::StackName"],
        self.input_parameters if parameters is None else parameters,
        self.tags,
        region_name=self._region_name,
        account_id=self._account_id,
        template=other_template,
        cross_stack_resources=self.cross_stack_resources,
    )
    after.load()
    old, new = _existing(self), _existing(after)
    changed = {
        name
        for known in ("resolved_parameters", "lazy_condition_map")
        for name in {**getattr(self, known, {}), **getattr(after, known)}
        if getattr(self, known, {}).get(name) != getattr(after, known).get(name)
    }
    return {
        "Add": [name for name in new if name not in old],
        "Modify": [
            name
            for name in new
            if name in old and (new[name] != old[name] or _mentions(new[name], changed))
        ],
        "Remove": [name for name in old if name not in new],
    }


def _existing(resource_map):
    conditions = getattr(resource_map, "lazy_condition_map", {})
    return {
        name: resource
        for name, resource in resource_map._resource_json_map.items()
        if "Condition" not in resource or conditions[resource["Condition"]]
    }


def _mentions(element, names):
    """Whether a part of a template depends on one of these parameters or conditions."""
    if isinstance(element, dict):
        if element.get("Ref") in names:
            return True
        text = element.get("Fn::Sub")
        if isinstance(text, list):
            text = text[0]
        if text and any(f"${{{name}}}" in text for name in names):
            return True
        if element.get("Fn::If", [None])[0] in names:
            return True
        return any(_mentions(value, names) for value in element.values())
    return isinstance(element, list) and any(_mentions(value, names) for value in element)


def diff(self):
    """The changes of a change set, as DescribeChangeSet shows them: also the names of the
    properties, and whether the resource is replaced, which moto leaves out. Replaced is here what
    gets another name; CloudFormation knows it of every property."""
    resources = self.stack.resource_map
    found = resources.build_resource_diff(self.template_dict, self.parameters)
    changes = []
    for action, names in found.items():
        of = resources._resource_json_map if action == "Remove" else self.template_dict["Resources"]
        for name in names:
            change = models.Change(action, name, of[name]["Type"])
            if action == "Modify":
                named = parsing.resource_name_property_from_type(change.resource_type)
                before = resources._resource_json_map[name].get("Properties", {})
                after = of[name].get("Properties", {})
                differ = sorted(
                    key for key in {**before, **after} if before.get(key) != after.get(key)
                )
                change.replacement = str(named in differ)
                change.scope = ["Properties"]
                change.details = [
                    {"Target": {"Attribute": "Properties", "Name": key}} for key in differ
                ]
            changes.append(change)
    return changes


@contextlib.contextmanager
def change_sets_are_of_what_the_transform_makes():
    """A change set is of the template that its transform makes with its parameters, and fails
    where nothing differs.

    moto knows no transform, compares the text and the parameters as they were given, and refuses
    the call where they are the same. AWS's words are those by which the AWS CLI knows it
    (`aws cloudformation deploy`).
    """
    create = CloudFormationBackend.create_change_set
    refuse = CloudFormationResponse._validate_different_update

    def create_change_set(self, stack_name, change_set_name, template, parameters, *args, **more):
        written_out = expanded(template, tuple(sorted(parameters.items())))
        id_, stack_id = create(
            self, stack_name, change_set_name, written_out, parameters, *args, **more
        )
        made = self.change_sets[id_]
        outputs = [t.get("Outputs") for t in (made.stack.template_dict, made.template_dict)]
        if made.change_set_type == "UPDATE":
            unchanged = not made.changes and outputs[0] == outputs[1]
            made.status = "FAILED" if unchanged else "CREATE_COMPLETE"
            made.execution_status = "UNAVAILABLE" if unchanged else "AVAILABLE"
            made.status_reason = UNCHANGED if unchanged else None
        return id_, stack_id

    def validate(self, *args):
        if self._get_action() != "CreateChangeSet":
            refuse(self, *args)

    with (
        mock.patch.object(CloudFormationResponse, "_validate_different_update", validate),
        mock.patch.object(CloudFormationBackend, "create_change_set", create_change_set),
    ):
        yield


@contextlib.contextmanager
def a_stack_is_what_its_change_set_says():
    """After a change set the stack has its parameters, its outputs and what its conditions say.

    moto keeps the outputs and parameters from before, and makes no resource whose condition has
    become true.
    """
    apply = ChangeSet.apply

    def apply_change_set(self):
        for change in self.changes:  # None where a condition was false
            if change.action == "Add":
                self.stack.resource_map._parsed_resources.pop(change.logical_resource_id, None)
        apply(self)
        stack = self.stack
        stack.parameters = self.parameters
        stack.template = self.template
        stack._parse_template()
        stack.description = stack.template_dict.get("Description")
        stack.output_map = stack._create_output_map()

    with mock.patch.object(ChangeSet, "apply", apply_change_set):
        yield


@contextlib.contextmanager
def what_fails_is_rolled_back():
    """A resource that cannot be made fails the stack, which says so in its events.

    moto answers ExecuteChangeSet itself with the error of the resource's service, and leaves the
    stack as far as it came. CloudFormation answers, and goes back later: ROLLBACK_COMPLETE or
    UPDATE_ROLLBACK_COMPLETE. What was made by then stays here.
    """
    execute = CloudFormationBackend.execute_change_set
    create, update = parsing.parse_and_create_resource, parsing.parse_and_update_resource

    def naming(function):
        def parse(logical_id, resource_json, *args, **more):
            try:
                return function(logical_id, resource_json, *args, **more)
            except Exception as error:
                if not hasattr(error, "failed_resource"):
                    error.failed_resource = (logical_id, resource_json["Type"])
                raise

        return parse

    def execute_change_set(self, change_set_name, stack_name=None):
        try:
            execute(self, change_set_name, stack_name)
        except Exception as error:
            if not hasattr(error, "failed_resource"):
                raise
            change_set = self.describe_change_set(change_set_name)
            kind = change_set.change_set_type
            _fail(change_set.stack, kind, error)

    with (
        mock.patch.object(parsing, "parse_and_create_resource", naming(create)),
        mock.patch.object(parsing, "parse_and_update_resource", naming(update)),
        mock.patch.object(CloudFormationBackend, "execute_change_set", execute_change_set),
    ):
        yield


def _fail(stack: Stack, kind: str, error: Exception) -> None:
    logical_id, resource_type = error.failed_resource
    for name, type_, status, reason in (
        (logical_id, resource_type, f"{kind}_FAILED", str(error)),
        ("Other", resource_type, f"{kind}_FAILED", "Resource creation cancelled"),
    ):
        stack.events.append(
            Event(stack.stack_id, stack.name, name, "", type_, status, reason, None)
        )
    stack.status = "ROLLBACK_COMPLETE" if kind == "CREATE" else "UPDATE_ROLLBACK_COMPLETE"
    stack._add_stack_event(stack.status)
