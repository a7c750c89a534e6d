"""The vault: its states, its keys, its slots, and the only way to change it.

The callers check who may do what. Entries for the audit log go only through the `Journal` of the
vault.
"""
