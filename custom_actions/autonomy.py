"""How far the pack may go by itself: observe, ask or contain.

A policy with the line

    execution-options: {autonomy: "{autonomy}"}

in its mode gets its word from Custodian's variables: `make deploy MODE=ask` (a `--vars-file`), or
`vars` in accounts.yml, for all accounts or for one. Without a word a deploy leaves a function as it
is, and a new one observes (custom_actions/provision.py).

observe: nothing is changed, the mails say what would be done. ask: the same, and the mails carry
the command by which a person does it. contain: it is done. A policy without the line contains, as
any policy of Custodian does; so does one that a person runs.
"""

from c7n.exceptions import PolicyValidationError

from custom_actions.record import AUTONOMY

OBSERVE, ASK, CONTAIN = WORDS = ("observe", "ask", "contain")

OPTION = "autonomy"
UNSET = "{autonomy}"  # the variable, where nobody has given it a value
TAG = AUTONOMY  # of the function


def checked(word, about):
    """The word, when it is one of the three. Raises PolicyValidationError."""
    if word not in WORDS:
        raise PolicyValidationError(f"{about} autonomy {word!r} is none of {', '.join(WORDS)}")
    return word


def at_runtime(options):
    """The word of a deployed function; options: `execution-options` of its mode.

    What is none of the three does nothing by itself.
    """
    word = options.get(OPTION, CONTAIN)
    return word if word in WORDS else OBSERVE


def of(config):
    """The word that a policy runs with; config: Custodian's."""
    return config.get(OPTION) or (OBSERVE if config.dryrun is True else CONTAIN)
