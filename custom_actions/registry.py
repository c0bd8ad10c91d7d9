"""How the actions and filters of the pack get their names in policies."""

from c7n.filters import Filter
from c7n.manager import resources


def register(name, element, *resource_types):
    """Register an action or a filter by its name, with these resources or with all of AWS.

    It works for resources that Custodian loads later, too (as c7n.actions.notify does): importing
    them here would cost every cold start.
    """
    kind = "filter_registry" if issubclass(element, Filter) else "action_registry"

    def add(registry, resource_class):
        if not resource_types or resource_class.type in resource_types:
            getattr(resource_class, kind).register(name, element)

    for resource_class in resources.values():
        add(resources, resource_class)
    resources.subscribe(add)
