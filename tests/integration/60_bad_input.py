"""Bad input: one sentence that says what, where and what to do; nothing half-mounted is left."""

import os
import pathlib
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import cleanup, larder, trees
from harness.case import Case, main
from harness.larder import Larder

_LONGEST_SENTENCE = 300


class Refusals(Case):

    def setUp(self):
        super().setUp()
        self.server = self.serve()
        (self.directory / "export/file").write_bytes(b"content")
        self.larder = self.begin(Larder(self.directory / "larder"))
        self.mountpoint = self.directory / "mnt"
        self.mountpoint.mkdir()

    def assert_refused(self, words, told, prefix=()):
        """`told` are words of the user's that the sentence must name."""
        sentence = self.larder.refusal(*words, prefix=prefix)
        self.assertNotIn("\n", sentence, "more than one line")
        self.assertLess(len(sentence), _LONGEST_SENTENCE)
        for word in told:
            self.assertIn(str(word), sentence)
        self.assertEqual(cleanup.mounts_under(self.directory), [])

    def assert_mount_refused(self, source, told, mountpoint=None, options="", prefix=(), with_cache=True):
        words = self.larder.mount_words(source, mountpoint or self.mountpoint, options)
        if not with_cache:
            words = [word for word in words if word not in ("--cache", self.larder.cache_directory)]
        self.assert_refused(words, told, prefix)

    def test_sources_that_are_none(self):
        for source, told in (("nonsense", "nonsense"), ("gopher://host/export", "gopher"),
                             ("nfs://", "nfs://"), ("nfs:///export", "nfs:///export"),
                             (f"nfs://{self.server.address}", "export"),
                             (self.server.url(nfsport="soon"), "soon"),
                             (self.server.url(nfsport=70000), "70000"),
                             (self.server.url(colour="red"), "colour")):
            with self.subTest(source):
                self.assert_mount_refused(source, [told])

    def test_an_unknown_host(self):
        self.assert_mount_refused("nfs://no-such-host.invalid/export?nfsport=1&mountport=2",
                                  ["no-such-host.invalid"])

    def test_a_server_that_is_not_there(self):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        self.assert_mount_refused(f"nfs://127.0.0.1/export?nfsport={port}&mountport={port}",
                                  ["127.0.0.1"])

    def test_a_server_that_does_not_answer(self):
        """Nor does a hard mount wait for it: hard is for mounts that there are."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            begin = time.monotonic()
            self.assert_mount_refused(f"nfs://127.0.0.1/export?nfsport={port}&mountport={port}",
                                      ["127.0.0.1", "does not answer"], options="hard")
            self.assertLess(time.monotonic() - begin, 30)

    def test_an_export_that_the_server_does_not_have(self):
        self.assert_mount_refused(self.server.url("/elsewhere"), ["/elsewhere"])

    def test_mount_points_that_are_none(self):
        (self.directory / "file").write_text("a file")
        for name in ("missing", "file"):
            with self.subTest(name):
                self.assert_mount_refused(self.server.url(), [self.directory / name],
                                          self.directory / name)

    def test_a_mount_point_above_the_cache_or_its_own_runtime_directory(self):
        self.larder.cache_directory.mkdir()
        for mountpoint in (self.larder.directory, self.larder.cache_directory,
                           self.larder.runtime_directory):
            with self.subTest(mountpoint):
                self.assert_mount_refused(self.server.url(), [mountpoint], mountpoint)

    def test_options_that_are_none(self):
        for option in ("colour", "rsize=large", "actimeo=-1", "nconnect=0", "profile=tools", "retrans=0"):
            with self.subTest(option):
                self.assert_mount_refused(self.server.url(), [option.split("=")[0]], options=option)

    def test_a_cache_directory_with_somebody_elses_files(self):
        self.assert_cache_refused_and_untouched({"thesis.txt": "years of work"}, "other files")

    def test_a_cache_directory_with_somebodys_file_that_is_named_as_one_of_ours(self):
        self.assert_cache_refused_and_untouched({"format": "years of work"}, "belongs to uid 0")
        os.chown(self.larder.cache_directory, 64_321, 64_321)
        self.assert_cache_refused_and_untouched({"format": "years of work"}, "belongs to uid 64321")

    def test_a_cache_of_another_program_in_the_same_grammar(self):
        self.assert_cache_refused_and_untouched(
            {"cache/Infs,1/@00/D1": "bytes", "graveyard/1": ""}, "not made by larder")

    def test_a_cache_of_an_unknown_format(self):
        self.make_cache()
        (self.larder.cache_directory / "format").write_text("larder cache 0\n")
        self.assert_cache_refused_and_untouched({}, "larder cache 0")
        self.assertEqual(self.larder.status()["caches"], [], "nothing goes on with it")

    def test_a_cache_of_an_engine_with_another_uid(self):
        self.make_cache()
        for path in (self.larder.cache_directory, *trees.paths_below(self.larder.cache_directory)):
            os.chown(path, 64_321, 64_321)
        self.assert_cache_refused_and_untouched({}, "chown -R")

    def test_a_cache_that_another_keeper_uses(self):
        self.larder.mount(self.server.url(), self.mountpoint)
        other = self.begin(Larder(self.directory / "other", self.larder.cache_directory))
        mountpoint = self.directory / "mnt2"
        mountpoint.mkdir()
        sentence = other.refusal(*other.mount_words(self.server.url(), mountpoint))
        self.assertIn(str(self.larder.cache_directory), sentence)
        self.assertIn("another keeper", sentence)
        self.assertFalse(larder.is_mounted(mountpoint))
        self.assertEqual((self.mountpoint / "file").read_bytes(), b"content")
        self.larder.restart()
        other.mount(self.server.url(), mountpoint)  # nothing in the other one remembers it
        self.assertEqual(other.status()["caches"][0]["state"], "active")

    def test_sizes_of_the_cache_that_are_none(self):
        for size in ("0", "-5G", "much", "20GB", "1K", "99999999T"):
            with self.subTest(size):
                self.assert_mount_refused(self.server.url(), ["cachesize", size],
                                          options=f"cachesize={size}")
                self.assert_refused(
                    self.larder.mount_words(self.server.url(), self.mountpoint)
                    + [f"--cache-size={size}"], ["--cache-size", size])
        self.assert_mount_refused(self.server.url(), ["size"], options="cache=none,cachesize=1G",
                                  with_cache=False)
        self.assert_refused(["serve", "--cache-size", "1G"], ["--cache"])

    def test_a_size_above_that_of_the_filesystem(self):
        self.assert_mount_refused(self.server.url(), [self.larder.cache_directory, "8000T"],
                                  options="cachesize=8000T")
        self.assertEqual(os.listdir(self.larder.cache_directory), [])
        self.assertEqual(self.larder.status()["caches"], [], "nothing goes on with it")

    def test_a_second_mount_with_another_size_of_the_cache(self):
        self.larder.mount(self.server.url(), self.mountpoint, "cachesize=64M")
        other = self.directory / "mnt2"
        other.mkdir()
        sentence = self.larder.refusal(
            *self.larder.mount_words(self.server.url(), other, "cachesize=1G"))
        for word in (self.larder.cache_directory, "64M", "1G"):
            self.assertIn(str(word), sentence)
        self.assertFalse(larder.is_mounted(other))
        self.assertEqual(self.larder.status()["caches"][0]["limit_bytes"], 64 << 20)
        self.larder.mount(self.server.url(), other)  # names none: content with what there is
        self.larder.umount(other)
        self.larder.mount(self.server.url(), other, "cachesize=64M")
        self.assertEqual((other / "file").read_bytes(), b"content")

    def make_cache(self):
        self.larder.mount(self.server.url(), self.mountpoint)
        self.larder.restart()

    def assert_cache_refused_and_untouched(self, files, told):
        """With `files` in the cache directory besides what is there."""
        for name, text in files.items():
            path = self.larder.cache_directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        before = self.look_of_cache()
        self.assert_mount_refused(self.server.url(), [self.larder.cache_directory, told])
        self.assertEqual(self.look_of_cache(), before)

    def look_of_cache(self):
        """Owners, modes and contents of all that is in the cache directory."""
        look = {}
        for path in (self.larder.cache_directory, *trees.paths_below(self.larder.cache_directory)):
            status = path.stat()
            look[path] = (status.st_uid, status.st_gid, status.st_mode,
                          path.read_bytes() if path.is_file() else None)
        return look

    def test_commands_that_make_no_sense(self):
        for words in (["nonsense"], ["mount"], ["umount"], ["umount", self.mountpoint]):
            with self.subTest(words):
                self.assert_refused(words, words[:1] if len(words) == 1 else [words[1]])

    def test_flushing_what_no_keeper_serves(self):
        self.assert_refused(["flush", self.directory], [self.larder.runtime_directory])
        self.larder.mount(self.server.url(), self.mountpoint)
        self.assertIn(str(self.directory), self.larder.refusal("flush", self.directory))

    def test_a_user_who_may_not(self):
        self.assert_mount_refused(self.server.url(), ["root"],
                                  prefix=["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups"])

    def test_a_machine_without_fuse(self):
        self.assert_mount_refused(
            self.server.url(), ["/dev/fuse"],
            prefix=["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev && exec \"$@\"", "sh"])

    def test_a_refusal_does_not_disturb_what_is_mounted(self):
        self.larder.mount(self.server.url(), self.mountpoint)
        for words in (self.larder.mount_words(self.server.url("/elsewhere"), self.directory / "export"),
                      self.larder.mount_words(self.server.url(), self.mountpoint),
                      self.larder.mount_words("nonsense", self.mountpoint)):
            self.larder.refusal(*words)
        self.assertEqual((self.mountpoint / "file").read_bytes(), b"content")


if __name__ == "__main__":
    main()
