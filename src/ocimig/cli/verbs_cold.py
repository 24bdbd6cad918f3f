"""The verbs that are not run all day: CRIU, migration, documents. Data only."""

from ocimig.cli.verbs import FLAG, MANY, NUMBER, TEXT, Option, Verb
from ocimig.cli.verbs_archive import ARCHIVE, EXPORT, IMPORT
from ocimig.cli.verbs_backup import BACKUP
from ocimig.cli.verbs_clone import CLONE
from ocimig.cli.verbs_hot import HOT
from ocimig.cli.verbs_inspect import INSPECT
from ocimig.cli.verbs_jobs import JOBS
from ocimig.cli.verbs_place import PLACE

_IMAGE = Option(
    "--image-path", "directory of the image (default: ./checkpoint)", TEXT, "DIR", file=True
)
_WORK = Option(
    "--work-path",
    "directory of CRIU's logs and statistics (default: in the image)",
    TEXT,
    "DIR",
    file=True,
)
_PARENT = Option(
    "--parent-path",
    "the previous image, relative to the directory of this one",
    TEXT,
    "DIR",
    file=True,
)
_CRIU = (
    Option("--tcp-established", "keep established TCP connections", FLAG),
    Option("--tcp-skip-in-flight", "leave out connections that are still being made", FLAG),
    Option("--tcp-close", "close established TCP connections instead of keeping them", FLAG),
    Option("--link-remap", "keep files that are open but no longer have a name", FLAG),
    Option("--ext-unix-sk", "keep unix sockets whose other end is outside", FLAG),
    Option("--shell-job", "the container uses the terminal of a shell", FLAG),
    Option("--file-locks", "keep file locks", FLAG),
    Option("--manage-cgroups-mode", "what CRIU does with cgroups (default: ignore, ocimig does it)",
           TEXT, "MODE", choices=("soft", "full", "strict", "ignore")),
    Option("--empty-ns", "leave the content of this namespace to others", MANY, "NAMESPACE",
           choices=("network",)),
    Option("--auto-dedup", "remove from the parent what is saved again", FLAG),
    Option("--network-lock", "how the network is held (default: a table of ocimig's in nftables)",
           TEXT, "METHOD", choices=("iptables", "nftables", "skip")),
    Option("--lazy-pages", "memory follows on request", FLAG),
)  # fmt: skip
_REACH = (
    Option("-p, --port", "port of the other host's SSH server", NUMBER, "PORT"),
    Option("-i, --identity", "private key file", TEXT, "FILE", file=True),
    Option("--known-hosts", "file of known host keys", TEXT, "FILE", file=True),
    Option("--accept-new-host-key", "learn the key of a host that is not known yet", FLAG),
    Option("--transport", "who speaks SSH (default: paramiko)", TEXT, "NAME",
           choices=("paramiko", "openssh", "local")),
    Option("--remote-command", "how ocimig is called there (default: ocimig)",
           TEXT, "COMMAND"),
    Option("--remote-root", "directory of the state of containers there", TEXT, "DIR"),
)  # fmt: skip
_PROGRESS = Option("--progress", "how progress is shown on stderr (default: auto)", TEXT, "HOW",
                   choices=("auto", "plain", "json", "none"))  # fmt: skip
_ALLOW = (
    Option("--tcp-close", "close established TCP connections instead of keeping them", FLAG),
    Option("--file-locks", "keep file locks", FLAG),
    Option("--link-remap", "keep files that are open but no longer have a name", FLAG),
    Option("--ext-unix-sk", "keep unix sockets whose other end is outside", FLAG),
    Option("--keep-source-files", "leave the bundle here when it has moved", FLAG),
)  # fmt: skip
_TRACKERS = ("userfault", "softdirty", "content", "auto")
_FOLLOW = "what tells which memory is written (default: auto, the best that works here)"
_MEMORY = (
    Option("--max-downtime", "freeze when it will stand still for no longer (default: 300)",
           NUMBER, "MS"),
    Option("--max-rounds", "send memory that often while it runs (default: 30; 0: all in the freeze)",
           NUMBER, "N"),
    Option("--max-bandwidth", "send memory no faster than that while it runs", NUMBER, "MIB/S"),
    Option("--timeout", "end the rounds after so many seconds (default: when no progress is made)",
           NUMBER, "SECONDS"),
    Option("--on-timeout", "when it does not fit by then (default: stop, which freezes it all the same)",
           TEXT, "ACTION", choices=("abort", "stop", "throttle")),
    Option("--auto-converge", "slow it down in steps as long as it writes faster than memory travels",
           FLAG),
    Option("--post-copy", "when it does not fit: freeze it, and let the rest of its memory follow while "
           "it runs there; if that host or the link fails then, it ends there and is held here as it was "
           "when it was frozen", FLAG),
    Option("--tracker", f"{_FOLLOW}; none leaves all of it to the freeze", TEXT, "NAME",
           choices=(*_TRACKERS, "none")),
    Option("--streams", "connections that carry memory (default: as many as pay)", NUMBER, "N"),
    Option("--compress", "memory on its way (default: auto, where it pays)", TEXT, "HOW",
           choices=("zstd", "none", "auto")),
    Option("--forget-retained", "keep none of its memory here for when it comes back", FLAG),
)  # fmt: skip

COLD = {
    verb.name: verb
    for verb in (
        Verb(
            "spec", "ocimig.cli.commands.documents:spec",
            "write a config.json to start from",
            arguments="", minimum=0, maximum=0,
            options=(
                Option("-b, --bundle", "directory of the file (default: the working directory)",
                       TEXT, "DIR", file=True),
                Option("--rootless", "for a caller who is not root", FLAG),
            ),
            description="A config.json that exists is never overwritten.",
            examples=(("In a new bundle", "spec -b /srv/web"),),
        ),
        Verb(
            "features", "ocimig.cli.commands.documents:features",
            "show what this runtime can do, as JSON",
            arguments="", minimum=0, maximum=0,
            examples=(("For programs", "features"),),
        ),
        Verb(
            "checkpoint", "ocimig.cli.commands.criu:checkpoint",
            "save a running container to files", failure=0,
            options=(
                _IMAGE, _WORK, _PARENT,
                Option("-R, --leave-running", "let it run on afterwards", FLAG),
                Option("--pre-dump", "save only memory, and let it run", FLAG),
                *_CRIU,
                Option("--page-server", "send memory to a CRIU page server", TEXT, "ADDRESS:PORT"),
                Option("--status-fd", "write one zero byte here when lazy pages are ready",
                       NUMBER, "FD"),
                *EXPORT,
            ),
            description=(
                "The container is gone afterwards, unless --leave-running or --pre-dump. A "
                "checkpoint that fails leaves it running."
            ),
            examples=(
                ("Save it with its connections",
                 "checkpoint --tcp-established --image-path /var/tmp/web web"),
                ("A copy, while it runs on", "checkpoint --leave-running --image-path /var/tmp/web web"),
            ),
        ),
        Verb(
            "restore", "ocimig.cli.commands.criu:restore",
            "bring a container back from files", failure=0,
            options=(
                HOT["run"].by_name["bundle"],
                _IMAGE, _WORK,
                Option("--parent-path", "accepted: the image knows its parent", TEXT, "DIR",
                       file=True, hidden=True),
                HOT["run"].by_name["detach"],
                HOT["run"].by_name["pid-file"],
                HOT["run"].by_name["console-socket"],
                HOT["run"].by_name["no-pivot"],
                HOT["run"].by_name["no-subreaper"],
                *_CRIU,
                Option("--lsm-profile", "another LSM profile than the saved one", TEXT, "TYPE:NAME"),
                Option("--lsm-mount-context", "another LSM context for mounts", TEXT, "CONTEXT"),
                *IMPORT,
            ),
            examples=(
                ("Bring it back", "restore --detach --tcp-established --image-path /var/tmp/web web"),
            ),
        ),
        Verb(
            "migrate", "ocimig.cli.commands.migrate:migrate",
            "move a running container to another host",
            arguments="ID... [USER@]HOST[:PORT]", minimum=1, maximum=-1, contract=False,
            options=(
                *_REACH,
                Option("--together", "move several containers: all of them run there afterwards, or all "
                       "here", FLAG),
                Option("-n, --dry-run", "look at both hosts, report, change nothing", FLAG),
                Option("--json", "the report as JSON", FLAG),
                _PROGRESS,
                Option("--report", "draw what happened into this file (HTML)", TEXT, "FILE", file=True),
                *_MEMORY,
                *_ALLOW,
                Option("--resume", "finish a migration that is in doubt", FLAG),
                Option("--abort", "give up a migration that is in doubt: it runs on here", FLAG),
                Option("--assume-destination-dead",
                       "with --resume: it runs on here although the other host does not answer; if it "
                       "runs there, there are two", FLAG),
            ),
            description=(
                "The bundle and its root file system, the memory, the established TCP connections "
                "and the address of the container travel over SSH. Nothing but ocimig, CRIU and an "
                "SSH server is needed there. At every moment at most one copy runs; when anything "
                "fails before the last step, the container runs on here. Memory is sent in rounds while "
                "it runs, each what was written during the one before; it is frozen when what is left "
                "fits into --max-downtime. With --together several are frozen at once, when each has so "
                "little left to send, and none is let go there before all are built."
            ),
            examples=(
                ("See whether it would go", "migrate --dry-run web host2"),
                ("Move it", "migrate web root@host2"),
                ("Stand still for 100 ms at most, or stay",
                 "migrate --max-downtime 100 --auto-converge --timeout 120 --on-timeout abort web host2"),
                ("Move two that belong together", "migrate --together web db host2"),
                ("After a broken connection", "migrate --resume web"),
            ),
        ),
        Verb(
            "dirty-rate", "ocimig.cli.commands.memory:dirty_rate",
            "measure how fast a container writes to its memory",
            contract=False,
            options=(
                Option("--seconds", "how long (default: 2)", NUMBER, "N"),
                Option("--tracker", _FOLLOW, TEXT, "NAME", choices=_TRACKERS),
                Option("--json", "the figures as JSON", FLAG),
            ),
            description=(
                "It runs on meanwhile, and nothing of it is changed. A container that writes more in a "
                "second than the link to the other host carries is moved with a long blackout, or "
                "slowed down by migrate --auto-converge."
            ),
            examples=(("For five seconds", "dirty-rate --seconds 5 web"),),
        ),
        Verb(
            "drain", "ocimig.cli.commands.drain:drain",
            "move all running containers of this host to others",
            arguments="", minimum=0, maximum=0, contract=False,
            options=(
                Option("--to", "the hosts that take them", TEXT, "[USER@]HOST[:PORT][,...]"),
                Option("--parallel", "move so many at once (default: 1)", NUMBER, "N"),
                Option("-n, --dry-run", "show who would go where, change nothing", FLAG),
                Option("--keep-going", "start more although a migration is in doubt", FLAG),
                Option("--json", "the outcomes as JSON", FLAG),
                *_REACH,
                *_MEMORY,
                *_ALLOW,
            ),
            description=(
                "Each goes to the host that has most memory left of those that take it, the largest "
                "first. When one fails, it runs on here, and the others follow; a host that cannot be "
                "reached any more is left out. Only when one is in doubt no more are started. Run it "
                "again to move what is left. --max-bandwidth is for all that move at once. The exit "
                "code is 0 when all have moved, else the worst that migrate had for one of them, or 3 "
                "when paused or created containers are left."
            ),
            examples=(
                ("Who would go where", "drain --to host2,host3 --dry-run"),
                ("Empty this host, two at a time, with at most 100 MiB/s",
                 "drain --to host2,host3 --parallel 2 --max-bandwidth 100"),
            ),
        ),
        Verb(
            "recover", "ocimig.cli.commands.migrate:recover",
            "settle migrations that a crash left unfinished",
            arguments="[ID...]", minimum=0, maximum=-1, contract=False,
            options=(Option("--json", "the findings as JSON", FLAG),),
            examples=(("All of them", "recover"),),
        ),
        Verb(
            "agent", "ocimig.cli.commands.migrate:agent",
            "the far side of a migration, on standard input and output",
            arguments="", minimum=0, maximum=0, contract=False, hidden=True,
            options=(Option("--attach", "give these streams to the agent of a migration under way",
                            TEXT, "MIGRATION", hidden=True),),
        ),
        Verb(
            "doctor", "ocimig.cli.commands.doctor:doctor",
            "show what this host can and cannot do, and how to mend it",
            arguments="", minimum=0, maximum=0, contract=False,
            options=(Option("--json", "the findings as JSON", FLAG),),
            examples=(("Is this host ready?", "doctor"),),
        ),
        *CLONE,
        *ARCHIVE,
        *BACKUP,
        *PLACE,
        *JOBS,
        *INSPECT,
    )
}  # fmt: skip

# The first words of verbs of two words, and what each family is for.
FAMILIES: dict[str, str] = {
    "archive": "checkpoints as one file, for podman, CRI-O and registries too",
    "backup": "snapshots of running containers in a store, and containers out of it",
    "job": "backup jobs: what is saved, when, and who hears of it",
}

ALL = {**HOT, **COLD}


def of_family(family: str) -> list[Verb]:
    """The verbs whose first of two words is this."""
    return [verb for verb in ALL.values() if verb.name.startswith(f"{family} ")]


def rows() -> list[tuple[str, str]]:
    """What the first page lists: (verb or family, what it is for)."""
    single = [(verb.name, verb.summary) for verb in ALL.values() if _single(verb)]
    return [*single, *FAMILIES.items()]


def _single(verb: Verb) -> bool:
    return not verb.hidden and " " not in verb.name
