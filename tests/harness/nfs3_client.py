"""Nfs3Client: a plain NFSv3 client, one call at a time: a second opinion, and the proxy's own test."""

import dataclasses
import itertools
import socket
import struct

_NFS, _MOUNT = 100003, 100005
NULL, GETATTR, LOOKUP, ACCESS, READLINK, READ, READDIRPLUS, FSINFO = 0, 1, 3, 4, 5, 6, 17, 19
_LAST_FRAGMENT = 0x80000000


class NfsError(Exception):
    """The server refused; `status` is its nfsstat3 or mountstat3."""

    def __init__(self, status):
        super().__init__(f"NFS status {status}")
        self.status = status


class BadReply(Exception):
    """What came is no reply to our call."""


@dataclasses.dataclass
class Attributes:
    type: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    used: int
    fsid: int
    fileid: int
    atime: float
    mtime: tuple
    ctime: tuple


class Xdr:
    """Reads XDR; what is too short is a BadReply."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def unpack(self, layout):
        try:
            values = struct.unpack_from(">" + layout, self._data, self._at)
        except struct.error as error:
            raise BadReply(str(error)) from error
        self._at += struct.calcsize(">" + layout)
        return values if len(values) != 1 else values[0]

    def opaque(self):
        length = self.unpack("I")
        data = self._data[self._at:self._at + length]
        if len(data) != length:
            raise BadReply("an opaque is cut off")
        self._at += (length + 3) // 4 * 4
        return data

    def attributes(self):
        (kind, mode, links, uid, gid, size, used, _, _, fsid, fileid, *times) = \
            self.unpack("IIIIIQQIIQQIIIIII")
        return Attributes(kind, mode, links, uid, gid, size, used, fsid, fileid, times[0],
                          tuple(times[2:4]), tuple(times[4:6]))

    def optional(self, read):
        return read() if self.unpack("I") else None


def _opaque(data):
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


class _Connection:
    """RPC over one TCP connection; a call waits for its reply, others are skipped."""

    def __init__(self, address, port, credential, timeout):
        self._socket = socket.create_connection((address, port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._credential = credential
        self._xids = itertools.count(1)
        self.skipped_replies = 0

    def send(self, program, procedure, arguments):
        xid = next(self._xids)
        call = struct.pack(">IIIIII", xid, 0, 2, program, 3, procedure)
        call += struct.pack(">I", 1) + _opaque(self._credential) + struct.pack(">II", 0, 0)
        call += arguments
        self._socket.sendall(struct.pack(">I", len(call) | _LAST_FRAGMENT) + call)
        return xid

    def receive(self):
        """The next reply: its xid and its result."""
        reply = Xdr(self._record())
        xid, kind, state = reply.unpack("III")
        if kind != 1 or state != 0:
            raise BadReply(f"message type {kind}, reply state {state}")
        reply.unpack("I")
        reply.opaque()
        accepted = reply.unpack("I")
        if accepted != 0:
            raise BadReply(f"accept state {accepted}")
        return xid, reply

    def call(self, program, procedure, arguments):
        xid = self.send(program, procedure, arguments)
        while True:
            answered, reply = self.receive()
            if answered == xid:
                return reply
            self.skipped_replies += 1

    def close(self):
        self._socket.close()

    def _record(self):
        record, last = bytearray(), False
        while not last:
            mark = struct.unpack(">I", self._exactly(4))[0]
            last = bool(mark & _LAST_FRAGMENT)
            record += self._exactly(mark & ~_LAST_FRAGMENT)
        return bytes(record)

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ConnectionResetError(f"the connection ended after {len(data)} of {count} bytes")
            data += piece
        return bytes(data)


class Nfs3Client:
    """Mounts `export` from a server or proxy; handles are bytes, names too."""

    def __init__(self, server, export="/export", uid=0, gid=0, groups=(), timeout=10):
        credential = struct.pack(">I", 0) + _opaque(b"test")
        credential += struct.pack(">III", uid, gid, len(groups)) + struct.pack(f">{len(groups)}I", *groups)
        self._server, self._credential, self._timeout = server, credential, timeout
        mount = _Connection(server.address, server.mount_port, credential, timeout)
        try:
            reply = mount.call(_MOUNT, 1, _opaque(export.encode()))
            self._check(reply)
            self.root = reply.opaque()
        finally:
            mount.close()
        self.last_verifier = None
        self.connection = None
        self.reconnect()

    def reconnect(self):
        self.close()
        self.connection = _Connection(self._server.address, self._server.nfs_port,
                                      self._credential, self._timeout)

    def close(self):
        if self.connection is not None:
            self.connection.close()

    stop = close

    def null(self):
        self.connection.call(_NFS, NULL, b"")

    def getattr(self, handle):
        reply = self.connection.call(_NFS, GETATTR, _opaque(handle))
        self._check(reply)
        return reply.attributes()

    def lookup(self, directory, name):
        """Handle and attributes (None if the reply has none)."""
        reply = self.connection.call(_NFS, LOOKUP, _opaque(directory) + _opaque(name))
        self._check(reply)
        return reply.opaque(), reply.optional(reply.attributes)

    def read(self, handle, offset, count):
        """Data, whether it ends the file, attributes (None if the reply has none)."""
        reply = self.connection.call(_NFS, READ, self._read_arguments(handle, offset, count))
        self._check(reply)
        attributes = reply.optional(reply.attributes)
        _, end = reply.unpack("II")
        return reply.opaque(), bool(end), attributes

    def start_read(self, handle, offset, count):
        """Sends a READ and does not wait; returns its xid."""
        return self.connection.send(_NFS, READ, self._read_arguments(handle, offset, count))

    def read_file(self, handle, count=1 << 20):
        data, end = bytearray(), False
        while not end:
            piece, end, _ = self.read(handle, len(data), count)
            data += piece
        return bytes(data)

    def readdirplus(self, directory):
        """All entries: name -> (fileid, attributes or None, handle or None); sets last_verifier."""
        entries, cookie, verifier, end = {}, 0, bytes(8), False
        while not end:
            reply = self.connection.call(
                _NFS, READDIRPLUS,
                _opaque(directory) + struct.pack(">Q", cookie) + verifier + struct.pack(">II", 8192, 65536))
            self._check(reply)
            reply.optional(reply.attributes)
            verifier = self.last_verifier = reply.unpack("8s")
            while reply.unpack("I"):
                fileid = reply.unpack("Q")
                name, cookie = reply.opaque(), reply.unpack("Q")
                entries[name] = (fileid, reply.optional(reply.attributes), reply.optional(reply.opaque))
            end = bool(reply.unpack("I"))
        return entries

    @staticmethod
    def _read_arguments(handle, offset, count):
        return _opaque(handle) + struct.pack(">QI", offset, count)

    @staticmethod
    def _check(reply):
        status = reply.unpack("I")
        if status != 0:
            raise NfsError(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
