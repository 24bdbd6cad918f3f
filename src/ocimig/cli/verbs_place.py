"""The verb that serves a store to another host. Data only."""

from ocimig.cli.verbs import FLAG, TEXT, Option, Verb

PLACE = (
    Verb(
        "serve-store", "ocimig.cli.commands.place:serve_store",
        "the far side of a store, on standard input and output",
        arguments="", minimum=0, maximum=0, contract=False, hidden=True,
        options=(
            Option("--store-root", "only stores in this directory, or below it", TEXT, "DIR", file=True),
            Option("--append-only", "let nothing be removed: the caller may add, and read", FLAG),
        ),
        description="For a forced command in authorized_keys, see docs/security.md.",
    ),
)  # fmt: skip
