"""One copy of botocore's service models for all sessions of a process and those it forks.

Reading them is most of the time that a deploy takes: each session, and each assumed role is one,
reads them anew (0.1 s for EC2's alone).
"""

import functools

import boto3
from botocore.loaders import Loader


@functools.cache
def loader():
    """botocore's own Loader, which keeps what it has read. boto3 adds its folder to it."""
    return Loader(include_default_search_paths=True)


def share_models(session):
    """Have a boto3 session take its models from the one loader; returns the session.

    It goes for Custodian's `SessionFactory.set_subscribers` as well.
    """
    session._session.register_component("data_loader", loader())
    return session


def read_models(services):
    """Read those of these services now, so that processes which are forked have them."""
    session = share_models(boto3.Session("none", "none", region_name="us-east-1"))
    for service in services:
        session.client(service)
