"""The verb that starts copies of a checkpoint or a snapshot. Data only."""

from ocimig.cli.verbs import FLAG, MANY, NUMBER, TEXT, Option, Verb
from ocimig.cli.verbs_backup import LATEST_OF, OPEN

CLONE = (
    Verb(
        "clone", "ocimig.cli.commands.clone:clone",
        "start copies of a checkpoint or a snapshot",
        arguments="IMAGE | STORE SNAPSHOT", maximum=2, contract=False,
        options=(
            Option("-n, --count", "how many (default: 1)", NUMBER, "N"),
            Option("--name", "name of the copies, a number is added (default: the container's); or the "
                   "name of each", MANY, "NAME"),
            Option("-b, --bundle", "bundle whose root file system they lie over (default: the container's)",
                   TEXT, "DIR", file=True),
            Option("--net", "network of the first: bridge=NAME,address=IP/LEN[,gateway=IP][,interface=NAME]; "
                   "the next have the addresses after it; none: loopback only", TEXT, "NETWORK"),
            Option("--fill", "load the rest of its memory while a copy runs (default: only what it touches)",
                   FLAG),
            Option("--whole", "load all of its memory before a copy runs", FLAG),
            Option("--merge", "mark their memory for the kernel to merge where it is the same, KSM (default: "
                   "auto, where the host merges)", TEXT, "WHEN", choices=("auto", "on", "off")),
            Option("--output", "directory of files for what they print (default: it is thrown away)",
                   TEXT, "DIR", file=True),
            Option("--work-path", "directory of CRIU's logs (default: kept only with the copy)", TEXT,
                   "DIR", file=True),
            Option("-f, --format", "form of the output (default: table)", TEXT, "FORMAT",
                   choices=("table", "json")),
            Option("--files", "directory for a snapshot's images and files as long as copies need them (default: "
                   "/var/lib/ocimig/clones)", TEXT, "DIR", file=True),
            LATEST_OF, *OPEN,
        ),
        description=(
            "IMAGE is a checkpoint directory, which is only read; SNAPSHOT is the begin of the name of a "
            "snapshot in STORE, or latest: it is taken out once, for all copies. Each copy has its own name, cgroup, host "
            "name and address, and its own files: it writes to a layer of its own over the root file system "
            "of the source, and the layer goes with the copy at delete. Memory is loaded when it is touched, by "
            "processes that stay with the copy until all of it is there: keep the images. Established TCP connections are "
            "closed in the copies. One copy that fails does not keep the others from it; those that run "
            "when the command is stopped run on."
        ),
        examples=(
            ("Five, ready in the time of a restore", "clone -n 5 --name web --net none /var/tmp/web"),
            ("With addresses 10.0.0.50 to 10.0.0.54",
             "clone -n 5 --net bridge=br0,address=10.0.0.50/24 /var/tmp/web"),
            ("Of the latest snapshot", "clone -n 5 --net none --container web /srv/backups latest"),
        ),
    ),
)  # fmt: skip
