"""The exit codes, as data: for the manual and docs/exit-codes.md. Stable: scripts depend on them."""

# Verbs that runc has keep runc's codes, whatever the error; checkpoint and restore say more than 1.
CONTRACT = (
    ("0", "done"),
    ("1", "any error; of checkpoint and restore one without a code in the list below"),
    ("3", "there is no such verb"),
    ("130, 143", "stopped by SIGINT, by SIGTERM; what was half made was undone"),
    ("0-255", "run and exec: the status of the process, 128+N when signal N ended it"),
    ("255", "exec: the process could not be run"),
)
# Verbs of ocimig's own say what kind of error it was.
OWN = (
    ("0", "done"),
    ("1", "an error without a code of its own; diff: something differs; memory: nothing found"),
    ("2", "the command line is not one that ocimig understands"),
    ("3", "done, with warnings or in part; or there is no such verb"),
    ("10", "not found: a container, a process of a checkpoint, a snapshot, a file, a program"),
    ("11", "busy or taken: somebody else holds the container, its name or its address"),
    ("12", "a digest or a signature does not match; a key or a passphrase does not open a store"),
    ("13", "the other host's key or our login was refused"),
    ("14", "the other host cannot run this container"),
    ("15", "no space left, here or there"),
    ("20", "the migration failed; the container runs on here"),
    ("21", "the migration is in doubt: settle it with migrate --resume or --abort"),
    ("22", "the container runs on the other host; something of it is left here"),
    ("130, 143", "stopped by SIGINT, by SIGTERM; the container runs on here"),
)


def page() -> str:
    """docs/exit-codes.md."""
    return "\n".join(
        [
            "# Exit codes",
            "",
            "Made from `src/ocimig/cli/exits.py` by `make man`. The codes are stable.",
            "",
            "## Verbs that runc has",
            "",
            "They exit as runc does, so that its callers see no difference.",
            "",
            *_table(CONTRACT),
            "",
            "## Verbs of ocimig's own",
            "",
            "`migrate`, `drain`, `recover`, `doctor`, `dirty-rate`, `backup …`, `job …`, `clone`, `inspect`, `diff`, `memory`. [errors.md](errors.md) names the code of each error.",
            "",
            *_table(OWN),
            "",
        ]
    )


def _table(rows: tuple[tuple[str, str], ...]) -> list[str]:
    return ["| code | meaning |", "| --- | --- |", *(f"| {code} | {text} |" for code, text in rows)]
