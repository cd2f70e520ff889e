"""Users: nobody reads what the server refuses him, also when it is cached, and everybody else reads."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import files, larder
from harness.case import main
from harness.ganesha import Export
from harness.mounted_case import MountedCase
from harness.processes import wait_until
from harness.users import as_user, open_as_user, read_file

_ALICE, _BOB, _GROUP = 61001, 61002, 62000
_SECRET = b"a secret\n" * 20_000  # more than a small file


class UserCase(MountedCase):

    squash = "No_Root_Squash"

    def serve(self, *exports, **options):
        return super().serve(Export(self.export, squash=self.squash), **options)

    def own(self, name, uid, gid, mode, content=_SECRET):
        path = self.write(name, content)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        return path

    def fill(self):
        self.own("alice", _ALICE, _ALICE, 0o600)
        self.own("group", _ALICE, _GROUP, 0o640)
        self.own("everybody", _ALICE, _ALICE, 0o644)
        self.own("closed/inside", _ALICE, _ALICE, 0o644)
        os.chown(self.export / "closed", _ALICE, _ALICE)
        os.chmod(self.export / "closed", 0o700)

    def assert_reads(self, uid, groups, name):
        self.assertEqual(as_user(uid, uid, groups, read_file, self.mounted / name), _SECRET)

    def assert_refused(self, uid, groups, name, function=read_file):
        with self.assertRaises(OSError) as raised:
            as_user(uid, uid, groups, function, self.mounted / name)
        self.assertIn(raised.exception.errno, (errno.EACCES, errno.EPERM))


class Permissions(UserCase):

    def test_modes_decide_cold_and_cached(self):
        self.assert_refused(_BOB, [], "alice")
        self.assert_reads(_ALICE, [], "alice")
        self.assert_refused(_BOB, [], "alice")
        self.assert_reads(_BOB, [], "everybody")

    def test_supplementary_groups_count(self):
        self.assert_refused(_BOB, [], "group")
        self.assert_reads(_BOB, [_GROUP], "group")
        self.assert_refused(_BOB, [_GROUP + 1], "group")

    def test_with_more_groups_than_a_call_can_carry_the_right_one_is_sent(self):
        others = [70_000 + number for number in range(40)]
        for groups in ([*others, _GROUP], [_GROUP, *others], [*others[:20], _GROUP, *others[20:]]):
            larder.drop_page_cache()
            self.assert_reads(_BOB, groups, "group")

    def test_a_closed_directory_hides_its_files(self):
        self.assert_reads(_ALICE, [], "closed/inside")
        self.assert_refused(_BOB, [], "closed/inside")
        self.assert_refused(_BOB, [], "closed", os.listdir)
        self.assert_refused(_BOB, [], "closed/inside", os.stat)

    def test_calls_bear_the_callers_name(self):
        with self.proxy.counting() as seen:
            self.assert_reads(_ALICE, [], "alice")
        self.assertGreater(seen.uids.get(_ALICE, 0), 0)
        self.assertEqual(set(seen.uids) - {_ALICE, 0}, set())

    def test_a_right_that_the_server_took_away_ends(self):
        self.assert_reads(_BOB, [], "everybody")
        os.chmod(self.export / "everybody", 0o600)

        def is_refused():
            try:
                as_user(_BOB, _BOB, [], read_file, self.mounted / "everybody")
            except PermissionError:
                return True
            return False

        wait_until(is_refused, 10, "the refusal")

    def test_a_passed_descriptor_reads_with_the_openers_right(self):
        fd = open_as_user(_ALICE, _ALICE, [], self.mounted / "alice")
        try:
            with self.proxy.counting() as seen:
                content = as_user(_BOB, _BOB, [], os.pread, fd, len(_SECRET), 0)
            self.assertEqual(content, _SECRET)
            self.assertNotIn(_BOB, seen.uids)
        finally:
            os.close(fd)

    def test_a_descriptor_opened_before_the_chmod_reads_on(self):
        with open(self.mounted / "everybody", "rb", buffering=0) as file:
            os.chmod(self.export / "everybody", 0)
            self.assertEqual(os.pread(file.fileno(), 100, 0), _SECRET[:100])


class UnusualProcesses(UserCase):
    """Supplementary groups are read from /proc; where that cannot be, a caller has fewer rights, never more."""

    def read_in_user_namespace(self, name):
        return subprocess.run(["unshare", "--user", "cat", self.mounted / name], check=False,
                              capture_output=True)

    def test_groups_count_in_another_user_namespace(self):
        done = as_user(_BOB, _BOB, [_GROUP], self.read_in_user_namespace, "group")
        self.assertEqual((done.stdout == _SECRET, done.stderr), (True, b""))
        done = as_user(_BOB, _BOB, [], self.read_in_user_namespace, "group")
        self.assertEqual(done.stdout, b"")
        self.assertIn(b"Permission denied", done.stderr)

    def assert_groups_are_unknown(self):
        for _ in range(2):
            self.assert_refused(_BOB, [_GROUP], "group")
            self.assert_reads(_ALICE, [], "group")
            self.assert_reads(_BOB, [_GROUP], "everybody")
            larder.drop_page_cache()

    def test_an_engine_that_may_not_look_at_processes(self):
        self.assert_reads(_BOB, [_GROUP], "group")
        self.larder.restart()
        self.larder.run("serve", prefix=[
            "unshare", "--mount", "sh", "-c", "mount -t proc -o hidepid=invisible proc /proc && exec \"$@\"", "sh"])
        self.mount()
        self.assert_groups_are_unknown()

    def test_callers_outside_of_the_process_namespace_of_the_mount(self):
        self.larder.umount(self.mounted)
        self.larder.run(*self.larder.mount_words(self.proxy.url(), self.mounted),
                        prefix=["unshare", "--pid", "--fork"])
        self.larder.mountpoints.append(self.mounted)
        self.assert_groups_are_unknown()

    def test_a_caller_that_dies_while_it_waits(self):
        self.proxy.hold_calls("ACCESS")
        self.proxy.hold_calls("LOOKUP")
        child = subprocess.Popen(["setpriv", f"--reuid={_BOB}", f"--regid={_BOB}", f"--groups={_GROUP}",
                                  "cat", self.mounted / "group"],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: self.proxy.held() > 0, 10, "the call")
        finally:
            child.kill()
            child.wait()
        self.proxy.heal()
        self.assert_refused(_BOB, [], "group")
        self.assert_reads(_BOB, [_GROUP], "group")


class Execution(UserCase):
    """Programs are run from the mount, by users other than root."""

    def program(self, source):
        """Larger than a small file, as ELF does not mind what follows."""
        return pathlib.Path(shutil.which(source)).read_bytes() + bytes(200_000)

    def fill(self):
        self.own("program", 0, 0, 0o755, self.program("true"))
        self.own("only", _ALICE, _ALICE, 0o500, self.program("true"))
        self.own("script", 0, 0, 0o755, b"#!/bin/sh\nexit 7\n")
        self.own("data", 0, 0, 0o644, self.program("true"))

    @staticmethod
    def run_descriptor(fd):
        """Executes what a descriptor is open for, by its link in /proc; returns the exit code."""
        return subprocess.run([f"/proc/self/fd/{fd}"], check=False, pass_fds=[fd]).returncode

    def open_and_run(self, name, flags=os.O_RDONLY):
        fd = os.open(self.mounted / name, flags)
        return self.run_descriptor(fd)

    def test_by_path_and_by_the_link_of_a_descriptor(self):
        for _ in range(3):  # cold, in the page cache, in passthrough
            self.assertEqual(as_user(_ALICE, _ALICE, [], self.run_path, "program"), 0)
            for flags in (os.O_RDONLY, os.O_PATH):
                self.assertEqual(as_user(_ALICE, _ALICE, [], self.open_and_run, "program", flags), 0)
            self.assertEqual(as_user(_ALICE, _ALICE, [], self.open_and_run, "script"), 7)
            self.assertEqual(as_user(_ALICE, _ALICE, [], self.open_and_run, "only"), 0)
            self.settle()

    def run_path(self, name):
        return subprocess.run([self.mounted / name], check=False).returncode

    def test_what_may_not_be_executed(self):
        for name in ("program", "only", "data"):
            self.read(name)  # so that it is cached
        for name, uid in (("data", _ALICE), ("data", 0), ("only", _BOB)):
            with self.assertRaises(PermissionError):
                as_user(uid, uid, [], self.run_path, name)
        fd = open_as_user(_BOB, _BOB, [], self.mounted / "data")
        try:
            with self.assertRaises(PermissionError):
                as_user(_BOB, _BOB, [], self.run_descriptor, fd)
        finally:
            os.close(fd)

    def test_a_descriptor_runs_the_version_that_it_was_opened_with(self):
        self.settle()
        wait_until(self.is_in_passthrough, 60, "the program to be complete")
        fd = open_as_user(_ALICE, _ALICE, [], self.mounted / "program")
        try:
            self.own("program", 0, 0, 0o755, self.program("false"))
            self.assertEqual(as_user(_ALICE, _ALICE, [], self.run_path, "program"), 1)
            self.assertEqual(as_user(_ALICE, _ALICE, [], self.run_descriptor, fd), 0)
            self.assertEqual(as_user(_ALICE, _ALICE, [], self.run_path, "program"), 1)
        finally:
            os.close(fd)

    def is_in_passthrough(self):
        files.let_pages_go(self.mounted / "program")  # else nobody asks the engine for what it does not have
        before = self.larder.status()["mounts"][0]["opens_passthrough"]
        self.read("program")
        return self.larder.status()["mounts"][0]["opens_passthrough"] > before


class SquashedRoot(UserCase):

    squash = "Root_Squash"

    def test_root_is_nobody_also_for_cached_files(self):
        self.assert_refused(0, [], "alice")
        self.assert_reads(_ALICE, [], "alice")
        self.assert_refused(0, [], "alice")
        self.assert_reads(_ALICE, [], "alice")

    def test_root_reads_what_everybody_reads(self):
        self.assert_reads(0, [], "everybody")

    def test_a_file_that_root_opened_first_is_open_to_its_owner(self):
        self.assert_refused(0, [], "closed/inside")
        self.assert_reads(_ALICE, [], "closed/inside")


if __name__ == "__main__":
    main()
