"""What a deploy does besides Custodian: the autonomy of each function.

Importing this module makes Custodian's Lambda modes do it; `custom_actions.__main__` does, and
nothing that runs in a function.
"""

import logging

from c7n.policy import LambdaMode

from custom_actions import autonomy
from custom_actions.response import ignoring

log = logging.getLogger("custodian.serverless")

custodian_provision = LambdaMode.provision


def provision(mode):
    """Deploy the function of a policy; what `LambdaMode.provision` returns."""
    settle_autonomy(mode.policy)
    return custodian_provision(mode)


def settle_autonomy(policy):
    """Replace the variable by its value, by what is deployed, or by observe; and tag it.

    IAM: lambda:GetFunction.
    """
    mode = policy.data["mode"]
    options = mode.get("execution-options", {})
    if autonomy.OPTION not in options:
        return
    if options[autonomy.OPTION] == autonomy.UNSET:
        options[autonomy.OPTION] = deployed_autonomy(policy) or autonomy.OBSERVE
    word = autonomy.checked(options[autonomy.OPTION], f"policy:{policy.name}")
    mode.setdefault("tags", {})[autonomy.TAG] = word
    log.info("policy:%s autonomy:%s", policy.name, word)


def deployed_autonomy(policy):
    """The word of the function as it is deployed now, or None."""
    client = policy.session_factory().client("lambda", region_name=policy.options.region)
    name = policy.data["mode"].get("function-prefix", "custodian-") + policy.name
    deployed = ignoring("ResourceNotFoundException", client.get_function, FunctionName=name)
    return (deployed or {}).get("Tags", {}).get(autonomy.TAG)


LambdaMode.provision = provision
