"""What can go wrong with a store, in words. Only classes."""

from ocimig.errors import OcimigError


class NoStore(OcimigError):
    """There is no store in that place."""

    message = "{place} is no store: {reason}"
    hint = "make one: ocimig backup init {place}"
    code = 10


class StoreExists(OcimigError):
    """A store, or something else, is in the place where one was to be made."""

    message = "{place} cannot become a store: {reason}"
    hint = "name a directory that is empty or not there"


class StoreTooNew(OcimigError):
    """The store was made by a later ocimig."""

    message = "{place} has version {version}; this ocimig reads version {known}"
    hint = "use the ocimig that made it, or a later one"


class StoreDamaged(OcimigError):
    """A file of the store is not what was written."""

    message = "{place}: {file} is damaged: {reason}"
    hint = "see what is affected: ocimig backup verify {place} --read-data"


class StoreLocked(OcimigError):
    """Others hold the store in a way that does not go together with what was asked."""

    message = "{place} is in use: {holders}"
    hint = "wait until they are done; who holds it: ocimig backup unlock {place}"
    code = 11


class WrongKey(OcimigError):
    """The store is sealed and what was given does not open it."""

    message = "{place} cannot be opened: {reason}"
    hint = "give --passphrase-file, --key-file or --passcommand, or set OCIMIG_PASSPHRASE"
    code = 12


class NoSuchSnapshot(OcimigError):
    """No snapshot has that name."""

    message = "{place} has no snapshot {id}"
    hint = "see: ocimig backup list {place}"
    code = 10


class AmbiguousSnapshot(OcimigError):
    """Several snapshots begin with what was given."""

    message = "{place} has {count} snapshots that begin with {id}"
    hint = "write more of the name; see: ocimig backup list {place}"
    code = 2


class FileMissing(OcimigError):
    """A file of the store is not there."""

    message = "{place}: {file} is missing"
    hint = "see what is affected: ocimig backup verify {place}"


class FileShort(OcimigError):
    """A file of the store ends before it should."""

    message = "{place}: {file} ends early"
    hint = "see what is affected: ocimig backup verify {place} --read-data"


class NameTaken(OcimigError):
    """A file of that name is there already: names are random or digests, so it is the same file."""

    message = "{place}: {file} exists"


class PlaceFailed(OcimigError):
    """The directory of a store, or the host that it is on, failed."""

    message = "{place}: {reason}"
    hint = "nothing in the store was changed; try again when the place can be reached"


class TreeDamaged(OcimigError):
    """What a store says of a directory, or the length of a file's content, cannot be."""

    message = "what the store has of {path} is damaged: {reason}"
    hint = "see what is affected: ocimig backup verify with --read-data"


class LastKey(OcimigError):
    """The last key slot was to be removed: nobody could ever open the store again."""

    message = "{place}: {file} is its only key"
    hint = "add another first: ocimig backup key add {place}"


class NoSuchKey(OcimigError):
    """No key slot, or more than one, begins with what was given."""

    message = "{place} has no key {id}: {reason}"
    hint = "see: ocimig backup key list {place}"
    code = 2


class AddOnly(OcimigError):
    """The far side lets this caller add to the store and read it, and nothing else."""

    message = "{place} may be added to and read from here, not {reason}"
    hint = "do it on that host itself, or with an SSH key that is not held to --append-only"
    code = 13
