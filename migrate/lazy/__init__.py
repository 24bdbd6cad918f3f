"""Memory that comes after the restore: CRIU leaves it out, this puts it in while the container runs.

handler   what the agent holds: start it early, serve, fill, wait
guard     keeps the userfaultfds and a handler alive
server    the handler's process: events, faults, filling
fill      one address space; events: what the kernel says about it; pieces: what it still lacks
"""
