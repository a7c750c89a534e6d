"""The door: accepts connections, speaks HTTP/2 and gRPC, and enforces limits."""
