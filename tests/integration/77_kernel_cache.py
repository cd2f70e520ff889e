"""A real kernel's cache: our daemon brings it online, culls it, empties its graveyard, dies, and comes back.

Linux 6.1 with CacheFiles and NFS runs under User-Mode Linux (harness/kernel_guest.py); what is in it is judged here.
"""

import os
import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import kernel_guest
from harness.case import Case, main
from harness.kernel_guest import KernelGuest
from harness.processes import wait_until

_KIB = 1 << 10
_MIB = 1 << 20
_TAG = "kernels"
_PARTS = {"brun": 40, "bcull": 35, "bstop": 10}


class KernelCase(Case):
    """A booted kernel with a cache's disk, an export and a daemon that holds the cache."""

    DISK_BYTES = 64 * _MIB
    FILES = 12
    FILE_BYTES = 256 * _KIB

    @classmethod
    def setUpClass(cls):
        reason = kernel_guest.forbidden()
        if reason:
            raise unittest.SkipTest(reason)

    def setUp(self):
        super().setUp()
        self.guest = self.begin(KernelGuest(self.directory / "guest", self.DISK_BYTES))
        self.show_on_failure(self.daemon_log)
        self.guest.boot()
        self.guest.call("write_files", "file", self.FILES, self.FILE_BYTES, self.seed)
        self.before_the_daemon()
        self.guest.call("configure", f"tag {_TAG}", *(f"{limit} {part}%" for limit, part in _PARTS.items()))
        self.start_daemon()

    def before_the_daemon(self):
        """Something for the disk."""

    def daemon_log(self):
        try:
            return self.guest.call("daemon_log", seconds=10)
        except (AssertionError, OSError) as error:
            return str(error)

    def start_daemon(self):
        started = self.guest.call("start_daemon")
        self.assertEqual(started["status"], 0, started["said"])
        self.assertEqual(self.guest.call("cache_state"), "A")

    def end_daemon(self, how):
        self.assertEqual(self.guest.call("end_daemon", how), {"SIGTERM": 0, "SIGKILL": 9}[how])
        self.assertNotEqual(self.guest.call("cache_state"), "A")

    def wait_for(self, happened, what, seconds=60):
        """Less often than wait_until(): the guest has one processor, and the daemon needs it."""
        def asked():
            time.sleep(0.1)
            return happened()

        return wait_until(asked, seconds, what)

    def read(self, prefix="file"):
        """All bytes are right; tells how they came."""
        read = self.guest.call("read_files", prefix)
        self.assertEqual(read["wrong"], [])
        return read

    def read_until_warm(self, prefix="file"):
        """The kernel puts down what was read a moment later."""
        self.wait_for(lambda: self.read(prefix)["from_server"] == 0, "everything to come from the cache")

    def objects(self, count):
        """Once there are so many, as the kernel puts the last ones down a moment after their use."""
        self.wait_for(lambda: len(self.guest.call("objects")) == count, f"{count} objects")
        return self.guest.call("objects")

    def fill_the_disk(self):
        """The kernel sees it when it needs room."""
        self.guest.call("leave_free", (_PARTS["bcull"] - 5) / 100)
        self.guest.call("write_files", "late", 1, self.FILE_BYTES, self.seed + 1)
        self.read("late")

    def assert_daemon_sleeps(self):
        """Once it has done what was to do."""
        self.wait_for(lambda: self.guest.call("daemon_seconds", 2) <= 0.02, "the daemon to sleep", 30)


class Life(KernelCase):

    def test_what_was_read_once_comes_from_the_cache(self):
        self.guest.call("mount")
        self.assertEqual(self.read()["from_server"], self.FILES * self.FILE_BYTES)
        self.read_until_warm()
        self.assertGreater(self.read()["cache_reads"], 0)
        self.assert_daemon_sleeps()

    def test_the_daemon_keeps_no_rights_but_the_open_device(self):
        daemon = self.guest.call("daemon")
        self.assertEqual(daemon["status"]["Uid"].split(), ["0"] * 4)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(daemon["status"][kind], 16), 0, kind)
        self.assertEqual(daemon["status"]["NoNewPrivs"], "1")
        self.assertEqual(daemon["devices"], ["/dev/cachefiles"])
        self.assertEqual((daemon["nice"], daemon["io_class"]), (10, 3))

        second = self.guest.call("start_daemon", "-p", "/run/second.pid")
        self.assertEqual(second["status"], 1)
        self.assertIn("/dev/cachefiles is in other hands", second["said"])

    def test_the_limits_are_those_of_the_configuration_at_the_bind(self):
        def limits():
            fields = dict(field.split("=") for field in self.guest.call("state_line").split())
            return {limit: int(fields[limit], 16) for limit in _PARTS}

        blocks = self.guest.call("blocks")
        wanted = {limit: blocks // 100 * part for limit, part in _PARTS.items()}
        self.assertEqual(limits(), wanted)
        self.guest.call("configure", f"tag {_TAG}", "brun 50%", "bcull 30%", "bstop 20%")
        self.guest.call("signal_daemon", "SIGHUP")
        self.wait_for(lambda: "the configuration was read again" in self.daemon_log(), "the new limits")
        self.assertIn("restart cachefilesd", self.daemon_log())
        self.assertEqual(limits(), wanted)
        self.end_daemon("SIGTERM")
        self.start_daemon()
        self.assertEqual(limits(), {"brun": blocks // 100 * 50, "bcull": blocks // 100 * 30,
                                    "bstop": blocks // 100 * 20})

    def test_it_withdraws_and_comes_back_while_files_are_read(self):
        self.guest.call("mount")
        self.read_until_warm()
        self.guest.call("begin_reading")
        for how in ("SIGTERM", "SIGKILL"):
            with self.subTest(how):
                self.end_daemon(how)
                time.sleep(1)
                self.start_daemon()
                time.sleep(1)
        done = self.guest.call("end_reading")
        self.assertEqual(done["problems"], [])
        self.assertGreater(done["reads"], 2 * self.FILES)

    def test_what_was_cached_is_there_after_a_withdrawal(self):
        self.guest.call("mount")
        self.read_until_warm()
        for how in ("SIGTERM", "SIGKILL"):
            with self.subTest(how):
                self.end_daemon(how)
                self.assertEqual(self.read()["from_server"], self.FILES * self.FILE_BYTES)
                self.start_daemon()
                self.assertEqual(self.read()["from_server"], 0)


class Culling(KernelCase):

    FILES = 64

    def setUp(self):
        super().setUp()
        self.guest.call("mount")
        self.read_until_warm()
        self.guest.call("unmount")
        self.before = self.objects(self.FILES)

    def test_the_oldest_go_and_what_is_open_stays(self):
        self.guest.call("mount")
        self.guest.call("hold", "file000")
        self.assert_daemon_sleeps()

        self.fill_the_disk()
        self.wait_for_room()
        self.assert_daemon_sleeps()

        left = self.guest.call("objects")
        self.assertEqual(left.get("file000"), self.before["file000"], "it was open")
        self.assertEqual(self.read("file000")["from_server"], 0)
        gone = sorted(set(self.before) - set(left))
        self.assertGreater(len(gone), 20)
        self.assertLess(len(gone), 50, "more than was asked")
        self.assertLess(self.mean_number(gone), self.mean_number(set(left) & set(self.before)))
        self.guest.call("give_back")
        self.read_until_warm()

    def test_readers_of_more_than_fits(self):
        """Objects are culled, made again and retired all the time."""
        self.guest.call("mount")
        self.fill_the_disk()
        self.guest.call("begin_reading")
        self.wait_for(self.is_culled_often, "objects to be culled", 240)
        done = self.guest.call("end_reading")
        self.assertEqual(done["problems"], [])
        self.guest.call("drop_caches")  # nothing is in use any more
        self.wait_for_room()
        self.assertEqual(self.guest.call("cache_state"), "A")

    def is_culled_often(self):
        self.assertGreater(self.guest.call("free_part"), _PARTS["bstop"] / 100)
        return self.guest.call("culled") > 5 * self.FILES

    def wait_for_room(self):
        self.wait_for(lambda: self.guest.call("free_part") >= _PARTS["brun"] / 100, "room")
        self.wait_for(lambda: not self.guest.call("is_culling"), "the kernel to see it")

    def mean_number(self, names):
        """They were read in the order of their numbers."""
        return sum(int(name[-3:]) for name in names) / len(names)


class Graveyard(KernelCase):

    def before_the_daemon(self):
        self.guest.call("make_directory", "graveyard/left", 300)

    def is_empty(self):
        return self.guest.call("graveyard") == []

    def test_is_emptied_of_what_lay_there_and_of_what_the_kernel_buries(self):
        self.wait_for(self.is_empty, "what lay there to go")
        self.guest.call("mount")
        self.read_until_warm()
        self.guest.call("unmount")
        place = self.objects(self.FILES)["file003"]
        # A kernel that finds a directory where it had an object buries it.
        self.guest.call("make_directory", place, 300)
        self.guest.call("mount")
        self.read_until_warm()
        self.wait_for(self.is_empty, "what the kernel buried to go")
        self.guest.call("unmount")
        self.assertEqual(self.objects(self.FILES)["file003"], place)
        self.assert_daemon_sleeps()

    def test_takes_what_has_no_business_in_the_cache(self):
        """It is seen when something is to be culled."""
        self.guest.call("mount")
        self.read_until_warm()
        bucket = os.path.dirname(self.objects(self.FILES)["file003"])
        self.guest.call("make_directory", "cache/Dnone", 10)
        self.guest.call("make_directory", f"{bucket}/Dnone", 10)
        self.fill_the_disk()
        self.wait_for(lambda: not self.guest.call("exists", "cache/Dnone")
                      and not self.guest.call("exists", f"{bucket}/Dnone"), "both to be buried")
        self.wait_for(self.is_empty, "both to go")
        self.assert_daemon_sleeps()


if __name__ == "__main__":
    main()
