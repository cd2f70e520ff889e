"""Warm: what was read once is not read from the server again, whatever was restarted or killed."""

import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, larder, processes, trees
from harness.case import main
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_MIB = 1 << 20
_PIECE = 64 << 10  # is fetched in one, where nothing is read ahead


class Warm(MountedCase):

    def fill(self):
        trees.small_files(self.export / "small", 200, sizes=(0, 70_000), seed=self.seed, a_directory=50)
        for number in range(4):
            trees.write_file(self.export / f"large{number}", (3 + number) * _MIB + number, self.seed)

    def setUp(self):
        super().setUp()
        self.settle()
        self.expected = trees.digest(self.export)

    def read_everything(self):
        """The tree is right, and the caller learns what it cost."""
        with self.proxy.counting() as seen:
            self.assert_same_tree(self.expected, self.mounted)
        return seen

    def start_fresh(self):
        """As read_everything(), after which nothing of the kernel's memory helps."""
        self.remount()
        return self.read_everything()

    def test_nothing_is_read_twice_across_a_restart(self):
        cold = self.read_everything()
        self.assertGreater(cold["READ"], 0)
        self.read_until_cached()
        warm = self.start_fresh()
        self.assertEqual((warm["READ"], warm.read_bytes), (0, 0))

    def test_nothing_is_read_twice_under_a_running_engine(self):
        self.read_until_cached()
        larder.drop_page_cache()
        self.assertEqual(self.read_everything()["READ"], 0)

    def test_nothing_is_read_twice_after_a_second_restart(self):
        self.read_until_cached()
        self.start_fresh()
        self.assertEqual(self.start_fresh()["READ"], 0)

    def test_only_what_changed_is_read_again(self):
        self.read_until_cached()
        changed = trees.write_file(self.export / "large1", 2 * _MIB, self.seed + 99)
        self.settle()
        self.expected = trees.digest(self.export)
        warm = self.start_fresh()
        self.assertEqual(warm.read_bytes, os.stat(changed).st_size)

    def wait_until_nothing_is_asked(self):
        """What is read ahead of a reader goes on for a moment without him, and so does a look at what is complete."""
        def stands_still():
            before = self.proxy.counts()
            time.sleep(0.5)
            return self.proxy.counts() == before and before["calls"] == before["replies"]
        wait_until(stands_still, 60, "nothing to be asked for any more")

    def test_ranges_that_were_read_stay_and_others_are_fetched(self):
        path, pieces = self.mounted / "large3", (1 * _MIB, 4 * _MIB)  # too far apart to be read ahead of
        expected = (self.export / "large3").read_bytes()
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

            def are_kept():
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                with self.proxy.counting() as seen:
                    for at in pieces:
                        self.assertEqual(os.pread(file.fileno(), _PIECE, at), expected[at:at + _PIECE])
                return seen["READ"] == 0

            wait_until(are_kept, 60, "what was read to be in the cache")
        self.remount()
        with self.proxy.counting() as seen:
            self.assertEqual(path.read_bytes(), expected)
        self.assertGreater(seen.read_bytes, 0)
        self.assertLessEqual(seen.read_bytes, len(expected) - len(pieces) * _PIECE)

    def test_the_tree_is_right_after_a_kill_in_the_middle_of_filling(self):
        self.proxy.rate(200, direction="replies")
        reader = threading.Thread(target=self.read_until_it_breaks, daemon=True)
        reader.start()
        wait_until(lambda: self.proxy.counts()["read_bytes"] > 8 * _MIB, 30, "the filling")
        self.larder.kill_engine()
        self.larder.kill_keeper()
        larder.abort_fuse(self.mounted)
        reader.join(30)
        self.proxy.rate(0)
        self.larder.forget_dead_mounts()
        self.mount()
        again = self.read_everything()
        self.assertLess(again.read_bytes, sum(entry.get("size", 0) for entry in self.expected.values()))
        self.read_until_cached()
        self.assertEqual(self.start_fresh()["READ"], 0)

    def read_until_it_breaks(self):
        try:
            trees.digest(self.mounted)
        except OSError:
            pass  # the engine was killed under it

    def test_flushed_files_are_read_again(self):
        self.read_everything()
        self.larder.flush(self.mounted / "large0")
        with self.proxy.counting() as seen:
            larder.drop_page_cache()
            self.assertEqual(self.read("large0"), (self.export / "large0").read_bytes())
        self.assertEqual(seen.read_bytes, os.stat(self.export / "large0").st_size)

    def test_many_readers_fetch_a_range_once(self):
        contents = []
        before = self.larder.status()["mounts"][0]["cache_write_drops"]
        with self.proxy.counting() as seen:
            readers = [threading.Thread(target=lambda: contents.append(self.read("large2")))
                       for _ in range(16)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
        expected = (self.export / "large2").read_bytes()
        self.assertTrue(all(content == expected for content in contents) and len(contents) == 16)
        # What a busy disk did not keep may be fetched again, a MiB at most for each time.
        dropped = self.larder.status()["mounts"][0]["cache_write_drops"] - before
        self.assertGreaterEqual(seen.read_bytes, len(expected))
        self.assertLessEqual(seen.read_bytes, len(expected) + dropped * _MIB)

    def opens_in_passthrough(self):
        mount = self.larder.status()["mounts"][0]
        if mount["passthrough_trouble"]:
            self.skipTest(mount["passthrough_trouble"])
        return mount["opens_passthrough"]

    def read_until_handed_over(self, name):
        def is_so():
            files.let_pages_go(self.mounted / name)  # else nobody asks the engine for what it does not have
            before = self.opens_in_passthrough()
            self.read(name)
            return self.opens_in_passthrough() > before
        wait_until(is_so, 60, f"{name} to be opened in passthrough")

    def test_a_complete_file_is_read_without_the_engine(self):
        path = self.mounted / "large3"
        self.read_until_handed_over("large3")
        engine = self.larder.engine_pid()
        larder.drop_page_cache()
        with open(path, "rb", buffering=0) as file:
            before = processes.cpu_seconds(engine)
            for _ in range(200):
                os.pread(file.fileno(), 7 * _MIB, 0)
            self.assertLessEqual(processes.cpu_seconds(engine) - before, 0.05)

    def test_files_that_the_kernel_forgets_are_let_go(self):
        self.read_until_cached()
        self.read_until_handed_over("large0")  # complete files are registered with the kernel, for a while
        self.assertGreater(self.larder.status()["mounts"][0]["backing_ids"], 0, "there was nothing to be let go")
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("2\n")
        wait_until(lambda: self.larder.status()["mounts"][0]["backing_ids"] == 0, 20,
                   "all backing files to be let go")

    def test_opening_a_warm_file_costs_one_call(self):
        self.read_until_cached()
        with files.remembered(self.mounted / "large0"):
            self.wait_until_nothing_is_asked()
            os.stat(self.mounted / "large0")
            with self.proxy.counting() as seen:
                with open(self.mounted / "large0", "rb"):
                    pass
            self.assertLessEqual(seen.total(), 1)

    def test_another_option_does_not_make_the_cache_cold(self):
        self.read_until_cached()
        self.remount("actimeo=10,rsize=65536,nconnect=3")
        self.assertEqual(self.read_everything()["READ"], 0)

    def test_the_status_tells_hits_and_bytes(self):
        self.read_until_cached()
        self.start_fresh()
        status = self.larder.status()
        mount = status["mounts"][0]
        self.assertEqual(mount["bytes_from_server"], 0)
        self.assertGreater(mount["bytes_from_cache"], 0)


if __name__ == "__main__":
    main()
