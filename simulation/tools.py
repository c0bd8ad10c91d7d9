"""The pack's command lines, as a process that is forked with everything imported.

The imports stand in the function: it runs in that process only, see `deploy.custodian`.
"""

import importlib
import os
import sys
from pathlib import Path

from .bootstrap import WoundClock


def run(
    module: str,
    function: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: Path,
    output: Path,
    archives: Path | None,
    wound: bool,
):
    """Take over environment and output, then be `python -m MODULE ARGUMENTS`.

    module: its `__main__`, where `function` is the command line.
    archives: see `remember_archives`; None builds them. wound: see `Cloud`.
    """
    from .preloaded import remember_archives

    if archives:
        remember_archives(archives)
    if wound:
        WoundClock().install()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [module, *arguments]
    getattr(importlib.import_module(f"{module}.__main__"), function)()
