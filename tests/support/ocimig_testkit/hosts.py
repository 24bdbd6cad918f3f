"""Two hosts on one machine: network namespaces on one switch, an sshd in each, state roots of their own.

    client, switch (TOKEN-s, 10.77.0.1)
        ├── br0 of host a (TOKEN-a, 10.77.0.11) ── containers
        └── br0 of host b (TOKEN-b, 10.77.0.12) ── containers

A host has a mount namespace of its own as well, with its own /srv for bundles and a tmpfs at /run, and
a cgroup of its own in every hierarchy, so that both may hold a container of one name in one place.

The namespaces are entered by nsenter, not `ip netns exec`: that one mounts a new /sys, and a /sys
without the cgroup hierarchies makes CRIU and every runtime do other things than on a real host.
"""

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType

from ocimig_testkit.probes import find
from ocimig_testkit.runner import Ocimig, program
from ocimig_testkit.session import TOKEN
from ocimig_testkit.waiting import until

_UNIFIED = Path("/sys/fs/cgroup")  # of version 2 only, when it has controllers itself


def _do(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)


class Host:
    """One of the two: `ocimig` runs the program there, `ssh` reaches it from the other."""

    def __init__(self, pair: "HostPair", name: str, number: int) -> None:
        self.pair = pair
        self.name = name
        self.namespace = f"{TOKEN}-{name}"
        self.address = f"10.77.0.{number}"
        self.directory = pair.directory / name
        self.directory.mkdir(parents=True)
        self.root = self.directory / "state"
        self.bundles = self.directory / "srv"  # what the host itself sees at /srv
        self.bundles.mkdir()
        self.enter = (str(self.directory / "enter"),)
        self.holder: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self.cgroups: list[Path] = []
        self.ocimig = Ocimig(self.root, name=name)
        self.ocimig.prefix = self.enter
        self.log = self.directory / "sshd.log"

    @property
    def target(self) -> str:
        """What to give `ocimig migrate`."""
        return f"root@{self.address}"

    def run(self, *argv: str) -> str:
        """A command in the host's network, its standard output."""
        return subprocess.run(
            [*self.enter, *argv],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        ).stdout

    def build(self) -> None:
        """The namespace, its bridge and the cable to the switch."""
        switch = self.pair.switch
        cable = f"up-{self.name}"
        _do("ip", "netns", "add", self.namespace)
        _do("ip", "-n", self.namespace, "link", "set", "lo", "up")
        _do("ip", "-n", self.namespace, "link", "add", "name", "br0", "type", "bridge")
        _do("ip", "-n", self.namespace, "link", "add", "name", "up0", "type", "veth",
            "peer", "name", cable, "netns", switch)  # fmt: skip
        _do("ip", "-n", self.namespace, "link", "set", "up0", "master", "br0", "up")
        _do("ip", "-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "br0")
        _do("ip", "-n", self.namespace, "link", "set", "br0", "up")
        _do("ip", "-n", switch, "link", "set", cable, "master", "sw0", "up")
        self._enclose()

    def _enclose(self) -> None:
        """Its mount namespace, held open by a process, and its cgroups; `enter` goes into all."""
        joining = []
        for cgroup in own_cgroups():
            unified = (_UNIFIED / "cgroup.controllers").exists()
            # version 2: a cgroup with processes, as ours, can have none with limits below
            beside = cgroup.parent if unified and cgroup != _UNIFIED else cgroup
            place = beside / self.namespace
            place.mkdir()
            self.cgroups.append(place)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (cgroup / name).exists() and (place / name).exists():
                    (place / name).write_text((cgroup / name).read_text())
            if unified:
                place /= "host"
                place.mkdir()
            joining.append(f"echo $$ >{place}/cgroup.procs")
        net = f"--net=/run/netns/{self.namespace}"
        setup = f"mount --bind {self.bundles} /srv && mount -t tmpfs tmpfs /run && mkdir /run/sshd"
        ready = self.directory / "ready"
        script = f"{setup} && : >{ready} && exec sleep infinity"
        self.holder = subprocess.Popen(
            ["nsenter", net, "unshare", "--mount", "--propagation", "slave", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
        )
        until(ready.exists, f"the mount namespace of host {self.name}", 10, 0.01)
        mounts = f"--mount=/proc/{self.holder.pid}/ns/mnt"
        enter = self.directory / "enter"
        enter.write_text(
            "#!/bin/sh\n" + "\n".join(joining) + f'\nexec nsenter {net} {mounts} "$@"\n'
        )
        enter.chmod(0o755)

    def serve(self) -> None:
        """Start its sshd: our key only, and `ocimig` in PATH with this host's state root."""
        self._write_program()
        key = self.directory / "host_key"
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        config = self.directory / "sshd_config"
        config.write_text(
            f"Port 22\nListenAddress {self.address}\nHostKey {key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.pair.identity}.pub\nStrictModes no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\n"
            f"SetEnv PATH={self.directory}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
            f"SetEnv OCIMIG_TEST_SESSION={TOKEN}\n"
            "MaxSessions 64\nMaxStartups 64\n"
        )
        self.daemon = subprocess.Popen(
            [*self.enter, find("sshd"), "-D", "-f", str(config), "-E", str(self.log)],
            stdin=subprocess.DEVNULL,
        )
        until(self._listens, f"sshd of host {self.name} ({self.log})", 20, 0.05)

    def _listens(self) -> bool:
        assert self.daemon is not None
        assert self.daemon.poll() is None, self.log.read_text()
        return f"{self.address}:22" in self.run("ss", "-Htln")

    def _write_program(self) -> None:
        directory = self.directory / "bin"
        directory.mkdir()
        script = directory / "ocimig"
        command = shlex.join([*program(), "--root", str(self.root)])
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)

    def close(self) -> list[str]:
        """Remove its containers, stop its sshd; what could not be removed."""
        failed = self.ocimig.close() if Path(f"/run/netns/{self.namespace}").exists() else []
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(10)
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait(10)
        for cgroup in self.cgroups:
            _end(cgroup)
            failed += remove_cgroup(cgroup)
        if Path(f"/run/netns/{self.namespace}").exists():
            _do("ip", "netns", "del", self.namespace)
        return failed


def own_cgroups() -> list[Path]:
    """Our own cgroup in every hierarchy that is mounted."""
    found = []
    ours = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        ours.update(dict.fromkeys(names.split(","), path))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        if kind == "cgroup2":
            found.append(Path(fields[4] + ours[""]))
        elif kind == "cgroup":
            name = next(option for option in options if option in ours)
            found.append(Path(fields[4] + ours[name]))
    return list(dict.fromkeys(found))


def _end(cgroup: Path) -> None:
    """What is still in a host's own cgroup: sessions of sshd whose other end never said goodbye."""
    for directory, _, _ in os.walk(cgroup):
        for pid in (Path(directory) / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def remove_cgroup(cgroup: Path) -> list[str]:
    """Remove a cgroup and those below it; what hinders."""
    failed = []
    below = [Path(directory) for directory, _, _ in os.walk(cgroup)]
    for directory in reversed(below):
        try:
            until(partial(_removed, directory), f"{directory} to be empty", 5, 0.02)
        except AssertionError as error:
            failed.append(str(error))
    return failed


def _removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class HostPair:
    """Both hosts, the switch between them, the client's place on it, and keys that fit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.switch = f"{TOKEN}-s"
        self.client_address = "10.77.0.1"
        self.enter = ("nsenter", f"--net=/run/netns/{self.switch}")
        self.identity = directory / "key"
        self.known_hosts = directory / "known_hosts"
        self.a = Host(self, "a", 11)
        self.b = Host(self, "b", 12)

    def __enter__(self) -> "HostPair":
        try:
            _do("ip", "netns", "add", self.switch)
            _do("ip", "-n", self.switch, "link", "set", "lo", "up")
            _do("ip", "-n", self.switch, "link", "add", "name", "sw0", "type", "bridge")
            _do(
                "ip", "-n", self.switch, "address", "add", f"{self.client_address}/24", "dev", "sw0"
            )
            _do("ip", "-n", self.switch, "link", "set", "sw0", "up")
            _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.identity))
            lines = []
            for host in (self.a, self.b):
                host.build()
                host.serve()
                public = (host.directory / "host_key.pub").read_text().split()
                lines.append(f"{host.address} {public[0]} {public[1]}\n")
            self.known_hosts.write_text("".join(lines))
        except BaseException as error:
            if isinstance(error, subprocess.CalledProcessError):
                sys.stderr.write(f"{error}: {error.stderr}\n")
            self.close()
            raise
        return self

    def client(self, *argv: str) -> list[str]:
        """The argv of a program that runs at the client's place."""
        return [*self.enter, *argv]

    def close(self) -> list[str]:
        """Take both hosts down; what could not be removed."""
        failed = self.a.close() + self.b.close()
        if Path(f"/run/netns/{self.switch}").exists():
            _do("ip", "netns", "del", self.switch)
        return failed

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failed = self.close()
        if error is None:
            assert not failed, "\n".join(failed)
