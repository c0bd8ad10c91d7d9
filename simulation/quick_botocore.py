"""The same answers from botocore, sooner: what depends on installed files alone is found once.

For each session it looks through its folder and reads a model again, for each client it translates
the names of events. Custodian and moto make many of both.
Importing this module makes it so for the process, and for those that are forked from it.
"""

import functools

import botocore.session
from botocore.hooks import EventAliaser, HierarchicalEmitter
from botocore.loaders import JSONFileLoader, Loader

_load = functools.cache(JSONFileLoader().load_file)
JSONFileLoader.load_file = lambda self, path: _load(path)
_services = functools.cache(Loader(include_default_search_paths=True).list_available_services)
Loader.list_available_services = lambda self, type_name: _services(type_name)
_aliased = functools.cache(EventAliaser(HierarchicalEmitter())._alias_event_name)
EventAliaser._alias_event_name = lambda self, name: _aliased(name)


def read_models(*services: str) -> None:
    """Read what clients of these services need, so that processes which are forked have it."""
    for service in services:
        botocore.session.Session().create_client(
            service, "us-east-1", aws_access_key_id="nobody", aws_secret_access_key="nothing"
        )
