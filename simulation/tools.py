"""The pack's command line, as a process that is forked with everything imported.

The imports stand in the function: it runs in that process only, see `deploy.custodian`.
"""

import os
import sys
from pathlib import Path

from .bootstrap import WoundClock


def custodian(
    arguments: list[str],
    environment: dict[str, str],
    folder: Path,
    output: Path,
    archives: Path | None,
    wound: bool,
):
    """Take over environment and output, then be `python -m custom_actions custodian ...`.

    archives: see `remember_archives`; None builds them. wound: see `Cloud`.
    """
    import custom_actions.__main__ as command_line

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
    sys.argv = ["custom_actions", "custodian", *arguments]
    command_line.main()
