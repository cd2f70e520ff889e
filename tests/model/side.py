"""Side: one of the two trees as one worker sees it, and how each operation is done on it.

Each `do_X` takes the operation, a dict of plain values, and returns a plain value or raises OSError. What cannot
be done on either side, because an earlier operation is missing, raises Skipped.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import random
import stat
import struct

_LONGEST_READ = 8 << 20
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_LOCKS = {"read": fcntl.LOCK_SH, "write": fcntl.LOCK_EX, "none": fcntl.LOCK_UN}
_LOCK_TYPES = {"read": fcntl.F_RDLCK, "write": fcntl.F_WRLCK}


def errno_name(error):
    """Python calls 95 ENOTSUP, people who write filesystems EOPNOTSUPP."""
    return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode.get(error.errno, str(error.errno))


class Skipped(Exception):
    """There is nothing to do the operation with."""


def data_of(operation):
    """The bytes that an operation writes; a seed and a length stand for them."""
    seed, length = operation["data"]
    return random.Random(seed).randbytes(length)


def shown(data):
    """Bytes for a log: how many, and which."""
    return [len(data), hashlib.sha256(data).hexdigest()[:16] if len(data) > 24 else data.hex()]


def where_they_differ(data, expected):
    """For whoever looks for the reason: the first run of bytes that differ, and what is there instead."""
    first = next((at for at, (one, other) in enumerate(zip(data, expected)) if one != other), None)
    if first is None:
        return "equal as far as both go"
    last = max(at for at, (one, other) in enumerate(zip(data, expected)) if one != other)
    wrong, right = (bytes(each[first:last + 1]) for each in (data, expected))
    kind = "zeros" if not any(wrong) else f"{wrong[:8].hex()}..."
    return f"bytes {first} to {last} of {len(data)}: {kind} instead of {right[:8].hex()}..."


def attributes(status):
    """What of a stat is compared, and st_ino, which is not."""
    kind = stat.S_IFMT(status.st_mode)
    found = {"type": stat.filemode(status.st_mode)[0], "mode": oct(stat.S_IMODE(status.st_mode)),
             "nlink": status.st_nlink, "uid": status.st_uid, "gid": status.st_gid,
             "mtime": status.st_mtime_ns, "ino": status.st_ino}
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        found["size"] = status.st_size
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        found["rdev"] = status.st_rdev
    return found


class _Mapping:
    def __init__(self, memory, fd):
        self.memory = memory
        self.fd = fd


class Side:
    """Handles and mappings have the numbers that the operations give them."""

    def __init__(self, system):
        self._system = system
        self._root = None
        self._handles = {}
        self._mappings = {}
        self.data_read = None  # by the last operation, if it read any

    def begin(self, root):
        self._root = root

    def end(self):
        """Closes everything; returns the errors of doing so."""
        errors = []
        for mapping in self._mappings.values():
            mapping.memory.close()
            os.close(mapping.fd)
        for number, fd in self._handles.items():
            try:
                self._system.close(fd)
            except OSError as error:
                errors.append([number, errno_name(error)])
        self._mappings.clear()
        self._handles.clear()
        return errors

    def do(self, operation):
        """Returns ["ok", value], ["error", name] or ["skipped", why], and then what there is to see."""
        self.data_read = None
        try:
            result = ["ok", getattr(self, "do_" + operation["op"])(operation)]
        except OSError as error:
            result = ["error", errno_name(error)]
        except Skipped as skipped:
            result = ["skipped", str(skipped)]
        return result, self._look(operation) if operation.get("look") else {}

    def _shown(self, data):
        self.data_read = data
        return shown(data)

    def _look(self, operation):
        seen = {}
        for key in ("path", "to"):
            if key in operation:
                seen[key] = self._attributes_or_error(self._system.lstat, self._path(operation[key]))
        for key in ("h", "to_h"):
            fd = self._handles.get(operation.get(key))
            if fd is not None:
                seen[key] = self._attributes_or_error(self._system.fstat, fd)
                if seen[key].get("type") == "-":
                    seen[key]["position"] = self._system.lseek(fd, 0, os.SEEK_CUR)
        return seen

    @staticmethod
    def _attributes_or_error(function, what):
        try:
            return attributes(function(what))
        except OSError as error:
            return {"error": errno_name(error)}

    def _path(self, relative):
        return self._root + "/" + relative

    def _fd(self, operation, key="h"):
        try:
            return self._handles[operation[key]]
        except KeyError:
            raise Skipped("no such handle") from None

    def _keep(self, operation, fd):
        number = operation["new"]
        if number in self._handles:
            os.close(fd)
            raise Skipped("the handle is there already")
        self._handles[number] = fd

    # Handles

    def do_open(self, operation):
        flags = os.O_NONBLOCK  # a fifo without its other end must not hang the test
        for name in operation["flags"]:
            flags |= getattr(os, name)
        self._keep(operation, self._system.open(self._path(operation["path"]), flags,
                                                operation["mode"]))

    def do_dup(self, operation):
        self._keep(operation, self._system.dup(self._fd(operation)))

    def do_close(self, operation):
        fd = self._fd(operation)
        del self._handles[operation["h"]]
        self._system.close(fd)

    def do_read(self, operation):
        return self._shown(self._system.read(self._fd(operation), operation["length"]))

    def do_pread(self, operation):
        return self._shown(self._system.pread(self._fd(operation), operation["length"], operation["offset"]))

    def do_write(self, operation):
        return self._system.write(self._fd(operation), data_of(operation))

    def do_pwrite(self, operation):
        return self._system.pwrite(self._fd(operation), data_of(operation), operation["offset"])

    def do_lseek(self, operation):
        fd = self._fd(operation)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Skipped("positions in anything but files are the filesystem's own")
        return self._system.lseek(fd, operation["offset"], getattr(os, operation["whence"]))

    def do_data_and_holes(self, operation):
        """What SEEK_HOLE calls a hole must be zeroes, and data and holes must alternate up to the end."""
        fd = self._fd(operation)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Skipped("not a file")
        position = self._system.lseek(fd, 0, os.SEEK_CUR)
        try:
            return self._walk_holes(fd)
        finally:
            self._system.lseek(fd, position, os.SEEK_SET)

    def _walk_holes(self, fd):
        size, at = self._system.fstat(fd).st_size, 0
        while at < size:
            try:
                data = self._system.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = size
            # Who may not read cannot look into the holes.
            if data > at and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY:
                if self._system.pread(fd, min(data - at, _LONGEST_READ), at).strip(b"\0"):
                    return f"there is data in the hole at {at}"
            if data >= size:
                return "right"
            at = self._system.lseek(fd, data, os.SEEK_HOLE)
            if at <= data:
                return f"a hole at {at} where data was said to begin at {data}"
        return "right"

    def do_ftruncate(self, operation):
        self._system.ftruncate(self._fd(operation), operation["size"])

    def do_fsync(self, operation):
        self._system.fsync(self._fd(operation))

    def do_fdatasync(self, operation):
        self._system.fdatasync(self._fd(operation))

    def do_fallocate(self, operation):
        self._system.fallocate(self._fd(operation), operation["how"], operation["offset"],
                               operation["length"])

    def do_copy_file_range(self, operation):
        """As cp does it: until all is copied or the source ends."""
        source, target = self._fd(operation), self._fd(operation, "to_h")
        done = 0
        while done < operation["length"]:
            copied = self._system.copy_file_range(source, target, operation["length"] - done,
                                                  operation["offset"] + done,
                                                  operation["to_offset"] + done)
            if copied == 0:
                break
            done += copied
        return done

    # Mappings

    def do_mmap(self, operation):
        fd = self._fd(operation)
        if operation["new"] in self._mappings:
            raise Skipped("the mapping is there already")
        status, length = self._system.fstat(fd), max(operation["length"], 1)
        if stat.S_ISREG(status.st_mode):
            length = min(length, status.st_size)
            if length == 0:
                raise Skipped("an empty file")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if operation["writes"] else 0)
        memory = self._system.mmap(fd, length, flags=mmap.MAP_SHARED, prot=protection)
        self._mappings[operation["new"]] = _Mapping(memory, os.dup(fd))

    def _mapping(self, operation):
        """The mapping, and how much of it can be touched: behind the end of the file is SIGBUS."""
        try:
            mapping = self._mappings[operation["map"]]
        except KeyError:
            raise Skipped("no such mapping") from None
        return mapping, min(len(mapping.memory), self._system.fstat(mapping.fd).st_size)

    def do_map_read(self, operation):
        mapping, end = self._mapping(operation)
        return self._shown(mapping.memory[:end][operation["offset"]:operation["offset"] + operation["length"]])

    def do_map_write(self, operation):
        mapping, end = self._mapping(operation)
        data = data_of(operation)[:max(0, end - operation["offset"])]
        if not data:
            raise Skipped("behind the end")
        try:
            mapping.memory[operation["offset"]:operation["offset"] + len(data)] = data
        except TypeError:
            raise Skipped("a mapping for reading") from None
        if operation["msync"]:
            mapping.memory.flush()
        return len(data)

    def do_munmap(self, operation):
        mapping, _ = self._mapping(operation)
        del self._mappings[operation["map"]]
        mapping.memory.close()
        self._system.close(mapping.fd)

    # Names

    def do_truncate(self, operation):
        self._system.truncate(self._path(operation["path"]), operation["size"])

    def do_unlink(self, operation):
        self._system.unlink(self._path(operation["path"]))

    def do_rmdir(self, operation):
        self._system.rmdir(self._path(operation["path"]))

    def do_mkdir(self, operation):
        self._system.mkdir(self._path(operation["path"]), operation["mode"])

    def do_mknod(self, operation):
        self._system.mknod(self._path(operation["path"]), operation["mode"], operation["device"])

    def do_symlink(self, operation):
        self._system.symlink(operation["target"], self._path(operation["path"]))

    def do_readlink(self, operation):
        return self._system.readlink(self._path(operation["path"]))

    def do_link(self, operation):
        self._system.link(self._path(operation["path"]), self._path(operation["to"]),
                          follow_symlinks=False)

    def do_rename(self, operation):
        self._system.rename(self._path(operation["path"]), self._path(operation["to"]))

    def do_rename_with_flags(self, operation):
        self._system.renameat2(self._path(operation["path"]), self._path(operation["to"]),
                               operation["how"])

    # Attributes

    def do_chmod(self, operation):
        self._system.chmod(self._path(operation["path"]), operation["mode"])

    def do_fchmod(self, operation):
        self._system.fchmod(self._fd(operation), operation["mode"])

    def do_chown(self, operation):
        self._system.chown(self._path(operation["path"]), operation["uid"], operation["gid"],
                           follow_symlinks=operation["follow"])

    def do_fchown(self, operation):
        self._system.fchown(self._fd(operation), operation["uid"], operation["gid"])

    def do_utimens(self, operation):
        """Without times: now."""
        self._system.utime(self._path(operation["path"]), ns=self._times(operation),
                           follow_symlinks=operation["follow"])

    def do_futimens(self, operation):
        self._system.utime(self._fd(operation), ns=self._times(operation))

    @staticmethod
    def _times(operation):
        return tuple(operation["times"])

    def do_touch(self, operation):
        self._system.utime(self._path(operation["path"]))

    def do_stat(self, operation):
        return attributes(self._system.stat(self._path(operation["path"])))

    def do_lstat(self, operation):
        return attributes(self._system.lstat(self._path(operation["path"])))

    def do_fstat(self, operation):
        return attributes(self._system.fstat(self._fd(operation)))

    def do_same_file(self, operation):
        return os.path.samestat(self._system.fstat(self._fd(operation)),
                                self._system.stat(self._path(operation["path"])))

    def do_access(self, operation):
        return self._system.access(self._path(operation["path"]), operation["mode"])

    def do_list(self, operation):
        return self._list(self._path(operation["path"]))

    def do_list_handle(self, operation):
        fd = self._fd(operation)
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Skipped("not a directory")
        return self._list(fd)

    def _list(self, what):
        with self._system.scandir(what) as entries:
            return sorted([entry.name, self._type_of(entry)] for entry in entries)

    @staticmethod
    def _type_of(entry):
        try:
            if entry.is_symlink():
                return "l"
        except PermissionError:  # the listing does not tell, and the directory may not be searched
            return "?"
        if entry.is_dir(follow_symlinks=False):
            return "d"
        return "-" if entry.is_file(follow_symlinks=False) else "other"

    def do_statfs(self, operation):
        """Not the numbers, but that they can be true."""
        status = self._system.statvfs(self._path(operation["path"]))
        return {"size": status.f_blocks > 0 and status.f_bsize >= 512,
                "free": status.f_blocks >= status.f_bfree >= status.f_bavail,
                "files": status.f_files >= status.f_ffree, "longest name": status.f_namemax}

    # Locks

    def do_flock(self, operation):
        self._system.flock(self._fd(operation), _LOCKS[operation["kind"]] | fcntl.LOCK_NB)

    def do_lock(self, operation):
        kind = _LOCKS[operation["kind"]]
        if kind != fcntl.LOCK_UN:
            kind |= fcntl.LOCK_NB
        self._system.lockf(self._fd(operation), kind, operation["length"], operation["offset"])

    def do_get_lock(self, operation):
        """Whether the lock could be had. Which of several that conflict is shown is nobody's promise."""
        asked = _FLOCK.pack(_LOCK_TYPES[operation["kind"]], os.SEEK_SET, operation["offset"],
                            operation["length"], 0)
        answer = self._system.fcntl(self._fd(operation), fcntl.F_GETLK, asked)
        return "free" if _FLOCK.unpack(answer)[0] == fcntl.F_UNLCK else "held by another"
