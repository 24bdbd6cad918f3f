"""The verbs that look into checkpoints. Data only."""

from ocimig.cli.verbs import FLAG, NUMBER, TEXT, Option, Verb
from ocimig.cli.verbs_backup import LATEST_OF, OPEN

_FORMAT = Option("--format", "tree for people, json for programs (default: tree)", TEXT, "FORMAT",
                 choices=("tree", "json"))  # fmt: skip
_WITHIN = Option("--within", "directory that parents of the image may lie in (default: the one it is in)",
                 TEXT, "DIR", file=True)  # fmt: skip
_PID = Option("-p, --pid", "the process, as numbered inside the container", NUMBER, "PID")

# of backup's verbs; -p is the process here
_SNAPSHOTS = (
    LATEST_OF,
    *(Option("--port", each.help, each.kind, each.metavar) if each.key == "port" else each
      for each in OPEN),
)  # fmt: skip
_IMAGES = (
    "a directory that CRIU wrote, with ocimig or with another program; an archive of ocimig, podman or CRI-O "
    "(restore --import reads the same); or STORE::SNAPSHOT, a snapshot in a store, named as for the verbs of "
    "backup, whose options open it"
)

INSPECT = (
    Verb(
        "inspect", "ocimig.cli.commands.inspect:inspect",
        "show what is in a checkpoint",
        arguments="IMAGE", contract=False,
        options=(
            _PID,
            Option("--files", "open files", FLAG),
            Option("--sockets", "sockets", FLAG),
            Option("--mounts", "mounts and cgroups", FLAG),
            Option("--memory", "memory by mapping", FLAG),
            Option("--env", "environment, rights, limits, namespaces", FLAG),
            Option("--stats", "how long the dump and the restore took", FLAG),
            Option("--all", "all of these", FLAG),
            _FORMAT,
            Option("--html", "write all of it as one page with pictures", TEXT, "FILE", file=True),
            _WITHIN, *_SNAPSHOTS,
        ),
        description=(
            f"IMAGE is {_IMAGES}. Nothing in it is started or changed. Environments and memory hold "
            "secrets: treat the output as such."
        ),
        examples=(
            ("The processes", "inspect checkpoint"),
            ("Everything about one of them", "inspect checkpoint --pid 7 --all"),
            ("For a program", "inspect checkpoint --all --format json"),
            ("In a store", "inspect /srv/backups::latest --container web"),
        ),
    ),
    Verb(
        "diff", "ocimig.cli.commands.diff:diff",
        "show what changed between two checkpoints",
        arguments="BEFORE AFTER", minimum=2, maximum=2, contract=False,
        options=(_FORMAT, _WITHIN, *_SNAPSHOTS),
        description=(
            f"BEFORE and AFTER are each {_IMAGES}. Processes are the same where their numbers are, their memory where the command line is too. "
            "Pages are compared byte by byte, but for those that one store has once for both. The exit code is 1 when anything differs."
        ),
        examples=(("Between two checkpoints of one container", "diff monday tuesday"),
                  ("Since a snapshot", "diff /srv/backups::3f2a checkpoint")),
    ),
    Verb(
        "memory", "ocimig.cli.commands.memory_image:memory",
        "search and extract the memory of a process in a checkpoint",
        arguments="IMAGE", contract=False,
        options=(
            _PID,
            Option("--list", "the mappings (what is done when nothing else is asked for)", FLAG),
            Option("--search", "find this text", TEXT, "TEXT"),
            Option("--search-hex", "find these bytes", TEXT, "HEX"),
            Option("--search-regex", "find what this expression matches (Python's re, bytes)",
                   TEXT, "RE"),
            Option("-c, --context", "so many bytes around a match (default: 16)", NUMBER, "N"),
            Option("--extract", "write a range, in hexadecimal, or the mappings of a name",
                   TEXT, "START-END|NAME"),
            Option("--output", "the new file that --extract writes", TEXT, "FILE", file=True),
            Option("--core", "write a new core file for a debugger", TEXT, "FILE", file=True),
            _WITHIN, *_SNAPSHOTS,
        ),
        description=(
            f"IMAGE is {_IMAGES}. Only what is saved in the checkpoint and its parents is searched. A search that finds "
            "nothing exits with 1. Files that are written hold secrets of the process: their mode is 0600."
        ),
        examples=(
            ("Where is it?", "memory checkpoint --pid 1 --search password"),
            ("The heap into a file", "memory checkpoint --pid 1 --extract heap --output heap.bin"),
            ("A core file for gdb", "memory checkpoint --pid 1 --core core.1"),
            ("In a snapshot", "memory /srv/backups::3f2a --pid 1 --search password"),
        ),
    ),
)  # fmt: skip
