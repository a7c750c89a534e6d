"""The door: who is calling, how many at once, and the relay to the gRPC server behind it."""
