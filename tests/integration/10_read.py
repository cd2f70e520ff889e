"""Reading: what stands behind the mount is what stands on the server."""

import mmap
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, larder, loopfs, trees
from harness.case import main
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
# Around the borders that mean something: page, checksum cell, small file, transfer.
_SIZES = [0, 1, 4095, 4096, 4097, 64 * _KIB - 1, 64 * _KIB, 64 * _KIB + 1, 128 * _KIB + 3,
          _MIB - 1, _MIB, _MIB + 1, 3 * _MIB + 17]


class Trees(MountedCase):

    def fill(self):
        trees.copy_of("/usr/include/linux", self.export / "headers")
        for size in _SIZES:
            trees.write_file(self.export / f"size-{size}", size, self.seed + size)
        trees.odd_names(self.export / "odd")
        trees.hard_links(self.export / "links")
        trees.special_files(self.export / "special")
        trees.deep_directories(self.export / "deep")
        (self.export / "empty").mkdir()

    def assert_reads_equal(self):
        self.assert_same_tree(self.export, self.mounted)

    def test_a_tree_is_equal_cold_and_again(self):
        expected = trees.digest(self.export)
        self.assert_same_tree(expected, self.mounted)
        larder.drop_page_cache()
        self.assert_same_tree(expected, self.mounted)

    def test_a_tree_is_equal_after_a_restart(self):
        expected = trees.digest(self.export)
        self.assert_same_tree(expected, self.mounted)
        self.remount()
        self.assert_same_tree(expected, self.mounted)

    def test_a_tree_is_equal_without_passthrough(self):
        self.remount("passthrough=no")
        self.assert_reads_equal()
        larder.drop_page_cache()
        self.assert_reads_equal()

    def test_a_server_without_readdirplus_shows_the_same_tree(self):
        self.proxy.without_readdirplus()
        self.assert_reads_equal()

    def test_replies_in_many_fragments_carry_the_same_tree(self):
        self.proxy.fragment(1000)
        self.proxy.segment(1448)
        self.assert_reads_equal()

    def test_a_submount_of_the_server_is_part_of_the_tree(self):
        self.proxy.fake_submount(self.export / "headers", 4711)
        self.assert_reads_equal()

    def test_hard_links_are_one_file(self):
        links = self.mounted / "links"
        numbers = {os.stat(links / name).st_ino for name in ("first", "second", "elsewhere/third")}
        self.assertEqual(len(numbers), 1)
        self.assertEqual(os.stat(links / "first").st_nlink, 3)

    def test_the_servers_file_numbers_are_shown(self):
        for name in ("size-1", "headers", "special/fifo"):
            self.assertEqual(os.lstat(self.mounted / name).st_ino, os.lstat(self.export / name).st_ino)

    def test_space_is_the_servers(self):
        ours, theirs = os.statvfs(self.mounted), os.statvfs(self.export)
        self.assertEqual(ours.f_blocks * ours.f_frsize, theirs.f_blocks * theirs.f_frsize)


class Files(MountedCase):

    def fill(self):
        self.content = self.random.randbytes(8 * _MIB + 123)
        (self.export / "file").write_bytes(self.content)

    def test_random_pieces_are_equal(self):
        with open(self.mounted / "file", "rb", buffering=0) as file:
            for _ in range(500):
                offset = self.random.randrange(len(self.content) + 1000)
                size = self.random.choice([1, 100, 4096, 65536, 300_000])
                self.assertEqual(os.pread(file.fileno(), size, offset),
                                 self.content[offset:offset + size], f"{size} bytes at {offset}")

    def test_a_memory_map_is_equal(self):
        with open(self.mounted / "file", "rb") as file, \
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            for offset in self.random.sample(range(len(self.content)), 300):
                self.assertEqual(view[offset], self.content[offset], f"at {offset}")
            self.assertEqual(view[:], self.content)

    def test_programs_run_from_the_mount(self):
        shutil.copy("/bin/echo", self.export / "echo")
        self.write("script", b"#!/bin/sh\nexec \"$(dirname \"$0\")\"/echo \"$1\"\n")
        os.chmod(self.export / "script", 0o755)
        said = subprocess.run([self.mounted / "script", "hello"], check=True, capture_output=True)
        self.assertEqual(said.stdout, b"hello\n")

    def test_a_file_of_more_than_four_gigabytes_has_its_bytes_where_they_belong(self):
        islands = {0: b"start", 2 * _GIB - 2: b"two", 4 * _GIB - 3: b"border", 4 * _GIB + 70_000: b"far",
                   5 * _GIB - 3: b"end"}
        trees.sparse_file(self.export / "huge", 5 * _GIB, islands)
        with open(self.mounted / "huge", "rb", buffering=0) as file:
            self.assertEqual(os.fstat(file.fileno()).st_size, 5 * _GIB)
            for offset, data in islands.items():
                self.assertEqual(os.pread(file.fileno(), len(data), offset), data, f"at {offset}")
            self.assertEqual(os.pread(file.fileno(), 100, 3 * _GIB), bytes(100))
            self.assertEqual(os.pread(file.fileno(), 100, 5 * _GIB), b"")

    def test_a_missing_name_is_asked_for_once(self):
        with self.proxy.counting() as seen:
            for _ in range(100):
                self.assertFalse((self.mounted / "missing").exists())
        self.assertLessEqual(seen["LOOKUP"], 10)  # a few more if somebody drops the kernel's caches

    def test_names_that_were_just_listed_are_not_looked_up(self):
        names = [f"name{number}" for number in range(500)]
        (self.export / "listed").mkdir()
        for name in names:
            self.write(f"listed/{name}", name.encode())
        with self.proxy.counting() as seen:
            found = {entry.name: entry.stat().st_size for entry in os.scandir(self.mounted / "listed")}
        self.assertEqual(found, {name: len(name) for name in names})
        self.assertLessEqual(seen["LOOKUP"], len(names) // 20)
        self.assertLessEqual(seen["GETATTR"], len(names) // 20)

    def test_reading_a_range_twice_fetches_it_once(self):
        self.settle()
        self.read_until_cached("file")
        with self.proxy.counting() as seen:
            for _ in range(3):
                larder.drop_page_cache()
                self.assertEqual(self.read("file"), self.content)
        self.assertEqual(seen["READ"], 0)


class Options(MountedCase):
    """What is given to the command line takes effect."""

    def fill(self):
        self.content = self.random.randbytes(8 * _MIB)
        self.write("file", self.content)

    def setUp(self):
        super().setUp()
        self.settle()

    def read_file(self):
        self.assertTrue(self.read("file") == self.content, "the bytes differ")

    def mount_after_opens(self, options):
        """Its status, after several opens of a file that the cache has all of, and has had before."""
        self.remount(options)
        for _ in range(5):
            self.read_file()
        mount = self.larder.status()["mounts"][0]
        self.assertEqual((mount["opens"], mount["bytes_from_server"]), (5, 0))
        return mount

    def test_without_passthrough_no_file_is_handed_to_the_kernel(self):
        wait_until(self.is_handed_over, 60, "the cache's disk to take the file")  # and its label to say so
        self.assertEqual(self.mount_after_opens("passthrough=no")["opens_passthrough"], 0)
        self.assertGreater(self.mount_after_opens("")["opens_passthrough"], 0)

    def is_handed_over(self):
        if trouble := self.larder.status()["mounts"][0]["passthrough_trouble"]:
            self.skipTest(trouble)
        files.let_pages_go(self.mounted / "file")  # else nobody asks the engine for what it does not have
        self.read_file()
        return self.larder.status()["mounts"][0]["opens_passthrough"] > 0

    def test_no_read_asks_for_more_than_rsize(self):
        self.remount("rsize=65536")
        with self.proxy.counting() as seen:
            self.read_file()
        self.assertEqual(seen.read_bytes, len(self.content))
        self.assertGreaterEqual(seen["READ"], len(self.content) // 65536)
        self.assertLess(seen["READ"], 2 * len(self.content) // 65536)

    def test_nconnect_is_the_number_of_connections(self):
        for count in (1, 4):
            with self.subTest(count):
                self.remount(f"nconnect={count}")
                self.larder.flush(self.mounted / "file")
                self.read_file()
                self.assertEqual(self.proxy.counts()["connections"], count)


class Submounts(MountedCase):
    """A filesystem below another one in one export of the server: both have files of the same numbers."""

    NAMES = ("small", "large")

    def fill(self):
        begin = time.time()
        for name, mountpoint in (("outer", self.export), ("inner", self.export / "below")):
            self.begin(loopfs.LoopFs(self.directory / name, 32 * _MIB, mountpoint=mountpoint))
            (mountpoint / "below").mkdir()
            for file, size in zip(self.NAMES, (10_000, 2 * _MIB)):
                (mountpoint / file).write_bytes(self.random.randbytes(size))
                os.utime(mountpoint / file, (begin, begin))

    @staticmethod
    def pairs(root):
        """(device, number) of each file and of its namesake on the other filesystem."""
        return {name: [(status.st_dev, status.st_ino)
                       for status in (os.stat(root / name), os.stat(root / "below" / name))]
                for name in Submounts.NAMES}

    def test_files_of_the_same_number_are_not_taken_for_each_other(self):
        for (_, outer), (_, inner) in self.pairs(self.export).values():
            self.assertEqual(outer, inner, "the test needs the same numbers")
        shown = [pair for pairs in self.pairs(self.mounted).values() for pair in pairs]
        self.assertEqual(len(set(shown)), len(shown))
        self.assert_same_tree(self.export, self.mounted)
        for name in self.NAMES:
            self.assertFalse(os.path.samefile(self.mounted / name, self.mounted / "below" / name))

    def test_each_filesystem_has_a_volume_of_its_own_that_is_warm_after_a_restart(self):
        self.settle()
        expected = trees.digest(self.export)
        self.assert_same_tree(expected, self.mounted)
        self.read_until_cached()
        volumes = [path for path in (self.larder.cache_directory / "cache").iterdir() if any(path.iterdir())]
        self.assertEqual(len(volumes), 2, volumes)
        self.remount()
        with self.proxy.counting() as seen:
            self.assert_same_tree(expected, self.mounted)
        self.assertEqual((seen["READ"], seen.read_bytes), (0, 0))


class ManyNames(MountedCase):

    COUNT = 100_000

    def fill(self):
        trees.many_names(self.export / "many", self.COUNT)

    def test_a_large_directory_is_listed_completely_each_time(self):
        expected = set(os.listdir(self.export / "many"))
        for _ in range(2):
            names = os.listdir(self.mounted / "many")
            self.assertEqual(len(names), self.COUNT)
            self.assertEqual(set(names), expected)


class ShrinkingDirectory(MountedCase):

    COUNT = 20_000

    def fill(self):
        trees.many_names(self.export / "many", self.COUNT)

    def test_a_directory_that_shrinks_while_it_is_listed_shows_what_stayed_once(self):
        listed = []
        with os.scandir(self.mounted / "many") as entries:
            for number, entry in enumerate(entries):
                listed.append(entry.name)
                if number == 1000:
                    for victim in range(0, self.COUNT, 10):
                        os.unlink(self.export / f"many/name-{victim:07}")
        self.assertEqual(len(listed), len(set(listed)), "a name came twice")
        self.assertLessEqual(set(os.listdir(self.export / "many")), set(listed), "a name is missing")


if __name__ == "__main__":
    main()
