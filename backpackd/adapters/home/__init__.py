"""The daemon's home: a private directory, and the one way in which files are opened.

What the files hold is not known here.
"""
