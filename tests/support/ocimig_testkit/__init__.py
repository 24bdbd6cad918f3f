"""The test kit: probes, tiny root file systems, bundles, a runner of the program, a sweeper of leaks.

Never imports the rooms: the same kit drives runc and crun (OCIMIG_RUNTIME), which validates the tests.
"""

from ocimig_testkit.bundles import Bundle, make_bundle
from ocimig_testkit.console import ConsoleSocket, receive_descriptors
from ocimig_testkit.hosts import Host, HostPair
from ocimig_testkit.probes import MARKERS, refusal
from ocimig_testkit.rootfs import make_rootfs
from ocimig_testkit.runner import Answer, Ocimig, program
from ocimig_testkit.session import TOKEN
from ocimig_testkit.waiting import until

__all__ = [
    "MARKERS",
    "TOKEN",
    "Answer",
    "Bundle",
    "ConsoleSocket",
    "Host",
    "HostPair",
    "Ocimig",
    "make_bundle",
    "make_rootfs",
    "program",
    "receive_descriptors",
    "refusal",
    "until",
]
