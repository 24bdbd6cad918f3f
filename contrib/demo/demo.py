"""The main job, on one machine: a redis server moves between two hosts while a client never stops.

Two hosts (network, mounts, cgroups and state of their own, an sshd in each) stand on one switch, with
the client. The server is filled with keys, a client counts on one TCP connection, and the container
is migrated. The end checks what was promised, and fails loudly otherwise. See `make demo`.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tests/support")]

import bundle  # noqa: E402 - found through the line above

from ocimig_testkit.hosts import Host, HostPair  # noqa: E402

ADDRESS = "10.77.0.50"
PORT = 6379
NAME = "redis"
KEYS = 100_000


class Failed(Exception):
    """A promise that was not kept."""


def say(text: str) -> None:
    """A line for the person who watches."""
    print(f"\033[1m==>\033[0m {text}" if sys.stdout.isatty() else f"==> {text}", flush=True)


def check(kept: bool, promise: str, found: object = "") -> None:
    """Show a promise that was kept, or end with one that was not."""
    if not kept:
        raise Failed(f"{promise} (found: {found})")
    print(f"    ok  {promise}", flush=True)


class Client:
    """One that speaks to redis from the client's place on the switch."""

    def __init__(self, pair: HostPair) -> None:
        self.pair = pair

    def command(self, *words: str, input: str = "", timeout: float = 60) -> str:
        """redis-cli; its answer, or nothing when none came in time."""
        argv = self.pair.client("redis-cli", "-h", ADDRESS, "-p", str(PORT), *words)
        try:
            ended = subprocess.run(
                argv, input=input, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return ""
        return ended.stdout.strip()

    def wait_until_up(self) -> None:
        """Until the server answers."""
        end = time.monotonic() + 15
        while self.command("PING", timeout=2) != "PONG":
            if time.monotonic() > end:
                raise Failed(
                    f"redis does not answer: {self.pair.a.run('cat', str(self.pair.a.directory / 'redis.log'))}"
                )
            time.sleep(0.05)

    def fill(self, keys: int) -> None:
        """Set that many keys, each with a value that says which it is."""
        lines = "".join(f"SET key:{number} value-of-{number}\r\n" for number in range(keys))
        self.command("--pipe", input=lines)

    def values_are_right(self, keys: int) -> bool:
        """Read every key back."""
        lines = "".join(f"GET key:{number}\r\n" for number in range(keys))
        answers = self.command(input=lines).split("\n")
        return answers == [f"value-of-{number}" for number in range(keys)]


def start(host: Host) -> None:
    """Put redis into a bundle and run it on the first host."""
    program = shutil.which("redis-server")
    if program is None:
        raise Failed("redis-server is not installed: contrib/install-deps installs it")
    subprocess.run([*host.ocimig.argv, "spec", "--bundle", host.directory], check=True, timeout=30)
    document = json.loads((host.directory / "config.json").read_text())
    options = ["--bind", "0.0.0.0", "--port", str(PORT), "--protected-mode", "no", "--save", ""]
    argv = [program, *options, "--appendonly", "no", "--daemonize", "no"]
    bundle.build(host.bundles / NAME, Path(program), argv, document)
    net = f"bridge=br0,address={ADDRESS}/24"
    with (host.directory / "redis.log").open("wb") as log:
        subprocess.run(
            host.ocimig.command("run", "--detach", "--net", net, "-b", f"/srv/{NAME}", NAME),
            check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def ended(pid: int) -> bool:
    """Whether it ended; one that this machine's first process has yet to reap has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def nothing_left(host: Host, pid: int) -> None:
    """What the first host may not have any more: process, cgroup, mount, namespace, rule, file."""
    check(ended(pid), "its process is gone from the first host", pid)
    cgroups = [str(path) for top in host.cgroups for path in top.iterdir() if path.name == NAME]
    check(not cgroups, "no cgroup is left there", cgroups)
    mounts = [line for line in host.run("cat", "/proc/self/mountinfo").splitlines() if NAME in line]
    check(not mounts, "no mount is left there", mounts)
    links = [line.split()[1] for line in host.run("ip", "-o", "link").splitlines()]
    strange = [link for link in links if not link.startswith(("lo:", "br0:", "up0@"))]
    check(not strange, "no network interface is left there", strange)
    rules = host.run("nft", "list", "ruleset").strip()
    check(not rules, "no firewall rule is left there", rules)
    check(not (host.root / NAME).exists(), "no state is left there", host.root / NAME)
    files = [str(path) for path in host.bundles.iterdir()]
    check(not files, "no file of it is left there", files)


def demonstrate(pair: HostPair, keys: int, transport: str) -> None:
    """The whole story."""
    client = Client(pair)
    say("host A runs redis-server from an OCI bundle")
    start(pair.a)
    client.wait_until_up()
    say(f"filling it with {keys:,} keys")
    client.fill(keys)
    pid = pair.a.ocimig.pid(NAME)
    counting = subprocess.Popen(
        pair.client(sys.executable, str(HERE / "client.py"), ADDRESS, str(PORT)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        time.sleep(1)
        say(f"a client counts on one connection; migrating {NAME} to host B")
        migrated = subprocess.run(
            pair.a.ocimig.command(
                "migrate", "--transport", transport, "--identity", str(pair.identity),
                "--known-hosts", str(pair.known_hosts), NAME, pair.b.target,
            ),
            timeout=180, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        time.sleep(1)
        answer, _ = counting.communicate("stop\n", timeout=90)
    finally:
        counting.kill()
        counting.wait()
    if migrated.returncode:
        raise Failed(f"ocimig migrate ended with {migrated.returncode}")
    seen = json.loads(answer)
    say("checking what was promised")
    check(
        not seen["error"],
        "the client's connection is still open, no reply was wrong",
        seen["error"],
    )
    check(
        seen["last"] - seen["first"] + 1 == seen["replies"],
        f"{seen['replies']:,} replies without a gap or a repeat", seen,
    )  # fmt: skip
    check(
        client.command("GET", "counter") == str(seen["last"]),
        "the server's counter is the client's",
    )
    check(client.values_are_right(keys), f"all {keys:,} keys are there with their values")
    check(pair.b.ocimig.status(NAME) == "running", "it runs on host B", pair.b.ocimig.status(NAME))
    nothing_left(pair.a, pid)
    say(f"the longest the client waited for a reply: {seen['stall_ms']:.0f} ms")


def main() -> int:
    """Set up, show, take down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--transport", choices=("paramiko", "openssh"), default="paramiko")
    options = parser.parse_args()
    socket.setdefaulttimeout(60)
    with tempfile.TemporaryDirectory(prefix="ocimig-demo-") as directory:
        try:
            say("two hosts on one switch, an sshd in each")
            with HostPair(Path(directory)) as pair:
                demonstrate(pair, options.keys, options.transport)
        except Failed as failure:
            print(f"demo: FAILED: {failure}", file=sys.stderr)
            return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
