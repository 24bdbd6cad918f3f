"""Targets, known_hosts, ssh's configuration and ssh's words: everything that needs no server."""

import base64
import os
import re
from pathlib import Path

import pytest

from ocimig.migrate.errors import (
    HostKeyChanged,
    HostKeyRevoked,
    HostKeyUnknown,
    HostUnreachable,
    InvalidTarget,
    NeedsOpenssh,
    NotLetIn,
)
from ocimig.migrate.transport import Target, known_hosts, openssh, ssh
from ocimig.migrate.transport.known_hosts import HostKey


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("host2", "", "host2", 0),
        ("root@host2", "root", "host2", 0),
        ("root@host2:2222", "root", "host2", 2222),
        ("a.b@10.0.0.1", "a.b", "10.0.0.1", 0),
        ("2001:db8::1", "", "2001:db8::1", 0),
        ("[2001:db8::1]:22", "", "2001:db8::1", 22),
        ("u@[fe80::1%eth0]", "u", "fe80::1%eth0", 0),
        ("ssh://u@host:22/", "u", "host", 22),
        ("user@realm@host", "user@realm", "host", 0),
        ("host.example.", "", "host.example.", 0),
    ],
)
def test_a_target_is_read(text: str, user: str, host: str, port: int) -> None:
    """As ssh and scp users write it."""
    target = Target.parse(text)
    assert (target.user, target.host, target.port) == (user, host, port)


@pytest.mark.parametrize(
    "text",
    ["", "@host", "-oProxyCommand=id", "u@-host", "-u@host", "host:", "host:x", "host:0", "host:65536",
     "host:-1", "host:٣", "ho st", "host\n", "[::1", "[::1]22", "a;b", "$(id)", "host/path", "u@"],
)  # fmt: skip
def test_a_target_that_is_not_one_is_refused(text: str) -> None:
    """Nothing that a shell or ssh could take for something else gets through."""
    with pytest.raises(InvalidTarget) as caught:
        Target.parse(text)
    assert caught.value.code == 2


def test_two_ports_must_agree() -> None:
    """-p and :port may both be there if they are the same."""
    assert Target.parse("h:22", port=22).port == 22
    with pytest.raises(InvalidTarget, match="22.*23"):
        Target.parse("h:22", port=23)


ONE, OTHER = base64.b64encode(b"one" * 11).decode(), base64.b64encode(b"other" * 11).decode()


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A file with every form a line can have."""
    path = tmp_path / "known_hosts"
    path.write_text(
        "# a comment\n\n"
        f"host,10.0.0.1 ssh-ed25519 {ONE} comment\n"
        f"[host]:2222 ssh-ed25519 {OTHER}\n"
        f"*.example.com,!bad.example.com ssh-rsa {ONE}\n"
        f"@revoked * ssh-rsa {OTHER}\n"
        f"@cert-authority *.corp ssh-ed25519 {ONE}\n"
        f"web? ssh-ed25519 {ONE}\n"
        "broken\nhost ssh-ed25519 !!!\n|1|x|y ssh-ed25519 " + ONE + "\n"
    )
    return path


@pytest.mark.parametrize(
    ("host", "port", "found"),
    [
        ("host", 22, [ONE]),
        ("HOST", 22, [ONE]),
        ("10.0.0.1", 22, [ONE]),
        ("host", 2222, [OTHER]),
        ("host", 2223, []),
        ("a.example.com", 22, [ONE]),
        ("bad.example.com", 22, []),
        ("web1", 22, [ONE]),
        ("web12", 22, []),
        ("stranger", 22, []),
    ],
)
def test_known_hosts_are_found(known: Path, host: str, port: int, found: list[str]) -> None:
    """Lists, patterns, negations, ports; broken lines say nothing."""
    keys = known_hosts.lookup([str(known), "/no/such/file"], host, port)
    assert [base64.b64encode(key.blob).decode() for key in keys if not key.marker] == found


def test_what_is_known_decides(known: Path) -> None:
    """Vouched for, changed, unknown, revoked."""
    one, other = HostKey("ssh-ed25519", b"one" * 11), HostKey("ssh-rsa", b"other" * 11)

    def check(host: str, offered: HostKey) -> None:
        keys = known_hosts.lookup([str(known)], host, 22)
        known_hosts.check(keys, offered, host=host, port=22, remedy_file="F")

    check("host", one)
    with pytest.raises(HostKeyChanged, match=r"known_hosts:3\); offered"):
        check("host", HostKey("ssh-ed25519", b"new"))
    with pytest.raises(HostKeyUnknown, match=re.escape(one.fingerprint)):
        check("stranger", one)
    with pytest.raises(HostKeyRevoked):
        check("host", other)
    with pytest.raises(HostKeyUnknown):  # an authority vouches for certificates, not for keys
        check("a.corp", one)


def test_a_remembered_key_is_one_whole_line(tmp_path: Path) -> None:
    """Even after a file whose last line does not end."""
    path = tmp_path / "dir/known_hosts"
    key = HostKey("ssh-ed25519", b"one" * 11)
    known_hosts.append(str(path), key, host="a", port=22)
    path.write_text(path.read_text().rstrip("\n"))
    known_hosts.append(str(path), key, host="b", port=2222)
    assert path.read_text() == f"a ssh-ed25519 {ONE}\n[b]:2222 ssh-ed25519 {ONE}\n"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(path.parent).st_mode & 0o777 == 0o700


def config(tmp_path: Path, text: str) -> str:
    """An ssh configuration."""
    path = tmp_path / "config"
    path.write_text(text)
    return str(path)


def test_the_configuration_of_ssh_is_followed(tmp_path: Path) -> None:
    """Name, port, user, key, known hosts; what the command line says wins."""
    path = config(
        tmp_path,
        "Host h\n HostName 10.1.1.1\n Port 2200\n User u\n IdentityFile /k\n IdentitiesOnly yes\n"
        " UserKnownHostsFile /a /b\n GlobalKnownHostsFile /c\n HostKeyAlias alias\n",
    )
    found = ssh.settings(Target("h", config=path))
    assert (found.address, found.port, found.user) == ("10.1.1.1", 2200, "u")
    assert (found.identities, found.only_these, found.key_name) == (("/k",), True, "alias")
    assert found.known_hosts == ("/a", "/b", "/c")
    over = ssh.settings(
        Target("h", user="me", port=1, identity="/mine", known_hosts="/d", config=path)
    )
    assert (over.port, over.user, over.known_hosts) == (1, "me", ("/d",))
    assert over.identities[0] == "/mine"


@pytest.mark.parametrize("line", ["ProxyJump gate", "ProxyCommand nc %h %p"])
def test_what_the_built_in_client_cannot_do_is_named(tmp_path: Path, line: str) -> None:
    """With the way out."""
    with pytest.raises(NeedsOpenssh, match=line.split()[0]) as caught:
        ssh.settings(Target("h", config=config(tmp_path, f"Host h\n {line}\n")))
    assert caught.value.advice == "add --transport openssh"


@pytest.mark.parametrize("value", ["no", "off", "ask", "yes"])
def test_no_configuration_makes_strangers_welcome(tmp_path: Path, value: str) -> None:
    """StrictHostKeyChecking no is not obeyed by either client; accept-new is."""
    path = config(tmp_path, f"Host h\n StrictHostKeyChecking {value}\n")
    target = Target("h", config=path)
    assert not ssh.settings(target).accept_new
    resolved = {"stricthostkeychecking": value}
    assert "StrictHostKeyChecking=yes" in openssh._options(target, resolved)
    path = config(tmp_path, "Host h\n StrictHostKeyChecking accept-new\n")
    assert ssh.settings(Target("h", config=path)).accept_new
    resolved = {"stricthostkeychecking": "accept-new"}
    assert "StrictHostKeyChecking=accept-new" in openssh._options(target, resolved)


@pytest.mark.parametrize(
    ("log", "error", "words"),
    [
        ("ssh: connect to host h port 22: Connection refused\n", HostUnreachable, "connection refused"),
        ("ssh: connect to host h port 22: No route to host\n", HostUnreachable, "no route to host"),
        ("ssh: Could not resolve hostname h: Name or service not known\n", HostUnreachable, "not known"),
        ("kex_exchange_identification: Connection closed by remote host\n", HostUnreachable, "kex"),
        ("debug1: Authentications that can continue: password\nu@h: Permission denied (password).\n",
         NotLetIn, "accepts only password"),
        ("debug1: Offering public key: /k ED25519 SHA256:x\n"
         "debug1: Authentications that can continue: publickey\nPermission denied (publickey).\n",
         NotLetIn, "/k refused"),
        ("Received disconnect from h port 22:2: Too many authentication failures\n", NotLetIn, "too many"),
        ("debug1: Server host key: ssh-ed25519 SHA256:abc\nHost key verification failed.\n",
         HostKeyUnknown, "SHA256:abc"),
        ("", HostUnreachable, "gave no reason"),
    ],
)  # fmt: skip
def test_the_words_of_ssh_are_explained(log: str, error: type[Exception], words: str) -> None:
    """What ssh -v wrote becomes one line with one code."""
    target = Target("h", known_hosts="/no/such/file")
    found = openssh.explain(log, target, {"hostname": "h", "port": "22", "user": "u"})
    assert isinstance(found, error)
    assert words in str(found)
