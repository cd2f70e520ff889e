"""Two clients: engines with caches of their own, on one export. Close-to-open holds between them."""

import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.case import main
from harness.larder import Larder
from harness.mounted_case import MountedCase
from harness.processes import wait_until

_KIB, _MIB = 1 << 10, 1 << 20


class TwoClients(MountedCase):
    """`self.one` and `self.two` are the same export, mounted by two Larders."""

    def setUp(self):
        super().setUp()
        second = self.begin(Larder(self.directory / "second"))
        self.second = second
        self.one = self.mounted
        self.two = second.mount(self.proxy.url(), self.directory / "mnt2", self.options)

    def bytes(self, size):
        return self.random.randbytes(size)


class CloseToOpen(TwoClients):

    def fill(self):
        self.content = {}
        for name, size in (("empty", 0), ("small", 5000), ("border", 64 * _KIB), ("large", 300_000),
                           ("larger", 3 * _MIB)):
            self.content[name] = self.random.randbytes(size)
            (self.export / name).write_bytes(self.content[name])

    def change(self, name, path):
        """One change of a file through a mount, and of what is expected of it."""
        old = self.content[name]
        kind = self.random.choice(["same size", "rewrite", "append", "patch", "truncate", "empty"])
        if kind == "same size":
            new = self.bytes(len(old))
            with open(path, "r+b") as file:
                file.write(new)
        elif kind == "rewrite":
            new = self.bytes(self.random.randrange(400_000))
            path.write_bytes(new)
        elif kind == "append":
            added = self.bytes(self.random.randrange(1, 100_000))
            new = old + added
            with open(path, "ab") as file:
                file.write(added)
        elif kind == "patch":
            at, patch = self.random.randrange(len(old) + 5000), self.bytes(self.random.randrange(1, 9000))
            new = old.ljust(at, b"\0")
            new = new[:at] + patch + new[at + len(patch):]
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(patch)
        else:
            length = 0 if kind == "empty" else self.random.randrange(len(old) + 1)
            new = old[:length]
            os.truncate(path, length)
        self.content[name] = new

    def test_who_opens_after_a_close_sees_what_was_written(self):
        for turn in range(150):
            writer, reader = (self.one, self.two) if self.random.random() < 0.5 else (self.two, self.one)
            name = self.random.choice(list(self.content))
            self.change(name, writer / name)
            other = self.random.choice(list(self.content))
            for seen in {name, other}:
                self.assertEqual((reader / seen).read_bytes(), self.content[seen], f"turn {turn}: {seen}")
            if self.random.random() < 0.05:
                time.sleep(2.5)  # stamps settle
        for name, content in self.content.items():
            self.assertEqual((self.export / name).read_bytes(), content, name)
            self.assertEqual((self.one / name).read_bytes(), content, name)
            self.assertEqual((self.two / name).read_bytes(), content, name)

    def test_rewriting_in_turns_at_once_is_never_missed(self):
        """Many changes within a tick of any clock, none of which shows in the size."""
        for turn in range(300):
            content = b"%08d" % turn * 625
            writer, reader = (self.one, self.two) if turn % 2 else (self.two, self.one)
            with open(writer / "small", "r+b") as file:
                file.write(content)
            self.assertEqual((reader / "small").read_bytes(), content, f"turn {turn}")

    def test_what_is_cached_whole_is_fetched_again_when_the_other_has_changed_it(self):
        self.settle()
        for _ in range(2):
            self.assertEqual((self.two / "larger").read_bytes(), self.content["larger"])
            self.assertEqual((self.two / "small").read_bytes(), self.content["small"])
            time.sleep(0.5)
        held = os.open(self.two / "larger", os.O_RDONLY)
        try:
            old = self.content["larger"]
            for name in ("larger", "small"):
                self.content[name] = self.bytes(len(self.content[name]))
                with open(self.one / name, "r+b") as file:
                    file.write(self.content[name])
            self.assertEqual((self.two / "larger").read_bytes(), self.content["larger"])
            self.assertEqual((self.two / "small").read_bytes(), self.content["small"])
            self.assertIn(os.pread(held, len(old), 0), (old, self.content["larger"]), "one version, whole")
        finally:
            os.close(held)

    def test_what_is_not_closed_arrives_by_itself(self):
        with open(self.one / "small", "r+b", buffering=0) as file:
            file.write(b"not closed, not synced")
            wait_until(lambda: (self.two / "small").read_bytes().startswith(b"not closed"), 6,
                       "the bytes to arrive")

    def test_lines_appended_in_turns_all_stay(self):
        lines = []
        for turn in range(60):
            lines.append(b"line %d\n" % turn)
            with open((self.one if turn % 2 else self.two) / "empty", "ab") as file:
                file.write(lines[-1])
        self.assertEqual((self.export / "empty").read_bytes(), b"".join(lines))


class Names(TwoClients):
    """Names of the other client are seen when the mount options say: here, at once."""

    options = "acdirmin=0,acdirmax=0"

    def test_changes_of_names_are_seen(self):
        (self.one / "directory").mkdir()
        (self.one / "directory/file").write_bytes(b"first")
        self.assertEqual((self.two / "directory/file").read_bytes(), b"first")
        (self.two / "directory/next").write_bytes(b"second")
        os.rename(self.two / "directory/next", self.two / "directory/file")
        self.assertEqual((self.one / "directory/file").read_bytes(), b"second")
        self.assertEqual(os.listdir(self.one / "directory"), ["file"])
        os.chmod(self.one / "directory/file", 0o640)
        with open(self.two / "directory/file", "rb") as file:
            self.assertEqual(os.fstat(file.fileno()).st_mode & 0o777, 0o640)
        os.unlink(self.one / "directory/file")
        with self.assertRaises(FileNotFoundError):
            (self.two / "directory/file").read_bytes()
        os.rmdir(self.two / "directory")
        self.assertFalse((self.one / "directory").exists())

    def test_one_of_two_makes_a_file_that_must_be_new(self):
        for turn in range(40):
            made = []

            def make(root, name=f"lock{turn}", made=made):
                try:
                    os.close(os.open(root / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    made.append(root)
                except FileExistsError:
                    pass

            both = [threading.Thread(target=make, args=(root,)) for root in (self.one, self.two)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
            self.assertEqual(len(made), 1, f"turn {turn}")

    def test_a_file_that_the_other_removed_is_stale_and_nothing_worse(self):
        (self.one / "file").write_bytes(b"x" * 200_000)
        with open(self.two / "file", "rb") as file:
            self.assertEqual(file.read(10), b"x" * 10)
            os.unlink(self.one / "file")
            try:
                rest = file.read()
                self.assertEqual(rest, b"x" * len(rest))
            except OSError:
                pass  # ESTALE, as over NFS
        self.assertFalse((self.two / "file").exists())


if __name__ == "__main__":
    main()
