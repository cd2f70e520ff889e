"""Cachefilesd: our daemon at the end of a cache channel, in the foreground, with a configuration of the test's."""

import pathlib
import signal

from harness import paths
from harness.processes import Process, wait_until


class Cachefilesd:
    """Started by its constructor; stopped as a service manager does it."""

    def __init__(self, directory, runtime_directory, cache_directory, *lines, options=()):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "cachefilesd.conf"
        self.log = directory / "cachefilesd.log"
        self.write_config(f"dir {cache_directory}", *lines)
        self._command = [paths.CACHEFILESD, "-n", "-s", "-d", "-p", directory / "pid", "-f", self.config,
                         "--runtime-dir", runtime_directory, *options]
        self.start()

    def write_config(self, *lines):
        self.config.write_text("".join(f"{line}\n" for line in lines))

    def start(self):
        self.process = Process(self._command, self.log)

    def is_running(self):
        return self.process.is_running()

    @property
    def pid(self):
        return self.process.pid

    def log_text(self):
        return self.process.log_text()

    def reload(self):
        self.process.send(signal.SIGHUP)

    def kill(self):
        self.process.kill()

    def stop(self):
        self.process.end()

    def end_in_order(self, seconds=20):
        """SIGTERM; returns its exit status."""
        self.process.send(signal.SIGTERM)
        return self.process.wait(seconds)

    def wait_for(self, text, seconds=20):
        wait_until(lambda: text in self.log_text(), seconds, f"the daemon to say {text!r}")
