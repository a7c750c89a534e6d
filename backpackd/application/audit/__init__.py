"""The audit log of one vault: what is recorded, how it is written, read and verified.

The form of a row and of the chain is `core/audit`'s. Nothing here decides who may read.
"""
