"""One file per gRPC service: message -> call of the application -> message.

Nothing is decided here. Who may call a method, and in which state of the vault, stands
beside this room and is enforced once.
"""
