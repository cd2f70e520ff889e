"""culling: the benchmark's part that lets cachefilesd cull full caches, against a bare loop of fstatat and unlinkat.

Import this only after entry.prepare().
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time

from harness import paths
from harness.cachefilesd import Cachefilesd
from harness.device import Device, StockDaemon
from harness.loopfs import LoopFs
from harness.processes import wait_until
from measure.stage import MOUNT_OPTIONS

_OBJECT_BYTES = 4096
# Of a filesystem, for its journal and directories, and so that room in it is no reason to cull.
_BESIDE_BYTES = 512 << 20
_BESIDE_INODES = 65536
_NICE = 10                    # as the daemon makes itself
_RUN_PERCENT, _CULL_PERCENT = 10, 9
_LOOK_SECONDS = 0.001
_QUIET_SECONDS = 0.3
_FIRST_MS = 100
_MOST_MIB = 32
_TAG = "bench"
_STOCK_PERCENT = 50
_GRAVES_OBJECTS, _GRAVES_PRESSES = 10_000, 5
# What must go, how often in a round, and how fast it is to be against the bare loop.
_PRESSES = ((3, 3, 0.4), (50, 1, 0.7))


def _process_seconds(pid):
    """CPU time of a process and all of its threads, in nanoseconds' steps."""
    return time.clock_gettime((~pid << 3) | 2)


def _peak_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory")


def _bytes_of(mountpoint):
    space = os.statvfs(mountpoint)
    return space.f_blocks * space.f_frsize


def _free_inodes(mountpoint):
    return os.statvfs(mountpoint).f_ffree


def _free_objects(mountpoint):
    """Room for so many; files that are empty do not count."""
    space = os.statvfs(mountpoint)
    return space.f_bfree * space.f_frsize // _OBJECT_BYTES


class _Watch:
    """When objects left a filesystem, seen by what is free there. Is called quiet by a journal that stalls, too."""

    def __init__(self, mountpoint, free=_free_inodes):
        self._free = lambda: free(mountpoint)
        self.before = self._free()
        self.begin = time.monotonic()
        self.first = self.last = None
        self.gone = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self):
        while not self._over.wait(_LOOK_SECONDS):
            gone = self._free() - self.before
            if gone != self.gone:
                self.last = time.monotonic()
                self.first = self.first or self.last
                self.gone = gone

    def is_quiet(self):
        return self.last is not None and time.monotonic() - self.last > _QUIET_SECONDS

    def stop(self):
        self._over.set()
        self._thread.join()


class Culling:
    """Of one Bench: its stage, its sizes, its comparisons."""

    def __init__(self, bench):
        self.bench = bench
        self.rounds = 0

    def culling(self):
        for count, rounds in self.bench.sizes.culled_caches:
            kept = self.comparisons(count)
            for _ in range(rounds):
                self.round(count, kept)
            if count <= self.bench.sizes.most_culled_by_stock:
                self.against_stock(count)
        if self.bench.sizes.graves:
            self.beside_graves(self.bench.sizes.graves)

    def comparisons(self, count):
        bench, loop, made = self.bench, "fstatat + unlinkat", {}
        for percent, _, aim in _PRESSES:
            name = f"cull {percent} % of {count}"
            made[percent] = {
                "speed": bench.comparison(name, loop, "objects/s", aim=aim),
                "cpu": bench.comparison(f"{name}, CPU", loop, "us/object", cost=True),
                "first": bench.figure(f"{name}, until the first is gone", "ms", aim=_FIRST_MS, cost=True),
                "looks": bench.figure(f"{name}, looked at for one", "objects", cost=True),
            }
        made["memory"] = bench.figure(f"cull of {count}, cachefilesd's memory", "MiB", aim=_MOST_MIB, cost=True)
        return made

    def round(self, count, kept):
        """On a filesystem of its own, with two trees alike: ours, and the bare loop's."""
        with self.served_disk(count, ("ours", "bare")) as (mountpoint, larder):
            Round(self, mountpoint, larder, count).play(kept)

    @contextlib.contextmanager
    def served_disk(self, count, trees, graves=0):
        """A filesystem with full caches by these names, and an engine; yields the place and the engine's Larder."""
        self.rounds += 1
        directory = self.bench.stage.directory / f"cull{self.rounds}"
        with LoopFs(directory, (count * 4 + graves) * _OBJECT_BYTES + _BESIDE_BYTES,
                    mkfs_options=("-N", str(count * 4 + graves * 2 + _BESIDE_INODES)),
                    mount_options=MOUNT_OPTIONS) as disk:
            for tree in trees:
                self.objects("fill", disk.mountpoint / tree, count, _OBJECT_BYTES)
            larder = self.bench.stage.larder(disk.mountpoint / "none", f"cull{self.rounds}-larder")
            larder.run("serve")
            try:
                yield disk.mountpoint, larder
            finally:
                larder.stop()
        shutil.rmtree(directory)

    def beside_graves(self, graves):
        """A cache is pressed while its daemon removes what is in the graveyard: so many names in one directory."""
        count, percent = _GRAVES_OBJECTS, _PRESSES[0][0]
        first = self.bench.figure(f"cull {percent} % of {count} beside {graves} graves, until the first is gone", "ms",
                                  aim=_FIRST_MS, cost=True)
        speed = self.bench.figure(f"removing {graves} graves", "names/s")
        with self.served_disk(count, ("ours",), graves) as (mountpoint, larder):
            culled = Round(self, mountpoint, larder, count)
            try:
                culled.wait_until_counted()
                before = _free_inodes(mountpoint)
                self.objects("bury", mountpoint / "ours", graves)
                subprocess.run(["sync", "--file-system", mountpoint], check=True)
                # Without graves being removed yet: by this one the daemon is told of them.
                culled.press(percent, _free_objects)
                begin, left = time.monotonic(), before - _free_inodes(mountpoint)
                for _ in range(_GRAVES_PRESSES):
                    pressed = culled.press(percent, _free_objects)
                    if before > _free_inodes(mountpoint):
                        first.add(pressed["first"] * 1e3)
                wait_until(lambda: not list((mountpoint / "ours/graveyard").iterdir()), 600, "the graves to go")
                speed.add(left / (time.monotonic() - begin))
            finally:
                culled.daemon.stop()

    def against_stock(self, count):
        """The daemons alone: what the engine does for either is the same."""
        if not paths.STOCK_DAEMON.exists():
            print(f"note: no comparison with the stock daemon, because there is no {paths.STOCK_DAEMON}")
            return
        compared = self.bench.comparison(f"cull {_STOCK_PERCENT} % of {count}, CPU of the daemon", "stock daemon",
                                         "us/object", cost=True)
        with self.served_disk(count, ("ours", "stock")) as (mountpoint, larder):
            device = Device(larder.directory / "device", larder.runtime_directory)
            try:
                compared.add(*(self.by_free_space(count, mountpoint, larder, begin) for begin in (
                    lambda settings: Cachefilesd(larder.directory / "daemon", larder.runtime_directory,
                                                 mountpoint / "ours", f"size {_bytes_of(mountpoint)}", *settings),
                    lambda settings: StockDaemon(larder.directory / "stock", device,
                                                 [f"dir {mountpoint / 'stock'}", *settings], options=()))))
            finally:
                device.stop()

    @staticmethod
    def by_free_space(count, mountpoint, larder, begin):
        """us of CPU for an object, of a daemon that finds a cache which must shrink, from its start until it has."""
        space = os.statvfs(mountpoint)
        wanted = space.f_bavail * space.f_frsize + count * _OBJECT_BYTES * _STOCK_PERCENT // 100
        run = 1 + wanted * 100 // _bytes_of(mountpoint)
        watch = _Watch(mountpoint)
        daemon = begin([f"tag {_TAG}", f"brun {run}%", f"bcull {run - 1}%"])

        def is_done():
            found = os.statvfs(mountpoint)
            return watch.is_quiet() and found.f_bavail * 100 >= found.f_blocks * run

        try:
            wait_until(is_done, 600, "a daemon to cull")
            return _process_seconds(daemon.pid) * 1e6 / watch.gone
        finally:
            watch.stop()
            daemon.stop()
            wait_until(lambda: all(cache["state"] != "active" for cache in larder.status()["caches"]), 20,
                       "the cache to be withdrawn")

    def objects(self, *words, prefix=()):
        done = subprocess.run([*prefix, self.bench.build / "tools/measure/bench_objects", *map(str, words)],
                              check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)


class Round:
    """One daemon with one full cache, which is pressed again and again until half is gone."""

    def __init__(self, culling, mountpoint, larder, count):
        self.culling = culling
        self.mountpoint = mountpoint
        self.larder = larder
        self.count = count
        self.daemon = Cachefilesd(larder.directory / "daemon", larder.runtime_directory, *self.lines(0))

    def lines(self, size):
        """Of the configuration; without a size the cache has room for all."""
        size = size or self.count * _OBJECT_BYTES * 2 + _BESIDE_BYTES // 2
        return (self.mountpoint / "ours", f"tag {_TAG}", f"size {size}", f"brun {_RUN_PERCENT}%",
                f"bcull {_CULL_PERCENT}%")

    def play(self, kept):
        try:
            self.wait_until_counted()
            left, turn = self.count, 0
            for percent, times, _ in _PRESSES:
                for _ in range(times):
                    ours, bare = self.pair(percent, left, turn)
                    self.add(kept[percent], ours, bare)
                    left -= bare["objects"]
                    turn += 1
            kept["memory"].add(_peak_mib(self.daemon.pid))
        finally:
            self.daemon.stop()

    def cache(self):
        return next((cache for cache in self.larder.status()["caches"] if cache["tag"] == _TAG), {})

    def wait_until_counted(self):
        """So that culling is measured, and not the count of a cache that nobody knows."""
        wait_until(lambda: self.cache().get("objects_exact"), 600, "the cache to be counted")
        found = self.cache()["objects"]
        if found != self.count:
            raise AssertionError(f"the cache has {found} objects instead of {self.count}")

    def pair(self, percent, left, turn):
        def ours():
            return self.press(percent)

        def bare():
            # As nice as the daemon is: where others compute, both have as little of the processors.
            return self.culling.objects("remove", self.mountpoint / "bare", left * percent // 100,
                                        prefix=("nice", "-n", str(_NICE)))

        done = {}
        for work in (ours, bare) if turn % 2 else (bare, ours):
            subprocess.run(["sync", "--file-system", self.mountpoint], check=True)
            done[work] = work()
        return done[ours], done[bare]

    def press(self, percent, free=_free_inodes):
        """A size by which so much is too much; returns when it is gone."""
        before = self.cache()
        pids = self.daemon.pid, self.larder.engine_pid()
        told = len(self.daemon.log_text())
        goal = before["used_bytes"] * (100 - percent) // 100
        self.daemon.write_config(f"dir {self.lines(0)[0]}", *self.lines(goal * 100 // (100 - _RUN_PERCENT))[1:])
        cpu = sum(map(_process_seconds, pids))
        watch = _Watch(self.mountpoint, free)
        try:
            self.daemon.reload()
            wait_until(lambda: watch.is_quiet() and self.cache()["used_bytes"] <= goal, 600, "the daemon to cull")
        finally:
            watch.stop()
        cpu = sum(map(_process_seconds, pids)) - cpu
        looks = sum(map(int, re.findall(r"looked at (\d+)", self.daemon.log_text()[told:])))
        return {"seconds": watch.last - watch.begin, "first": watch.first - watch.begin, "cpu": cpu,
                "objects": watch.gone, "looks": looks}

    @staticmethod
    def add(kept, ours, bare):
        kept["speed"].add(*(each["objects"] / each["seconds"] for each in (ours, bare)))
        kept["cpu"].add(*(each["cpu"] * 1e6 / each["objects"] for each in (ours, bare)))
        kept["first"].add(ours["first"] * 1e3)
        kept["looks"].add(ours["looks"] / ours["objects"])
