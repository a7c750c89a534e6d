"""Keeps secrets in the daemon's own memory out of reach, and reads or stretches secrets.

What a secret opens is not known here.
"""
