"""Coherency: what changed on the server is seen at the next open, whatever its clock and stamps say."""

import errno
import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, trees
from harness.case import main
from harness.mounted_case import SETTLING_SECONDS, MountedCase
from harness.processes import wait_until

_SIZES = {"small": 5_000, "large": 3 << 20}


def _filled(letter, size):
    return letter.encode() * size


class Changes(MountedCase):
    """A small file lives in its label, a large one has a map log and passthrough: both must obey."""

    options = "actimeo=1"

    def fill(self):
        for name, size in _SIZES.items():
            self.write(name, _filled("a", size))

    def each_file(self):
        for name, size in _SIZES.items():
            with self.subTest(name):
                self.assertEqual(self.read(name), _filled("a", size))
                yield name, size
                self.write(name, _filled("a", size))

    def test_new_content_of_the_same_size_is_seen_at_the_next_open(self):
        for name, size in self.each_file():
            self.write(name, _filled("b", size))
            self.assertEqual(self.read(name), _filled("b", size))

    def test_longer_and_shorter_content_is_seen_at_the_next_open(self):
        for name, size in self.each_file():
            for new_size in (size + 70_000, size // 3, 0, size):
                self.write(name, _filled("c", new_size))
                self.assertEqual(self.read(name), _filled("c", new_size))

    def test_appended_bytes_are_seen_at_the_next_open(self):
        for name, size in self.each_file():
            with open(self.export / name, "ab") as file:
                file.write(b"more")
            self.assertEqual(self.read(name), _filled("a", size) + b"more")

    def test_a_restored_mtime_does_not_hide_a_change(self):
        for name, size in self.each_file():
            before = os.stat(self.export / name)
            self.write(name, _filled("d", size))
            os.utime(self.export / name, ns=(before.st_atime_ns, before.st_mtime_ns))
            self.assertEqual(self.read(name), _filled("d", size))

    def test_a_change_before_a_restart_is_seen_after_it(self):
        for name, size in self.each_file():
            self.larder.restart()
            self.write(name, _filled("e", size))
            self.mount()
            self.assertEqual(self.read(name), _filled("e", size))

    def test_a_file_that_was_replaced_is_seen_when_its_name_is_looked_up_again(self):
        for name, size in self.each_file():
            self.write("other", _filled("f", size))
            os.rename(self.export / "other", self.export / name)
            wait_until(lambda: self.read(name) == _filled("f", size), 5, "the new file")

    def test_who_holds_a_complete_file_keeps_its_version(self):
        size = _SIZES["large"]
        with open(self.mounted / "large", "rb") as held:
            self.assertEqual(held.read(), _filled("a", size))
        self.settle()
        self.read("large")
        with open(self.mounted / "large", "rb", buffering=0) as held:
            self.write("large", _filled("g", size))
            self.assertEqual(self.read("large"), _filled("g", size))
            seen = {os.pread(held.fileno(), 4096, offset)[:1] for offset in range(0, size, 65536)}
            self.assertEqual(len(seen), 1, f"one handle showed {seen}")

    def test_names_that_come_and_go_are_noticed(self):
        self.assertEqual(set(os.listdir(self.mounted)), set(_SIZES))
        self.write("new", b"")
        os.unlink(self.export / "small")
        wait_until(lambda: set(os.listdir(self.mounted)) == {"new", "large"}, 5, "the new listing")
        self.assertFalse((self.mounted / "small").exists())

    def test_a_name_known_to_be_missing_appears(self):
        self.assertFalse((self.mounted / "later").exists())
        self.write("later", b"here")
        wait_until((self.mounted / "later").exists, 5, "the name")

    def test_changed_modes_are_noticed(self):
        os.stat(self.mounted / "small")
        os.chmod(self.export / "small", 0o600)
        wait_until(lambda: os.stat(self.mounted / "small").st_mode & 0o777 == 0o600, 5, "the mode")


class CloseToOpen(MountedCase):
    """Whether an open asks the server although the attributes are fresh."""

    ACTIMEO = 4

    def fill(self):
        for name, size in _SIZES.items():
            self.write(name, _filled("a", size))

    def remount(self, options=None):
        super().remount(options)
        self.settle()
        self.read_until_cached()

    def calls_of_opens(self, name, opens=5):
        with self.proxy.counting() as seen:
            for _ in range(opens):
                self.assertEqual(self.read(name), _filled("a", _SIZES[name]))
        self.assertEqual(seen["READ"], 0)
        return seen

    def test_every_open_asks_the_server(self):
        self.remount("actimeo=600")
        for name in _SIZES:
            with self.subTest(name):
                seen = self.calls_of_opens(name)
                self.assertGreaterEqual(seen["ACCESS"] + seen["GETATTR"], 5)

    def test_with_nocto_no_open_asks_the_server_while_attributes_are_fresh(self):
        self.remount("actimeo=600,nocto")
        for name in _SIZES:
            with self.subTest(name), files.remembered(self.mounted / name):
                self.read(name)
                calls = self.calls_of_opens(name).calls
                self.assertLessEqual(calls.pop("ACCESS", 0), 2)  # answers to it are believed for 3 s only
                self.assertEqual(calls, {})

    def first_bytes(self, name):
        with open(self.mounted / name, "rb", buffering=0) as file:
            return file.read(4)

    def test_with_nocto_a_change_is_seen_when_the_attributes_are_old(self):
        self.remount(f"actimeo={self.ACTIMEO},nocto")
        time.sleep(self.ACTIMEO)
        for name, size in _SIZES.items():
            with self.subTest(name), files.remembered(self.mounted / name):
                # Little is read and written, because the next ACCESS, at most 3 s later, shows the change as well.
                self.assertEqual(self.first_bytes(name), b"aaaa")  # attributes are fresh from here on
                begin = time.monotonic()
                with open(self.export / name, "r+b") as file:
                    file.write(b"b")
                self.assertEqual(self.first_bytes(name), b"aaaa")
                wait_until(lambda: self.read(name) == b"b" + _filled("a", size - 1), 20, "the new content")
                self.assertGreater(time.monotonic() - begin, self.ACTIMEO / 2)


class Replacement(MountedCase):

    ROUNDS = 200
    SIZE = 200_000

    def fill(self):
        self.write("file", bytes([0]) * self.SIZE)

    def test_every_read_shows_one_version_not_older_than_its_open(self):
        current, stop = [0], threading.Event()

        def replace():
            for version in range(1, self.ROUNDS):
                self.write("next", bytes([version]) * self.SIZE)
                os.rename(self.export / "next", self.export / "file")
                current[0] = version
                time.sleep(0.01)
            stop.set()

        writer = threading.Thread(target=replace)
        writer.start()
        complete = 0
        try:
            while not stop.is_set():
                complete += self._read_one_version()
        finally:
            writer.join()
        self.assertGreater(complete, 0)
        wait_until(lambda: self.read("file") == bytes([self.ROUNDS - 1]) * self.SIZE, 5,
                   "the last version")

    def _read_one_version(self):
        try:
            content = self.read("file")
        except OSError as error:
            # The server has forgotten the replaced file.
            self.assertIn(error.errno, (errno.ESTALE, errno.ENOENT))
            return 0
        self.assertEqual((len(content), len(set(content))), (self.SIZE, 1), "a mixture of versions")
        return 1


class BadClocks(MountedCase):
    """The server's stamps are all there is, and here they are poor."""

    options = "actimeo=1"

    def fill(self):
        for name, size in _SIZES.items():
            self.write(name, _filled("a", size))

    def assert_changes_are_seen(self):
        for letter in "bcd":
            for name, size in _SIZES.items():
                self.write(name, _filled(letter, size))
                self.assertEqual(self.read(name), _filled(letter, size))

    def test_a_clock_an_hour_ahead(self):
        self.proxy.shift_times(3600)
        self.remount()
        self.assert_changes_are_seen()

    def test_a_clock_an_hour_behind(self):
        self.proxy.shift_times(-3600)
        self.remount()
        self.assert_changes_are_seen()

    def test_replies_without_attributes(self):
        self.proxy.strip_attributes()
        self.remount()
        self.assert_changes_are_seen()
        self.assert_same_tree(self.export, self.mounted)

    def test_equal_size_and_equal_stamps(self):
        self.proxy.freeze_attributes()
        self.assert_settles_on_the_last_content(lambda: None)

    def test_stamps_of_whole_seconds(self):
        self.proxy.whole_seconds()

        def start_of_a_second():
            wait_until(lambda: time.time() % 1 < 0.1, 2, "a new second")

        self.assert_settles_on_the_last_content(start_of_a_second)

    def assert_settles_on_the_last_content(self, before_each_file):
        """Two versions that no stamp tells apart: the second must win as soon as stamps can be trusted."""
        self.remount()
        for name, size in _SIZES.items():
            with self.subTest(name):
                before_each_file()
                self.write(name, _filled("x", size))
                self.assertEqual(set(self.read(name)), {ord("x")})
                self.write(name, _filled("y", size))
                time.sleep(SETTLING_SECONDS)
                self.assertEqual(self.read(name), _filled("y", size))

    def test_what_was_racy_is_fetched_again_after_a_restart_too(self):
        self.proxy.freeze_attributes()
        self.remount()
        self.read("large")
        self.larder.restart()
        self.write("large", _filled("z", _SIZES["large"]))
        self.mount()
        self.read("large")  # of either version: no stamp tells, and no time is known to have passed
        time.sleep(SETTLING_SECONDS)
        self.assertEqual(self.read("large"), _filled("z", _SIZES["large"]))


class LongLivedTree(MountedCase):

    def fill(self):
        trees.small_files(self.export / "tree", 300, sizes=(1, 200_000), seed=self.seed, a_directory=50)

    def test_random_changes_are_all_seen_at_the_next_open(self):
        files = sorted(path for path in self.export.rglob("f*") if path.is_file())
        for _ in range(5):
            for path in self.random.sample(files, 30):
                path.write_bytes(self.random.randbytes(self.random.randrange(200_000)))
            for path in files:
                relative = path.relative_to(self.export)
                self.assertEqual(self.read(relative), path.read_bytes(), relative)


if __name__ == "__main__":
    main()
