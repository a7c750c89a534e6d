"""The outside world behind the ports: sockets, processes, files, memory, timers."""
