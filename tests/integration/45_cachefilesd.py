"""The daemon cachefilesd as a process: its rights, its signals, its start in the background, engines that come and go.

A scripted engine plays the other end, on a real directory.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import paths, processes
from harness.case import Case, main
from harness.processes import Process, wait_until
from harness.scripted_engine import ScriptedEngine

_CONTENT = b"x" * 4096


class DaemonCase(Case):

    def setUp(self):
        super().setUp()
        self.runtime = self.directory / "run"
        self.runtime.mkdir()
        self.cache = self.directory / "cache"
        self.config = self.directory / "one.conf"
        self.configure()
        self.engine = self.begin_engine()

    def configure(self, *lines):
        self.config.write_text("\n".join([f"dir {self.cache}", "tag one", *lines]) + "\n")

    def begin_engine(self, **options):
        engine = ScriptedEngine(self.runtime, **options)
        self._cleanup.defer(engine.stop)
        return engine

    def command(self, *words):
        return [paths.CACHEFILESD, "-f", self.config, "--runtime-dir", self.runtime, *words]

    def begin_daemon(self, *words):
        daemon = self.begin(Process(self.command("-n", "-s", "-d", *words), self.directory / "daemon.log"))
        daemon.wait_for_line("is online")
        return daemon

    def fill(self, count):
        """Objects of which the first were used longest ago."""
        now = time.time()
        for number in range(count):
            parent = self.cache / "cache" / "Ivolume" / f"@{number % 256:02x}"
            parent.mkdir(parents=True, exist_ok=True)
            path = parent / f"D{number:06}"
            path.write_bytes(_CONTENT)
            os.utime(path, (now - 100_000 + number, now - 200_000))

    def names(self):
        return [path.name for path in self.engine.objects()]


class Life(DaemonCase):

    def test_culls_the_oldest_and_then_sleeps(self):
        daemon = self.begin_daemon()
        self.fill(1000)
        self.engine.limit = 900
        self.engine.push()
        wait_until(lambda: len(self.engine.objects()) <= 900, 10, "the cull")
        wait_until(self.asks_nothing, 20, "the daemon to have read the last answers")
        self.assertEqual(sorted(self.names()), [f"D{number:06}" for number in range(100, 1000)])
        states, used = self.engine.asked_states, processes.cpu_seconds(daemon.pid)
        time.sleep(1)
        self.assertEqual(self.engine.asked_states, states)
        self.assertLessEqual(processes.cpu_seconds(daemon.pid) - used, 0.05)

    def asks_nothing(self):
        """For a second. It goes on for a moment after the last object is gone, and is the last to get a processor."""
        before = self.engine.asked_states
        time.sleep(1)
        return self.engine.asked_states == before

    def test_it_binds_with_what_the_configuration_says(self):
        self.configure("brun 20%", "size 1G")
        self.begin_daemon()
        self.assertEqual(self.engine.commands[:3], [f"dir {self.cache}", "tag one", "size 1073741824"])
        self.assertEqual(self.engine.commands[-1], "bind")
        self.assertEqual(self.engine.limits["brun"], 20)

    def test_limits_hold_as_they_are_documented(self):
        """Whatever the engine's own are: those of the configuration, of which the rest is 7, 5 and 1."""
        self.configure("bcull 3%", "brun 4%", "fstop 4%")
        self.begin_daemon()
        self.assertEqual(self.engine.limits, {"brun": 4, "bcull": 3, "bstop": 1, "frun": 7, "fcull": 5, "fstop": 4})

    def test_it_has_few_rights(self):
        daemon = self.begin_daemon()
        status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
        uid = self.cache.stat().st_uid
        self.assertNotEqual(uid, 0)
        self.assertEqual(self.engine.peer_uid, uid)
        self.assertRegex(status, rf"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        self.assertRegex(status, r"Groups:\t *\n")
        self.assertRegex(status, r"NoNewPrivs:\t1\n")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertRegex(status, rf"{name}:\t0{{16}}\n")
        self.assertLess(processes.descriptor_count(daemon.pid), 16)

    def test_graves_are_emptied(self):
        self.begin_daemon()
        # Made elsewhere: at its start the daemon may look into the graveyard at any moment.
        deep = self.directory / "1234"
        (deep / "deeper" / "deepest").mkdir(parents=True)
        for number in range(1000):
            (deep / f"file{number}").touch()
        for path in (deep, *deep.rglob("*")):
            os.chown(path, self.cache.stat().st_uid, -1)
        deep.rename(self.cache / "graveyard" / "1234")
        self.engine.push()
        wait_until(lambda: not any((self.cache / "graveyard").iterdir()), 10, "the graveyard to be empty")

    def test_sigterm_ends_it_even_while_a_cull_is_not_answered(self):
        daemon = self.begin_daemon()
        self.fill(300)
        self.engine.silent.set()
        self.engine.limit = 1
        self.engine.push()
        time.sleep(0.3)
        begin = time.monotonic()
        daemon.send(signal.SIGTERM)
        self.assertEqual(daemon.wait(10), 0)
        self.assertLess(time.monotonic() - begin, 5)

    def test_sighup_gives_what_has_changed(self):
        daemon = self.begin_daemon()
        del self.engine.commands[:]
        self.configure("brun 30%", "size 2G")
        daemon.send(signal.SIGHUP)
        daemon.wait_for_line("was read again")
        self.assertEqual(self.engine.commands[0], "size 2147483648")
        self.assertEqual(self.engine.limits, {"brun": 30, "bcull": 5, "bstop": 1, "frun": 7, "fcull": 5, "fstop": 1})
        self.configure("bruno 30%")
        daemon.send(signal.SIGHUP)
        daemon.wait_for_line(r'one.conf:3: "bruno" is no command')

    def test_a_configuration_that_is_refused_half_way_changes_nothing(self):
        self.configure("brun 30%")
        daemon = self.begin_daemon()
        before = dict(self.engine.limits)
        self.engine.refuses["fcull 4%"] = "EIO the disk failed: replace it"
        self.configure("brun 20%", "fcull 4%")
        daemon.send(signal.SIGHUP)
        daemon.wait_for_line("the configuration stays as it was: the disk failed: replace it")
        wait_until(lambda: self.engine.limits == before, 5, "the limits to be as they were")

    def test_a_configuration_that_only_root_may_read_takes_a_restart(self):
        os.chmod(self.config, 0o600)
        daemon = self.begin_daemon()
        daemon.send(signal.SIGHUP)
        daemon.wait_for_line(f"{self.config} cannot be read: Permission denied: since it has started cachefilesd is "
                             f"user {self.cache.stat().st_uid} .* or restart cachefilesd")

    def test_it_comes_back_to_the_next_engine(self):
        daemon = self.begin_daemon()
        self.engine.stop()
        daemon.wait_for_line("is not online any more")
        time.sleep(1)
        self.assertTrue(daemon.is_running())
        self.engine = self.begin_engine()
        self.assertTrue(self.engine.bound.wait(10))
        self.fill(10)
        self.engine.limit = 5
        wait_until(lambda: daemon.log_text().count("is online") == 2, 10, "the second time online")
        self.engine.push()
        wait_until(lambda: len(self.engine.objects()) == 5, 10, "a cull for the next engine")
        self.assertEqual(daemon.log_text().count("is not online any more"), 1)
        self.assertEqual(self.engine.peer_uid, self.cache.stat().st_uid)

    def test_an_engine_behind_a_closed_door(self):
        """The runtime directory's path may lead through what only root may enter."""
        os.chmod(self.directory, 0o700)
        daemon = self.begin_daemon()
        self.engine.stop()
        daemon.wait_for_line("is not online any more")
        self.engine = self.begin_engine()
        self.assertTrue(self.engine.bound.wait(10))


class Start(DaemonCase):

    def run_daemon(self, *words, status=0):
        done = subprocess.run([*self.command("-p", self.directory / "pid"), *words], check=False, timeout=30,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr

    def test_in_the_background_it_returns_once_the_cache_is_online(self):
        processes.adopt_orphans()
        self.run_daemon()
        self.assertTrue(self.engine.bound.is_set())
        pid = int((self.directory / "pid").read_text())
        self._cleanup.defer(lambda: processes.kill_and_reap(pid))
        self.assertEqual(os.getsid(pid) != os.getsid(0), True)
        self.assertEqual(os.readlink(f"/proc/{pid}/fd/2"), "/dev/null")
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        self.assertIn("belongs to a cachefilesd that runs", self.run_daemon(status=1))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not processes.is_running(pid), 5, "the daemon to end")
        self.assertEqual((self.directory / "pid").read_text(), "")

    def test_what_keeps_it_from_starting_is_told(self):
        self.engine.refuses_bind = "EINVAL the cache is no cache: give another"
        self.assertEqual(self.run_daemon(status=1), "cachefilesd: the cache is no cache: give another\n")
        self.configure("bruno 10%", "bind")
        complaint = self.run_daemon(status=1)
        self.assertIn("one.conf:3:", complaint)
        self.assertIn("one.conf:4:", complaint)
        self.configure()
        self.engine.stop()
        self.assertIn("no engine listens on", self.run_daemon("-n", status=1))

    def test_a_cache_that_somebody_has_is_waited_for(self):
        """One that was killed may be on its way out."""
        self.engine.refuses_bind = "EBUSY the cache is held by another channel"
        daemon = self.begin(Process(self.command("-n", "-s", "-d"), self.directory / "daemon.log"))
        daemon.wait_for_line("is held by another channel; trying for 10 seconds")
        time.sleep(1)
        self.assertTrue(daemon.is_running())
        self.engine.refuses_bind = ""
        daemon.wait_for_line("is online")

    def test_who_keeps_the_cache_is_told_after_some_seconds(self):
        self.engine.refuses_bind = "EBUSY the cache is detached: larder cache attach"
        begin = time.monotonic()
        self.assertEqual(self.run_daemon(status=1), "cachefilesd: the cache is detached: larder cache attach\n")
        self.assertGreater(time.monotonic() - begin, 9)
        self.assertLess(self.engine.commands.count("bind"), 20)

    def test_somebody_elses_directory_is_refused(self):
        self.cache.mkdir()
        (self.cache / "letter").touch()
        self.assertIn("holds other files", self.run_daemon(status=1))


if __name__ == "__main__":
    main()
