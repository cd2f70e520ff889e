"""Workloads: what people do in a directory ends the same on a mount as on a local disk, for one user and for two at once."""

import contextlib
import errno
import os
import pathlib
import shutil
import sqlite3
import sqlite3.dump  # now: other users may not be able to read where Python is
import subprocess
import sys
import threading
import time
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import debian_source, trees
from harness.case import main
from harness.users import as_user
from harness.writable_case import WritableCase
from model import tree
from model.differences import Leniency

_ALICE, _BOB, _GROUP = 61001, 61002, 62000
_ROOT = (0, 0, [])
_USERS = ((_ALICE, _ALICE, [_GROUP]), (_BOB, _BOB, [_GROUP]))
_OLD_NS = 1_234_567_890_123_456_789
_DAY_NS = 86_400 * 10**9
_GIT = {"GIT_CONFIG_SYSTEM": "/dev/null", "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@b", "GIT_AUTHOR_DATE": "2001-02-03T04:05:06Z",
        "GIT_COMMITTER_DATE": "2001-02-03T04:05:06Z"}


def do(*command, cwd=None, seconds=600):
    """Standard output; an exception that shows the errors if the command fails."""
    done = subprocess.run([*map(str, command)], cwd=cwd, env={**os.environ, "HOME": "/nonexistent", "LC_ALL": "C", **_GIT},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command} in {cwd}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def expect(truth, what):
    """As assertTrue, for workloads: they run in processes of other users."""
    if not truth:
        raise AssertionError(what)


def clone_and_switch(origin, directory):
    clone = directory / "clone"
    do("git", "clone", "-q", "--no-local", origin, clone)
    for branch in ("second", "main"):
        do("git", "checkout", "-q", branch, cwd=clone)
        expect(do("git", "status", "--porcelain", cwd=clone) == "", "the checkout is not clean")
    (clone / "src/d00000/f0000001").write_text("changed\n")
    expect(do("git", "status", "--porcelain", cwd=clone).split() == ["M", "src/d00000/f0000001"], "the change is not seen")
    do("git", "commit", "-qam", "Change", cwd=clone)
    do("git", "merge", "-q", "--no-edit", "origin/second", cwd=clone)
    do("git", "repack", "-adq", cwd=clone)
    do("git", "stash", "list", cwd=clone)
    do("git", "fsck", "--strict", cwd=clone)
    head = do("git", "rev-parse", "HEAD", cwd=clone)
    shutil.rmtree(clone / ".git")  # its index holds numbers of inodes
    (directory / "head").write_text(head)


def extract(tarball, directory):
    do("tar", "-x", "--numeric-owner", "-f", tarball, "-C", directory)


def mirror(source, changed, directory):
    target = directory / "mirror"
    do("rsync", "-aHS", "--delete", f"{source}/", target)
    do("rsync", "-aHS", "--delete", f"{changed}/", target)
    again = do("rsync", "-aHSni", "--delete", f"{changed}/", target)
    expect(again == "", f"rsync would still change: {again}")
    do("rsync", "-aHS", "--inplace", "--no-whole-file", "--delete", f"{source}/", target)


def copy(source, directory):
    do("cp", "-a", source, directory / "copy")
    do("cp", "-a", directory / "copy", directory / "copy of the copy")
    do("diff", "-r", "--no-dereference", directory / "copy/small", directory / "copy of the copy/small")


def remove(tarball, directory):
    extract(tarball, directory)
    do("rm", "-rf", *directory.iterdir())
    expect(os.listdir(directory) == [], "something is left")


def fill_database(journal, directory):
    """Transactions, some taken back, under the eyes of a second connection; what is left is a dump."""
    path = directory / "database"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer, \
            contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        mode = writer.execute(f"pragma journal_mode={journal}").fetchone()[0]
        expect(mode == journal, f"the journal mode is {mode}, not {journal}")
        writer.execute("create table t (id integer primary key, data blob)")
        for number in range(60):
            writer.execute("begin immediate")
            writer.executemany("insert into t (data) values (?)",
                               [(trees.random_bytes(200 + number, row),) for row in range(20)])
            if number % 5 == 0:
                writer.execute("update t set data = zeroblob(3000) where id % 7 = 0")
            writer.execute("rollback" if number % 6 == 5 else "commit")
            seen = reader.execute("select count(*) from t").fetchone()[0]
            expect(seen == 20 * (number + 1 - (number + 1) // 6), f"the reader sees {seen} rows after {number}")
        writer.execute("delete from t where id % 2 = 0")
        writer.execute("vacuum")
        check = writer.execute("pragma integrity_check").fetchone()[0]
        expect(check == "ok", check)
        (directory / "dump").write_text("\n".join(writer.iterdump()))
    for leftover in directory.glob("database*"):
        leftover.unlink()


def save_by_rename(directory):
    """As editors do; a reader who opens the name must always find one whole version."""
    target, done, trouble = directory / "document", threading.Event(), []
    target.write_bytes(b"0" * 5000)

    def read():
        while not done.is_set():
            try:
                content = target.read_bytes()
            except OSError as error:
                # Replaced twice between its lookup and its open: NFS knows no better.
                if error.errno != errno.ESTALE:
                    trouble.append(error)
                continue
            if len(content) != 5000 or len(set(content)) != 1:
                trouble.append(content[:100])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 100):
            temporary = directory / f".document.{number}"
            with open(temporary, "xb") as file:
                file.write(b"%d" % (number % 10) * 5000)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            expect(target.read_bytes() == b"%d" % (number % 10) * 5000, f"version {number} is not seen")
    finally:
        done.set()
        reader.join()
    expect(not trouble, f"a reader saw {trouble[:1]}")


def follow_a_log(directory):
    """A second process sees every line, in order, while the first goes on writing."""
    path, lines = directory / "log", 300
    path.touch()
    follower = subprocess.Popen(["tail", "-n", "+1", "-s", "0.05", "--pid", str(os.getpid()), "-f", path],
                                stdout=subprocess.PIPE, text=True)
    try:
        with open(path, "a") as log:
            for number in range(lines):
                print(f"line {number} " + "." * (number % 90), file=log, flush=True)
                time.sleep(0.002)
        for number in range(lines):
            line = follower.stdout.readline()
            expect(line.startswith(f"line {number} "), f"instead of line {number}: {line!r}")
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()


def build(tarball, directory):
    extract(tarball, directory)
    source = directory / "hello-2.10"
    do("./configure", cwd=source)
    do("make", "-j2", cwd=source)
    do("make", "check", cwd=source)
    expect(do("./hello", cwd=source) == "Hello, world!\n", "the program says something else")


def append_lines(user, file, count):
    with open(file, "a") as log:
        for number in range(count):
            print(f"{user} {number}", file=log, flush=True)


class Workloads(WritableCase):

    def setUp(self):
        super().setUp()
        self.local = self.directory / "local"
        self.local.mkdir()
        self.source = self.directory / "source"
        trees.small_files(self.source / "small", 200, sizes=(0, 30_000), seed=self.seed, a_directory=40)
        trees.hard_links(self.source / "links")
        trees.odd_names(self.source / "odd")
        trees.deep_directories(self.source / "deep", 12)
        trees.sparse_file(self.source / "sparse", 3_000_000, {70_000: b"an island", 2_900_000: b"another"})
        self.stamp(self.source)

    @staticmethod
    def stamp(directory):
        """Old, each a little different, to the nanosecond: who copies stamps must copy these."""
        paths = [os.path.join(where, name) for where, directories, files in os.walk(os.fsencode(directory), topdown=False)
                 for name in sorted(files + directories)]
        for number, path in enumerate([*paths, directory]):
            os.utime(path, ns=(_OLD_NS, _OLD_NS + number * 1_000_001), follow_symlinks=False)

    def tarball(self, *entries):
        path = self.directory / "source.tar"
        do("tar", "-c", "--numeric-owner", "-f", path, "-C", self.source, *(entries or ["."]))
        return path

    def place(self, side, name, user):
        directory = side / name
        directory.mkdir()
        os.chown(directory, user[0], user[1])
        return directory

    def assert_same(self, name, ignored=()):
        """Mount, server and local directory show the same below `name`."""
        leniency = Leniency(time.time_ns() - _DAY_NS, True, lambda: 0)
        expected = tree.scan(self.local / name)
        for where in (self.mounted, self.export):
            found = [each for each in tree.differences(tree.scan(where / name), expected, leniency)
                     if each[1] not in ignored]
            self.assertEqual(found[:10], [], f"in {where}")

    def on_both(self, workload, *arguments, user=_ROOT, ignored=()):
        for side in (self.mounted, self.local):
            as_user(*user, workload, *arguments, self.place(side, "work", user))
        self.assert_same("work", ignored)

    def test_git_clone_checkout_status_commit(self):
        self.on_both(clone_and_switch, self.repository(), user=_USERS[0])

    def repository(self):
        """Of root, for everybody: that it is safe can only be said in a file."""
        config = self.directory / "gitconfig"
        config.write_text("[safe]\n\tdirectory = *\n")
        told = unittest.mock.patch.dict(os.environ, GIT_CONFIG_GLOBAL=str(config))
        told.start()
        self.addCleanup(told.stop)
        origin = self.directory / "origin"
        origin.mkdir()
        shutil.copytree(self.source / "small", origin / "src")
        for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "First"],
                        ["checkout", "-qb", "second"], ["mv", "src/d00001", "src/moved"], ["rm", "-q", "src/d00002/f0000090"],
                        ["commit", "-qm", "Second"], ["checkout", "-q", "main"]):
            do("git", *command, cwd=origin)
        return origin

    def test_tar_extracts_everything_as_root(self):
        trees.special_files(self.source / "special")
        os.chown(self.source / "small/d00000", _ALICE, _GROUP)
        os.chmod(self.source / "small/d00000", 0o2770)
        os.chmod(self.source / "small/d00000/f0000000", 0o4755)
        self.stamp(self.source)
        self.on_both(extract, self.tarball())

    def test_tar_extracts_as_a_user(self):
        self.on_both(extract, self.tarball("small", "links", "odd", "deep", "sparse"), user=_USERS[0])

    def test_rsync_mirrors_and_deletes(self):
        if not shutil.which("rsync"):
            self.skipTest("rsync is not installed")
        changed = trees.copy_of(self.source, self.directory / "changed")
        shutil.rmtree(changed / "small/d00001")
        (changed / "small/d00002").rename(changed / "small/renamed")
        for path in sorted((changed / "small/d00003").iterdir())[::3]:
            path.write_bytes(path.read_bytes() + b"more")
        os.chmod(changed / "small/d00000", 0o700)
        self.stamp(changed)
        self.on_both(mirror, self.source, changed)

    def test_cp_copies_everything(self):
        self.on_both(copy, self.source)

    def test_rm_removes_everything(self):
        self.on_both(remove, self.tarball())

    def test_sqlite_with_a_rollback_journal(self):
        self.on_both(fill_database, "delete", user=_USERS[0])

    def test_sqlite_with_a_write_ahead_log_in_shared_memory(self):
        self.on_both(fill_database, "wal", user=_USERS[0])

    def test_saving_by_rename(self):
        self.on_both(save_by_rename, user=_USERS[0])

    def test_a_growing_log_is_followed(self):
        self.on_both(follow_a_log, user=_USERS[0])

    def test_configure_make_check(self):
        try:
            tarball = debian_source.fetch(*debian_source.HELLO, self.directory / "fetched")
        except debian_source.Unavailable as unavailable:
            self.skipTest(f"the source of hello cannot be had: {unavailable}")
        # What is built holds the name of the directory in which it was.
        self.on_both(build, tarball, user=_USERS[0], ignored=("content", "size"))

    def test_two_users_work_at_once(self):
        tarball, origin = self.tarball("small", "links", "deep"), self.repository()
        for side in (self.mounted, self.local):
            self.at_once([(user, self.work, (tarball, origin, self.place(side, f"of{user[0]}", user))) for user in _USERS])
        for user in _USERS:
            self.assert_same(f"of{user[0]}")

    @staticmethod
    def work(tarball, origin, directory):
        extract(tarball, directory)
        clone_and_switch(origin, directory)
        save_by_rename(directory)
        fill_database("delete", directory)

    def test_two_users_append_to_one_log(self):
        shared = self.place(self.mounted, "shared", (0, _GROUP))
        os.chmod(shared, 0o2770)
        log = shared / "log"
        log.touch()
        os.chmod(log, 0o660)
        self.assertEqual(log.stat().st_gid, _GROUP)
        self.at_once([(user, append_lines, (user[0], log, 500)) for user in _USERS])
        lines = log.read_text().splitlines()
        for uid, _, _ in _USERS:
            self.assertEqual([line for line in lines if line.startswith(f"{uid} ")], [f"{uid} {number}" for number in range(500)])
        self.assertEqual(len(lines), 1000)

    def at_once(self, jobs):
        errors = []

        def run(user, workload, arguments):
            try:
                as_user(*user, workload, *arguments)
            except (OSError, AssertionError) as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])


if __name__ == "__main__":
    main()
