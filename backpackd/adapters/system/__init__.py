"""What the operating system offers: clocks, listening sockets, service manager, libc.

Desktop notifications, too. Who connects to a socket is read in `processes`, what is said
there in `door`.
"""
