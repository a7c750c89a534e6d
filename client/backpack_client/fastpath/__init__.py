"""The commands `get`, `panic` and `lock`, without gRPC, protobuf or click.

Starting gRPC costs several times what the rest of a `get` does, and a shell script pays that on
every call. So these commands make their one call over `wire`. `panic` and `lock` are called this
way since it gets through to a daemon that is flooded (see `ending`).

A `get` asks once, whatever comes: what `wire` does not know is a failure. To ask again by gRPC
could leave a second lease. `panic` and `lock` do no harm twice, so there the ordinary command tries
it by gRPC.
"""
