"""System: the calls that operations are made of, so that a planted bug can stand in for one of them."""

import ctypes
import fcntl
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100


def _checked(status):
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _renameat2(source, target, flags):
    _checked(_libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags))


def _fallocate(fd, mode, offset, length):
    _checked(_libc.fallocate(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(length)))


class System:
    """What the kernel offers. A subclass with one method changed is a filesystem with one bug."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    dup = staticmethod(os.dup)
    read = staticmethod(os.read)
    pread = staticmethod(os.pread)
    write = staticmethod(os.write)
    pwrite = staticmethod(os.pwrite)
    lseek = staticmethod(os.lseek)
    ftruncate = staticmethod(os.ftruncate)
    truncate = staticmethod(os.truncate)
    fsync = staticmethod(os.fsync)
    fdatasync = staticmethod(os.fdatasync)
    fallocate = staticmethod(_fallocate)
    copy_file_range = staticmethod(os.copy_file_range)
    mmap = staticmethod(mmap.mmap)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)
    mkdir = staticmethod(os.mkdir)
    mknod = staticmethod(os.mknod)
    symlink = staticmethod(os.symlink)
    readlink = staticmethod(os.readlink)
    link = staticmethod(os.link)
    rename = staticmethod(os.rename)
    renameat2 = staticmethod(_renameat2)
    chmod = staticmethod(os.chmod)
    fchmod = staticmethod(os.fchmod)
    chown = staticmethod(os.chown)
    fchown = staticmethod(os.fchown)
    utime = staticmethod(os.utime)
    stat = staticmethod(os.stat)
    lstat = staticmethod(os.lstat)
    fstat = staticmethod(os.fstat)
    access = staticmethod(os.access)
    scandir = staticmethod(os.scandir)
    statvfs = staticmethod(os.statvfs)
    flock = staticmethod(fcntl.flock)
    lockf = staticmethod(fcntl.lockf)
    fcntl = staticmethod(fcntl.fcntl)
