"""The program as its callers see it: an argv, an exit code, two streams. Never imports it."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ocimig_testkit.bundles import Bundle
from ocimig_testkit.session import TOKEN
from ocimig_testkit.waiting import until


def program() -> list[str]:
    """The runtime under test: $OCIMIG_RUNTIME, else the `ocimig` of this virtual environment."""
    named = os.environ.get("OCIMIG_RUNTIME")
    if named:
        return shlex.split(named)
    beside = Path(sys.executable).parent / "ocimig"
    if beside.exists():
        return [str(beside)]
    return [sys.executable, "-c", "from ocimig.cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended and what it said."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its standard output, parsed."""
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"{shlex.join(self.argv)}\nexit {self.code}\nout: {self.out}\nerr: {self.err}"


class Ocimig:
    """Runs the program with a state root of its own, and removes every container it made at the end."""

    def __init__(self, root: Path, *, name: str = "c", program_argv: Sequence[str] = ()) -> None:
        self.root = root
        self.name = name
        self.argv = list(program_argv) or program()
        self.ids: list[str] = []
        self.prefix: tuple[str, ...] = ()  # put before the program: ("ip", "netns", "exec", …)
        self.globals: tuple[str, ...] = ()  # options before the verb
        self.environment: dict[str, str] = {}

    # -- running it

    def command(self, *arguments: "str | os.PathLike[str]") -> list[str]:
        """The whole argv of a call, for a test that starts it itself."""
        rest = [os.fspath(argument) for argument in arguments]
        return [*self.prefix, *self.argv, "--root", str(self.root), *self.globals, *rest]

    def __call__(
        self,
        *arguments: "str | os.PathLike[str]",
        code: int | None = 0,
        input: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
        pass_fds: Sequence[int] = (),
    ) -> Answer:
        """Run it to its end; a code other than `code` (None: any) fails the test with all it said.

        Its streams are files: a container that stays behind keeps them open, and a pipe would then
        never end. Such a container writes there too.
        """
        argv = self.command(*arguments)
        with (
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            stdin.write(input.encode())
            stdin.seek(0)
            ended = subprocess.run(
                argv,
                stdin=stdin if input else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **self.environment, **(env or {})},
                cwd=cwd,
                timeout=timeout,
                pass_fds=pass_fds,
                check=False,
            )
            answer = Answer(tuple(argv), ended.returncode, _all(out), _all(err))
        assert code is None or answer.code == code, f"wanted exit {code}:\n{answer}"
        return answer

    def popen(
        self, *arguments: "str | os.PathLike[str]", **options: Any
    ) -> "subprocess.Popen[bytes]":
        """Start it and go on; the test waits for it and closes its streams."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("env", {**os.environ, **self.environment})
        process: subprocess.Popen[bytes] = subprocess.Popen(self.command(*arguments), **options)
        return process

    # -- its verbs

    def new_id(self) -> str:
        """A name that nobody else uses and that shows whose it is."""
        id = f"{TOKEN}-{self.name}{len(self.ids)}"
        self.ids.append(id)
        return id

    def create(self, bundle: Bundle, *options: str, id: str = "", **call: Any) -> str:
        """`create`: the name of the new container."""
        id = id or self.new_id()
        self("create", "--bundle", bundle.path, *options, id, **call)
        return id

    def start(self, id: str) -> None:
        """`start`."""
        self("start", id)

    def run(self, bundle: Bundle, *options: str, id: str = "", **call: Any) -> Answer:
        """`run` in the foreground: how the container's process ended."""
        call.setdefault("code", None)
        return self("run", "--bundle", bundle.path, *options, id or self.new_id(), **call)

    def launch(self, bundle: Bundle, *options: str, id: str = "", **call: Any) -> str:
        """`run --detach`: the name of the running container."""
        id = id or self.new_id()
        self("run", "--detach", "--bundle", bundle.path, *options, id, **call)
        return id

    def exec(self, id: str, *argv: str, options: Sequence[str] = (), **call: Any) -> Answer:
        """`exec`."""
        return self("exec", *options, id, *argv, **call)

    def kill(self, id: str, signal: str = "KILL", **call: Any) -> Answer:
        """`kill`."""
        return self("kill", id, signal, **call)

    def delete(self, id: str, *, force: bool = False) -> None:
        """`delete`."""
        self("delete", *(["--force"] if force else []), id)

    def state(self, id: str) -> dict[str, Any]:
        """`state`: the OCI state."""
        document: dict[str, Any] = self("state", id).json()
        return document

    def status(self, id: str) -> str:
        """The status in `state`, or "" where there is no such container."""
        answer = self("state", id, code=None)
        return str(answer.json()["status"]) if answer.code == 0 else ""

    def pid(self, id: str) -> int:
        """The container's first process, on the host."""
        return int(self.state(id)["pid"])

    def wait(self, id: str, status: str, seconds: float = 10.0) -> None:
        """Until it has that status ("" for gone)."""
        until(lambda: self.status(id) == status, f"{id} to be {status or 'gone'}", seconds, 0.05)

    # -- the end

    def close(self) -> list[str]:
        """Remove every container; the names that could not be removed, with the reason."""
        failed = []
        for id in dict.fromkeys([*self.ids, *self._listed()]):
            answer = self("delete", "--force", id, code=None, timeout=30)
            if (self.root / id).exists():
                failed.append(str(answer))
        return failed

    def _listed(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return [
            entry.name for entry in self.root.iterdir() if entry.is_dir() and entry.name[0] != "."
        ]


def _all(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")
