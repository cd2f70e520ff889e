"""ScriptedEngine: plays an engine at a cache channel (docs/protocol.md) on a real directory, as a test tells it to."""

import array
import contextlib
import errno
import os
import pathlib
import socket
import struct
import threading

_BLOCK = 4096
# As an engine's are that was told nothing.
_LIMITS = {"brun": 10, "bcull": 7, "bstop": 3, "frun": 10, "fcull": 7, "fstop": 3}


class ScriptedEngine:
    """Listens in `runtime_directory`. `limit`: objects of a block each that may stay."""

    def __init__(self, runtime_directory, limit=1 << 30):
        self.path = pathlib.Path(runtime_directory) / "control.sock"
        self.limit = limit
        self.in_use = set()
        self.silent = threading.Event()  # set: culls are not answered
        self.refuses_bind = ""  # "EBUSY a sentence"
        self.refuses = {}  # command: "EIO a sentence"
        self.commands = []  # but cull and state
        self.limits = dict(_LIMITS)  # percent
        self.culled = []
        self.asked_states = 0
        self.peer_uid = None
        self.bound = threading.Event()
        self._connection = None
        self._directory = None
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        os.chmod(self.path, 0o666)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self):
        """Hangs up, as an engine that dies."""
        for end in (self._listener, self._connection):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._thread.join(5)

    def push(self, released=0):
        self._connection.send(f"state {self._state(released)}\n".encode())

    def objects(self):
        return sorted(pathlib.Path(f"/proc/self/fd/{self._directory}/cache").rglob("D*"))

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                self._connection = self._listener.accept()[0]
                credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                self.peer_uid = struct.unpack("3i", credentials)[1]
                self._converse()
                self._connection.close()

    def _converse(self):
        if self._connection.recv(100) != b"cache":
            return
        self._connection.send(b"ok\n")
        self.limits = dict(_LIMITS)
        while True:
            packet, ancillary, _, _ = self._connection.recvmsg(65536, socket.CMSG_SPACE(4))
            if not packet:
                return
            for _, _, data in ancillary:
                self._directory = array.array("i", data)[0]
            reply = self._obey(packet.decode())
            if reply is not None:
                self._connection.send(reply.encode())

    def _obey(self, packet):
        word, _, rest = packet.partition(" ")
        if word == "state":
            self.asked_states += 1
            return f"ok\n{self._state()}"
        if word == "cull":
            return None if self.silent.is_set() else self._cull(rest.split("\n"))
        self.commands.append(packet)
        if packet in self.refuses:
            return f"error {self.refuses[packet]}\n"
        if word in _LIMITS:
            return self._set_limit(word, int(rest.removesuffix("%")))
        if word == "bind":
            if self.refuses_bind:
                return f"error {self.refuses_bind}\n"
            for name in ("cache", "graveyard"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self._directory)
                    os.chown(name, os.fstat(self._directory).st_uid, -1, dir_fd=self._directory)
            self.bound.set()
        return "ok\n"

    def _set_limit(self, word, percent):
        """As the engine compares one with the others."""
        limits = {**self.limits, word: percent}
        kind = word[0]
        if not limits[f"{kind}stop"] < limits[f"{kind}cull"] < limits[f"{kind}run"] < 100:
            return f"error EINVAL {word} {percent}%: out of order\n"
        self.limits = limits
        return "ok\n"

    def _cull(self, lines):
        outcomes, parent = [], ""
        for line in lines:
            if "/" in line:
                parent, _, line = line.rpartition("/")
            if line in self.in_use:
                outcomes.append(errno.EBUSY)
                continue
            try:
                os.unlink(f"cache/{parent}/{line}", dir_fd=self._directory)
                self.culled.append(line)
                outcomes.append(None)
            except FileNotFoundError:
                outcomes.append(errno.ENOENT)
        if len(lines) == 1:
            code = outcomes[0]
            return f"ok\n{_BLOCK}\n" if code is None else f"error {errno.errorcode[code]} no\n"
        return "ok\n" + "".join(f"{_BLOCK if code is None else errno.errorcode[code]}\n" for code in outcomes)

    def _state(self, released=0):
        count = len(self.objects())
        excess = max(0, count - self.limit) * _BLOCK
        graves = os.listdir(f"/proc/self/fd/{self._directory}/graveyard")
        return (f"cull={int(excess > 0)} frun=1 fcull=1 fstop=1 brun=1 bcull=1 bstop=1 freleased={released:x}"
                f" breleased={released * 8:x} bsize={_BLOCK:x} ffree=1000 bfree=1000 used={count * _BLOCK:x}"
                f" size={self.limit * _BLOCK:x} objects={count:x} fexcess=0 bexcess={excess:x} stop=0"
                f" graveyard={int(bool(graves))}")
