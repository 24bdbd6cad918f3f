"""The verbs of backup jobs. Data only."""

from ocimig.cli.verbs import ANY, FLAG, TEXT, Option, Verb

_JOBS = Option(
    "--jobs", "directory of the jobs' files (default: /etc/ocimig/jobs.d)", TEXT, "DIR", file=True
)
_STATE = Option(
    "--state",
    "directory of what runs leave (default: /var/lib/ocimig/jobs)",
    TEXT,
    "DIR",
    file=True,
)
_FORMAT = Option("--format", "how it is shown (default: table)", TEXT, "FORMAT",
                 choices=("table", "json"))  # fmt: skip
_COMMANDS = "ocimig.cli.commands.jobs"

JOBS = (
    Verb(
        "job run", f"{_COMMANDS}:run",
        "run backup jobs now, one after another",
        arguments="[NAME...]", minimum=0, maximum=ANY, contract=False,
        options=(
            Option("--all", "every job that has a file", FLAG),
            Option("--dry-run", "show what would be done, and change nothing", FLAG),
            _FORMAT, _JOBS, _STATE,
        ),
        description=(
            "Saves the containers of the job, forgets old snapshots, removes unused data, and checks the "
            "repository when it is time. A container that cannot be saved goes on running, and the "
            "others are saved all the same: then the exit code is 3. A job that fails does not keep the "
            "next one from running."
        ),
        examples=(
            ("What would it do?", "job run --dry-run nightly"),
            ("Run it", "job run nightly"),
            ("Run all", "job run --all"),
        ),
    ),
    Verb(
        "job list", f"{_COMMANDS}:list_",
        "list the backup jobs of this host",
        arguments="", minimum=0, maximum=0, contract=False,
        options=(Option("-q, --quiet", "only the names", FLAG), _FORMAT, _JOBS),
        examples=(("All", "job list"),),
    ),
    Verb(
        "job status", f"{_COMMANDS}:status",
        "show how the last runs of backup jobs ended",
        arguments="[NAME...]", minimum=0, maximum=ANY, contract=False,
        options=(_FORMAT, _JOBS, _STATE),
        description="A status of killed is a run that did not come to its end.",
        examples=(("Every job", "job status"), ("One, for programs", "job status --format json nightly")),
    ),
    Verb(
        "job validate", f"{_COMMANDS}:validate",
        "find every mistake in the files of backup jobs",
        arguments="[NAME|FILE...]", minimum=0, maximum=ANY, contract=False,
        options=(_JOBS,),
        examples=(("All of them", "job validate"), ("One that is not in place yet", "job validate ./new.toml")),
    ),
    Verb(
        "job show", f"{_COMMANDS}:show",
        "show a backup job with its defaults filled in, as JSON",
        arguments="NAME", contract=False,
        options=(_JOBS,),
        description="Secrets are left out.",
        examples=(("What is it, really?", "job show nightly"),),
    ),
    Verb(
        "job install-timer", f"{_COMMANDS}:install_timer",
        "let systemd run a backup job by its schedule",
        arguments="NAME", contract=False,
        options=(
            Option("--print", "show the units, and write nothing", FLAG),
            _JOBS,
        ),
        description=(
            "Writes ocimig-job@.service and ocimig-job@.timer, a drop-in for the job, and enables "
            "its timer. To run it again after the schedule was changed is fine."
        ),
        examples=(("See it first", "job install-timer --print nightly"), ("Do it", "job install-timer nightly")),
    ),
)  # fmt: skip
