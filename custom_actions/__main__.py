"""The stock command lines with the pack loaded.

    python -m custom_actions custodian ARGS...
    python -m custom_actions c7n-org ARGS...

Custodian cannot load actions from outside by itself. The import has to stand at the top of the
module, outside the guard, so that c7n-org's worker processes have it under every start method.
"""

import sys

from c7n.policy import Policy
from c7n.utils import load_file
from c7n.version import version

import custom_actions.archive  # noqa: F401 - registers the actions, and has archives compiled
import custom_actions.provision  # noqa: F401 - what a deploy does besides Custodian


def main():
    tool = sys.argv[1] if len(sys.argv) > 1 else None
    if tool == "custodian":
        from c7n.cli import main as run
    elif tool == "c7n-org":
        from c7n_org.cli import cli as run
    else:
        sys.exit("usage: python -m custom_actions {custodian | c7n-org} ARGS...")
    sys.argv = [tool, *sys.argv[2:]]
    if tool == "custodian" and version == "0.9.52":
        take_vars_file(sys.argv)
    run()


def take_vars_file(arguments):
    """Do what `--vars-file` does, and take it off: Custodian has it since 0.9.53.

    To be removed together with requirements-0.9.52.txt.
    """
    if "--vars-file" not in arguments:
        return
    place = arguments.index("--vars-file")
    said = load_file(arguments[place + 1])
    del arguments[place : place + 2]
    stock = Policy.get_variables
    Policy.get_variables = lambda self, variables=None: stock(self, {**said, **(variables or {})})


if __name__ == "__main__":
    main()
