"""moto's EC2, imported without the instance types that each region and zone offers.

Reading them is half of the import. Nothing here asks for them (DescribeInstanceTypeOfferings gives
none); the types themselves are there. To be imported before what imports `moto.ec2`.
"""

from unittest import mock

import moto.utilities.utils

OFFERINGS = "instance_type_offerings"
_load = moto.utilities.utils.load_resource


def _load_but_offerings(path: str):
    return [] if OFFERINGS in path else _load(path)


with mock.patch.object(moto.utilities.utils, "load_resource", _load_but_offerings):
    import moto.ec2.models.instance_types  # noqa: F401
