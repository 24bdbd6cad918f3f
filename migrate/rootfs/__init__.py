"""Files follow: a directory tree, here and there, exact to the nanosecond and the last attribute.

    watch = Watch.start(root)
    index, sent = send(wire, root, watch=watch)                     # while the container runs
    index, sent = send(wire, root, previous=index, watch=watch)     # frozen: only what changed since
    received = receive(wire, directory)                             # on the other side, for each send()

The same code sends any directory: a root file system, a checkpoint image, one file of a bundle.
"""

from ocimig.migrate.rootfs.index import Entry, Index, opened, scan, shared_mappings
from ocimig.migrate.rootfs.plan import Plan, plan
from ocimig.migrate.rootfs.receive import Received, Receiver, receive
from ocimig.migrate.rootfs.send import Sent, send
from ocimig.migrate.rootfs.watch import Watch

__all__ = [
    "Entry",
    "Index",
    "Plan",
    "Received",
    "Receiver",
    "Sent",
    "Watch",
    "opened",
    "plan",
    "receive",
    "scan",
    "send",
    "shared_mappings",
]
