"""The vault: its states, its keys, its slots, and the one way in which it changes.

Who may do what is not decided here, and nothing is written to the audit log except
through the `Journal` that the vault is given.
"""
