"""What can go wrong with a container, in words for people. Texts that runc has are runc's."""

from ocimig.errors import OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class InvalidConfig(OcimigError):
    """A config.json or process.json cannot be used as it is; `problems` has (JSON path, words) each."""

    message = "invalid {path}: {summary}"
    hint = "change {path} and try again; the bundle was not touched"

    def __init__(self, *, path: str, summary: str, problems: "Sequence[tuple[str, str]]" = ()) -> None:
        super().__init__(path=path, summary=summary)
        self.problems = list(problems)

    @classmethod
    def of(cls, path: str, problems: "Sequence[tuple[str, str]]") -> "InvalidConfig":
        """Name the first ten problems; `problems` keeps them all."""
        lines = [f"{where}: {words}" if where else words for where, words in problems[:10]]
        if len(problems) > len(lines):
            lines.append(f"and {len(problems) - len(lines)} more")
        return cls(path=path, summary="; ".join(lines), problems=problems)


class NoConfig(OcimigError):
    """There is no config.json where the bundle should have it."""

    message = "JSON specification file {path} not found"
    hint = "name the bundle with --bundle, or write one: ocimig spec"
