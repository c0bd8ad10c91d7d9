"""The same answers from moto 5.2.5, sooner: most of the CPU time of a simulation is moto's.

Each function says what moto does again and again, and why the answer cannot differ. None of this
corrects anything: that is simulation/ec2.py and its like, and comes first.
"""

import contextlib
import functools
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import xmltodict
from moto import backends
from moto.cloudformation.models import ChangeSet, Stack
from moto.core import responses
from moto.core.model import Shape
from moto.core.serialize import (
    MISSING,
    AttributePicker,
    AttributePickerContext,
    ResponseSerializer,
)
from moto.core.utils import get_value
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, get_prefix
from moto.sns.models import Subscription

from . import quick_botocore  # noqa: F401 - moto reads the models of services too

MAKE_KEY = Subscription.private_key


@contextlib.contextmanager
def quick_moto() -> Iterator[None]:
    """Apply all of it until the end of the block. The corrections have to be in place."""
    with (
        methods_are_listed_once(),
        modules_are_listed_once(),
        values_are_found_by_known_names(),
        names_are_checked_once(),
        tags_are_looked_up(),
        messages_are_signed_with_one_key(),
        templates_are_parsed_once(),
    ):
        yield


def methods_are_listed_once():
    """At each call moto inspects the class that answers for the names of its methods."""
    names = functools.cache(responses.method_names_from_class)
    return mock.patch.object(responses, "method_names_from_class", names)


def modules_are_listed_once():
    """At each call moto lists its own folder twice for the names of its services."""
    names = tuple(backends.list_of_moto_modules())
    return mock.patch.object(backends, "list_of_moto_modules", lambda: names)


def values_are_found_by_known_names():
    """For each value of an answer moto asks five classes by which names an object may have it, and
    goes through all transformers of the service.

    Both depend on the class of the object and on the place of the value in the service's model.
    """
    known: dict[tuple, tuple[tuple[str, ...], Callable | None]] = {}
    kept: list[dict] = []  # so that no other dictionary gets the id of one of these
    original = ResponseSerializer.get_value

    def looked_up(self: ResponseSerializer, value: Any, key: str, shape: Shape) -> Any:
        picker, operation = self._value_picker, self.operation_model
        if not isinstance(picker, AttributePicker):
            return original(self, value, key, shape)
        transformers = picker.response_transformers
        service = operation.service_model.service_name
        path = ".".join(self.path)
        place = id(transformers), service, operation.name, path, key, type(value)
        if place not in known:
            context = AttributePickerContext(value, key, shape, operation, key_path=path)
            names = tuple(picker.get_possible_keys(context))
            transforms = (t for end, t in transformers.items() if f"{path}.{key}".endswith(end))
            kept.append(transformers)
            known[place] = names, next(transforms, None)
        names, transform = known[place]
        found = None
        for name in names:
            found = get_value(value, name, MISSING)
            if found is not MISSING:
                break
            found = None
        return transform(found) if transform else found

    return mock.patch.object(ResponseSerializer, "get_value", looked_up)


def names_are_checked_once():
    """xmltodict looks at each letter of each name of an element, of which there are few."""
    return mock.patch.object(xmltodict, "_validate_name", functools.cache(xmltodict._validate_name))


def messages_are_signed_with_one_key():
    """For each subscription moto makes an RSA key, to sign what it delivers. Nobody checks that."""
    return mock.patch.object(Subscription, "private_key", lambda self: _key())


@functools.cache
def _key():
    return MAKE_KEY(None)


def tags_are_looked_up():
    """For the tags of one resource moto matches its id, as a pattern, with all tags of the region.

    An id has no wildcard, and moto keeps tags by id.
    """

    def get_tags(self: TaggedEC2Resource) -> list[dict[str, str]]:
        if not self.id:
            return []
        kind = EC2_PREFIX_TO_RESOURCE.get(get_prefix(self.id), "")
        return [
            {"resource_id": self.id, "key": key, "value": value, "resource_type": kind}
            for key, value in self.ec2_backend.tags.get(self.id, {}).items()
        ]

    return mock.patch.object(TaggedEC2Resource, "get_tags", get_tags)


@functools.cache
def _parsed(text: str, parse=Stack.parse_template) -> bytes:
    return pickle.dumps(parse(text))


@contextlib.contextmanager
def templates_are_parsed_once() -> Iterator[None]:
    """moto parses a template again for each look at a stack or change set, in pure Python."""

    def of_a_change_set(self: ChangeSet) -> None:
        self.template_dict = pickle.loads(_parsed(self.template))

    with (
        mock.patch.object(
            Stack, "parse_template", staticmethod(lambda t: pickle.loads(_parsed(t)))
        ),
        mock.patch.object(ChangeSet, "_parse_template", of_a_change_set),
    ):
        yield
