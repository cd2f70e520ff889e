"""The stock daemon: Debian's cachefilesd, unmodified, holds and culls a cache of the engine through larder-device."""

import ctypes
import errno
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, paths
from harness.case import main
from harness.device import Device, DeviceFile, StockDaemon
from harness.held_case import HeldCase
from harness.job import Job
from harness.larder import is_mounted
from harness.loopfs import LoopFs
from harness.processes import wait_until

_MIB = 1 << 20
_IN, _OUT, _ERR = 0x1, 0x4, 0x8
_KEYS = ["cull", "frun", "fcull", "fstop", "brun", "bcull", "bstop", "freleased", "breleased"]
_LIMITS = ["brun 10%", "bcull 7%", "bstop 3%", "frun 10%", "fcull 7%", "fstop 3%"]


class DeviceCase(HeldCase):

    tag = "CacheFiles"  # the kernel's default

    def setUp(self):
        super().setUp()
        self.device = self.begin(Device(self.directory / "device", self.larder.runtime_directory))

    def open(self):
        return self.begin(DeviceFile(self.device.path))

    def open_bound(self):
        file = self.open()
        self.assertEqual(file.write(f"dir {self.place}"), len(f"dir {self.place}"))
        self.assertEqual(file.write("bind"), 4)
        return file


class StockCase(DeviceCase):

    def hold(self):
        """Started again, as by a service manager, while the cache is busy: the one before has to be closed, which takes
        its disk's time."""
        self.daemon = wait_until(self.hold_if_free, 60, "the cache to be free")
        self.wait_for_state("active")
        return self.daemon

    def hold_if_free(self):
        daemon = self.begin(StockDaemon(self.directory / "daemon", self.device,
                                        [f"dir {self.place}", f"tag {self.tag}", *_LIMITS]))
        return daemon if daemon.is_bound_and_not_refused() else None


class Daemon(StockCase):

    def test_reads_become_warm(self):
        self.assertIn("no cachefilesd has brought", self.cache()["trouble"])
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        self.hold()
        self.assertEqual(self.cache()["trouble"], "")
        self.read_until_warm()

    def test_it_ends_and_comes_back_to_a_warm_cache(self):
        daemon = self.hold()
        self.read_until_warm()
        self.assertTrue(daemon.end(), "SIGTERM")
        self.wait_for_state("withdrawn")
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        daemon = self.hold()
        self.read_until_warm()
        daemon.kill()
        self.wait_for_state("withdrawn")
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        self.hold()
        self.read_until_warm()

    def test_one_that_follows_at_once_waits_for_the_release(self):
        at_once = 0
        for _ in range(6):
            daemon = self.hold_if_free()
            at_once += daemon is not None
            (daemon or self.hold()).kill()
        self.assertGreater(at_once, 1, "all but the first came in vain")

    def test_a_second_one_finds_the_device_busy(self):
        self.hold()
        second = self.begin(StockDaemon(self.directory / "second", self.device, [f"dir {self.place}", *_LIMITS]))
        self.assertNotEqual(second.wait(20), 0)
        self.assertIn("Device or resource busy", second.log_text())
        self.read_until_warm()

    def test_it_holds_on_while_its_files_are_read_and_written(self):
        """It scans, and asks of every object whether it is in use, and takes empty directories away."""
        daemon = self.hold()
        self.read_until_warm()
        self.wait_for_objects()
        for number in range(4):
            self.write(f"large{number}", os.urandom(_MIB))
        self.settle()
        self.read_until_warm()
        self.assertTrue(daemon.is_running(), daemon.log_text())
        self.assertNotIn("rror", daemon.log_text())

    def test_graves_are_emptied(self):
        self.hold()
        self.read_until_warm()
        path = self.wait_for_objects()[0]
        dead = self.directory / "dead"
        (dead / "deep").mkdir(parents=True)
        (dead / "deep" / path.rpartition("/")[2]).write_bytes(b"dead")
        grave = dead.rename(self.place / "graveyard" / "x1x1x")
        wait_until(lambda: not grave.exists(), 20, "the grave to be removed")
        self.assertTrue(self.daemon.is_running())

    def test_the_engine_ends_and_with_it_the_daemon(self):
        daemon = self.hold()
        self.read_until_warm()
        self.larder.restart()
        self.assertNotEqual(daemon.wait(20), 0)
        self.mount()
        self.hold()
        self.assertLess(self.read_all_cold(), _MIB, "it was closed in order")

    def test_the_device_ends_and_the_mount_goes_on(self):
        daemon = self.hold()
        self.read_until_warm()
        self.device.stop()
        self.assertFalse(is_mounted(self.device.path))
        self.assertFalse(self.device.path.exists(), "it was made by the device")
        self.wait_for_state("withdrawn")
        self.assertGreater(self.read_all_cold(), 12 * _MIB)
        self.assertNotEqual(daemon.wait(20), 0)
        self.device.start()
        self.hold()
        self.read_until_warm()


class Culling(StockCase):
    """The cache has a small filesystem of its own, which others fill."""

    def place_of_cache(self):
        self.disk = self.begin(LoopFs(self.directory / "disk", 128 * _MIB))
        return self.disk.mountpoint / "cache"

    def until(self, happened, what):
        """An engine at rest notices in half a minute what others do to its disk.

        The daemon sleeps with a full table until an object is released, over a kernel as well.
        """
        def released_and_happened():
            larder.drop_page_cache()
            self.read("small/d00000/f0000000")
            time.sleep(0.5)
            return happened()

        wait_until(released_and_happened, 60, what)

    def free_percent(self):
        status = os.statvfs(self.disk.mountpoint)
        return 100 * status.f_bavail / status.f_blocks

    def test_it_culls_when_others_fill_the_disk(self):
        daemon = self.hold()
        self.read_until_warm()
        paths_before = self.wait_for_objects()
        self.disk.fill(leave_bytes=13 * _MIB)  # between run and cull: with the room that only root may take
        self.assertLess(self.free_percent(), 7)
        self.until(lambda: self.free_percent() >= 10, "the daemon to make room")
        self.assertLess(len(self.objects()), len(paths_before))
        wait_until(lambda: not self.cache()["culling"], 20, "culling to end")
        self.assertTrue(daemon.is_running(), daemon.log_text())
        self.assertGreater(self.read_all_cold(), 0)  # the same bytes, some of them from the server

    def test_who_holds_an_object_keeps_it(self):
        daemon = self.hold()
        self.read_until_warm()
        self.wait_for_objects()
        with open(self.mounted / "large0", "rb") as held:
            expected = held.read()
            self.disk.fill(leave_bytes=8 * _MIB)
            self.until(lambda: len(self.objects()) < 30, "the daemon to cull")
            time.sleep(1)  # it goes on as long as there is anything
            larder.drop_page_cache()
            before = self.from_server()
            held.seek(0)
            self.assertEqual(held.read(), expected)
            self.assertEqual(self.from_server(), before)
        self.assertTrue(daemon.is_running(), daemon.log_text())


class Table(DeviceCase):
    """What the kernel's device answers, as a hand-written client saw it."""

    def check(self, file, table):
        for command, expected in table:
            with self.subTest(command=command):
                self.assertEqual(file.write(command), len(command) if expected == "ok" else expected)

    def test_before_bind(self):
        file = self.open()
        self.assertEqual(file.read(), "")
        self.assertEqual(file.poll(), 0)
        self.check(file, [
            ("nonsense", "EOPNOTSUPP"), (" bind", "EOPNOTSUPP"), ("x" * 4095, "EOPNOTSUPP"),
            ("x" * 4096, "EOPNOTSUPP"), ("x" * 300_000, "EOPNOTSUPP"), ("state", "EOPNOTSUPP"),
            ("size 1G", "EOPNOTSUPP"), ("copen 1,2", "EOPNOTSUPP"), ("restore", "EOPNOTSUPP"),
            ("\nbind", "EINVAL"), ("bind\0", "EINVAL"), ("bind", "EINVAL"),
            ("cull x", "EIO"), ("inuse x", "EIO"), ("cull", "EIO"), ("cull a/b", "EINVAL"),
            ("tag", "EINVAL"), ("dir", "EINVAL"), ("tag a b", "ok"), ("tag a", "EEXIST"),
            ("secctx", "EINVAL"), ("secctx no:such", "EINVAL"),
            ("debug 0x", "EINVAL"), ("debug x", "EINVAL"), ("debug 0", "ok"),
            ("dir /does/not/exist", "ok"), ("dir /", "EEXIST"), ("bind x", "EINVAL"), ("bind ondemand", "EINVAL"),
            ("bind", "ENOENT"), ("bind", "ENOENT")])

    def test_limits_are_compared_with_their_neighbours(self):
        file = self.open()
        for run, cull, stop in (("brun", "bcull", "bstop"), ("frun", "fcull", "fstop")):
            self.check(file, [
                (f"{run}", "EINVAL"), (f"{run} 10", "EINVAL"), (f"{run} x%", "EINVAL"), (f"{run} 101%", "EINVAL"),
                (f"{run} 100%", "EINVAL"), (f"{run} 20% ", "EINVAL"), (f"{run} 5%", "EINVAL"),
                (f"{run}  12%", "ok"), (f"{run} 20%\n", "ok"), (f"{cull} 20%", "EINVAL"), (f"{cull} 1%", "EINVAL"),
                (f"{cull} 15%", "ok"), (f"{stop} 15%", "EINVAL"), (f"{stop} 5%", "ok"), (f"{run} 15%", "EINVAL")])
        file.write(f"dir {self.place}")
        self.check(file, [("bind", "ok"), ("brun 30%", "ok"), ("brun 1%", "EINVAL")])
        state, blocks = file.state(), os.statvfs(self.place)
        for kind, whole in (("b", blocks.f_blocks), ("f", blocks.f_files)):
            for name, percent in (("run", 20), ("cull", 15), ("stop", 5)):
                self.assertAlmostEqual(state[kind + name] / whole, percent / 100, places=3, msg="those of bind")

    def test_after_bind(self):
        file = self.open_bound()
        self.check(file, [("bind", "EBUSY"), ("bind x", "EBUSY"), ("dir /", "EEXIST"), ("tag late", "EEXIST")])
        line = file.read()
        self.assertEqual([pair.partition("=")[0] for pair in line.split(" ")], _KEYS)
        self.assertRegex(line, r"^cull=0( \w+=[0-9a-f]+){8}$")
        self.assertEqual(file.read(offset=1 << 40), line)
        self.assertEqual(file.read(len(line)), line)
        self.assertEqual(file.read(len(line) - 1), "EMSGSIZE")
        self.assertEqual(file.poll(), 0)
        self.wait_for_state("active")

    def test_a_bind_that_failed_may_be_tried_again(self):
        (self.place / "letter").write_text("of somebody else\n")
        file = self.open()
        self.check(file, [("brun 20%", "ok"), (f"dir {self.place}", "ok"), ("bind", "EINVAL")])
        self.assertIn("holds other files", self.device.log.read_text())
        (self.place / "letter").unlink()
        self.check(file, [("bind", "ok")])
        blocks = os.statvfs(self.place).f_blocks
        self.assertAlmostEqual(file.state()["brun"] / blocks, 0.2, places=3)
        self.read_until_warm()

    def test_only_root_and_one_at_a_time(self):
        file = self.open_bound()
        with self.assertRaises(OSError) as refused:
            DeviceFile(self.device.path)
        self.assertEqual(refused.exception.errno, 16)
        self.assertEqual(stat.S_IMODE(os.stat(self.device.path).st_mode), 0o600)
        for path in (self.directory, self.device.path.parent):
            path.chmod(0o755)
        stranger = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", "cat", self.device.path],
                                  check=False, capture_output=True, text=True)
        self.assertIn("Operation not permitted", stranger.stderr)
        file.stop()
        self.open()  # which is refused after two seconds

    def test_a_copy_of_the_descriptor_keeps_it_open(self):
        file = self.open_bound()
        copy = os.dup(file.descriptor)
        closed = time.monotonic()
        file.stop()
        self.wait_for_state("active")
        with self.assertRaises(OSError):
            DeviceFile(self.device.path)
        self.assertGreater(time.monotonic() - closed, 1.9, "a release could still come")
        self.wait_for_state("active")
        for _ in range(5):
            if self.open_waits_until_closed(copy):
                break
            file = self.open_bound()
            copy = os.dup(file.descriptor)
            file.stop()
        else:
            self.fail("the last close comes later than an open waits")
        self.wait_for_state("withdrawn")

    def open_waits_until_closed(self, copy):
        """Two seconds: false if they are over before this machine has closed it."""
        os.close(os.dup(copy))
        following = Job("open", self.open)
        time.sleep(0.3)
        was_over = following.is_over()
        os.close(copy)
        try:
            opened = following.result()
        except OSError as error:
            self.assertEqual(error.errno, errno.EBUSY)
            return False
        self.assertFalse(was_over)
        self.assertEqual(opened.read(), "")
        return True

    def test_culls_where_the_writer_stands(self):
        file = self.open_bound()
        self.read_until_warm()
        objects = self.wait_for_objects()
        volume, index, _ = objects[0].split("/")
        cache = self.place / "cache"
        self.addCleanup(os.chdir, os.getcwd())

        def at(directory, *table):
            os.chdir(directory)
            self.check(file, table)

        at(self.place, ("inuse cache", "EBUSY"), ("cull cache", "EBUSY"), ("cull graveyard", "EBUSY"))
        at(cache, (f"inuse {volume}", "EBUSY"), (f"cull {volume}", "EBUSY"), ("cull Inone", "ENOENT"))
        at(cache / volume, (f"cull {index}", "EBUSY"))
        at("/", ("cull etc", "EIO"), ("inuse etc", "EIO"))
        at(self.export, ("cull large0", "EIO"))
        twin = self.directory / "cache" / volume / index
        twin.mkdir(parents=True)
        (twin / "Dtwin").touch()
        at(twin, ("cull Dtwin", "EIO"))
        with open(self.mounted / "large0", "rb"):
            larder.drop_page_cache()
            outcomes = []
            for path in objects:
                os.chdir((cache / path).parent)
                name = path.rpartition("/")[2]
                seen = file.write(f"inuse {name}")
                outcomes.append(seen)
                self.assertIn(seen, (len(f"inuse {name}"), "EBUSY"))
                self.assertEqual(file.write(f"cull {name}"), len(f"cull {name}") if seen != "EBUSY" else "EBUSY")
            self.assertEqual(outcomes.count("EBUSY"), 1, "large0")
        [left] = self.objects()
        gone = next(path for path in objects if path != left)
        os.chdir((cache / gone).parent)
        at(".", (f"cull {gone.rpartition('/')[2]}", "ENOENT"), ("cull", "EIO"), ("cull .", "EIO"),
           ("inuse ..", "EIO"), ("cull ../x", "EINVAL"), ("cull D" + "x" * 255, "EIO"))
        self.make_place(pathlib.Path("Ddirectory"))
        at(".", ("cull Ddirectory", "ok"))
        self.assertFalse(os.path.exists("Ddirectory"))
        self.assertEqual(len(list((self.place / "graveyard").iterdir())), 1)
        (self.directory / "buried").mkdir()
        os.chdir(self.directory / "buried")
        (self.directory / "buried").rmdir()
        self.check(file, [("cull x", "ESTALE")])
        self.assertGreater(self.read_all_cold(), 10 * _MIB)

    def test_poll_is_woken_when_culling_begins(self):
        disk = self.begin(LoopFs(self.directory / "disk", 64 * _MIB))
        self.place = disk.mountpoint / "cache"
        self.make_place(self.place)
        file = self.open()
        self.check(file, [(f"dir {self.place}", "ok"), ("brun 50%", "ok"), ("bcull 40%", "ok")])
        filler = disk.fill(leave_bytes=16 * _MIB)
        waiting = Job("poll", file.poll, 25)
        time.sleep(0.5)
        self.assertFalse(waiting.is_over())
        self.check(file, [("bind", "ok")])
        self.assertEqual(waiting.result(seconds=10), _IN | _OUT, "before its time is over")
        self.assertEqual(file.state()["cull"], 1)
        self.assertEqual(file.poll(), _OUT)
        filler.unlink()
        self.assertEqual(file.state()["cull"], 0)
        self.assertEqual(file.poll(), 0)

    def test_objects_that_come_out_of_use_are_counted(self):
        file = self.open_bound()
        self.read_until_warm()
        self.wait_for_objects()
        larder.drop_page_cache()
        total = {"freleased": 0, "breleased": 0}

        def released():
            state = file.state()
            for name in total:
                total[name] += state[name]
            return total["freleased"] >= 66

        wait_until(released, 30, "all to be released")
        self.assertGreaterEqual(total["breleased"] * 512, 12 * _MIB)

    def test_an_engine_that_dies_is_EIO_until_the_holder_closes(self):
        file = self.open_bound()
        self.larder.kill_engine()
        self.assertEqual(file.poll(10), _IN | _ERR)
        self.assertEqual(file.read(), "EIO")
        self.check(file, [("bind", "EIO"), ("brun 10%", "EIO"), ("cull x", "EIO")])
        self.larder.forget_dead_mounts()
        self.mount()
        self.check(file, [("bind", "EIO")])
        file.stop()
        self.open_bound()
        self.read_until_warm()

    def test_without_an_engine_there_is_no_device(self):
        self.larder.restart()
        with self.assertRaises(OSError) as refused:
            DeviceFile(self.device.path)
        self.assertEqual(refused.exception.errno, 6)
        self.mount()
        self.open_bound()

    def test_who_is_killed_does_not_wait_for_a_stopped_engine(self):
        file = self.open_bound()
        engine = self.larder.engine_pid()
        os.kill(engine, signal.SIGSTOP)
        self.addCleanup(os.kill, engine, signal.SIGCONT)
        # Before the child is there, which may be slow to begin.
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.signal(signal.SIGUSR1, lambda *_: None))
        try:
            reader = os.fork()
            if reader == 0:
                # os.read() would begin again after an EINTR.
                ctypes.CDLL(None).read(file.descriptor, ctypes.create_string_buffer(100), 100)
                os._exit(0)
            time.sleep(0.5)
            os.kill(reader, signal.SIGUSR1)
            time.sleep(0.5)
            self.assertEqual(os.waitpid(reader, os.WNOHANG)[0], 0, "EINTR for a signal that is handled")
            os.kill(reader, signal.SIGKILL)
            wait_until(lambda: os.waitpid(reader, os.WNOHANG)[0] == reader, 20, "it to die")
        finally:
            os.kill(engine, signal.SIGCONT)
        self.assertEqual(file.state()["cull"], 0)


class Program(DeviceCase):

    def refusal(self, path):
        done = subprocess.run([paths.DEVICE, "-f", "--runtime-dir", self.larder.runtime_directory, path],
                              check=False, capture_output=True, text=True, timeout=10)
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_only_a_regular_file_that_nobody_mounted_over_becomes_a_device(self):
        self.assertIn("no regular file", self.refusal(self.directory))
        self.assertIn("kernel's own", self.refusal("/dev/null"))
        self.assertIn("mounted at", self.refusal(self.device.path))
        self.assertIn("No such file", self.refusal(self.directory / "none" / "cachefiles"))

    def test_what_was_there_stays(self):
        path = self.directory / "there"
        path.write_text("content")
        device = subprocess.Popen([paths.DEVICE, "-f", "--runtime-dir", self.larder.runtime_directory, path])
        try:
            wait_until(lambda: is_mounted(path), 10, "the device")
        finally:
            device.terminate()
            device.wait(10)
        self.assertFalse(is_mounted(path))
        self.assertEqual(path.read_text(), "content")

    def test_in_the_background(self):
        path = self.directory / "background"
        subprocess.run([paths.DEVICE, "--runtime-dir", self.larder.runtime_directory, path], check=True, timeout=10)
        self.assertTrue(is_mounted(path), "it returns when the device is there")
        file = self.begin(DeviceFile(path))
        self.assertEqual(file.write(f"dir {self.place}"), len(f"dir {self.place}"))
        self.assertEqual(file.write("bind"), 4)
        self.wait_for_state("active")
        subprocess.run(["umount", "-l", path], check=True)
        file.stop()
        self.wait_for_state("withdrawn")
        wait_until(lambda: not path.exists(), 10, "it to end")

    def test_it_gives_up_rights(self):
        """Before anybody can use it: setUp() waits for the mount, for nothing after it."""
        status = pathlib.Path(f"/proc/{self.device.process.pid}/status").read_text()
        rights = {1 << bit for bit in (0, 1, 2, 3, 19, 21)}  # CAP_CHOWN ... CAP_SYS_PTRACE, CAP_SYS_ADMIN
        for name in ("CapPrm", "CapEff", "CapBnd"):
            found = int(re.search(rf"^{name}:\s+(\w+)$", status, re.MULTILINE)[1], 16)
            self.assertEqual(found & ~sum(rights), 0, name)
        self.assertRegex(status, r"NoNewPrivs:\s+1")

    def test_after_a_kill_the_mount_must_be_taken_away(self):
        file = self.open_bound()
        self.device.process.kill()
        self.wait_for_state("withdrawn")
        self.assertEqual(file.write("bind"), "ENOTCONN")
        file.stop()
        self.assertIn("umount -l", self.refusal(self.device.path))
        subprocess.run(["umount", "-l", self.device.path], check=True)
        self.device.start()
        self.open_bound()


if __name__ == "__main__":
    main()
