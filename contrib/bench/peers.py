"""The same container moved by what there is besides ocimig: runc with tar over ssh, podman export and import.

Each gets what helps it: its files are there before, images lie on a tmpfs on both hosts, and its network is
made beforehand on the destination, with the same hardware address.
"""

import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from stand import ADDRESS, Client, Failed, Host, HostPair, Load, Move, listens, make_bundle

from ocimig.criu_images.binary import PREFIX
from ocimig_testkit.probes import find
from ocimig_testkit.session import TOKEN
from ocimig_testkit.waiting import until

MAC = "02:6f:63:69:6d:69"
PORT_MAC = "fe:6f:63:69:6d:69"  # a bridge takes the lowest of its ports' for its own
IMAGES = "/run/images"  # a tmpfs of each host's own
PATH = f"{PREFIX}/usr/sbin:{PREFIX}/usr/bin:{os.environ['PATH']}"


class Place:
    """A network namespace on a host with the container's address, and a switch for its cable."""

    def __init__(self, host: Host, kind: str) -> None:
        self.host = host
        self.name = f"{TOKEN}-{kind}{host.name}"
        self.port = f"v{kind}{host.name}"
        self.holder: subprocess.Popen[bytes] | None = None
        _run("ip", "netns", "add", self.name)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        host, ip = self.host, ("ip", "-n", self.name)
        self._inside("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        _run(*ip, "link", "add", "eth0", "address", MAC, "type", "veth",
             "peer", "name", self.port, "address", PORT_MAC, "netns", host.namespace)  # fmt: skip
        _run(*ip, "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        _run(*ip, "link", "set", "lo", "up")
        _run(*ip, "link", "set", "eth0", "up")
        _run("ip", "-n", host.namespace, "link", "set", self.port, "master", "br0")
        # Until its socket is restored the kernel would answer the client with a reset.
        self._inside("nft", "add table inet bench; add chain inet bench out "
                     "{ type filter hook output priority 0; }; "
                     "add rule inet bench out tcp flags & rst == rst drop")  # fmt: skip
        argv = ["nsenter", f"--net=/run/netns/{self.name}", "sleep", "infinity"]
        self.holder = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        self.pid = self.holder.pid
        self.path = f"/proc/{self.pid}/ns/net"  # /run is another one on the host
        inode = os.stat(f"/run/netns/{self.name}").st_ino
        until(lambda: os.stat(self.path).st_ino == inode, f"the namespace {self.name}", 5, 0.01)

    def _inside(self, *argv: str) -> None:
        _run("nsenter", f"--net=/run/netns/{self.name}", *argv)

    def switch(self, state: str) -> None:
        """`up` or `down`: whether the container is reached here."""
        _run("ip", "-n", self.host.namespace, "link", "set", self.port, state)
        if state == "up":  # something leaves, and the bridges learn where the address is
            self._inside("bash", "-c", f"echo >/dev/udp/{self.host.pair.client_address}/9")

    def close(self) -> None:
        """Remove it; the cable first: the rest of a namespace goes when it pleases."""
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait()
        argv = ["ip", "-n", self.host.namespace, "link", "del", self.port]
        subprocess.run(argv, capture_output=True, check=False)
        _run("ip", "netns", "del", self.name)


def _run(*argv: str, timeout: float = 600) -> str:
    """A command's standard output; Failed with all it said."""
    ended = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, "PATH": PATH},
    )  # fmt: skip
    if ended.returncode:
        raise Failed(f"{' '.join(argv)} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return ended.stdout


def _ssh(pair: HostPair) -> list[str]:
    return [
        "ssh", "-i", str(pair.identity), "-o", f"UserKnownHostsFile={pair.known_hosts}",
        "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
    ]  # fmt: skip


class Peer:
    """Saves here, carries a directory by tar over ssh, restores there."""

    name = ""

    def __init__(self, pair: HostPair, program: Path, load: Load) -> None:
        if not find(self.name):
            raise Failed(f"{self.name} is not installed")
        self.pair, self.here, self.there = pair, pair.a, pair.b
        self.program, self.load = program, load
        self.places: dict[str, Place] = {}
        self.pipe = os.pipe()
        self.log = pair.directory / f"{self.name}.log"
        for host in (pair.a, pair.b):
            _run(*host.enter, "mkdir", "-p", IMAGES)
            self.prepare(host)

    def prepare(self, host: Host) -> None:
        """Once for each host: its files."""

    def run(self) -> None:
        """A new container, here."""

    def save(self) -> None:
        """Into IMAGES, here; the container ends."""

    def restore(self) -> None:
        """From IMAGES, there, which is `here` by now."""

    def remove(self, host: Host) -> None:
        """The container, if there is one."""

    def argv(self, host: Host) -> list[str]:
        """The program on a host, without its verb."""
        return list(host.enter)

    def start(self) -> None:
        """A new container on the first host, which is where it goes back to for each run."""
        self.here, self.there = self.pair.a, self.pair.b
        for host in (self.pair.a, self.pair.b):
            self.places[host.name] = Place(host, self.name[0])
        self.places["a"].switch("up")
        self.run()
        until(lambda: listens(self.places["a"].pid), f"the server ({self.log})", 60, 0.05)

    def move(self, client: Client, *, check: bool = False) -> Move:
        """To the second host, as one would by hand."""
        client.look()
        marks = [time.monotonic()]
        self.save()
        marks.append(time.monotonic())
        self.places[self.here.name].switch("down")
        self._carry()
        marks.append(time.monotonic())
        self.places[self.there.name].switch("up")
        self.here, self.there = self.there, self.here
        self.restore()
        marks.append(time.monotonic())
        time.sleep(1.0)
        seen = client.look()
        wrong = client.look(check=True).wrong_pages if check else -1
        return Move(seen.gap_ms, _report(("save", "tar over ssh", "restore"), marks), wrong)

    def _carry(self) -> None:
        holder = self.there.holder
        assert holder is not None
        script = " ".join((
            f"tar -C {IMAGES} -cf - . |", *_ssh(self.pair), self.there.target,
            f"'nsenter --mount=/proc/{holder.pid}/ns/mnt tar -C {IMAGES} -xf -'",
        ))  # fmt: skip
        _run(*self.here.enter, "sh", "-c", script)

    def stop(self) -> None:
        """Remove the container, its images and its networks."""
        for host in (self.pair.a, self.pair.b):
            self.remove(host)
            _run(*host.enter, "sh", "-c", f"rm -rf {IMAGES}/*")
        for place in self.places.values():
            place.close()
        self.places.clear()

    def detached(self, *words: str) -> None:
        """A command whose streams the container keeps: CRIU saves pipes, not files of the host."""
        ended = subprocess.run(
            [*self.argv(self.here), *words], stdin=self.pipe[0], stdout=self.pipe[1],
            stderr=self.pipe[1], timeout=600, check=False, env={**os.environ, "PATH": PATH},
        )  # fmt: skip
        if ended.returncode:
            raise Failed(f"{self.name} {words[0]}: {self.log.read_text()[-2000:]}")


class Runc(Peer):
    """`runc checkpoint`, `tar | ssh tar`, `runc restore`."""

    name = "runc"
    options = ("--image-path", IMAGES, "--work-path", "/run", "--tcp-established")

    def prepare(self, host: Host) -> None:
        """See Peer."""
        work = host.directory / "runc-spec"
        work.mkdir()
        _run("runc", "spec", "--bundle", str(work))
        document = json.loads((work / "config.json").read_text())
        bundle = host.bundles / "runc"
        if host is self.pair.a:
            make_bundle(bundle, self.program, self.load, document)
        else:
            shutil.copytree(self.pair.a.bundles / "runc", bundle, symlinks=True)

    def argv(self, host: Host) -> list[str]:
        """See Peer."""
        return [*host.enter, "runc", "--root", f"{host.directory}/runc", "--log", str(self.log)]

    def run(self) -> None:
        """See Peer."""
        for host in (self.pair.a, self.pair.b):
            config = host.bundles / "runc/config.json"
            document = json.loads(config.read_text())
            spaces = document["linux"]["namespaces"]
            spaces[:] = [space for space in spaces if space["type"] != "network"]
            spaces.append({"type": "network", "path": self.places[host.name].path})
            config.write_text(json.dumps(document))
        self.detached("run", "-d", "-b", "/srv/runc", "bench")

    def save(self) -> None:
        """See Peer."""
        _run(*self.argv(self.here), "checkpoint", *self.options, "bench")

    def restore(self) -> None:
        """See Peer."""
        self.detached("restore", "-d", "-b", "/srv/runc", *self.options, "bench")

    def remove(self, host: Host) -> None:
        """See Peer."""
        argv = [*self.argv(host), "delete", "-f", "bench"]
        subprocess.run(argv, capture_output=True, check=False)


class Podman(Peer):
    """`podman container checkpoint --export`, `tar | ssh tar`, `podman container restore --import`.

    With runc below it; its storage lies on a tmpfs, and nothing is compressed.
    """

    name = "podman"
    network = "/run/bench-net"  # the same on both hosts: an export remembers it

    def prepare(self, host: Host) -> None:
        """See Peer."""
        if self.load.files:
            raise Failed("its images travel by a registry, not with the container: no --files")
        image = self.pair.directory / "podman-image.tar"
        if host is self.pair.b:  # the very same: an export names it by its digest
            _run(*self.argv(host), "load", "-i", str(image))
            return
        rootfs = host.directory / "podman-rootfs"
        rootfs.mkdir()
        for name in ("data", "dev", "etc", "proc", "sys", "tmp"):
            (rootfs / name).mkdir()
        shutil.copy2(self.program, rootfs / "workload")
        _run("tar", "-C", str(rootfs), "-cf", f"{rootfs}.tar", ".")
        _run(*self.argv(host), "import", f"{rootfs}.tar", "bench")
        _run(*self.argv(host), "save", "-o", str(image), "localhost/bench:latest")

    def argv(self, host: Host) -> list[str]:
        """See Peer."""
        return [
            *host.enter, "podman", "--root", "/run/podman/root", "--runroot", "/run/podman/run",
            "--tmpdir", "/run/podman/tmp", "--storage-driver", "vfs", "--runtime", find("runc"),
            "--cgroup-manager", "cgroupfs",
        ]  # fmt: skip

    def run(self) -> None:
        """See Peer."""
        for host in (self.pair.a, self.pair.b):
            script = f": >{self.network}; mount --bind {self.places[host.name].path} {self.network}"
            _run(*host.enter, "sh", "-c", script)
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        words = ["--network", f"ns:{self.network}", "--name", "bench", "localhost/bench:latest"]
        _run(*self.argv(self.here), "run", "-d", *limits, *words, *self.load.argv())

    def save(self) -> None:
        """See Peer."""
        options = ["--tcp-established", "--compress", "none", "--export", f"{IMAGES}/bench.tar"]
        _run(*self.argv(self.here), "container", "checkpoint", *options, "bench")

    def restore(self) -> None:
        """See Peer."""
        options = ["--tcp-established", "--import", f"{IMAGES}/bench.tar"]
        _run(*self.argv(self.here), "container", "restore", *options)

    def remove(self, host: Host) -> None:
        """See Peer."""
        for argv in ([*self.argv(host), "rm", "-f", "-t", "0", "bench"],
                     [*host.enter, "umount", self.network]):  # fmt: skip
            subprocess.run(argv, capture_output=True, check=False)
        for top in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            for cgroup in sorted(
                (top, *(path for path in top.rglob("*") if path.is_dir())), reverse=True
            ):
                with suppress(OSError):  # it is another podman's as well
                    cgroup.rmdir()


def _report(names: tuple[str, ...], marks: list[float]) -> dict[str, object]:
    """Steps in the form of ocimig's report."""
    steps = [
        {"name": name, "side": "here", "begin": begin - marks[0], "seconds": end - begin}
        for name, begin, end in zip(names, marks, marks[1:], strict=False)
    ]
    whole = marks[-1] - marks[0]
    return {"seconds": whole, "blackout_seconds": whole, "steps": steps, "phases": [], "bytes": {}}


KINDS: dict[str, type[Peer]] = {"runc": Runc, "podman": Podman}
