"""cachefilesd: our daemon keeps a cache within its limits for years, dies, comes back, and no reader notices."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, paths, trees
from harness.cachefilesd import Cachefilesd
from harness.case import Case, main
from harness.daemon_case import DaemonCase
from harness.load import any_of, by_chance
from harness.processes import cpu_seconds, descendants, is_running, wait_until

_MIB = 1 << 20
# So far apart that something must be culled between them.
_LIMITS = ("brun 10%", "bcull 7%", "bstop 3%")


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
        load = self.begin_load(by_chance(self.seed, any_of(self.names)))
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
        return [pid for pid in descendants(self.larder.keeper_pid()) if self.is_daemon(pid)]

    @staticmethod
    def is_daemon(pid):
        try:
            return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "cachefilesd"
        except OSError:  # it has just ended
            return False

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
    GRAVES = 60_000  # links of one file: at most 65,000

    def test_keeps_the_size(self):
        self.start_daemon(*_LIMITS, size="12M")

        def reading_culls():
            self.read_all()
            self.assertLessEqual(self.cache()["used_bytes"], 12 * _MIB)
            return self.cache()["culled_objects"] > 0

        wait_until(reading_culls, 60, "something to be culled for what is read")
        self.wait_until_culled(12 * _MIB * 93 // 100)
        self.assertGreater(self.cache()["used_bytes"], 8 * _MIB, "more than was asked")

    def test_tells_how_old_what_it_leaves_is(self):
        self.start_daemon()
        self.read_until_warm()
        self.assertEqual(self.cache()["oldest_s"], 0, "it has looked at nothing")
        self.wait_until_unused()  # which takes seconds: so old is everything then
        self.resize("16M")
        wait_until(lambda: self.cache()["oldest_s"] > 1, 30, "the daemon to tell what it saw")

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
        self.read_until(lambda: self.cache()["culling"], "room to be short")
        larder.drop_page_cache()
        time.sleep(2)
        self.assertEqual(self.cache()["culled_objects"], 0)
        self.assertTrue(self.cache()["culling"])
        self.read_until(lambda: "its holder culls nothing" in self.cache()["trouble"], "the sentence")
        self.assertEqual(self.cache()["culled_objects"], 0)

    def read_until(self, happened, what):
        """Again and again: of one reading a slow disk does not keep all."""
        def read_and_happened():
            self.read_all()
            return happened()

        wait_until(read_and_happened, 60, what)

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
        objects = [path for path in trees.paths_below(self.place / "cache") if path.is_file()]
        self.assertEqual(len(objects), self.FILES)
        for path in objects[:5]:
            path.chmod(0o1600)
        self.resize("5M")
        self.wait_until_culled(5 * _MIB)
        left = [path for path in trees.paths_below(self.place / "cache") if path.is_file()]
        self.assertLessEqual(set(objects[:5]), set(left))

    def test_reaps_the_graveyard(self):
        self.start_daemon()
        self.read_until_warm(self.names[:3])
        user = os.stat(self.place)
        outside = self.disk.mountpoint / "outside"
        for path in [outside, *(outside / f"deep{number}" for number in range(500))]:
            path.mkdir()
            os.chown(path, user.st_uid, user.st_gid)
        for number in range(500):
            (outside / f"deep{number}" / "file").touch()
        outside.rename(self.place / "graveyard" / "x1x1x")  # whole: the daemon may come at any time

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

    def bury(self, names):
        """A directory of so many; returns how to count those that are left, without a look at each."""
        outside = self.disk.mountpoint / "outside"
        outside.mkdir()
        os.chown(outside, os.stat(self.place).st_uid, os.stat(self.place).st_gid)
        kept = self.disk.mountpoint / "kept"
        kept.touch()
        for number in range(names):
            os.link(kept, outside / str(number))
        outside.rename(self.place / "graveyard" / "x1x1x")
        return lambda: kept.stat().st_nlink - 1

    def test_what_nobody_expects_is_buried(self):
        self.start_daemon()
        self.read_until_warm()
        user = os.stat(self.place)
        fan_out = next(path for path in trees.paths_below(self.place / "cache") if path.is_file()).parent
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
        wait_until(lambda: self.cache()["open_objects"] == 0, 30, "closed files to be let go: they are read without a name")
        (self.place / "graveyard").rmdir()
        owner = self.place.stat()
        victim = next(path for path in trees.paths_below(self.place / "cache") if path.is_file())
        victim.unlink()
        victim.mkdir()
        os.chown(victim, owner.st_uid, owner.st_gid)
        self.resize("64M")  # whoever is read first: the engine buries to make place for what it keeps
        self.read_all()
        wait_until(lambda: not victim.is_dir() and not os.listdir(self.place / "graveyard"), 30,
                   "what lies in the place of a file to be buried and removed")
        self.assertEqual(self.cache()["trouble"], "")

    def objects(self):
        return sum(path.is_file() for path in trees.paths_below(self.place / "cache"))

    def test_a_full_graveyard_delays_no_cull(self):
        """The dead are removed in steps between slices, however many there are."""
        self.start_daemon()
        self.read_until_warm()
        self.wait_until_unused()
        left = self.bury(self.GRAVES)
        # No process is begun until the daemon stands still, nor while it culls: they would go meanwhile.
        self.resize("16M")  # behind it the daemon is told of the graves
        wait_until(lambda: left() < self.GRAVES, 60, "the daemon to begin with them")
        self.daemon.process.freeze()
        self.assertGreater(left(), self.GRAVES // 4, "too few are left to tell anything")
        self.resize("10M")
        self.daemon.process.send(signal.SIGCONT)
        wait_until(lambda: self.objects() < 10 * _MIB // self.FILE_BYTES, 60, "the daemon to cull")
        self.assertGreater(left(), 0, "the cull waited for all of the dead")
        wait_until(lambda: left() == 0, 60, "the graveyard to be empty")


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
