"""Our NFS client changes a share without a mount: each change is done once, whatever the link does."""

import os
import pathlib
import stat
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import paths, rpc_proxy, trees
from harness.case import Case, main
from harness.processes import Process, wait_until

_PROBE = paths.BUILD / "tests/tools/nfs_probe"
_MIB = 1 << 20


class Changes(Case):

    def setUp(self):
        super().setUp()
        self.export = self.directory / "export"
        self.export.mkdir()
        self.server = self.serve()
        self.proxy = self.proxy_to(self.server)

    def change(self, *words, **options):
        url = self.proxy.url(**{"timeo": 10, **options})
        done = subprocess.run([_PROBE, "change", url, *words], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode().split()[-1]

    def test_each_change_does_what_it_says(self):
        self.assertEqual(self.change("mkdir", "d"), "done")
        self.assertEqual(stat.S_IMODE((self.export / "d").stat().st_mode), 0o750)
        self.assertEqual(self.change("mkdir", "d"), "EEXIST")
        self.assertEqual(self.change("fifo", "p"), "done")
        self.assertTrue((self.export / "p").is_fifo())
        for mode in ("unchecked", "guarded", "exclusive"):
            self.assertEqual(self.change(mode, mode), "done")
            self.assertTrue((self.export / mode).is_file())
        self.assertEqual(self.change("unchecked", "guarded"), "done")
        self.assertEqual(self.change("guarded", "guarded"), "EEXIST")
        self.assertEqual(self.change("symlink", "s", "../away"), "done")
        self.assertEqual(os.readlink(self.export / "s"), "../away")
        self.assertEqual(self.change("link", "guarded", "second"), "done")
        self.assertEqual((self.export / "second").stat().st_nlink, 2)
        self.assertEqual(self.change("truncate", "guarded", "12345"), "done")
        self.assertEqual((self.export / "second").stat().st_size, 12345)
        self.assertEqual(self.change("chmod", "guarded", "0601"), "done")
        self.assertEqual(stat.S_IMODE((self.export / "second").stat().st_mode), 0o601)
        self.assertEqual(self.change("rename", "second", "third"), "done")
        self.assertFalse((self.export / "second").exists())
        self.assertEqual(self.change("rename", "second", "third"), "ENOENT")
        self.assertEqual(self.change("remove", "third"), "done")
        self.assertEqual(self.change("remove", "third"), "ENOENT")
        (self.export / "d/inside").touch()
        self.assertEqual(self.change("rmdir", "d"), "ENOTEMPTY")
        (self.export / "d/inside").unlink()
        self.assertEqual(self.change("rmdir", "d"), "done")

    def prepare(self):
        """What the changes of `_ONCE` need."""
        (self.export / "old").write_text("old")
        (self.export / "empty").mkdir(exist_ok=True)

    _ONCE = (("MKDIR", "mkdir", "new"), ("MKNOD", "fifo", "new"), ("SYMLINK", "symlink", "new", "to"),
             ("CREATE", "guarded", "new"), ("CREATE", "exclusive", "new"), ("LINK", "link", "old", "new"),
             ("RENAME", "rename", "old", "new"), ("REMOVE", "remove", "old"), ("RMDIR", "rmdir", "empty"),
             ("CREATE", "unchecked", "new"), ("SETATTR", "truncate", "old", "1"))

    def each_once(self, in_the_middle):
        """The answer to each change is lost; with or without a server that remembers, it is done."""
        for procedure, *words in self._ONCE:
            with self.subTest(" ".join(words)):
                self.prepare()
                self.proxy.drop_replies(procedure, count=1)
                url = self.proxy.url(timeo=10)
                before = self.proxy.counts()["calls"].get(procedure, 0)
                with self.proxy.counting() as seen:
                    probe = self.begin(Process([_PROBE, "change", url, *words],
                                               self.directory / f"probe{len(self._logs)}"))
                    in_the_middle(procedure, before)
                    self.assertEqual(probe.wait(60), 0)
                self.assertEqual(probe.log_text().split()[-1], "done")
                self.assertGreaterEqual(seen[procedure], 2)
                self.assertEqual((self.export / "new").is_symlink() or (self.export / "new").exists(),
                                 "new" in words)
                for entry in self.export.iterdir():
                    entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def test_lost_answers(self):
        self.each_once(lambda procedure, before: None)

    def test_lost_answers_of_a_server_that_forgets_them(self):
        def restart(procedure, before):
            wait_until(lambda: self.proxy.counts()["calls"].get(procedure, 0) > before, 20, "the first transmission")
            self.server.restart()

        self.each_once(restart)

    def test_a_server_that_asks_to_come_again_later(self):
        self.proxy.answer_with_error("MKDIR", rpc_proxy.NFS3ERR_JUKEBOX, count=2)
        self.assertEqual(self.change("mkdir", "d"), "done")


class Writes(Case):

    def setUp(self):
        super().setUp()
        self.export = self.directory / "export"
        self.export.mkdir()
        self.source = self.directory / "source"
        trees.write_file(self.source, 24 * _MIB + 5, self.seed)
        self.server = self.serve()
        self.proxy = self.proxy_to(self.server)

    def start_put(self, *sizes, **options):
        url = self.proxy.url(**{"timeo": 10, **options})
        return self.begin(Process([_PROBE, "put", url, "file", self.source, *map(str, sizes)],
                                  self.directory / f"put{len(self._logs)}"))

    def assert_put(self, probe):
        self.assertEqual(probe.wait(120), 0, probe.log_text())
        self.assertEqual((self.export / "file").read_bytes(), self.source.read_bytes())

    def test_a_sound_link(self):
        with self.proxy.counting() as seen:
            self.assert_put(self.start_put())
        self.assertGreaterEqual(seen["COMMIT"], 1)

    def test_odd_pieces_and_one_connection(self):
        self.assert_put(self.start_put(7, 100_003, nconnect=1))
        self.assert_put(self.start_put(7, 100_003, nconnect=4, wsize=8192))

    def test_lost_calls_and_replies(self):
        self.proxy.drop_calls("WRITE", count=1)
        self.proxy.drop_replies("WRITE", count=1)
        self.proxy.drop_replies("COMMIT", count=1)
        self.assert_put(self.start_put())

    def test_cuts_and_a_restart_in_mid_write(self):
        self.proxy.rate(200, direction="calls")
        probe = self.start_put()
        wait_until(lambda: self.proxy.counts()["calls"].get("WRITE", 0) > 3, 20, "some writes")
        for _ in range(3):
            self.proxy.cut_all()
            time.sleep(0.1)
        self.server.kill9()
        self.server.start()
        self.proxy.rate(0)
        self.assert_put(probe)

    def test_a_link_that_stands_still_for_seconds(self):
        self.proxy.rate(200, direction="calls")
        probe = self.start_put()
        wait_until(lambda: self.proxy.counts()["calls"].get("WRITE", 0) > 3, 20, "some writes")
        self.proxy.freeze()
        time.sleep(3)
        self.proxy.thaw()
        self.proxy.rate(0)
        self.assert_put(probe)


if __name__ == "__main__":
    main()
