"""A cache disk that hangs: reads and mounts go on without it, and with it when it answers again."""

import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, loopfs, trees
from harness.case import main
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_MIB = 1 << 20
# The engine gives an operation of the disk 5 s, a mount waits 10 s for its cache; the rest is for
# a busy machine.
_DISK_PATIENCE = 25
_WITHOUT_THE_DISK = 4  # less than any wait for it
_TRIES = 4


class HangingDisk(MountedCase):
    """A frozen filesystem: what only reads works, whatever writes hangs until it thaws."""

    def fill(self):
        trees.small_files(self.export / "small", 30, sizes=(1, 60_000), seed=self.seed)
        for number in range(6):
            trees.write_file(self.export / f"large{number}", 3 * _MIB + number, self.seed + number)

    def cache_directory(self):
        self.disk = self.begin(loopfs.LoopFs(self.directory / "disk", 96 * _MIB))
        return self.disk.mountpoint / "cache"

    def setUp(self):
        super().setUp()
        self._cleanup.defer(self.disk.thaw)  # nothing of what is to be undone may hang
        self.settle()

    def assert_reads(self, name):
        """In a process that can be killed, as a read that waits for the disk would never end; returns its seconds."""
        expected = (self.export / name).read_bytes()
        begin = time.monotonic()
        content = subprocess.run(["cat", self.mounted / name], check=True, stdout=subprocess.PIPE,
                                 timeout=_DISK_PATIENCE).stdout
        seconds = time.monotonic() - begin
        self.assertTrue(content == expected, f"wrong bytes of {name}")
        return seconds

    def assert_reads_without_the_disk(self, name):
        def seconds():
            larder.drop_clean_pages()
            return self.assert_reads(name)

        self.assert_one_is_quick(seconds, name)

    def assert_one_is_quick(self, tried, what):
        """`tried` returns the seconds that it took: of a few, as a busy machine alone may take long."""
        took = [tried()]
        while min(took) >= _WITHOUT_THE_DISK and len(took) < _TRIES:
            took.append(tried())
        self.assertLess(min(took), _WITHOUT_THE_DISK, what)

    def cache_status(self):
        return self.larder.status()["caches"][0]

    def wait_for_state(self, state):
        wait_until(lambda: self.cache_status()["state"] == state, _DISK_PATIENCE, f"the cache to be {state}")

    def assert_hang_is_told(self):
        self.assertRegex(self.cache_status()["trouble"], r"disk.* does not answer")
        self.assertIn("does not answer", self.larder.run("status"))

    def assert_cached(self, name):
        def read_is_free():
            larder.drop_page_cache()
            with self.proxy.counting() as seen:
                self.assert_reads(name)
            return seen["READ"] == 0

        wait_until(read_is_free, 30, f"{name} to be read from the cache")

    def test_reads_go_on_and_the_cache_is_used_again_afterwards(self):
        self.assert_reads("large0")
        self.assert_cached("large0")
        self.disk.freeze()
        larder.drop_clean_pages()
        for name in ("large1", "large0", *(f"small/{path.name}" for path in self.some_small_files())):
            self.assert_reads(name)
        self.wait_for_state("suspended")
        self.assert_hang_is_told()
        self.assert_reads_without_the_disk("large2")
        self.assert_reads_without_the_disk("large0")
        self.disk.thaw()
        self.wait_for_state("active")
        self.assertEqual(self.cache_status()["trouble"], "")
        self.assert_cached("large0")
        self.assert_cached("large3")

    def some_small_files(self):
        return sorted(path for path in (self.export / "small").iterdir() if path.is_file())[:5]

    def test_a_mount_is_made_while_the_disk_hangs(self):
        self.assert_reads("large0")
        self.larder.restart()
        self.disk.freeze()
        self.mount()
        self.assert_hang_is_told()
        self.assert_reads_without_the_disk("large0")
        self.disk.thaw()
        self.wait_for_state("active")
        self.assertEqual(self.cache_status()["trouble"], "")
        self.assert_cached("large0")

    def test_another_cache_is_used_while_the_disk_of_one_hangs(self):
        self.larder.restart()
        self.disk.freeze()
        self.mount()
        self.larder.cache_directory = self.directory / "cache2"
        self.mounted = self.larder.mount(self.proxy.url(), self.directory / "mnt2")
        states = {cache["path"]: cache["state"] for cache in self.larder.status()["caches"]}
        self.assertEqual(states[str(self.larder.cache_directory)], "active")
        self.assert_cached("large0")

    def test_unmounting_does_not_wait_for_the_disk(self):
        self.disk.freeze()
        self.assert_reads("large1")
        self.assert_one_is_quick(self.seconds_of_umount, "umount")
        self.disk.thaw()

    def seconds_of_umount(self):
        if not larder.is_mounted(self.mounted):
            self.mount()
        begin = time.monotonic()
        self.larder.umount(self.mounted)
        return time.monotonic() - begin


if __name__ == "__main__":
    main()
