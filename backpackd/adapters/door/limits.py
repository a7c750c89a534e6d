"""The limits of the door: every number with its reason.

They bound the cost of a runaway program: one process tree that calls, hangs up, reads nothing or
sends empty frames. Each limit is in the unit that costs. A hostile process of the same
user can stop the daemon with a signal, so nothing here tries to do more.
"""

MIB = 1024 * 1024

# Connections

CONNECTIONS_OF_TREE = 128
"""Of one process tree. A program with more has forgotten to close them: a new connection replaces
the one that was idle longest."""

CONNECTIONS = 512
"""Of all trees. Each takes two descriptors and some 40 KiB."""

ACCEPTS_PER_TURN = 64
"""Connections accepted in one turn of the event loop. Accepting a connection that is already closed
costs 20 µs, so a full queue of the kernel takes 16 turns."""

WAITING_OF_TREE = 1024
"""Connections of one tree that were accepted and wait to be opened. Above this,
they are closed at once. It is as many as the kernel keeps: a flood whose connections wait is quiet,
but a flood whose connections are closed connects again at once."""

REST_SECONDS = 0.02
"""After a connection of a tree has replaced another one, the tree's next connection waits this
long.
Otherwise a tree with more processes than connections would keep the daemon busy."""

FIRST_REQUEST_SECONDS = 10.0
"""From the accept to the first request."""

FIRST_REQUEST_BYTES = 64 * 1024
"""Before the headers of the first request are complete."""

# Turns

JOBS_PER_TURN = 8
"""Reads, opened connections and started requests in one turn of the event loop. Each costs up to
half a millisecond, so a tree waits a few milliseconds for its turn."""

JOBS_OF_TREE = 4
"""Of these, the jobs of one tree while others wait."""

FRAMES_PER_JOB = 64
"""Frames of one connection that are read in one job: one frame costs the library 5 to 10 µs."""

CALLS_OF_TREE = 32
"""Calls of one tree in progress. Calls that wait for a person, for a passphrase to be stretched, or
for their caller do not count."""

# Requests

STREAMS = 100
"""Calls at once on one connection, as RFC 9113, section 6.5.2 recommends at least. A client that
opens more breaks the protocol and is closed."""

LONGEST_FRAME = 16 * 1024
"""Bytes: the default of SETTINGS_MAX_FRAME_SIZE (RFC 9113, section 6.5.2)."""

HEADER_BYTES = 16 * 1024
"""The headers of one request, as RFC 9113, section 6.5.2 counts them. A call with more is refused.
The library closes a connection whose headers reach 64 KiB, which bounds the expansion by HPACK."""

UNFINISHED_OF_CONNECTION = 2 * MIB
"""Bytes of unfinished requests on a connection without operator authority: a lock file of 1 MiB,
and
as much again for the rest of the request."""

UNFINISHED_OF_TREE = 8 * MIB
"""The same for one process tree."""

UNFINISHED = 64 * MIB
"""The same for all trees."""

QUEUED = 256 * 1024
"""If this many bytes of messages wait for their call, the peer's window stays closed."""

# Frames

FRAMES_SPARE = 512
"""Frames that a connection may send before it is closed, besides frames that begin a request. The
following numbers say how it earns more."""

FRAMES_FOR_A_REQUEST = 32
"""Node's client sends about ten for each call."""

BYTES_FOR_ONE_FRAME = 512
"""Bytes of a request that earn one frame. Node cuts long messages into small frames."""

FRAMES_FOR_A_MESSAGE = 2
"""For each whole message of a request: a stream may consist of short ones, each in a frame."""

FRAMES_FOR_AN_ANSWER = 4
"""For each frame sent to the peer: it answers with WINDOW_UPDATE, and grpc with PING."""

FRAMES_A_SECOND = 16

# Answers

UNSENT = 256 * 1024
"""Bytes that wait to be sent to one peer. A call with more bytes waits. If answers to control
frames
fill it, nothing more is read."""

PATIENCE_SECONDS = 30.0
"""How long a peer may read nothing although answers wait. Then its connection is closed."""

# When the system has run out of a resource

PAUSE_SECONDS = 0.1
"""How long nothing is accepted then."""
