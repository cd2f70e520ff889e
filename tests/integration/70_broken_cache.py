"""A broken cache: whatever happens to its directory, the mount shows the server's bytes."""

import contextlib
import errno
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, loopfs, trees
from harness.case import main
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_MIB = 1 << 20
_LABEL = "user.CacheFiles.cache"


class OwnDisk(MountedCase):
    """The cache has a small filesystem of its own."""

    DISK_BYTES = 96 * _MIB

    def fill(self):
        trees.small_files(self.export / "small", 100, sizes=(0, 60_000), seed=self.seed)
        for number in range(6):
            trees.write_file(self.export / f"large{number}", 4 * _MIB + number, self.seed + number)

    def cache_directory(self):
        self.disk = self.begin(loopfs.LoopFs(self.directory / "disk", self.DISK_BYTES))
        return self.disk.mountpoint / "cache"

    def assert_reads_equal(self):
        self.assert_same_tree(self.export, self.mounted)

    def trouble(self):
        return self.larder.status()["caches"][0]["trouble"]

    def assert_trouble_is_told(self):
        """In a sentence of `larder status`, for each cache that does not work."""
        self.assertRegex(self.trouble(), r"\w+ \w+ \w+", "no sentence")


class OwnSize(OwnDisk):
    """The user says how much of the disk the cache may take."""

    LIMIT = 12 * _MIB  # half of what the export holds
    options = "cachesize=12M"

    def cache_status(self):
        """Nothing yet, a moment after the start."""
        return next(iter(self.larder.status()["caches"]), {})

    def read_all_within_the_limit(self):
        def limit_is_tried():
            larder.drop_page_cache()
            self.read_once_within_the_limit()
            cache = self.cache_status()
            return cache["culling"] or cache["culled_objects"] > 0

        # Of one reading a slow disk does not keep all.
        wait_until(limit_is_tried, 60, "the limit to be tried")

    def read_once_within_the_limit(self):
        most, most_used = 0, 0
        for path in self.export.rglob("*"):
            if path.is_file():
                self.read(path.relative_to(self.export))
            before = self.cache_status()
            on_disk = trees.bytes_on_disk(self.disk.mountpoint)
            after = self.cache_status()
            if before["culled_objects"] == after["culled_objects"]:  # else a walk counts what is gone when others come
                most = max(most, on_disk)
            # Also what has no name on the disk yet, which comes some seconds after the last close.
            most_used = max(most_used, after["used_bytes"])
        self.assertLessEqual(most, self.LIMIT)
        self.assertLessEqual(most_used, self.LIMIT)

    def test_the_size_that_a_mount_names_holds(self):
        self.assertEqual(self.larder.status()["caches"][0]["limit_bytes"], self.LIMIT)
        self.read_all_within_the_limit()
        one = next(path for path in (self.export / "small").rglob("*") if path.is_file())

        def room_is_made():
            larder.drop_page_cache()  # whose files count as in use
            self.read(one.relative_to(self.export))
            return self.larder.status()["caches"][0]["culled_objects"] > 0

        wait_until(room_is_made, 60, "room to be made")
        self.read_all_within_the_limit()

    def test_the_size_that_serve_names_holds(self):
        self.larder.restart()
        self.larder.run("serve", "--cache", self.larder.cache_directory, "--cache-size", "12M")
        wait_until(lambda: self.cache_status().get("limit_bytes"), 20, "the cache")
        self.mount("")
        self.assertEqual(self.larder.status()["caches"][0]["limit_bytes"], self.LIMIT)
        self.read_all_within_the_limit()

    def test_serve_tells_what_is_wrong_with_the_size(self):
        self.larder.restart()
        self.larder.run("serve", "--cache", self.larder.cache_directory, "--cache-size", "97M")
        wait_until(lambda: "97M" in self.cache_status().get("trouble", ""), 20, "the sentence")
        self.assertNotIn("limit_bytes", self.larder.status()["caches"][0])


class BrokenDisk(OwnDisk):
    """It can be full, cut short or read-only."""

    def test_a_disk_that_is_full_from_the_start(self):
        self.disk.fill()
        self.assert_reads_equal()
        self.assertIn("too full", self.trouble())
        larder.drop_page_cache()
        self.assert_reads_equal()

    def test_a_disk_that_becomes_full(self):
        self.disk.fill(leave_bytes=10 * _MIB)
        self.assert_reads_equal()
        self.disk.fill()
        larder.drop_page_cache()
        self.assert_reads_equal()

    def test_room_that_comes_back_is_used_again(self):
        filler = self.disk.fill()
        self.assert_reads_equal()
        filler.unlink()
        self.settle()

        def second_read_is_free():
            self.read("large0")
            larder.drop_page_cache()
            with self.proxy.counting() as seen:
                self.read("large0")
            return seen["READ"] == 0

        wait_until(second_read_is_free, 30, "the cache to be used again")

    def test_a_disk_cut_short_without_passthrough(self):
        self.remount("passthrough=no")
        self.assert_reads_equal()
        self.disk.cut_short(6 * _MIB)
        larder.drop_page_cache()
        self.assert_reads_equal()
        self.assert_trouble_is_told()
        self.disk.make_whole()

    def test_a_disk_that_is_read_only_from_the_start(self):
        self.larder.restart()
        self.disk.remount("ro")
        self.mount()
        self.assert_reads_equal()
        self.assert_trouble_is_told()


    def test_a_disk_that_becomes_read_only(self):
        """As after an error that its filesystem met."""
        self.read("large0")
        self.settle()
        self.disk.remount("abort")
        larder.drop_page_cache()
        self.assert_reads_equal()
        wait_until(lambda: self.trouble() != "", 40, "the sentence")
        self.assert_trouble_is_told()


class DiskUnderPassthrough(OwnDisk):
    """The disk goes away under files that the kernel reads by itself."""

    DISK_BYTES = 400 * _MIB  # room for every file: only complete ones are handed to the kernel

    def setUp(self):
        super().setUp()
        self.settle()
        self.expected = (self.export / "large0").read_bytes()
        wait_until(self.opens_in_passthrough, 20, "the file to be complete")
        self.remount()  # and all of it on the disk
        self.assertTrue(self.opens_in_passthrough())

    def opens_in_passthrough(self):
        before = self.larder.status()["mounts"][0]["opens_passthrough"]
        self.read("large0")
        return self.larder.status()["mounts"][0]["opens_passthrough"] > before

    def cut(self):
        self.disk.cut_short(2 * _MIB)
        larder.drop_page_cache()

    def assert_right_or_eio(self, file):
        """Those who hold the file share the fate of the disk; wrong bytes they never get."""
        try:
            content = os.pread(file.fileno(), len(self.expected), 0)
            self.assertTrue(content == self.expected[:len(content)], "wrong bytes")
        except OSError as error:
            self.assertEqual(error.errno, errno.EIO)

    def assert_the_next_open_is_right(self, at):
        """After a holder met the error at this place."""
        with open(self.mounted / "large0", "rb", buffering=0) as held:
            self.cut()
            wait_until(lambda: self.meets_error(held, at), 10, "the holder to meet the error")
            self.assertTrue(self.read("large0") == self.expected, "the next open takes the server")
            self.assert_right_or_eio(held)
        self.assert_trouble_is_told()
        self.assert_reads_equal()
        self.put_in_another_disk()

    def meets_error(self, file, at):
        larder.drop_page_cache()  # not of what is being read just then
        try:
            self.assertEqual(os.pread(file.fileno(), 1, at), self.expected[at:at + 1])
        except OSError as error:
            self.assertEqual(error.errno, errno.EIO)
            return True
        return False

    def put_in_another_disk(self):
        """As the sentence says; the mount goes on."""
        cache = str(self.larder.cache_directory)
        self.assertIn(f"larder cache attach {cache}", self.trouble())
        wait_until(lambda: "disk is free" in self.larder.run("cache", "detach", cache), 20, "the disk")
        self.disk.unmount()
        self.disk.make_anew()
        self.larder.run("cache", "attach", cache)

        def is_cached_again():
            if "tries again" in self.trouble():  # just after a mount ext4 may say ENOMEM
                self.larder.run("cache", "attach", cache)
            larder.drop_page_cache()
            return self.opens_in_passthrough()

        wait_until(is_cached_again, 30, "the file to be in the cache again")
        self.assertEqual(self.trouble(), "")

    def test_the_next_open_is_right_after_an_error_at_the_begin(self):
        self.assert_the_next_open_is_right(0)

    def test_the_next_open_is_right_after_an_error_in_the_middle(self):
        self.assert_the_next_open_is_right(len(self.expected) // 2)

    def test_the_next_open_is_right_after_an_error_at_the_end(self):
        self.assert_the_next_open_is_right(len(self.expected) - 1)

    def test_the_first_open_of_a_file_takes_the_server(self):
        self.remount()
        self.cut()
        self.assertTrue(self.read("large0") == self.expected)
        self.assert_reads_equal()
        self.assert_trouble_is_told()


class Vandalism(MountedCase):
    """Somebody works in the cache directory."""

    def fill(self):
        trees.small_files(self.export / "small", 150, sizes=(0, 60_000), seed=self.seed)
        for number in range(8):
            trees.write_file(self.export / f"large{number}", _MIB + 100_000 * number, self.seed + number)

    def setUp(self):
        super().setUp()
        self.settle()
        self.damage = ""
        self.expected = trees.digest(self.export)
        self.assert_same_tree(self.expected, self.mounted)

    def files_in_cache(self, *below):
        directory = self.larder.cache_directory.joinpath(*below)
        return sorted(path for path in trees.paths_below(directory) if path.is_file() and not path.is_symlink())

    def assert_right_now_and_after_a_restart(self):
        for _ in range(2):
            larder.drop_page_cache()
            self.assert_same_tree(self.expected, self.mounted)
        self.damage = self.cache_status()["damage"]  # the next engine counts anew
        self.remount()
        self.assert_same_tree(self.expected, self.mounted)

    def cache_status(self):
        return self.larder.status()["caches"][0]

    def assert_damage_is_told(self):
        now = self.cache_status()["damage"]
        self.assertRegex(self.damage or now, r"[1-9].* were not as they were written")
        self.assertIn(now, self.larder.run("status"))

    def test_the_cache_is_removed_while_in_use(self):
        larder.remove_cache(self.larder.cache_directory)
        (self.mounted / "new file").write_bytes(b"new")
        self.settle()
        self.expected = trees.digest(self.export)
        for _ in range(2):
            larder.drop_page_cache()
            self.assert_same_tree(self.expected, self.mounted)
        wait_until(lambda: "was removed" in self.cache_status()["trouble"], 45, "the sentence")
        self.assertIn("larder cache detach", self.cache_status()["trouble"])
        for verb in ("detach", "attach"):
            self.larder.run("cache", verb, self.larder.cache_directory)
        wait_until(lambda: self.cache_status()["state"] == "active", 20, "the cache, made anew")
        self.assert_right_now_and_after_a_restart()
        self.assertEqual(self.cache_status()["trouble"], "")

    def test_the_cache_is_moved_away_while_in_use(self):
        os.rename(self.larder.cache_directory, self.directory / "away")
        self.assert_right_now_and_after_a_restart()

    def test_names_are_exchanged(self):
        files = self.files_in_cache("cache")
        self.random.shuffle(files)
        for one, other in zip(files[::2], files[1::2]):
            spare = one.with_name("spare")
            os.rename(one, spare)
            os.rename(other, one)
            os.rename(spare, other)
        self.assert_right_now_and_after_a_restart()

    def test_labels_are_damaged_removed_or_exchanged(self):
        files = self.files_in_cache("cache")
        labels = {path: os.getxattr(path, _LABEL) for path in files}
        for path in files:
            choice = self.random.randrange(4)
            label = bytearray(labels[path])
            if choice == 0:
                os.removexattr(path, _LABEL)
                continue
            if choice == 1:
                label = labels[self.random.choice(files)]
            elif choice == 2:
                label[self.random.randrange(len(label))] ^= 1 << self.random.randrange(8)
            else:
                label = self.random.randbytes(self.random.randrange(1, 80))
            os.setxattr(path, _LABEL, bytes(label))
        self.assert_right_now_and_after_a_restart()
        self.assert_damage_is_told()

    def test_map_logs_are_damaged_cut_or_exchanged(self):
        files = self.files_in_cache("maps")
        self.assertTrue(files, "large files have map logs")
        contents = [path.read_bytes() for path in files]
        for path in files:
            content = bytearray(self.random.choice(contents))
            if self.random.random() < 0.5:
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            path.write_bytes(content[:self.random.randrange(len(content) + 1)])
        self.assert_right_now_and_after_a_restart()
        self.assert_damage_is_told()

    def change_a_byte_of_each_file(self):
        for path in self.files_in_cache("cache"):
            if size := path.stat().st_size:
                with open(path, "r+b") as file:
                    offset = self.random.randrange(size)
                    byte = os.pread(file.fileno(), 1, offset)
                    os.pwrite(file.fileno(), bytes([byte[0] ^ 0xff]), offset)

    def test_bytes_are_changed_while_nobody_looks(self):
        self.larder.restart()
        self.change_a_byte_of_each_file()
        self.mount()
        self.assert_same_tree(self.expected, self.mounted)
        self.assert_damage_is_told()

    def test_bytes_are_changed_while_the_cache_is_in_use(self):
        """Whose checksums were looked at before, through the engine and in passthrough."""
        for options in ("passthrough=no", ""):
            with self.subTest(options):
                self.remount(options)
                self.assert_same_tree(self.expected, self.mounted)
                self.settle()
                self.change_a_byte_of_each_file()
                larder.drop_page_cache()
                self.assert_same_tree(self.expected, self.mounted)
                self.assert_damage_is_told()
                self.settle()

    def change_lengths(self):
        for path in self.files_in_cache("cache"):
            os.truncate(path, self.random.choice([0, path.stat().st_size // 2, path.stat().st_size + 5000]))

    def test_lengths_are_changed_while_nobody_looks(self):
        self.larder.restart()
        self.change_lengths()
        self.mount()
        self.assert_same_tree(self.expected, self.mounted)
        self.assert_damage_is_told()

    def test_lengths_are_changed_while_the_cache_is_in_use(self):
        for options in ("passthrough=no", ""):
            with self.subTest(options):
                self.remount(options)
                self.assert_same_tree(self.expected, self.mounted)
                self.settle()
                self.change_lengths()
                larder.drop_page_cache()
                self.assert_same_tree(self.expected, self.mounted)
                self.settle()

    def test_files_are_replaced_by_directories_and_special_files(self):
        for path in self.files_in_cache("cache") + self.files_in_cache("maps"):
            path.unlink()
            choice = self.random.randrange(4)
            if choice == 0:
                path.mkdir()
                (path / "in it").write_text("x")
            elif choice == 1:
                os.mkfifo(path)
            elif choice == 2:
                os.symlink("/etc/passwd", path)
            else:
                path.write_bytes(b"")
        self.assert_right_now_and_after_a_restart()

    def test_the_state_file_is_torn_empty_or_old(self):
        state = self.larder.cache_directory / "state"
        self.larder.restart()
        content = state.read_bytes()
        for damaged in (b"", content[:len(content) // 2], self.random.randbytes(len(content)),
                        bytes(len(content))):
            state.write_bytes(damaged)
            self.mount()
            self.assert_same_tree(self.expected, self.mounted)
            self.larder.restart()
        state.write_bytes(content)
        self.mount()
        self.assert_same_tree(self.expected, self.mounted)

    def test_files_changed_on_the_server_meanwhile_win_over_an_old_cache(self):
        self.larder.restart()
        saved = self.directory / "saved"
        trees.copy_of(self.larder.cache_directory, saved)
        self.mount()
        for number in range(8):
            trees.write_file(self.export / f"large{number}", _MIB + 100_000 * number, self.seed + 50)
        time.sleep(0.01)
        self.expected = trees.digest(self.export)
        self.assert_same_tree(self.expected, self.mounted)
        self.larder.restart()
        larder.remove_cache(self.larder.cache_directory)
        os.rename(saved, self.larder.cache_directory)
        self.mount()
        self.assert_same_tree(self.expected, self.mounted)


if __name__ == "__main__":
    main()
