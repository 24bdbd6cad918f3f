"""The verbs that callers run all day, and that `fast` may accept. Data only."""

from ocimig.cli.verbs import ANY, FLAG, MANY, NUMBER, TEXT, Option, Verb

_BUNDLE = Option(
    "-b, --bundle",
    "directory with config.json (default: the working directory)",
    TEXT,
    "DIR",
    file=True,
)
_CONSOLE = Option(
    "--console-socket",
    "unix socket that receives the master of the terminal",
    TEXT,
    "SOCKET",
    file=True,
)
_PIDFD = Option(
    "--pidfd-socket", "unix socket that receives a pidfd of the process", TEXT, "SOCKET", file=True
)
_PID_FILE = Option("--pid-file", "write the process id to this file", TEXT, "FILE", file=True)
_PRESERVE = Option(
    "--preserve-fds", "pass N more descriptors, from 3 on (after those of LISTEN_FDS)", NUMBER, "N"
)
_DETACH = Option("-d, --detach", "do not wait for the process", FLAG)
_NO_SUBREAPER = Option("--no-subreaper", "do not adopt the orphans of the container", FLAG)
_CREATE = (
    _BUNDLE,
    Option("-f, --config", "another file than config.json of the bundle", TEXT, "FILE", file=True),
    _CONSOLE,
    _PIDFD,
    _PID_FILE,
    Option("--no-pivot", "move the root instead of pivot_root (for a root on a ramdisk)", FLAG),
    Option("--no-new-keyring", "keep the session keyring of the caller", FLAG),
    _PRESERVE,
)
_NET = Option(
    "--net",
    "network of the container: bridge=NAME,address=IP/LEN[,gateway=IP][,mac=MAC][,interface=NAME]"
    "[,mtu=N]",
    TEXT, "SETTINGS",
)  # fmt: skip
_LISTING = Option("-f, --format", "form of the output", TEXT, "FORMAT", choices=("table", "json"))

HOT = {
    verb.name: verb
    for verb in (
        Verb(
            "create", "ocimig.cli.commands.lifecycle:create",
            "create a container, which then waits for start",
            options=(
                *_CREATE, _NET, _NO_SUBREAPER,
                Option("--explain", "print each step in words and make nothing", FLAG),
            ),
            examples=(
                ("Create a container from the bundle in /srv/web", "create -b /srv/web web"),
                ("See what that would do", "create --explain -b /srv/web web"),
            ),
        ),
        Verb(
            "start", "ocimig.cli.commands.lifecycle:start",
            "run the process of a created container",
            examples=(("Start it", "start web"),),
        ),
        Verb(
            "run", "ocimig.cli.commands.lifecycle:run",
            "create and start a container",
            options=(
                *_CREATE, _NET, _DETACH,
                Option("--keep", "keep the container when its process has ended", FLAG),
                _NO_SUBREAPER,
            ),
            description=(
                "Without --detach, signals go to the process, the terminal is passed through, and "
                "the exit status is that of the process (128+N when signal N ended it)."
            ),
            examples=(
                ("Run in the foreground", "run -b /srv/web web"),
                ("Run behind a bridge, ready to migrate with its address",
                 "run -d -b /srv/web --net bridge=br0,address=10.0.0.5/24,gateway=10.0.0.1 web"),
            ),
        ),
        Verb(
            "exec", "ocimig.cli.commands.execute:execute",
            "run one more process in a running container",
            arguments="ID [--] COMMAND [ARG...]", minimum=1, maximum=ANY, rest=True, failure=255,
            options=(
                _CONSOLE,
                _PIDFD,
                Option("--cwd", "working directory in the container", TEXT, "DIR"),
                Option("-e, --env", "set an environment variable", MANY, "NAME=VALUE"),
                Option("-t, --tty", "give it a terminal", FLAG),
                Option("-u, --user", "user, and group", TEXT, "UID[:GID]"),
                Option("-g, --additional-gids", "additional group", MANY, "GID"),
                Option("-p, --process", "take the process from this file (process of config.json)",
                       TEXT, "FILE", file=True),
                _DETACH,
                _PID_FILE,
                Option("--process-label", "SELinux label of the process", TEXT, "LABEL"),
                Option("--apparmor", "AppArmor profile of the process", TEXT, "PROFILE"),
                Option("--no-new-privs", "set no_new_privs", FLAG),
                Option("-c, --cap", "add a capability", MANY, "NAME"),
                _PRESERVE,
                Option("--cgroup", "run in this cgroup below the container's",
                       MANY, "[CONTROLLER[,CONTROLLER]:]PATH"),
                Option("--ignore-paused", "do not refuse a paused container", FLAG),
                Option("--no-subreaper", "ignored: old callers pass it", FLAG, hidden=True),
            ),
            description=(
                "Everything after ID belongs to the command. The exit status is that of the "
                "process; 255 when it could not be run."
            ),
            examples=(
                ("A shell in it", "exec -t web sh"),
                ("As another user, elsewhere", "exec -u 33:33 --cwd /var/www web -- ls -l"),
            ),
        ),
        Verb(
            "state", "ocimig.cli.commands.query:state",
            "show the state of a container as JSON",
            examples=(("State of web", "state web"),),
        ),
        Verb(
            "list", "ocimig.cli.commands.query:list_",
            "list the containers",
            arguments="", minimum=0, maximum=0,
            options=(_LISTING, Option("-q, --quiet", "only the ids", FLAG)),
            examples=(("A table", "list"), ("For programs", "list --format json")),
        ),
        Verb(
            "ps", "ocimig.cli.commands.query:ps",
            "list the processes of a container",
            arguments="ID [PS OPTIONS]", minimum=1, maximum=ANY, rest=True,
            options=(_LISTING,),
            description="The options after ID are those of ps(1); without any, it is ps -ef.",
            examples=(("Processes with their threads", "ps web -eLf"),),
        ),
        Verb(
            "kill", "ocimig.cli.commands.lifecycle:kill",
            "send a signal to the first process of a container",
            arguments="ID [SIGNAL]", minimum=1, maximum=2,
            options=(Option("-a, --all", "to every process of the container", FLAG, hidden=True),),
            description="SIGNAL is a number or a name, with or without SIG. The default is TERM.",
            examples=(("Ask it to end", "kill web"), ("End it", "kill web KILL")),
        ),
        Verb(
            "delete", "ocimig.cli.commands.lifecycle:delete",
            "remove what is left of containers that have stopped",
            arguments="ID [ID...]", minimum=1, maximum=ANY,
            options=(
                Option("-f, --force", "kill a running container first; a missing one is fine", FLAG),
            ),
            examples=(("Remove it whatever it does", "delete -f web"),),
        ),
        Verb(
            "pause", "ocimig.cli.commands.lifecycle:pause",
            "freeze every process of a container",
            examples=(("Freeze it", "pause web"),),
        ),
        Verb(
            "resume", "ocimig.cli.commands.lifecycle:resume",
            "thaw a paused container",
            examples=(("Thaw it", "resume web"),),
        ),
    )
}  # fmt: skip
