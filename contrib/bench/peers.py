"""The same container moved by what there is besides ocimig: runc with tar over ssh, podman export and import.

Each gets what helps it: its files are there before, images lie on a tmpfs on both hosts, and its network is
made beforehand on the destination, with the same hardware address.
"""

import json
import os
import shutil
import subprocess
import time
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


class Runc:
    """`runc checkpoint`, `tar | ssh tar`, `runc restore`."""

    name = "runc"

    def __init__(self, pair: HostPair, program: Path, load: Load) -> None:
        if not find("runc"):
            raise Failed("runc is not installed")
        self.pair, self.here, self.there = pair, pair.a, pair.b
        self.places: dict[str, Place] = {}
        self.pipe = os.pipe()
        for host in (pair.a, pair.b):
            work = host.directory / "runc-spec"
            work.mkdir()
            _run("runc", "spec", "--bundle", str(work))
            document = json.loads((work / "config.json").read_text())
            document["hostname"] = "bench"
            bundle = host.bundles / "runc"
            if host is pair.a:
                make_bundle(bundle, program, load, document)
            else:
                shutil.copytree(pair.a.bundles / "runc", bundle, symlinks=True)
            _run(*host.enter, "mkdir", "-p", IMAGES)

    def _runc(self, host: Host, *words: str) -> str:
        return _run(*host.enter, "runc", "--root", f"{host.directory}/runc", *words)

    def start(self) -> None:
        """A new container on the first host, which is where it goes back to for each run."""
        self.here, self.there = self.pair.a, self.pair.b
        for host in (self.pair.a, self.pair.b):
            self.places[host.name] = place = Place(host, "r")
            config = host.bundles / "runc/config.json"
            document = json.loads(config.read_text())
            spaces = document["linux"]["namespaces"]
            spaces[:] = [space for space in spaces if space["type"] != "network"]
            spaces.append({"type": "network", "path": place.path})
            config.write_text(json.dumps(document))
        self.places["a"].switch("up")
        self._detached("run", "-d", "-b", "/srv/runc", "bench")
        until(lambda: listens(self.places["a"].pid), "the server of runc", 60, 0.05)

    def _detached(self, *words: str) -> None:
        """A command whose streams the container keeps: CRIU saves pipes, not files of the host."""
        log = self.pair.directory / "runc.log"
        argv = ["runc", "--root", f"{self.here.directory}/runc", "--log", str(log), *words]
        ended = subprocess.run(
            [*self.here.enter, *argv], stdin=self.pipe[0], stdout=self.pipe[1], stderr=self.pipe[1],
            timeout=600, check=False, env={**os.environ, "PATH": PATH},
        )  # fmt: skip
        if ended.returncode:
            raise Failed(f"runc {words[0]}: {log.read_text()}")

    def move(self, client: Client, *, check: bool = False) -> Move:
        """To the second host, as one would by hand."""
        client.look()
        marks = [time.monotonic()]
        images = ("--image-path", IMAGES, "--tcp-established")
        self._runc(self.here, "checkpoint", *images, "--work-path", "/run", "bench")
        marks.append(time.monotonic())
        self.places[self.here.name].switch("down")
        holder = self.there.holder
        assert holder is not None
        tar = [*self.here.enter, "sh", "-c", " ".join((
            f"tar -C {IMAGES} -cf - . |", *_ssh(self.pair), self.there.target,
            f"'nsenter --mount=/proc/{holder.pid}/ns/mnt tar -C {IMAGES} -xf -'",
        ))]  # fmt: skip
        _run(*tar)
        marks.append(time.monotonic())
        self.places[self.there.name].switch("up")
        self.here, self.there = self.there, self.here
        self._detached("restore", "-d", "-b", "/srv/runc", *images, "--work-path", "/run", "bench")
        marks.append(time.monotonic())
        time.sleep(1.0)
        seen = client.look()
        wrong = client.look(check=True).wrong_pages if check else -1
        return Move(seen.gap_ms, _report(("checkpoint", "tar over ssh", "restore"), marks), wrong)

    def stop(self) -> None:
        """Remove the container, its images and its networks."""
        for host in (self.pair.a, self.pair.b):
            subprocess.run(
                [*host.enter, "runc", "--root", f"{host.directory}/runc", "delete", "-f", "bench"],
                capture_output=True, check=False,
            )  # fmt: skip
            _run(*host.enter, "sh", "-c", f"rm -rf {IMAGES}/*")
        for place in self.places.values():
            place.close()
        self.places.clear()


def _report(names: tuple[str, ...], marks: list[float]) -> dict[str, object]:
    """Steps in the form of ocimig's report."""
    steps = [
        {"name": name, "side": "here", "begin": begin - marks[0], "seconds": end - begin}
        for name, begin, end in zip(names, marks, marks[1:], strict=False)
    ]
    whole = marks[-1] - marks[0]
    return {"seconds": whole, "blackout_seconds": whole, "steps": steps, "phases": [], "bytes": {}}


KINDS = {"runc": Runc}
