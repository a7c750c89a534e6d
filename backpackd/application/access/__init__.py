"""Access to keys: the decision, the question to a person, grants, policy and leases.

The rules are pure functions in `core/access`. Here they are applied to the vault, the audit log
and the live processes.
"""
