"""Who may lease which keys: selectors, grants, policy, consents, leases, the decision.

Pure rules over names and the kernel's facts: no key's value passes here.
"""
