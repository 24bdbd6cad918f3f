"""Archives of checkpoints: the verbs about them, and the options of checkpoint and restore. Data only."""

from ocimig.cli.verbs import FLAG, MANY, TEXT, Option, Verb

GRANTS = (
    "mounts", "files", "devices", "hooks", "sysctls", "namespaces", "cgroup", "annotations",
    "capabilities", "unconfined", "labels", "mappings", "network", "all",
)  # fmt: skip
_SIGNERS = (
    Option("--allowed-signers", "whose signatures are taken (ssh-keygen's file of that name)", TEXT,
           "FILE", file=True),
    Option("--signer", "who has to have signed it, a name in that file", TEXT, "NAME"),
)  # fmt: skip
_COMPRESS = Option("--compress", "how the archive is compressed (default: zstd)", TEXT, "HOW",
                   choices=("zstd", "gzip", "none"))  # fmt: skip
_SIGN = Option("--sign", "sign the archive with this SSH key", TEXT, "KEY", file=True)

WRITTEN = (  # how an archive is made
    _COMPRESS,
    _SIGN,
    Option("--base", "the root file system it was made from: only changes are saved", TEXT, "DIR",
           file=True),
    Option("--image-name", "the image that podman would make it from again, by name and id", TEXT,
           "NAME@ID"),
    Option("--ignore-rootfs", "leave the files of the container out", FLAG),
)  # fmt: skip
EXPORT = (
    Option("--export", "save it into one file, as podman and CRI-O read it", TEXT, "FILE", file=True),
    *WRITTEN,
)  # fmt: skip
JUDGED = (  # what an archive has to be, and what it gets
    *_SIGNERS,
    Option("--allow", "grant what the archive asks of this host", MANY, "WHAT", choices=GRANTS),
    Option("--plan", "show what would be done with the archive, do nothing", FLAG),
)  # fmt: skip
IMPORT = (
    Option("--import", "an archive of ocimig, podman or CRI-O instead of a directory", TEXT, "FILE",
           file=True),
    *JUDGED,
)  # fmt: skip

ARCHIVE = (
    Verb(
        "archive show", "ocimig.cli.commands.archive:show",
        "show what an archive of a checkpoint is, and what it asks for",
        arguments="FILE", minimum=1, maximum=1, contract=False,
        options=(*_SIGNERS, Option("--members", "everything that would be unpacked", FLAG),
                 Option("--json", "as JSON", FLAG)),
        description="Nothing is unpacked, and nothing that the archive says is done.",
        examples=(("What is this?", "archive show web.tar.zst"),),
    ),
    Verb(
        "archive verify", "ocimig.cli.commands.archive:verify",
        "check that an archive is whole, and who signed it",
        arguments="FILE", minimum=1, maximum=1, contract=False,
        options=_SIGNERS,
        description=(
            "Every member is compared with the manifest in the archive. That finds damage; that nobody "
            "changed both is said by a signature alone, of somebody who is named. The exit code is 12 "
            "when it does not hold."
        ),
        examples=(("After a copy", "archive verify web.tar.zst"),
                  ("Before a restore",
                   "archive verify --allowed-signers ops.signers --signer ops@site web.tar.zst")),
    ),
    Verb(
        "archive convert", "ocimig.cli.commands.archive:convert",
        "write an archive again: compressed otherwise, or as an OCI image",
        arguments="FILE OUT", minimum=2, maximum=2, contract=False,
        options=(
            _COMPRESS,
            Option("--oci", "as an OCI image: a directory, or one file where OUT ends in .tar", FLAG),
        ),
        description=(
            "What is in it stays byte for byte, manifest and signature with it. An OCI image can be "
            "pushed: skopeo copy oci:OUT docker://registry.example/checkpoints:web"
        ),
        examples=(("For a registry", "archive convert --oci web.tar.zst web.oci"),),
    ),
)  # fmt: skip
