"""The person's terminal: prompts, printing, live screens, and input from pipes and files.

Nothing here knows what is asked or shown. Only `fastpath.output` prints values.
"""
