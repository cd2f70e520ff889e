"""Files by their descriptors."""

import contextlib
import ctypes
import os


@contextlib.contextmanager
def remembered(*paths):
    """The kernel keeps what it knows of these files, also when somebody drops its caches; not their pages."""
    with contextlib.ExitStack() as descriptors:
        for path in paths:
            descriptors.callback(os.close, os.open(path, os.O_PATH))
        yield


def let_pages_go(path):
    """What is read next of the file comes from the engine, or from the cache's disk."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_back(fd, length):
    """What mappings changed of the first `length` bytes goes to the filesystem, as the kernel does it by itself: beside
    a write(2) that is under way, which fsync and msync would wait for."""
    wait_before_write_wait_after = 7
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(length), wait_before_write_wait_after) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read_all(fd):
    """What it holds from its start, wherever its offset is; no size is asked for."""
    pieces, offset = [], 0
    while piece := os.pread(fd, 1 << 20, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)
