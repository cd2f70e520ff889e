"""cachefilesd: our daemon keeps a cache within its limits for years, dies, comes back, and no reader notices."""

import itertools
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, loopfs, paths, trees
from harness.cachefilesd import Cachefilesd
from harness.case import Case, main
from harness.held_case import TaggedCase
from harness.processes import Footprint, cpu_seconds, descendants, is_running, wait_until

_KIB = 1 << 10
_MIB = 1 << 20
# So far apart that something must be culled between them.
_LIMITS = ("brun 10%", "bcull 7%", "bstop 3%")


class DaemonCase(TaggedCase):
    """The cache has a disk of its own and a daemon; the mount names it by its tag."""

    DISK_BYTES = 192 * _MIB
    FILES = 40
    FILE_BYTES = 512 * _KIB
    SIZE = "100M"

    def fill(self):
        for number in range(self.FILES):
            trees.write_file(self.export / f"file{number:03}", self.FILE_BYTES + number * 97,
                             self.seed + number)

    def setUp(self):
        super().setUp()
        self.names = sorted(path.name for path in self.export.iterdir())
        self.disk = self.begin(loopfs.LoopFs(self.directory / "disk", self.DISK_BYTES))
        self.place = self.disk.mountpoint / "cache"
        self.settle()

    def start_daemon(self, *lines, size=None):
        self.daemon = self.begin(Cachefilesd(self.directory / "daemon", self.larder.runtime_directory,
                                             self.place, f"tag {self.tag}", f"size {size or self.SIZE}",
                                             *lines))
        self.wait_for_state("active")

    def resize(self, size):
        self.daemon.write_config(f"dir {self.place}", f"tag {self.tag}", f"size {size}")
        self.daemon.reload()

    def read_file(self, name):
        self.assertEqual(self.read(name), (self.export / name).read_bytes(), name)

    def read_all(self, names=None):
        """Returns the bytes that came from the server."""
        larder.drop_page_cache()
        before = self.from_server()
        for name in names or self.names:
            self.read_file(name)
        return self.from_server() - before

    def read_until_warm(self, names=None):
        self.read_all(names)
        wait_until(lambda: self.read_all(names) == 0, 30, "everything to come from the cache")

    def wait_until_culled(self, bound, seconds=30):
        def is_within():
            larder.drop_page_cache()  # whose files count as in use
            cache = self.cache()
            return not cache["culling"] and cache["used_bytes"] <= bound

        wait_until(is_within, seconds, "the daemon to cull")


class Life(DaemonCase):

    def test_brings_the_cache_online_with_few_rights(self):
        self.start_daemon()
        self.read_until_warm()
        status = dict(line.split(":\t", 1) for line in
                      pathlib.Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines()
                      if ":\t" in line)
        user = str(os.stat(f"/proc/{self.larder.engine_pid()}").st_uid)
        self.assertEqual(status["Uid"].split(), [user] * 4)
        self.assertEqual(int(status["CapEff"], 16), 0)
        self.assertEqual(int(status["CapPrm"], 16), 0)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Groups"].split(), [])

    def test_ends_in_order_and_begins_again(self):
        self.start_daemon()
        self.read_until_warm()
        self.assertEqual(self.daemon.end_in_order(), 0)
        self.wait_for_state("withdrawn")
        self.assertGreater(self.read_all(), 0)
        self.daemon.start()
        self.wait_for_state("active")
        self.read_until_warm()

    def test_is_killed_under_load(self):
        """Every byte is right meanwhile, and the cache is warm when it is back."""
        self.start_daemon()
        self.read_until_warm()
        load = self.begin(Load(self, self.names))
        for _ in range(5):
            time.sleep(0.5)
            self.daemon.kill()
            self.wait_for_state("withdrawn")
            time.sleep(0.3)
            self.daemon.start()
            self.wait_for_state("active")
        load.stop()
        self.assertEqual(load.problems, [])
        self.assertGreater(load.reads, 20)
        self.read_until_warm()

    def test_outlives_the_engine(self):
        self.start_daemon()
        self.read_until_warm()
        self.larder.kill_engine()
        self.larder.forget_dead_mounts()
        wait_until(lambda: self.larder_answers(), 20, "the next engine")
        self.mount()
        self.wait_for_state("active")
        self.assertTrue(self.daemon.is_running())
        self.assertLess(self.read_all(), self.FILE_BYTES, "an engine's crash alone loses nothing")

    def larder_answers(self):
        try:
            return self.larder.status()["engine"]["pid"]
        except larder.Refused:
            return None

    def test_two_daemons_do_not_share_a_cache(self):
        self.start_daemon()
        second = self.begin(Cachefilesd(self.directory / "second", self.larder.runtime_directory,
                                        self.place, "tag other"))
        self.assertNotEqual(second.process.wait(40), 0)
        self.assertRegex(second.log_text(), r"in use")
        self.assertEqual(self.cache()["state"], "active")


class Supervised(DaemonCase):
    """`larder serve` keeps the daemon running."""

    def serve_with(self, *lines):
        config = self.directory / "served.conf"
        config.write_text("".join(f"{line}\n" for line in (f"dir {self.place}", f"tag {self.tag}", *lines)))
        self.larder.restart()
        self.larder.run("serve", "--cachefilesd", config)
        self.mount()
        return config

    def daemons(self):
        return [pid for pid in descendants(self.larder.keeper_pid())
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "cachefilesd"]

    def test_it_is_started_and_started_again(self):
        self.serve_with("size 100M")
        self.wait_for_state("active")
        self.read_until_warm()
        for _ in range(2):
            [pid] = self.daemons()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: self.daemons() not in ([], [pid]), 20, "the next daemon")
            self.wait_for_state("active")
        self.read_until_warm()
        self.assertEqual(self.larder.status()["keeper"]["trouble"], "")

    def test_it_ends_with_the_keeper(self):
        self.serve_with()
        self.wait_for_state("active")
        [pid] = self.daemons()
        self.larder.kill_keeper()
        wait_until(lambda: not is_running(pid), 10, "the daemon to end")
        self.larder.forget_dead_mounts()

    def test_one_that_keeps_dying_is_reported_and_the_mount_works(self):
        config = self.serve_with("nonsense")
        wait_until(lambda: self.larder.status()["keeper"]["trouble"], 20, "the report")
        self.assertIn(str(config), self.larder.status()["keeper"]["trouble"])
        self.assertIn(str(config), self.larder.run("status"))
        self.read_all(self.names[:3])
        config.write_text(f"dir {self.place}\ntag {self.tag}\nsize 100M\n")
        self.wait_for_state("active", 30)
        self.read_until_warm(self.names[:3])

    def test_a_configuration_that_is_not_there_is_refused(self):
        self.larder.restart()
        told = self.larder.refusal("serve", "--cachefilesd", self.directory / "none.conf")
        self.assertIn("none.conf", told)
        self.mount()


class Culling(DaemonCase):
    GRAVES = 30_000  # links of one file: at most 65,000

    def test_keeps_the_size(self):
        self.start_daemon(*_LIMITS, size="12M")
        for _ in range(2):
            self.read_all()
            self.assertLessEqual(self.cache()["used_bytes"], 12 * _MIB)
        self.wait_until_culled(12 * _MIB * 93 // 100)
        self.assertGreater(self.cache()["culled_objects"], 0)
        self.assertGreater(self.cache()["used_bytes"], 8 * _MIB, "more than was asked")
        wait_until(lambda: self.cache()["oldest_s"] > 0, 10, "the daemon to tell what it saw")

    def test_new_limits_hold_at_once(self):
        self.start_daemon()
        self.read_until_warm()
        self.assertEqual(self.cache()["culled_objects"], 0)
        self.resize("8M")
        self.wait_until_culled(8 * _MIB)
        self.assertEqual(self.cache()["limit_bytes"], 8 * _MIB)

    def test_makes_room_on_a_disk_that_others_fill(self):
        self.start_daemon(*_LIMITS, size="150M")
        self.read_until_warm()
        # A twentieth is kept for root by its filesystem: another is left, between bstop and bcull.
        filler = self.disk.fill(leave_bytes=self.disk.size_bytes // 10)
        # How short room is, and that it is culled, may be over between two looks at the status.
        wait_until(lambda: self.cache()["culled_objects"] > 0, 60, "the engine to see it")
        self.wait_until_culled(150 * _MIB)
        space = os.statvfs(self.disk.mountpoint)
        self.assertGreaterEqual(space.f_bavail / space.f_blocks, 0.09)
        filler.unlink()
        self.read_until_warm()

    def test_nocull(self):
        self.start_daemon("nocull", size="8M")
        self.read_all()
        larder.drop_page_cache()
        time.sleep(2)
        self.assertEqual(self.cache()["culled_objects"], 0)
        self.assertTrue(self.cache()["culling"])
        self.read_all()
        self.assertIn("its holder culls nothing", self.cache()["trouble"])

    def test_sleeps_while_all_is_in_use_and_wakes_at_a_release(self):
        self.start_daemon()
        names = self.names[:20]
        self.read_until_warm(names)
        held = [open(self.mounted / name, "rb") for name in names]
        try:
            self.resize("5M")
            wait_until(lambda: self.cache()["culling"], 20, "room to be short")
            time.sleep(1)
            before = cpu_seconds(self.daemon.pid)
            time.sleep(3)
            self.assertLess(cpu_seconds(self.daemon.pid) - before, 0.15, "it looks in vain")
            self.assertEqual(self.cache()["culled_objects"], 0)
        finally:
            for file in held:
                file.close()
        self.wait_until_culled(5 * _MIB)

    def test_pinned_objects_stay(self):
        self.start_daemon()
        self.read_until_warm()
        objects = [path for path in (self.place / "cache").rglob("*") if path.is_file()]
        self.assertEqual(len(objects), self.FILES)
        for path in objects[:5]:
            path.chmod(0o1600)
        self.resize("5M")
        self.wait_until_culled(5 * _MIB)
        left = [path for path in (self.place / "cache").rglob("*") if path.is_file()]
        self.assertLessEqual(set(objects[:5]), set(left))

    def test_reaps_the_graveyard(self):
        self.start_daemon()
        self.read_until_warm(self.names[:3])
        user = os.stat(self.place)
        grave = self.place / "graveyard" / "x1x1x"
        for path in [grave, *(grave / f"deep{number}" for number in range(500))]:
            path.mkdir()
            os.chown(path, user.st_uid, user.st_gid)
        for number in range(500):
            (grave / f"deep{number}" / "file").touch()

        def is_empty():
            self.read_file(random.choice(self.names))
            return not list((self.place / "graveyard").iterdir())

        wait_until(is_empty, 60, "the graveyard to be empty")

    def test_what_stays_in_the_graveyard_is_looked_at_again(self):
        self.start_daemon()
        self.read_until_warm(self.names[:3])
        user = os.stat(self.place)
        graveyard = self.place / "graveyard"
        (graveyard / "of root").mkdir()
        (graveyard / "of root" / "inside").mkdir()
        (graveyard / "young").touch()
        os.chown(graveyard / "young", user.st_uid, user.st_gid)
        wait_until(lambda: "cannot be removed" in self.daemon.log_text(), 40, "the daemon to look at it")
        later = graveyard / "x2x2x"
        later.mkdir()
        os.chown(later, user.st_uid, user.st_gid)
        wait_until(lambda: os.listdir(graveyard) == ["of root"], 90, "all to go that can go")
        self.assertEqual(self.daemon.log_text().count("cannot be removed"), 1)
        for path in (graveyard / "of root", graveyard / "of root" / "inside"):
            os.chown(path, user.st_uid, user.st_gid)
        wait_until(lambda: os.listdir(graveyard) == [], 90, "the rest to go once it can")

    def seconds_until_culled(self, size, begin=lambda: None):
        def is_unused():
            larder.drop_page_cache()  # whose files count as in use
            return self.cache()["open_objects"] == 0

        wait_until(is_unused, 30, "all objects to be out of use")
        culled = self.cache()["culled_objects"]
        began = time.monotonic()
        self.resize(size)
        begin()
        wait_until(lambda: self.cache()["culled_objects"] > culled, 60, "the daemon to cull")
        return time.monotonic() - began

    def bury(self, names):
        """A directory of so many; returns how to count those that are left."""
        outside = self.disk.mountpoint / "outside"
        outside.mkdir()
        os.chown(outside, os.stat(self.place).st_uid, os.stat(self.place).st_gid)
        (outside / "0").touch()
        for number in range(1, names):
            os.link(outside / "0", outside / str(number))
        grave = self.place / "graveyard" / "x1x1x"
        outside.rename(grave)
        return lambda: len(os.listdir(grave)) if grave.exists() else 0

    def test_what_nobody_expects_is_buried(self):
        self.start_daemon()
        self.read_until_warm()
        user = os.stat(self.place)
        fan_out = next(path for path in (self.place / "cache").rglob("*") if path.is_file()).parent
        junk = []
        for level in (fan_out, fan_out.parent, fan_out.parent.parent):
            junk += [level / name for name in ("directory", "file", "link")]
            (level / "directory" / "inside").mkdir(parents=True)
            os.chown(level / "directory", user.st_uid, user.st_gid)
            os.chown(level / "directory" / "inside", user.st_uid, user.st_gid)
            (level / "file").write_bytes(bytes(4 * _MIB))
            (level / "link").symlink_to("/etc")
        os.mkfifo(fan_out / "Dpipe")
        junk.append(fan_out / "Dpipe")
        self.resize("10M")
        self.wait_until_culled(10 * _MIB)
        wait_until(lambda: not any(os.path.lexists(path) for path in junk), 30, "all of it to be buried")
        wait_until(lambda: os.listdir(self.place / "graveyard") == [], 30, "the dead to be removed")
        self.assertLess(trees.bytes_on_disk(self.place), 11 * _MIB)

    def test_it_culls_on_when_the_empty_graveyard_is_removed(self):
        self.start_daemon()
        self.read_until_warm()
        (self.place / "graveyard").rmdir()
        self.resize("5M")
        self.wait_until_culled(5 * _MIB)
        (self.place / "graveyard").rmdir()
        owner = self.place.stat()
        victim = next(path for path in (self.place / "cache").rglob("*") if path.is_file())
        victim.unlink()
        victim.mkdir()
        os.chown(victim, owner.st_uid, owner.st_gid)
        self.read_all()
        wait_until(lambda: not victim.is_dir() and not os.listdir(self.place / "graveyard"), 10,
                   "what lies in the place of a file to be buried and removed")
        self.assertEqual(self.cache()["trouble"], "")

    def test_a_full_graveyard_delays_no_cull(self):
        """The dead are removed in steps between slices, however many there are."""
        self.start_daemon()
        self.read_until_warm()
        alone = self.seconds_until_culled("16M")
        left = self.bury(self.GRAVES)
        self.seconds_until_culled("13M")  # behind it the daemon is told of the graves
        wait_until(lambda: left() < self.GRAVES, 30, "the daemon to begin with them")
        self.daemon.process.send(signal.SIGSTOP)
        self.assertGreater(left(), self.GRAVES // 4, "too few are left to tell anything")
        beside = self.seconds_until_culled("10M", lambda: self.daemon.process.send(signal.SIGCONT))
        self.assertGreater(left(), 0, "the cull waited for all of the dead")
        self.assertLess(beside, 5 * alone + 1)
        wait_until(lambda: left() == 0, 60, "the graveyard to be empty")


class HotSet(DaemonCase):
    """More is read than fits, some of it again and again: what is hot stays, and nothing leaks."""

    # 40: 3 GiB are read through a cache of 1 GiB.
    SCALE = int(os.environ.get("LARDER_HOT_SCALE", "1"))
    DISK_BYTES = 192 * _MIB * SCALE
    FILES = 300
    FILE_BYTES = 256 * _KIB * SCALE
    HOT = 30
    LIMIT = 26 * _MIB * SCALE
    SECONDS = int(os.environ.get("LARDER_HOT_SECONDS", "36"))
    MOST_DESCRIPTORS = {"daemon": 96}  # 64 directories are kept open on purpose
    # Buffers on their way take turns in being the most.
    MOST_GROWTH = {"engine": 32 * _MIB, "daemon": 2 * _MIB}

    def test_a_hot_set_stays_in_a_cache_that_is_too_small(self):
        self.start_daemon(size=f"{self.LIMIT // _MIB}M")
        self.read_for(self.SECONDS / 3)
        warm = self.footprints_at_rest()
        culled = self.cache()["culled_objects"]
        self.read_for(self.SECONDS * 2 / 3)
        hot_bytes = sum((self.export / name).stat().st_size for name in self.names[:self.HOT])
        missed = self.read_all(self.names[:self.HOT])
        print(f"of the hot set {missed / hot_bytes:.3f} are missing", file=sys.stderr)
        self.assertLess(missed / hot_bytes, 0.1)
        self.assertGreater(self.cache()["culled_objects"] - culled, 20)
        self.assertTrue(self.daemon.is_running())
        self.assert_nothing_leaked(warm, self.footprints_at_rest())
        self.assert_accounts_are_right()

    def read_for(self, seconds):
        load = self.begin(Load(self, self.names, hot=self.names[:self.HOT], pause=0.1))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.assertLessEqual(self.cache()["used_bytes"], self.LIMIT)
            time.sleep(0.1)
        load.stop()
        self.assertEqual(load.problems, [])

    def footprints_at_rest(self):
        """Of the engine and of the daemon, when what the readers closed was let go."""
        wait_until(lambda: self.cache()["open_objects"] == 0, 30, "the last closed file to be let go")
        wait_until(lambda: not self.cache()["culling"], 30, "the daemon to rest")
        engine = Footprint(self.larder.engine_pid())
        engine.descriptors -= self.cache()["open_directories"]  # kept on purpose, up to a number of them
        return {"engine": engine, "daemon": Footprint(self.daemon.pid)}

    def assert_nothing_leaked(self, before, after):
        for name, then in before.items():
            now = after[name]
            print(f"{name}: {then}, then {now}", file=sys.stderr)
            self.assertLessEqual(now.descriptors, self.MOST_DESCRIPTORS.get(name, then.descriptors + 4), name)
            self.assertLessEqual(now.threads, then.threads + 2, name)
            if not now.sanitized:
                self.assertLessEqual(now.memory, then.memory + self.MOST_GROWTH[name], name)

    def assert_accounts_are_right(self):
        used, found = self.cache()["used_bytes"], trees.bytes_on_disk(self.place)
        print(f"accounts: {used} bytes, on the disk {found}", file=sys.stderr)
        self.assertLessEqual(found, self.LIMIT)
        self.assertLess(abs(used - found), _MIB // 4)


class Crowd(DaemonCase):
    """More is read than fits, faster than closed files are let go."""

    DISK_BYTES = 256 * _MIB
    FILES = 1024
    FILE_BYTES = 256 * _KIB
    SIZE = "64M"

    def files_let_go(self):
        return self.larder.status()["mounts"][0]["files_let_go"]

    def test_readers_in_a_hurry_do_not_freeze_the_cache(self):
        """All that it holds was closed less than 10 s ago: it takes new files all the same."""
        self.start_daemon()
        load = self.begin(Load(self, self.names, in_turn=True))
        fill = 64 * _MIB // self.FILE_BYTES

        def has_changed():
            cache = self.cache()
            self.assertLessEqual(cache["used_bytes"], 64 * _MIB)
            return cache["culled_objects"] >= fill

        wait_until(has_changed, 90, "as much to be culled as fits")
        load.stop()
        self.assertEqual(load.problems, [])
        self.assertGreater(self.files_let_go(), 0)
        self.assertLessEqual(trees.bytes_on_disk(self.place), 64 * _MIB)

    def test_a_cache_with_room_keeps_what_was_closed(self):
        names = self.names[:200]
        self.start_daemon()
        load = self.begin(Load(self, names, in_turn=True))
        wait_until(lambda: load.reads > 4 * len(names), 60, "all to be read again and again")
        load.stop()
        self.assertEqual(load.problems, [])
        self.assertEqual(self.files_let_go(), 0)


class Load:
    """Four readers of a mount; what they find wrong is in `problems`.

    Each takes what chance says, most of it of `hot`; or, `in_turn`, a quarter of the names again and again.
    """

    def __init__(self, case, names, hot=(), pause=0, in_turn=False):
        self._case = case
        self._names = names
        self._hot = hot
        self._pause = pause
        self._over = threading.Event()
        self.problems = []
        self.reads = 0
        pick = random.Random(case.seed)
        self._threads = [threading.Thread(target=self._run, args=(
            itertools.cycle(names[number::4]) if in_turn else self._by_chance(pick.random()),))
                         for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _by_chance(self, seed):
        pick = random.Random(seed)
        while True:
            hot = self._hot and pick.random() < 0.7
            yield pick.choice(self._hot if hot else self._names)

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, names):
        while not self._over.is_set():
            name = next(names)
            try:
                with open(self._case.mounted / name, "rb") as file:
                    # What was just read is not to stay in the kernel's memory for the next reader.
                    content = file.read()
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if content != (self._case.export / name).read_bytes():
                    self.problems.append(f"{name}: wrong bytes")
            except OSError as error:
                self.problems.append(f"{name}: {error}")
            self.reads += 1
            time.sleep(self._pause)


class BrokenDisk(DaemonCase):

    def test_the_caches_disk_goes_away_lazily(self):
        self.start_daemon()
        self.read_until_warm()
        subprocess.run(["umount", "--lazy", self.disk.mountpoint], check=True)
        self.read_all()
        self.daemon.end_in_order()
        self.wait_for_state("withdrawn")
        self.disk.mount()
        self.daemon.start()
        self.wait_for_state("active")
        self.read_until_warm()

    def test_the_filesystem_becomes_read_only(self):
        """As ext4 does it after an error: what is cached is read on, and everybody says what is wrong."""
        disk = self.begin(loopfs.LoopFs(self.directory / "disk2", self.DISK_BYTES,
                                        mount_options="errors=remount-ro"))
        self.place = disk.mountpoint / "cache"
        self.start_daemon()
        warm, others = self.names[:10], self.names[10:20]
        self.read_until_warm(warm)

        def is_at_rest():
            larder.drop_page_cache()
            return self.cache()["open_objects"] == 0

        wait_until(is_at_rest, 30, "all objects to be closed")
        time.sleep(11)  # an epoch; what the disk has not taken is lost with such an error
        disk.remount("abort")
        for _ in range(3):
            self.assertEqual(self.read_all(warm), 0, "what was warm came from the server")
        self.assertGreater(self.read_all(others), 0)
        self.assertEqual(self.cache()["state"], "active")
        self.assertIn("(fsck)", self.cache()["trouble"])
        wait_until(is_at_rest, 30, "all objects to be closed")
        self.resize("1M")
        wait_until(lambda: "objects cannot be culled: " in self.daemon.log_text(), 20, "the daemon to say why")
        self.assertIn("Read-only file system", self.daemon.log_text())
        time.sleep(11)
        self.assertEqual(self.cache()["state"], "active")
        self.assertEqual(self.read_all(warm), 0, "what was warm came from the server, later")

    def test_a_directory_that_was_removed_is_made_anew_by_the_next_start(self):
        self.start_daemon()
        self.read_until_warm()
        larder.remove_cache(self.place)
        for verb in ("detach", "attach"):
            self.larder.run("cache", verb, self.tag)
        self.assertNotEqual(self.daemon.process.wait(40), 0)
        self.assertIn("was removed", self.daemon.log_text())
        self.daemon.start()  # as its supervisor does
        self.wait_for_state("active")
        self.read_until_warm()

    def test_the_disk_is_cut_short_with_files_open(self):
        self.start_daemon()
        self.read_until_warm()
        with open(self.mounted / self.names[0], "rb"):
            self.disk.cut_short(4 * _MIB)
            larder.drop_page_cache()
            for name in self.names[1:]:
                self.read_file(name)  # no open that comes after it meets the error
        self.read_all()
        self.assert_waits_for_the_administrator()
        told = self.larder.run("cache", "detach", self.tag)
        self.assertIn(f"process {self.daemon.pid} ", told)
        self.daemon.end_in_order()
        self.assertIn("disk is free", self.larder.run("cache", "detach", self.tag))
        self.disk.unmount()
        self.disk.make_anew()
        self.larder.run("cache", "attach", self.tag)
        self.daemon.start()
        self.wait_for_state("active")
        self.read_until_warm()

    def assert_waits_for_the_administrator(self):
        """The daemon does not bring up what is broken, and says what is to be done."""
        hint = f"larder cache attach {self.tag}"
        self.assertIn(hint, self.cache()["trouble"])
        self.daemon.wait_for(hint)
        self.assertTrue(self.daemon.is_running())
        self.assertEqual(self.cache()["state"], "error")


class BadConfiguration(Case):

    def refused(self, *lines, options=()):
        config = self.directory / "bad.conf"
        config.write_text("".join(f"{line}\n" for line in lines))
        done = subprocess.run([paths.CACHEFILESD, "-n", "-s", "-f", config, *options], check=False,
                              capture_output=True, text=True, timeout=20)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"\w+ \w+ \w+")
        return done.stderr

    def test_what_is_wrong_is_named_with_its_line(self):
        told = self.refused("dir /var/cache/x", "brun 5%", "nonsense 1", "size much")
        for line in ("2", "3", "4"):
            self.assertRegex(told, rf"bad\.conf.*{line}")
        self.assertIn("nonsense", told)

    def test_nobody_keeps_a_cache_there(self):
        told = self.refused("dir /tmp/larder-no-such", options=["--runtime-dir", self.directory])
        self.assertIn("larder serve", told)


if __name__ == "__main__":
    main()
