"""The verbs of `ocimig backup`: snapshots of running containers in a store. Data only."""

from ocimig.cli.verbs import ANY, FLAG, MANY, MAYBE, NUMBER, TEXT, Option, Verb
from ocimig.cli.verbs_archive import EXPORT

OPEN = (
    Option("--passphrase-file", "the file whose content is the passphrase of the store", TEXT, "FILE",
           file=True),
    Option("--key-file", "the file whose content is a key of the store", TEXT, "FILE", file=True),
    Option("--passcommand", "the command that prints the passphrase of the store", TEXT, "COMMAND"),
    Option("--cache", "directory of what can be made anew (default: /var/cache/ocimig)", TEXT, "DIR",
           file=True),
    Option("-p, --port", "port of the other host's SSH server", NUMBER, "PORT"),
    Option("-i, --identity", "private key file", TEXT, "FILE", file=True),
    Option("--known-hosts", "file of known host keys", TEXT, "FILE", file=True),
    Option("--accept-new-host-key", "learn the key of a host that is not known yet", FLAG),
    Option("--transport", "who speaks SSH (default: paramiko)", TEXT, "NAME",
           choices=("paramiko", "openssh", "local")),
    Option("--remote-command", "how ocimig is called there (default: ocimig)", TEXT, "COMMAND"),
)  # fmt: skip
_FORMAT = Option("-f, --format", "form of the output (default: table)", TEXT, "FORMAT",
                 choices=("table", "json"))  # fmt: skip
_KEEP = (
    Option("--keep-last", "keep so many of the latest (-1, also below: all)", TEXT, "N"),
    Option("--keep-hourly", "keep the last one of each of so many hours", TEXT, "N"),
    Option("--keep-daily", "of days", TEXT, "N"),
    Option("--keep-weekly", "of weeks", TEXT, "N"),
    Option("--keep-monthly", "of months", TEXT, "N"),
    Option("--keep-yearly", "of years", TEXT, "N"),
    Option("--keep-within", "keep all that are no older, than the latest one, than 1y5m7d2h", TEXT,
           "DURATION"),
    Option("--keep-tag", "keep all with this tag", MANY, "TAG"),
)  # fmt: skip
LATEST_OF = Option("--container", "with latest: the latest of this container", TEXT, "ID")

BACKUP = (
    Verb(
        "backup init", "ocimig.cli.commands.backup:init",
        "make a store",
        arguments="STORE", contract=False,
        options=(
            Option("--encryption", "what seals it (default: none for a directory here to which no key "
                   "is given, else aes-256-gcm)", TEXT, "CIPHER",
                   choices=("none", "aes-256-gcm", "chacha20-poly1305")),
            *OPEN,
        ),
        description="STORE is a directory, or ssh://[USER@]HOST[:PORT]/PATH.",
        examples=(("On this host", "backup init /srv/backups"),
                  ("On another, sealed", "backup init ssh://root@host2/srv/backups --passphrase-file /root/pass")),
    ),
    Verb(
        "backup create", "ocimig.cli.commands.backup:create",
        "take a snapshot of running containers",
        arguments="STORE ID...", minimum=2, maximum=ANY, contract=False,
        options=(
            Option("--tag", "note this with the snapshots", MANY, "TAG"),
            Option("--tracker", "what tells which memory is written (default: auto, the best that works "
                   "here); none leaves all of it to the freeze", TEXT, "NAME",
                   choices=("auto", "userfault", "softdirty", "content", "none")),
            Option("--tcp-close", "close established TCP connections at a restore instead of keeping them",
                   FLAG),
            _FORMAT, *OPEN,
        ),
        description=(
            "Each container is frozen once, for as long as it takes to save everything but its memory and "
            "the files that did not change. One that fails does not keep the others from it."
        ),
        examples=(("One snapshot", "backup create /srv/backups web"),),
    ),
    Verb(
        "backup list", "ocimig.cli.commands.backup:list_",
        "list snapshots",
        arguments="STORE", contract=False,
        options=(
            Option("--container", "only those of this container", TEXT, "ID"),
            Option("--tag", "only those with this tag", MANY, "TAG"),
            Option("-q, --quiet", "only their names", FLAG),
            _FORMAT, *OPEN,
        ),
        examples=(("All", "backup list /srv/backups"),),
    ),
    Verb(
        "backup show", "ocimig.cli.commands.backup:show",
        "show what is in a snapshot",
        arguments="STORE SNAPSHOT", minimum=2, maximum=2, contract=False,
        options=(Option("--files", "list its files too", FLAG), _FORMAT, *OPEN),
        description="SNAPSHOT is the begin of its name, or latest.",
        examples=(("The latest", "backup show /srv/backups latest"),),
    ),
    Verb(
        "backup restore", "ocimig.cli.commands.backup:restore",
        "bring a container back from a snapshot",
        arguments="STORE SNAPSHOT", minimum=2, maximum=2, contract=False,
        options=(
            LATEST_OF,
            Option("--as", "name it so (default: as it was)", TEXT, "ID"),
            Option("-b, --bundle", "directory of its files (default: where they were)", TEXT, "DIR",
                   file=True),
            Option("--tcp-close", "close established TCP connections instead of keeping them", FLAG),
            *OPEN,
        ),
        description=(
            "Its files go into a directory that is new or empty, its memory back into its processes, and "
            "it runs on from the instant of the snapshot. Standard streams that were pipes or a terminal "
            "end in /dev/null."
        ),
        examples=(("As it was", "backup restore /srv/backups latest --container web"),
                  ("Beside it", "backup restore /srv/backups 3f2a --as web2 -b /srv/web2 --tcp-close")),
    ),
    Verb(
        "backup export", "ocimig.cli.commands.backup_export:export",
        "write a snapshot into one file, as checkpoint --export does",
        arguments="STORE SNAPSHOT FILE", minimum=3, maximum=3, contract=False,
        options=(
            LATEST_OF, *EXPORT[1:], *OPEN,
        ),
        description=(
            "All of its memory and its root file system are in the file: restore --import brings it back "
            "without the store, and podman and checkpointctl read it. While it is made, as much room "
            "again is needed beside it, and for one process after the other its memory."
        ),
        examples=(("For another engine", "backup export /srv/backups latest /var/tmp/web.tar.zst"),),
    ),
    Verb(
        "backup verify", "ocimig.cli.commands.backup_care:verify",
        "is the store what was written?",
        arguments="STORE", contract=False,
        options=(
            Option("--read-data", "read all data, or this part of it chosen at random, and compare it with "
                   "its digests", MAYBE, "5%"),
            Option("--restore", "prove this snapshot (or latest) by restoring it, held and apart, comparing "
                   "all of its memory, and throwing it away", MANY, "SNAPSHOT"),
            _FORMAT, *OPEN,
        ),
        examples=(("Everything", "backup verify /srv/backups --read-data"),),
    ),
    Verb(
        "backup diff", "ocimig.cli.commands.backup:diff",
        "show how two snapshots differ",
        arguments="STORE SNAPSHOT SNAPSHOT", minimum=3, maximum=3, contract=False,
        options=(_FORMAT, *OPEN),
        examples=(("Files and memory", "backup diff /srv/backups 3f2a latest"),),
    ),
    Verb(
        "backup forget", "ocimig.cli.commands.backup_care:forget",
        "remove snapshots, by name or by what to keep",
        arguments="STORE [SNAPSHOT...]", minimum=1, maximum=ANY, contract=False,
        options=(
            *_KEEP,
            Option("--container", "only those of this container", TEXT, "ID"),
            Option("--tag", "only those with this tag", MANY, "TAG"),
            Option("-n, --dry-run", "say what would be removed, and why the others stay", FLAG),
            Option("--prune", "then remove what no snapshot needs any more", FLAG),
            _FORMAT, *OPEN,
        ),
        description=(
            "What to keep counts for each container by itself. One that is damaged is removed by its whole "
            "name and by nothing else; list says what that is."
        ),
        examples=(("A policy", "backup forget /srv/backups --keep-hourly 24 --keep-daily 7 --prune"),),
    ),
    Verb(
        "backup prune", "ocimig.cli.commands.backup_care:prune",
        "remove what no snapshot needs",
        arguments="STORE", contract=False,
        options=(
            Option("-n, --dry-run", "say what would be removed", FLAG),
            Option("--max-unused", "leave a pack as it is with up to this part unneeded (default: 30%)",
                   TEXT, "PART"),
            _FORMAT, *OPEN,
        ),
        examples=(("Free space", "backup prune /srv/backups"),),
    ),
    Verb(
        "backup repair", "ocimig.cli.commands.backup_care:repair",
        "set aside what is damaged",
        arguments="STORE", contract=False,
        options=(_FORMAT, *OPEN),
        description=(
            "Reads everything. What is damaged, and snapshots that need it, go to quarantine/ in the "
            "store; nothing is invented."
        ),
        examples=(("After verify found something", "backup repair /srv/backups"),),
    ),
    Verb(
        "backup key", "ocimig.cli.commands.backup_keys:key",
        "list, add, remove or change what opens a store",
        arguments="list|add|remove|change STORE [KEY]", minimum=2, maximum=3, contract=False,
        options=(
            Option("--new-passphrase-file", "add, change: the file whose content is the new passphrase",
                   TEXT, "FILE", file=True),
            Option("--new-key-file", "add, change: the file whose content is the new key", TEXT, "FILE",
                   file=True),
            Option("--new-passcommand", "add, change: the command that prints the new passphrase", TEXT,
                   "COMMAND"),
            Option("--comment", "add, change: note this with the new key", TEXT, "TEXT"),
            _FORMAT, *OPEN,
        ),
        description=(
            "Each key opens the store by itself. change replaces the one that is given by a new one, "
            "remove takes the begin of a name that list shows, and never the last. Without an option for "
            "the new one it is asked for, twice, on the terminal. Who has kept a copy of a key that was "
            "removed, and knows its passphrase, can still read what they can reach of the store."
        ),
        examples=(("Which there are", "backup key list /srv/backups"),
                  ("Another one", "backup key add /srv/backups --passphrase-file /root/pass "
                   "--new-key-file /root/key"),
                  ("Another passphrase", "backup key change /srv/backups --passphrase-file /root/pass")),
    ),
    Verb(
        "backup unlock", "ocimig.cli.commands.backup_care:unlock",
        "show who holds a store, and forget those who are dead",
        arguments="STORE", contract=False,
        options=OPEN,
        description="The kernel frees the lock of a process that ends: what is held is held by somebody who lives.",
        examples=(("Who is it?", "backup unlock /srv/backups"),),
    ),
)  # fmt: skip
