"""Commands: what stop, umount, status, flush and log do to a mount that is there."""

import contextlib
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import larder, paths, processes, trees
from harness.case import main
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_MIB = 1 << 20


class CommandCase(MountedCase):

    def fill(self):
        for name, count in (("one", 30), ("other", 10)):
            trees.small_files(self.export / name, count, sizes=(1, 60_000), seed=self.seed)
        trees.write_file(self.export / "large", 3 * _MIB, self.seed)

    def setUp(self):
        super().setUp()
        self.settle()
        self.expected = trees.digest(self.export)

    def files(self, *below):
        return [path for path in (self.export.joinpath(*below)).rglob("*") if path.is_file()]

    def bytes_of(self, *below):
        return sum(path.stat().st_size for path in self.files(*below))

    def read_everything(self):
        larder.drop_page_cache()
        self.assert_same_tree(self.expected, self.mounted)

    def mount_status(self):
        return self.larder.status()["mounts"][0]


class Busy(CommandCase):
    """Somebody holds a file of the mount open."""

    def setUp(self):
        super().setUp()
        self.content = (self.export / "large").read_bytes()
        self.held = open(self.mounted / "large", "rb", buffering=0)  # pylint: disable=consider-using-with
        self.addCleanup(self.close)
        self.assertEqual(os.pread(self.held.fileno(), 1000, 0), self.content[:1000])

    def close(self):
        with contextlib.suppress(OSError):  # what was ended by force
            self.held.close()

    def assert_refused(self, *words):
        self.assertIn(str(self.mounted), self.larder.refusal(*words))
        self.assertTrue(larder.is_mounted(self.mounted))
        self.assertTrue(self.read("large") == self.content)

    def test_stop_refuses(self):
        self.assert_refused("stop")
        self.assertEqual(self.mount_status()["mountpoint"], str(self.mounted))

    def test_stop_by_force_does_it(self):
        self.larder.run("stop", "--force")
        self.assertFalse(larder.is_mounted(self.mounted))
        self.assertIn("no keeper", self.larder.refusal("status"))
        self.mount()
        self.assertTrue(self.read("large") == self.content)

    def test_a_second_serve_has_a_status_of_its_own(self):
        """By which a service manager knows that to start it again is no use."""
        with self.assertRaises(larder.Refused) as raised:
            self.larder.run("serve", "--foreground")
        self.assertIn("already runs", raised.exception.sentence)
        self.assertEqual(raised.exception.status, 3)

    def test_umount_refuses(self):
        self.assert_refused("umount", self.mounted)

    def test_umount_lazily_leaves_it_to_who_holds_it(self):
        self.larder.run("umount", "-l", self.mounted)
        self.assertFalse(larder.is_mounted(self.mounted))
        self.assertEqual(os.listdir(self.mounted), [])
        self.assertTrue(os.pread(self.held.fileno(), len(self.content), 0) == self.content)


class Status(CommandCase):

    options = "passthrough=no"  # else the kernel reads by itself, and nobody counts

    def news(self, action):
        """What has been added to the numbers of the mount meanwhile."""
        before = self.mount_status()
        action()
        after = self.mount_status()
        return {name: value - before[name] for name, value in after.items()
                if isinstance(value, int) and not isinstance(value, bool)}

    def test_hits_and_misses(self):
        cold = self.news(self.read_everything)
        self.assertGreaterEqual(cold["misses"], len(self.files()))
        self.assertEqual(cold["bytes_from_server"], self.bytes_of())
        self.read_until_cached()
        warm = self.news(self.read_everything)
        self.assertEqual(warm["misses"], 0)
        self.assertGreaterEqual(warm["hits"], len(self.files()))
        self.assertEqual(warm["bytes_from_server"], 0)
        self.assertGreaterEqual(warm["bytes_from_cache"], self.bytes_of())  # more if somebody drops pages
        total = self.mount_status()
        self.assertAlmostEqual(total["hit_ratio"], total["hits"] / (total["hits"] + total["misses"]))
        table = self.larder.run("status")
        self.assertRegex(table, rf"{self.mounted} .* {total['hits']} .* {total['hit_ratio'] * 100:.1f} %")

    def test_what_the_cache_holds(self):
        def cache():
            return self.larder.status()["caches"][0]

        def have_names():
            """A small file gets its name 10 s after it was closed; one that the disk did not keep, never."""
            self.read_everything()
            with contextlib.suppress(processes.TookTooLong):
                wait_until(lambda: cache()["objects"] == len(self.files()), 15, "names")
                return True
            return False

        wait_until(have_names, 60, "all files to have a name")
        self.assertGreaterEqual(cache()["used_bytes"], self.bytes_of())
        self.assertGreater(cache()["limit_bytes"], cache()["used_bytes"])
        self.assertEqual((cache()["state"], cache()["trouble"], cache()["damage"]), ("active", "", ""))


class Flush(CommandCase):

    def read_again(self):
        with self.proxy.counting() as seen:
            self.read_everything()
        return seen.read_bytes

    def test_a_directory_and_nothing_beside_it(self):
        self.read_until_cached()
        self.assertEqual(self.read_again(), 0)
        self.larder.flush(self.mounted / "one")
        self.assertEqual(self.read_again(), self.bytes_of("one"))
        self.read_until_cached()
        self.assertEqual(self.read_again(), 0)

    def test_a_whole_mount(self):
        self.read_everything()
        self.larder.flush(self.mounted)
        self.assertEqual(self.read_again(), self.bytes_of())

    def test_pages_of_the_kernel_too(self):
        self.remount("actimeo=600,nocto")
        for name in self.files("one"):
            content, mounted = name.read_bytes(), self.mounted / name.relative_to(self.export)
            self.assertEqual(mounted.read_bytes(), content)
            self.larder.flush(mounted)
            with self.proxy.counting() as seen:
                self.assertEqual(mounted.read_bytes(), content)
            self.assertEqual(seen.read_bytes, len(content))

    def test_what_is_not_there(self):
        self.assertIn("missing", self.larder.refusal("flush", self.mounted / "missing"))


class Log(CommandCase):

    def test_the_last_lines(self):
        self.assertRegex(self.larder.log(), r"info: cache .*: online\n.*info: mount 1: nfs://")

    def start(self, *words):
        self.larder.restart()
        self.larder.run(*words, "serve")
        self.mount()

    def test_levels(self):
        self.start("--log-level", "error")
        self.assertEqual(self.larder.log().strip(), "")
        self.start("--log-level", "debug")
        self.read_everything()
        self.assertIn(" debug: ", self.larder.log())
        self.assertIn("loud", self.larder.refusal("--log-level", "loud", "serve"))

    def test_the_journal_gets_priorities(self):
        self.larder.restart()
        command = [paths.LARDER, "--runtime-dir", self.larder.runtime_directory, "serve", "--foreground"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"JOURNAL_STREAM": "8:1"}) as keeper:
            self.assertRegex(keeper.stderr.readline(), r"^<6>\w+: ")
            self.mount()
            self.larder.restart()
            lines = keeper.stderr.read().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertRegex(line, r"^<[3467]>(keeper|engine): ")


del CommandCase, MountedCase  # not to be run themselves


if __name__ == "__main__":
    main()
