"""One file for each gRPC service: message -> call of the application -> message.

Nothing is decided here. `rpc.methods` says who may call a method, and in which state of the vault.
`rpc.calls` enforces it in one place.
"""
