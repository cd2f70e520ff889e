"""RpcProxy: stands between client and server, counts the calls and breaks what a test wants broken.

Each method is one command of the proxy; docs/testing.md has them in a table. Procedures are named as
in RFC 1813 ("READ", "READDIRPLUS", "MNT"), "*" means all of them.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket

from harness import paths
from harness.processes import Process, wait_until

NFS3ERR_PERM = 1
NFS3ERR_NOENT = 2
NFS3ERR_IO = 5
NFS3ERR_ACCES = 13
NFS3ERR_STALE = 70
NFS3ERR_NOTSUPP = 10004
NFS3ERR_SERVERFAULT = 10006
NFS3ERR_JUKEBOX = 10008


class Seen:
    """What happened at the proxy inside a `counting()` block; filled at its end."""

    def __init__(self):
        self.calls = {}
        self.mount_calls = {}
        self.read_bytes = 0
        self.uids = {}
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.connections = 0

    def __getitem__(self, procedure):
        """Calls of one procedure."""
        return self.calls.get(procedure, 0) or self.mount_calls.get(procedure, 0)

    def total(self):
        return sum(self.calls.values())


def _difference(after, before):
    return {key: value - before.get(key, 0) for key, value in after.items()
            if value != before.get(key, 0)}


class RpcProxy:
    """Started by its constructor in front of `server`, which has address, nfs_port and mount_port."""

    def __init__(self, directory, server, listen="127.0.0.1", namespace=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "proxy.log"
        self.address = listen
        control = self.directory / "proxy.sock"
        self._control = None
        self._process = Process(
            [paths.RPC_PROXY, control, f"{listen}:0", f"{server.address}:{server.nfs_port}",
             f"{listen}:0", f"{server.address}:{server.mount_port}"], self.log, namespace=namespace)
        try:
            ready = self._process.wait_for_line(r"^ready nfs=(\d+) mount=(\d+)")
            self.nfs_port, self.mount_port = int(ready[1]), int(ready[2])
            self._control = socket.socket(socket.AF_UNIX)
            self._control.settimeout(30)
            self._control.connect(str(control))
            self._lines = self._control.makefile("r")
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self):
        return self._process.pid

    def url(self, name="/export", **options):
        """The source as a user types it, through the proxy."""
        query = {"nfsport": self.nfs_port, "mountport": self.mount_port, **options}
        return (f"nfs://{self.address}{name}?"
                + "&".join(f"{key}={value}" for key, value in query.items()))

    def command(self, *words):
        """One line to the proxy; returns what stands behind its "ok"."""
        self._control.sendall((" ".join(str(word) for word in words) + "\n").encode())
        answer = self._lines.readline().rstrip("\n")
        if answer != "ok" and not answer.startswith("ok "):
            raise ValueError(f"the proxy answered {words} with: {answer}")
        return answer[3:]

    # Counting.

    def counts(self):
        return json.loads(self.command("counts"))

    def reset(self):
        self.command("reset")

    @contextlib.contextmanager
    def counting(self):
        """`with proxy.counting() as seen: ...`, then seen["READ"] are the calls made inside."""
        seen, before = Seen(), self.counts()
        yield seen
        after = self.counts()
        seen.calls = _difference(after["calls"], before["calls"])
        seen.mount_calls = _difference(after["mount_calls"], before["mount_calls"])
        seen.uids = {int(uid): calls
                     for uid, calls in _difference(after["uids"], before["uids"]).items()}
        seen.read_bytes = after["read_bytes"] - before["read_bytes"]
        seen.bytes_to_server = after["bytes_to_server"] - before["bytes_to_server"]
        seen.bytes_to_client = after["bytes_to_client"] - before["bytes_to_client"]
        seen.connections = after["accepted"] - before["accepted"]

    # The link.

    def delay(self, ms, jitter_ms=0, direction="both"):
        self.command("delay", direction, ms, jitter_ms)

    def rate(self, mbit, direction="both"):
        self.command("rate", direction, mbit)

    def segment(self, size, gap_us=0):
        self.command("segment", size, gap_us)

    def fragment(self, size):
        self.command("fragment", size)

    # Messages that vanish, wait, fail or break.

    @staticmethod
    def _limits(handle, count):
        return ([] if handle is None else ["handle", handle.hex()]) + \
               ([] if count is None else ["count", count])

    def drop_calls(self, procedure, count=None, handle=None):
        self.command("drop", "calls", procedure, *self._limits(handle, count))

    def drop_replies(self, procedure, count=None, handle=None):
        self.command("drop", "replies", procedure, *self._limits(handle, count))

    def hold_calls(self, procedure, count=None, handle=None):
        self.command("hold", "calls", procedure, *self._limits(handle, count))

    def hold_replies(self, procedure, count=None, handle=None):
        self.command("hold", "replies", procedure, *self._limits(handle, count))

    def held(self):
        return self.counts()["held"]

    def wait_until_held(self, count, seconds=10):
        wait_until(lambda: self.held() >= count, seconds, f"{count} held messages")

    def release(self, procedure="*"):
        """Lets held messages go on, and holds no further ones. Returns how many went on."""
        return int(self.command("release", procedure))

    def answer_with_error(self, procedure, status, count=None, handle=None):
        self.command("error", procedure, status, *self._limits(handle, count))

    def without_readdirplus(self):
        self.answer_with_error("READDIRPLUS", NFS3ERR_NOTSUPP)

    def corrupt(self, procedure, damage, count=None, handle=None):
        self.command("corrupt", procedure, damage, *self._limits(handle, count))

    # Connections that break.

    def cut_all(self):
        self.command("cut")

    def cut_reply_after(self, procedure, size, count=1, handle=None):
        self.command("cut", procedure, size, *self._limits(handle, count))

    def swallow(self, on=True):
        self.command("swallow", "on" if on else "off")

    def refuse(self, on=True):
        self.command("refuse", "on" if on else "off")

    def freeze(self):
        """Nothing moves until thaw(): a link that is down, but not broken."""
        self._process.freeze()

    def thaw(self):
        self._process.send(signal.SIGCONT)

    # Replies that say something else.

    def strip_attributes(self, *procedures):
        self.command("strip", *(procedures or ("*",)))

    def freeze_attributes(self, *paths_at_server):
        """Size and stamps of these files stay as the next reply shows them; of all, without arguments."""
        self.command("freeze", *([os.lstat(path).st_ino for path in paths_at_server] or ["*"]))

    def thaw_attributes(self):
        self.command("thaw")

    def shift_times(self, seconds):
        self.command("shift", seconds)

    def whole_seconds(self, on=True):
        self.command("whole_seconds", "on" if on else "off")

    def complete_wcc(self, on=True):
        """Replies to writing tell what the file was like before, as long as nobody changes it behind the proxy."""
        self.command("complete_wcc", "on" if on else "off")

    def fake_submount(self, directory_at_server, fsid):
        """This directory and all below show another fsid, as if a filesystem were mounted there."""
        ids = {os.lstat(directory_at_server).st_ino}
        for parent, directories, files in os.walk(directory_at_server):
            ids.update(os.lstat(os.path.join(parent, name)).st_ino for name in directories + files)
        self.command("fsid", fsid, *sorted(ids))

    def heal(self):
        """Nothing is broken any more; the counts stay."""
        self.command("heal")

    def stop(self):
        if self._control is not None:
            self._control.close()
        self._process.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
