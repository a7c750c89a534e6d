"""The audit log of one vault: what is recorded, how it is written, read and verified.

`core/audit` defines the form of a row and of the chain. Nothing here decides who may read.
"""
