"""Stage: the servers, the cache filesystem and Larder itself that a measurement plays on, and their end.

Import this only after entry.prepare().
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

from harness import cleanup, paths
from harness.ganesha import Export, Ganesha
from harness.larder import Larder
from harness.loopfs import LoopFs
from harness.rpc_proxy import RpcProxy

# A new filesystem's inode tables are not to be zeroed in the background while we measure.
MOUNT_OPTIONS = "noatime,noinit_itable"


class Stage:
    """Everything begun on it is undone at its end, in reverse order, also after a signal."""

    def __init__(self):
        self.directory = paths.temporary_root()
        self._cleanup = cleanup.Cleanup()
        self._begun = 0

    def begin(self, thing, undo=None):
        self._cleanup.defer(undo or thing.stop)
        return thing

    def disk(self, name, size_bytes, inodes=None):
        """A directory on a journalled ext4 of its own, in a sparse image: as on a user's disk,
        whatever this machine's is, and gone in a moment, however many files it holds."""
        return self.begin(LoopFs(self.directory / name, size_bytes,
                                 mkfs_options=("-N", str(inodes)) if inodes else (),
                                 mount_options=MOUNT_OPTIONS)).mountpoint

    def disk_if_possible(self, name, size_bytes):
        """The same; where there are no loop devices a plain directory."""
        try:
            return self.disk(name, size_bytes)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"no filesystem of its own for {name} ({error}): it lies in {self.directory}")
            plain = self.directory / f"{name}-plain"
            plain.mkdir()
            return plain

    def serve(self, export, **options):
        self._begun += 1
        return self.begin(Ganesha(self.directory / f"ganesha{self._begun}", [Export(export)],
                                  attribute_seconds=60, **options))

    def proxy_to(self, server):
        self._begun += 1
        return self.begin(RpcProxy(self.directory / f"proxy{self._begun}", server))

    def larder(self, cache_directory, name="larder"):
        return self.begin(Larder(self.directory / name, cache_directory))

    def end(self):
        """Returns False if something could not be undone, or was left and had to be taken by force."""
        errors = self._cleanup.run()
        left = cleanup.lasting_leftovers()
        if left:
            print("left behind and removed by force:", *left, sep="\n  ", file=sys.stderr)
            cleanup.remove_leftovers()
        paths.remove_temporary_root()
        return not errors and not left


def drop_page_cache(*directories):
    """What is read next comes from a disk: of these directories all, of others what is not dirty."""
    for directory in directories:
        subprocess.run(["sync", "--file-system", directory], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def play(action):
    """Calls action(stage) and ends the program with its status; signals end it in order."""
    # Between these two lines a signal would find a directory that nobody removes.
    with _signals_held():
        cleanup.install()
        stage = Stage()
    status = 1
    try:
        status = action(stage)
    except KeyboardInterrupt as interrupt:
        print(f"interrupted ({interrupt}): taking everything down", file=sys.stderr)
        status = 130
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not stage.end():
            status = status or 1
    sys.stdout.flush()
    sys.exit(status)


@contextlib.contextmanager
def _signals_held():
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
