"""The commands `get`, `panic` and `lock`, without gRPC, protobuf or click.

Starting gRPC costs several times what the rest of a `get` does, and a shell script pays that on
every call. So these commands make their one call over `wire`. `panic` and `lock` are called this
way since it gets through to a daemon that is flooded (see `ending`).

Where `wire` raises `HandOver`, the ordinary command does the job with gRPC. Before the request is
sent, that costs nothing. After it, it may leave a second lease: the daemon may have issued one for
the answer that was not understood. That lease belongs to the same process tree, holds the same keys
under the same grant, is seen in `leases` and ends by itself, so nobody gets what he would not have
got; of a grant with limited uses it takes one more. The daemon itself never sends anything that
leads there: only a server of another make does.
"""
