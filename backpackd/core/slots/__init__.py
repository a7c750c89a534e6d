"""Slots: the ways to unlock a vault, the secrets that open them, and delays after wrong ones.

Where a secret comes from (a terminal, a file, a keychain) is not known here.
"""
