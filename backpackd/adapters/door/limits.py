"""The limits of the door: every number, and why it is that number.

They bound what a runaway program costs: one tree of processes that calls, hangs up, reads nothing
or sends frames that carry nothing. Each is in the unit that costs. A hostile process of the same
user can stop the daemon with a signal, so nothing here tries to do more.
"""

MIB = 1024 * 1024

# Connections

CONNECTIONS_OF_TREE = 128
"""Of one process tree. A task with that many has forgotten to close them: its longest-idle one
makes way for a new one."""

CONNECTIONS = 512
"""Of everybody. Each takes two descriptors and some 40 KiB."""

ACCEPTS_PER_TURN = 64
"""Connections that are taken from the kernel in one turn of the event loop. To take one and find
it closed again costs 20 µs, so a full queue of the kernel is through in 16 turns."""

WAITING_OF_TREE = 1024
"""Connections of one tree that were accepted and wait to be opened. More are closed at once. It is
as many as the kernel keeps: a flood whose connections wait is quiet, and one whose connections are
closed connects again at once."""

REST_SECONDS = 0.02
"""How long no connection of a tree is opened after one for which another one had to make way. A
tree of more processes than connections would keep the daemon busy with nothing else."""

FIRST_REQUEST_SECONDS = 10.0
"""From the accept to the first request."""

FIRST_REQUEST_BYTES = 64 * 1024
"""Before the first request is whole as far as its headers go."""

# Turns

JOBS_PER_TURN = 8
"""Reads, opened connections and started requests in one turn of the event loop. Each costs up to
half a millisecond, so whoever has to wait for a turn waits a few milliseconds."""

JOBS_OF_TREE = 4
"""Of these, jobs of one tree while others wait."""

FRAMES_PER_JOB = 64
"""Frames of one connection that are read in one job: one frame costs the library 5 to 10 µs."""

CALLS_OF_TREE = 32
"""Calls of one tree in progress. What waits for a person, for a passphrase to be stretched, or for
its caller does not count."""

# Requests

STREAMS = 100
"""Calls at once on one connection, as RFC 9113, section 6.5.2 recommends at least. A client that
opens more breaks the protocol and is closed."""

LONGEST_FRAME = 16 * 1024
"""Bytes; SETTINGS_MAX_FRAME_SIZE as it is without being set (RFC 9113, section 6.5.2)."""

HEADER_BYTES = 16 * 1024
"""The headers of one request, as RFC 9113, section 6.5.2 counts them. A call with more is refused.
The library closes a connection on which they come to 64 KiB, which bounds what HPACK expands to."""

UNFINISHED_OF_CONNECTION = 2 * MIB
"""Bytes of requests that are not whole or not done, on a connection without operator authority:
a lock file of 1 MiB, and as much again for what goes with it."""

UNFINISHED_OF_TREE = 8 * MIB
"""The same of one process tree."""

UNFINISHED = 64 * MIB
"""The same of everybody."""

QUEUED = 256 * 1024
"""Bytes of messages that wait for their call to take them, from which on the peer's window is not
opened any more."""

# Frames

FRAMES_SPARE = 512
"""Frames besides those that begin a request that a connection may send before it is closed. All
that follow say how it earns more."""

FRAMES_FOR_A_REQUEST = 32
"""Node's client sends about ten for each call."""

BYTES_FOR_ONE_FRAME = 512
"""Of a request's content. Node cuts long messages into small frames."""

FRAMES_FOR_A_MESSAGE = 2
"""For each whole message of a request: a stream may consist of short ones, each in a frame."""

FRAMES_FOR_AN_ANSWER = 4
"""For each frame that the peer is sent: it answers with WINDOW_UPDATE, and grpc with PING."""

FRAMES_A_SECOND = 16

# Answers

UNSENT = 256 * 1024
"""Bytes that wait to be sent to one peer. A call that has more to say waits; when answers to
control frames fill it, nothing is read any more."""

PATIENCE_SECONDS = 30.0
"""How long a peer may take nothing of what waits for it. Then its connection is closed."""

# When the system has run out of something

PAUSE_SECONDS = 0.1
"""How long nothing is accepted then."""
