"""Policy-as-code review: what policies do with findings, on this machine alone.

Rules, filters and steps are Custodian's and the pack's own, as a deploy would make them; AWS is the
simulation. Nothing of it runs in a function.
"""
