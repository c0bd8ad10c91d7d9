"""How the actions and filters of the pack get their names in policies."""

from c7n.filters import Filter
from c7n.manager import resources


def register(name, element, *resource_types):
    """Register an action or a filter by its name, with these resources or with all of AWS.

    It works for resources that Custodian loads later, too (as c7n.actions.notify does): importing
    them here would cost every cold start. Raises ValueError where the name is another class's: the
    one that comes last would replace it, in policies that never asked for it.
    """
    kind = "filter_registry" if issubclass(element, Filter) else "action_registry"

    def add(registry, resource_class):
        if not resource_types or resource_class.type in resource_types:
            names = getattr(resource_class, kind)
            if names.get(name) not in (None, element):
                raise ValueError(
                    f"{name} of {resource_class.type} is {names.get(name).__module__}."
                    f"{names.get(name).__qualname__} already: give {element.__module__}."
                    f"{element.__qualname__} another name."
                )
            names.register(name, element)

    for resource_class in resources.values():
        add(resources, resource_class)
    resources.subscribe(add)
