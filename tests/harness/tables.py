"""Tables: what the engine keeps in the keeper's memory, read as the next engine would find it.

The layouts are those of src/handover/records.h; the header of each table tells whether they still are.
"""

import collections
import contextlib
import os
import pathlib
import struct

_HEADER = struct.Struct("=QIIII")  # magic, version, kind, record size, capacity
_HEADER_ROOM = 4096
_VERSION = 4

Node = collections.namedtuple(
    "Node", "slot generation mount_id lookup_count fileid fsid size coherency verifier open_count"
            " backing_id type open_mode flags handle")
Handle = collections.namedtuple(
    "Handle", "slot nodeid size coherency mount_id generation uid gid open_flags open_mode lost_write"
              " groups")
Backing = collections.namedtuple("Backing", "slot mount_id backing_id nodeid device inode charged_bytes")

Call = collections.namedtuple(
    "Call", "slot mount_id opcode unique nodeid fh offset error state flags answer verifier hidden_name made")
Write = collections.namedtuple(
    "Write", "slot mount_id uid gid order offset fsid fileid groups handle verifier at_server bytes")

_NODE = struct.Struct("=IIQQQQ16sQIiBBBB64s4x")
_HANDLE = struct.Struct("=QQ16sIIIIIBBH128s")
_BACKING = struct.Struct("=IiQQQQ")
_CALL = struct.Struct("=IIQQQQiBBBBB7x8s64s64s144s")
_WRITE = struct.Struct("=IIIHBxQQQQ128s64s8sII")
_PAGE = 4096


def nodes(keeper_pid):
    """The records that are in use."""
    found = []
    for slot, fields in _records(keeper_pid, "larder-nodes", _NODE):
        *others, length, handle = fields
        node = Node(slot, *others, handle[:length])
        if node.mount_id != 0:
            found.append(node)
    return found


def handles(keeper_pid):
    """The opens of files and directories."""
    found = []
    for slot, fields in _records(keeper_pid, "larder-handles", _HANDLE):
        *others, count, groups = fields
        handle = Handle(slot, *others, struct.unpack_from(f"={count}I", groups))
        if handle.mount_id != 0:
            found.append(handle)
    return found


def backings(keeper_pid):
    return [backing for backing in (Backing(slot, *fields) for slot, fields in
                                    _records(keeper_pid, "larder-backings", _BACKING))
            if backing.mount_id != 0]


def calls(keeper_pid):
    """What the journal has of calls that must not happen twice."""
    found = []
    for slot, fields in _records(keeper_pid, "larder-journal", _CALL):
        *head, answer_length, name_length, made_length, verifier, name, made, answer = fields
        call = Call(slot, *head, answer[:answer_length], verifier, name[:name_length].decode(),
                    made[:made_length])
        if call.mount_id != 0:
            found.append(call)
    return found


def slots_ever_used_by_calls(keeper_pid):
    return sum(fields[2] != 0 for _, fields in _records(keeper_pid, "larder-journal", _CALL))


def writes(keeper_pid):
    """Bytes that were answered before the server had them, in the order of their acceptance."""
    found = []
    with open(_descriptor(keeper_pid, "larder-write-pages"), "rb", buffering=0) as pages:
        for slot, fields in _records(keeper_pid, "larder-writes", _WRITE):
            mount_id, uid, gid, count, length, *place, groups, handle, verifier, at_server, size = fields
            if mount_id != 0 and size != 0:
                content = os.pread(pages.fileno(), size, _HEADER_ROOM + slot * _PAGE)
                found.append(Write(slot, mount_id, uid, gid, *place, struct.unpack_from(f"={count}I", groups),
                                   handle[:length], verifier, at_server, content))
    return sorted(found, key=lambda write: write.order)


def write_memory(keeper_pid):
    """Bytes of memory that all of this takes."""
    return sum(os.stat(_descriptor(keeper_pid, name)).st_blocks * 512
               for name in ("larder-writes", "larder-write-pages"))


def _records(pid, name, layout):
    """Slots and fields, of the parts of the table that have memory."""
    with open(_descriptor(pid, name), "rb", buffering=0) as table:
        _, version, _, size, _ = _HEADER.unpack(os.pread(table.fileno(), _HEADER.size, 0))
        if (version, size) != (_VERSION, layout.size):
            raise AssertionError(f"{name}: version {version}, records of {size} bytes: adapt {__file__}")
        end = os.fstat(table.fileno()).st_size
        for begin, stop in _data(table.fileno(), end):
            first = max(begin - _HEADER_ROOM, 0) // size
            last = -(-(stop - _HEADER_ROOM) // size)
            content = os.pread(table.fileno(), (last - first) * size, _HEADER_ROOM + first * size)
            for index in range(len(content) // size):
                yield first + index, layout.unpack_from(content, index * size)


def _data(fd, end):
    at = 0
    while at < end:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but holes
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, at


def _descriptor(pid, name):
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # others come and go
            if os.readlink(link).startswith(f"/memfd:{name} "):
                return link
    raise AssertionError(f"process {pid} holds no {name}")
