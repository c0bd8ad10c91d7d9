"""The same answers from moto 5.2.5, sooner: most of the CPU time of a simulation is moto's.

Each function says what moto does again and again, and why the answer cannot differ. None of this
corrects anything: that is simulation/ec2.py and its like, and comes first.
"""

import contextlib
import functools
import pickle
from collections.abc import Iterator
from typing import Any
from unittest import mock

from moto import backends
from moto.cloudformation.models import ChangeSet, Stack
from moto.core import responses
from moto.core.serialize import MISSING, AttributePicker, AttributePickerContext
from moto.core.utils import get_value
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, get_prefix
from moto.sns.models import Subscription

MAKE_KEY = Subscription.private_key


@contextlib.contextmanager
def quick_moto() -> Iterator[None]:
    """Apply all of it until the end of the block. The corrections have to be in place."""
    with (
        methods_are_listed_once(),
        modules_are_listed_once(),
        transformers_are_found_once(),
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


def transformers_are_found_once():
    """For each value of an answer moto goes through all transformers of the service.

    Which one applies depends on the path of the value in the service's model alone.
    """
    found: dict[tuple[int, str], Any] = {}
    services: list[dict] = []  # kept, so that no other dictionary gets the id of one of these

    def __call__(self: AttributePicker, context: AttributePickerContext) -> Any:
        value = None
        for possible_key in self.get_possible_keys(context):
            value = get_value(context.obj, possible_key, MISSING)
            if value is not MISSING:
                break
            value = None
        transformers = self.response_transformers
        key = id(transformers), f"{context.key_path}.{context.key}"
        if transformers and key not in found:
            services.append(transformers)
            found[key] = next(
                (t for path, t in transformers.items() if key[1].endswith(path)), None
            )
        transform = found.get(key) if transformers else None
        return transform(value) if transform else value

    return mock.patch.object(AttributePicker, "__call__", __call__)


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
