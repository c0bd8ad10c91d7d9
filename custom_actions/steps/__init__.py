"""The steps of the response, one a module, each with its revert beside it.

Importing the package registers every one of them with Custodian.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
