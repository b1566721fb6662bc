"""Network namespaces on one bridge: a machine of its own for each node, as far as the network and one folder go.

Everything made here has the tag in its name and belongs to a guard (`tests.nodes.guard`): a process of its own that takes all of it
down when its input ends, which the end of this process does, however it ends. So nothing is left of a test that fails, is
interrupted or is killed.
"""

import contextlib
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.paths import ROOT

PREFIX = "advn"  # of namespaces and links; a link's name has 15 characters at most
LEAVE_S = 3.0  # processes of a node get this long to go before they are killed
GUARD_S = 60.0


def why_not() -> str:
    """Why there can be no namespaces here; "" where there can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2 (apt-get install iproute2), to make network namespaces"
    name = f"{PREFIX}{os.getpid()}x"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"needs the right to make network namespaces ({tried.stderr.strip()})"
    tried = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, text=True, check=False)
    for made in (["ip", "netns", "del", name], ["ip", "link", "del", name]):
        subprocess.run(made, capture_output=True, check=False)
    return f"needs the right to make a bridge ({tried.stderr.strip()})" if tried.returncode else ""


def ip(*arguments: str) -> str:
    """`ip ARGUMENTS`; its output. Fails with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def folder_of(tag: str) -> Path:
    """Where the nodes of a network keep what is theirs. Short: Ray's sockets are below it."""
    return Path("/tmp") / tag


def free_network() -> ipaddress.IPv4Network:
    """A /24 that no address of this machine is in."""
    taken = [ipaddress.ip_interface(line.split()[3]).network for line in ip("-o", "-4", "addr").splitlines()]
    for third in range(256):
        found = ipaddress.IPv4Network(f"10.213.{third}.0/24")
        if not any(found.overlaps(other) for other in taken if isinstance(other, ipaddress.IPv4Network)):
            return found
    raise AssertionError("no free network below 10.213.0.0/16")


class Network:
    """A bridge and its namespaces, numbered from 1. `with Network() as network: ...`; gone after it."""

    def __init__(self) -> None:
        self.tag = f"{PREFIX}{os.getpid()}"
        self.folder = folder_of(self.tag)
        self._count = 0

    def __enter__(self) -> "Network":
        assert not list_left(self.tag), "one network at a time"
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tests.nodes.guard", self.tag],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is not for it
        )
        self._addresses = free_network()
        self.folder.mkdir()
        ip("link", "add", self.tag, "type", "bridge")
        ip("addr", "add", f"{self._addresses[254]}/24", "dev", self.tag)
        ip("link", "set", self.tag, "up")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(GUARD_S)
        assert not (left := list_left(self.tag)), left

    def add(self) -> int:
        """One more namespace; its number."""
        self._count += 1
        k, space = self._count, self.space(self._count)
        outer, inner = f"{self.tag}o{k}", f"{self.tag}i{k}"
        ip("netns", "add", space)
        ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        ip("link", "set", outer, "master", self.tag, "up")
        ip("link", "set", inner, "netns", space)
        ip("-n", space, "addr", "add", f"{self.address(k)}/24", "dev", inner)
        ip("-n", space, "link", "set", inner, "up")
        ip("-n", space, "link", "set", "lo", "up")
        return k

    def space(self, k: int) -> str:
        """The name of a namespace."""
        return f"{self.tag}-{k}"

    def address(self, k: int) -> str:
        """A namespace's address."""
        return str(self._addresses[k])

    def enter(self, k: int, hide: Path | None = None) -> list[str]:
        """What is put before a command to run it in a namespace. `hide`: a folder that it sees an empty one of its own for."""
        inside = ["ip", "netns", "exec", self.space(k)]
        if hide is None:
            return inside
        # `ip netns exec` has made a mount namespace already, of which nothing goes back to the machine's.
        return [*inside, "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hide)]

    def cut(self, k: int) -> None:
        """Cuts a namespace's link: what runs in it lives on, alone."""
        ip("link", "set", f"{self.tag}o{k}", "down")

    def mend(self, k: int) -> None:
        """The link is up again."""
        ip("link", "set", f"{self.tag}o{k}", "up")

    def kill(self, k: int) -> None:
        """Ends all processes of a namespace at once, as a power cut does."""
        end_processes(self.space(k), [signal.SIGKILL])


def pids_in(space: str) -> list[int]:
    """The processes of a namespace."""
    done = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split()]


def end_processes(space: str, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)) -> None:
    """Sends each signal in turn until none is left."""
    for number in signals:
        deadline = time.monotonic() + LEAVE_S
        while (pids := pids_in(space)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.2)


def list_left(tag: str) -> list[str]:
    """What of a network is there: namespaces, links, its folder."""
    spaces = [line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(f"{tag}-")]
    names = [line.split(":")[1].strip().partition("@")[0] for line in ip("-o", "link").splitlines()]
    links = [name for name in names if name == tag or name.startswith((f"{tag}o", f"{tag}i"))]
    return spaces + links + [str(folder) for folder in [folder_of(tag)] if folder.exists()]


def take_down(tag: str) -> None:
    """Ends everything that runs in a network's namespaces, and removes it."""
    left = list_left(tag)
    for space in [name for name in left if name.startswith(f"{tag}-")]:
        end_processes(space)
        subprocess.run(["ip", "netns", "del", space], check=False)
    for link in [name for name in left if name == tag or name.startswith(f"{tag}o")]:  # a peer goes with its pair
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
    shutil.rmtree(folder_of(tag), ignore_errors=True)
