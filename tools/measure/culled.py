"""culled: the soak's part in which a cache is much too small, and cachefilesd culls it all the time and dies.

Import this only after entry.prepare().
"""

import contextlib
import os
import random
import time

from harness import processes, trees
from harness.cachefilesd import Cachefilesd
from harness.load import Load, by_chance
from harness.processes import Footprint, wait_until

_KIB, _MIB = 1 << 10, 1 << 20
_SIZE_BYTES = 64 * _MIB      # of the cache
_DISK_BYTES = 1024 * _MIB
# About six times as much: most are small, most bytes are in large ones.
_FILES = ((1500, 1, 64 * _KIB), (250, 64 * _KIB, _MIB), (20, 8 * _MIB, 14 * _MIB))
_LEAST_CULLED = sum(count for count, _, _ in _FILES) // 4
_LOOK_SECONDS = 0.2
_LIFE_SECONDS = (8, 25)      # of a daemon
_GRAVE_DIRECTORIES = 50
_REST_SECONDS = 60
_MOST_MORE_SECONDS = 180
_TAG = "culled"
# What may be between two rests beside leaks: buffers on their way take turns in being the most.
_MORE_MEMORY_BYTES = 32 * _MIB
_MORE_DESCRIPTORS, _MORE_THREADS = 8, 2
_MOST_DAEMON_BYTES = 32 * _MIB
_MOST_DAEMON_DESCRIPTORS = 96   # 64 directories are kept open on purpose
_MOST_WRONG_BYTES = 512 * _KIB  # of the accounts
_MORE_DISK_BYTES = _MIB         # of a filesystem that frees a little later than unlink(2) returns


def _some_more_often(names):
    return lambda chance: names[int(len(names) * chance.random() ** 2)]


class CulledCache:
    """Of one Soak: its stage, its expectations, its checkpoints."""

    def __init__(self, soak, seconds, steps):
        self.soak = soak
        self.seconds, self.steps = seconds, steps
        self.seed = random.SystemRandom().getrandbits(32)
        self.chance = random.Random(self.seed)
        self.export = soak.disk / "culled"
        self.place = soak.stage.disk("culled", _DISK_BYTES) / "cache"
        self.larder = soak.stage.larder(_TAG, "culled-larder")
        self.daemon = None
        self.taken_before = self.taken_bytes()
        self.culled, self.culled_before = 0, 0
        self.kills, self.graves = 0, 0

    def run(self):
        print(f"culled: seed {self.seed}", flush=True)
        self.fill()
        mounted = self.larder.mount(self.soak.stage.serve(self.export).url())
        self.daemon = self.soak.stage.begin(
            Cachefilesd(self.larder.directory / "daemon", self.larder.runtime_directory, self.place,
                        f"tag {_TAG}", f"size {_SIZE_BYTES}"))
        names = sorted(os.listdir(self.export))
        self.chance.shuffle(names)
        rests = []
        for step in range(self.steps):
            self.wait_until_active()
            readers = Load(self.export, mounted, by_chance(f"{self.seed} {step}", _some_more_often(names)))
            # A disk may be too slow for as many culls in so few seconds.
            is_last = step == self.steps - 1
            self.read(readers, self.seconds / self.steps, _MOST_MORE_SECONDS if is_last else 0)
            rests.append(self.rest(f"culled: {step + 1} of {self.steps} parts read"))
            self.compare(rests[0], rests[-1])
        print(f"  culled: {self.culled} objects culled, the daemon killed {self.kills} times, {self.graves} graves")
        self.soak.expect(self.culled > _LEAST_CULLED, "culled: hardly anything was culled")
        self.soak.expect(self.kills > 0, "culled: the daemon was never killed")
        self.larder.restart()

    def fill(self):
        self.export.mkdir()
        number = 0
        for count, least, most in _FILES:
            for _ in range(count):
                trees.write_file(self.export / f"f{number:05}", self.chance.randint(least, most), self.seed + number)
                number += 1
        time.sleep(2.5)  # until nothing is young any more, as the stamp of the root tells
        os.utime(self.export)

    def cache(self):
        return next(cache for cache in self.larder.status()["caches"] if cache["tag"] == _TAG)

    def wait_until_active(self):
        wait_until(lambda: self.cache()["state"] == "active", _REST_SECONDS, "the cache to be active")

    def read(self, readers, seconds, more_seconds):
        """The limit holds at every look, while daemons come and go; so much longer at most until enough is culled."""
        end = time.monotonic() + seconds
        life = min(self.chance.uniform(*_LIFE_SECONDS), seconds / 2)
        death = time.monotonic() + life
        try:
            while (now := time.monotonic()) < end or (now < end + more_seconds and self.culled <= _LEAST_CULLED):
                self.look()
                if time.monotonic() > death:
                    self.kill()
                    death = time.monotonic() + self.chance.uniform(*_LIFE_SECONDS)
                time.sleep(_LOOK_SECONDS)
        finally:
            readers.stop()
        for problem in readers.problems[:10]:
            self.soak.expect(False, f"culled: {problem}")
        self.soak.expect(readers.reads > 0, "culled: nothing was read")

    def look(self):
        cache = self.cache()
        # A cache that was withdrawn and is bound again counts from nothing.
        self.culled += cache["culled_objects"] - min(self.culled_before, cache["culled_objects"])
        self.culled_before = cache["culled_objects"]
        self.soak.expect(cache["used_bytes"] <= _SIZE_BYTES, f"culled: {cache['used_bytes']} bytes are used")
        # While files come and go a walk counts too much; the filesystem counts all at once, and files without a name.
        taken = self.taken_bytes() - self.taken_before
        self.soak.expect(taken <= _SIZE_BYTES + _MORE_DISK_BYTES, f"culled: {taken} bytes are taken from the disk")

    def taken_bytes(self):
        space = os.statvfs(self.place.parent)
        return (space.f_blocks - space.f_bfree) * space.f_frsize

    def kill(self):
        """The next daemon finds something in the graveyard."""
        self.daemon.kill()
        self.kills += 1
        self.dig_grave()
        time.sleep(self.chance.uniform(0, 1))
        self.daemon.start()

    def dig_grave(self):
        user = os.stat(self.place)
        grave = self.place / "graveyard" / f"soak{self.graves}"
        for path in (grave, *(grave / f"d{number}" for number in range(_GRAVE_DIRECTORIES))):
            path.mkdir()
            os.chown(path, user.st_uid, user.st_gid)
        self.graves += 1

    def rest(self, label):
        """What engine, keeper and daemon hold when nobody reads and all is let go and done."""
        self.wait_until_active()
        wait_until(lambda: self.cache()["open_objects"] == 0, _REST_SECONDS, "the last closed file to be let go")
        wait_until(lambda: not self.cache()["culling"], _REST_SECONDS, "the daemon to rest")
        with contextlib.suppress(processes.TookTooLong):
            wait_until(self.graveyard_is_empty, _REST_SECONDS, "the graveyard to be empty")
        self.soak.expect(self.graveyard_is_empty(), f"{label}: the graveyard is not empty")
        used, found = self.cache()["used_bytes"], trees.bytes_on_disk(self.place)
        self.soak.expect(abs(used - found) <= _MOST_WRONG_BYTES,
                         f"{label}: {used} bytes in the books, {found} on the disk")
        all_of_us = self.soak.checkpoint(self.larder, label)
        engine, daemon = Footprint(self.larder.engine_pid()), Footprint(self.daemon.pid)
        print(f"  {'':34} engine: {engine}; cachefilesd: {daemon}; {used / _MIB:.1f} MiB, on the disk {found / _MIB:.1f}",
              flush=True)
        return label, all_of_us, engine, daemon

    def graveyard_is_empty(self):
        return not os.listdir(self.place / "graveyard")

    def compare(self, first, last):
        """Between two rests nothing grew."""
        expect = self.soak.expect
        label, now, engine, daemon = last
        _, then, engine_then, _ = first
        expect(now.bytes <= then.bytes + _MORE_MEMORY_BYTES,
               f"{label}: memory grew by {(now.bytes - then.bytes) >> 20} MiB")
        expect(now.descriptors <= then.descriptors + _MORE_DESCRIPTORS,
               f"{label}: descriptors grew from {then.descriptors} to {now.descriptors}")
        expect(now.backing_ids == 0, f"{label}: {now.backing_ids} backing ids are left")
        expect(engine.threads <= engine_then.threads + _MORE_THREADS,
               f"{label}: threads grew from {engine_then.threads} to {engine.threads}")
        expect(daemon.memory <= _MOST_DAEMON_BYTES, f"{label}: the daemon takes {daemon.memory >> 20} MiB")
        expect(daemon.descriptors <= _MOST_DAEMON_DESCRIPTORS,
               f"{label}: the daemon has {daemon.descriptors} descriptors")
        expect(daemon.threads == 1, f"{label}: the daemon has {daemon.threads} threads")
