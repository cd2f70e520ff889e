"""Files by their descriptors."""

import contextlib
import os


@contextlib.contextmanager
def remembered(*paths):
    """The kernel keeps what it knows of these files, also when somebody drops its caches; not their pages."""
    with contextlib.ExitStack() as descriptors:
        for path in paths:
            descriptors.callback(os.close, os.open(path, os.O_PATH))
        yield


def read_all(fd):
    """What it holds from its start, wherever its offset is; no size is asked for."""
    pieces, offset = [], 0
    while piece := os.pread(fd, 1 << 20, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)
