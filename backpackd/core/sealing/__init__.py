"""Cryptography that everything else is built on: sealing, key pairs, canonical bytes.

What is sealed, and what it means, is known to the other rooms only.
"""
