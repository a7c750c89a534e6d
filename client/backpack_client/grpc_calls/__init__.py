"""The operator's calls, over grpc: one connection carries all of them, and has the authority.

Only the full package has what this imports. The APIs load it with the first such call; see
`calls.stubs`. What agents call goes over `wire` instead.
"""
