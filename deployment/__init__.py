"""The life of a deployment, in one account or in an organisation: `python -m deployment --help`.

A module for each command. `targets.py` says where (an account and region, or all of accounts.yml),
`everywhere.py` runs a function there, and `table.py` shows what came of it. Nothing of this runs in
a function.
"""
