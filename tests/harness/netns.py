"""Private network namespaces, and the links between them."""

import contextlib
import ctypes
import os
import subprocess
import threading

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def _ip(*words):
    subprocess.run(["ip", *words], check=True)


class Namespace:
    """A network namespace larder-PID-NAME with its own loopback and all ports free."""

    def __init__(self, name):
        self.name = f"larder-{os.getpid()}-{name}"
        _ip("netns", "add", self.name)
        try:
            self.run(["ip", "link", "set", "lo", "up"])
        except BaseException:
            self.delete()
            raise

    def command(self, words):
        """`words` as a command that runs inside."""
        return ["ip", "netns", "exec", self.name, *map(os.fspath, words)]

    def run(self, words):
        return subprocess.run(self.command(words), check=True, capture_output=True, text=True).stdout

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is inside: sockets that it opens stay inside for good."""
        before = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _set_namespace(inside)
            try:
                yield self
            finally:
                _set_namespace(before)
        finally:
            os.close(inside)
            os.close(before)

    def delete(self):
        _ip("netns", "delete", self.name)

    stop = delete

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.delete()


def _set_namespace(fd):
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def connect(first, second, first_address, second_address, device="veth0"):
    """A veth pair: `device` in both namespaces, addresses as 10.0.0.1/24. It goes with either of them."""
    _ip("link", "add", device, "netns", first.name, "type", "veth",
        "peer", "name", device, "netns", second.name)
    for namespace, address in ((first, first_address), (second, second_address)):
        namespace.run(["ip", "address", "add", address, "dev", device])
        namespace.run(["ip", "link", "set", device, "up"])
