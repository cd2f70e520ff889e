"""Model in trouble: the same random operations, while the link, the server and the cache fail at random.

A hard mount shows nothing of it but time: results, bytes and trees agree with the local directory as ever.
"""

import contextlib
import os
import pathlib
import random
import shutil
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import loopfs, trees
from harness.case import main
from harness.model_case import ModelCase

_MIB = 1 << 20
_LABEL = "user.CacheFiles.cache"
# What may not be done twice, and what may.
_CALLS = ("CREATE", "MKDIR", "SYMLINK", "MKNOD", "REMOVE", "RMDIR", "RENAME", "LINK", "SETATTR", "WRITE", "COMMIT",
          "READ", "LOOKUP", "GETATTR", "ACCESS", "READDIRPLUS")


class Trouble(threading.Thread):
    """Does one of `kinds`, functions of a random.Random, every now and then, until stop()."""

    def __init__(self, seed, seconds, kinds):
        super().__init__(name="trouble")
        self._random = random.Random(seed)
        self._seconds = seconds
        self._kinds = kinds
        self._ended = threading.Event()
        self.done = dict.fromkeys((kind.__name__ for kind in kinds), 0)
        self.error = None

    # On a busy machine a call may take longer than from one trouble to the next, again and again; the client's pause
    # before it connects once more grows to 5 s. So that a hang is one, there is peace now and then.
    TROUBLED, PEACEFUL = 25, 7

    def run(self):
        peace = time.monotonic() + self.TROUBLED
        while not self._ended.wait(self._random.uniform(0, 2 * self._seconds)):
            if time.monotonic() > peace:
                self._ended.wait(self.PEACEFUL)
                peace = time.monotonic() + self.TROUBLED
            kind = self._random.choice(self._kinds)
            try:
                kind(self._random)
            except Exception as error:  # told by the test, which it must not stop
                self.error = error
                return
            self.done[kind.__name__] += 1

    def stop(self):
        self._ended.set()
        self.join()


class InTrouble(ModelCase):

    # A reply that does not come is asked for again soon.
    options = "hard,timeo=3"
    OPERATIONS = 1000
    words = ("--hang-seconds", "120", "--shrink-seconds", "0", "--without-special")

    def assert_agrees_in(self, seconds, *kinds):
        """`seconds`: from one trouble to the next, about."""
        trouble = Trouble(self.seed, seconds, kinds)
        trouble.start()
        try:
            self.assert_agrees("--parallel", *self.words)
        finally:
            trouble.stop()
            if trouble.error is not None:
                print(f"    trouble itself had some: {trouble.error!r}", file=sys.stderr)
        if trouble.error is not None:
            raise trouble.error
        print(f"    {trouble.done}", file=sys.stderr)
        self.assertTrue(all(trouble.done.values()), f"not everything was tried: {trouble.done}")


class LinkTrouble(InTrouble):

    # What was not met yet is forgotten, or it would become more than a call survives.

    def replies_are_lost(self, chance):
        self.proxy.heal()
        self.proxy.drop_replies(chance.choice(_CALLS), count=chance.randrange(1, 4))

    def calls_are_lost(self, chance):
        self.proxy.heal()
        self.proxy.drop_calls(chance.choice(_CALLS), count=chance.randrange(1, 4))

    def connections_break(self, _chance):
        self.proxy.cut_all()

    def replies_break_off(self, chance):
        self.proxy.heal()
        self.proxy.cut_reply_after(chance.choice(_CALLS), chance.randrange(1, 100))

    def server_restarts(self, _chance):
        """It has forgotten answers that were lost. But it is not killed in the middle of a call: nfs-ganesha makes a
        file and notes its verifier in two steps, and refuses to repeat an exclusive CREATE that died in between."""
        self.proxy.drop_replies("*")
        time.sleep(0.02)
        self.proxy.hold_calls("*")
        time.sleep(0.05)
        self.server.restart()
        self.proxy.heal()
        self.proxy.release()

    def test_replies_and_calls_are_lost(self):
        self.assert_agrees_in(0.1, self.replies_are_lost, self.calls_are_lost)

    def test_connections_break(self):
        self.assert_agrees_in(0.1, self.connections_break, self.replies_break_off)

    def test_the_server_restarts(self):
        self.assert_agrees_in(0.3, self.server_restarts)


class CacheTrouble(InTrouble):

    def cache_directory(self):
        self.disk = self.begin(loopfs.LoopFs(self.directory / "disk", 64 * _MIB))
        return self.disk.mountpoint / "cache"

    def some_file(self, chance):
        """Of the cache, or None; it may be gone a moment later."""
        files = [os.path.join(path, name) for path, _, names in os.walk(self.larder.cache_directory) for name in names
                 if name not in ("format", "state", "lock")]
        return chance.choice(sorted(files)) if files else None

    def change(self, chance, change):
        path = self.some_file(chance)
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                change(path)

    def files_vanish(self, chance):
        self.change(chance, os.unlink)

    def lengths_change(self, chance):
        self.change(chance, lambda path: os.truncate(path, chance.choice([0, os.path.getsize(path) + 5000])))

    def labels_change(self, chance):
        self.change(chance, lambda path: os.setxattr(path, _LABEL, chance.randbytes(chance.randrange(1, 80))))

    def names_are_exchanged(self, chance):
        other = self.some_file(chance)
        if other is not None:
            self.change(chance, lambda path: os.rename(path, other))

    def directories_vanish(self, chance):
        parents = [path for path in trees.paths_below(self.larder.cache_directory / "cache")
                   if path.name.startswith("@") and path.is_dir()]
        if parents:
            shutil.rmtree(chance.choice(sorted(parents)), ignore_errors=True)

    def disk_is_full(self, _chance):
        self.disk.fill()

    def disk_has_room(self, _chance):
        (self.disk.mountpoint / "filler").unlink(missing_ok=True)

    def test_somebody_plays_with_its_files(self):
        self.assert_agrees_in(0.02, self.files_vanish, self.lengths_change, self.labels_change,
                              self.names_are_exchanged, self.directories_vanish)

    def test_its_disk_is_full_now_and_then(self):
        self.assert_agrees_in(0.05, self.disk_is_full, self.disk_has_room)


del InTrouble, ModelCase  # not to be run themselves


if __name__ == "__main__":
    main()
