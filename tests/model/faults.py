"""Faults: filesystems with one planted bug each, to test the test. Keys are what --plant takes."""

import errno
import fcntl
import os
import stat
import time

from model.system import System


class WrongErrnoOfRmdir(System):
    """A directory that is not empty is refused with EBUSY."""

    @staticmethod
    def rmdir(path):
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from None
            raise


class LostAppend(System):
    """The second of two appends to a handle is acknowledged and forgotten."""

    def __init__(self):
        self._appended = set()

    def write(self, fd, data):
        if data and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND and fd in self._appended:
            return len(data)
        written = os.write(fd, data)
        self._appended.add(fd)
        return written

    def close(self, fd):
        self._appended.discard(fd)
        os.close(fd)


class TruncateRoundsUp(System):
    """Growing by ftruncate ends at whole pages."""

    @staticmethod
    def ftruncate(fd, size):
        if size > os.fstat(fd).st_size:
            size = -(-size // 4096) * 4096
        os.ftruncate(fd, size)


class StaleEnd(System):
    """What ftruncate cuts off is there again when the file grows."""

    def __init__(self):
        self._cut = {}

    def ftruncate(self, fd, size):
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or size < 0:
            return os.ftruncate(fd, size)
        if size < status.st_size:
            try:
                self._cut[status.st_ino] = size, os.pread(fd, min(100, status.st_size - size), size)
            except OSError:
                pass  # a handle for writing only
        os.ftruncate(fd, size)
        if size > status.st_size and status.st_ino in self._cut:
            offset, data = self._cut.pop(status.st_ino)
            os.pwrite(fd, data[:max(0, size - offset)], offset)


class SuidSurvives(System):
    """Who writes to a suid file leaves it suid."""

    @staticmethod
    def write(fd, data):
        before = os.fstat(fd).st_mode
        written = os.write(fd, data)
        if before != os.fstat(fd).st_mode:
            try:
                os.fchmod(fd, stat.S_IMODE(before))
            except PermissionError:
                pass
        return written


class RenameKeepsTheOldName(System):
    """A rename over a file makes a link and forgets to remove the old name."""

    @staticmethod
    def rename(source, target):
        replaces = os.path.isfile(target) and os.path.isfile(source) and not os.path.islink(source)
        if replaces and not os.path.samefile(source, target):
            os.rename(source, target)
            os.link(target, source)
        else:
            os.rename(source, target)


class LostTimes(System):
    """utimens has whole seconds."""

    @staticmethod
    def utime(path, times=None, *, ns=None, follow_symlinks=True):
        if ns is not None:
            ns = tuple(time // 10**9 * 10**9 for time in ns)
            os.utime(path, ns=ns, follow_symlinks=follow_symlinks)
        else:
            os.utime(path, times, follow_symlinks=follow_symlinks)


class NoLocks(System):
    """Byte-range locks are always granted."""

    @staticmethod
    def lockf(fd, kind, length=0, start=0):
        try:
            fcntl.lockf(fd, kind, length, start)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise


class MissingName(System):
    """Listings leave out the last of more than two names."""

    class _Entries:
        def __init__(self, entries):
            self._entries = entries

        def __enter__(self):
            found = list(self._entries)
            return found if len(found) <= 2 else sorted(found, key=lambda entry: entry.name)[:-1]

        def __exit__(self, *_):
            self._entries.close()

    def scandir(self, what):
        return self._Entries(os.scandir(what))


class IgnoredOtherUsers(System):
    """chown by somebody who may not do it says that all is well."""

    @staticmethod
    def chown(path, uid, gid, *, follow_symlinks=True):
        try:
            os.chown(path, uid, gid, follow_symlinks=follow_symlinks)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise


class HangingSync(System):
    """fdatasync does not come back."""

    @staticmethod
    def fdatasync(fd):
        time.sleep(3600)


class DeadlyCopy(System):
    """copy_file_range takes its caller down."""

    @staticmethod
    def copy_file_range(source, target, count, offset_src, offset_dst):
        os._exit(1)


FAULTS = {
    "rmdir-errno": WrongErrnoOfRmdir,
    "lost-append": LostAppend,
    "truncate-rounds-up": TruncateRoundsUp,
    "stale-end": StaleEnd,
    "suid-survives": SuidSurvives,
    "rename-keeps-name": RenameKeepsTheOldName,
    "lost-times": LostTimes,
    "no-locks": NoLocks,
    "missing-name": MissingName,
    "chown-lies": IgnoredOtherUsers,
    "hangs": HangingSync,
    "dies": DeadlyCopy,
}
