"""Device, DeviceFile, StockDaemon: larder-device over a file, and who uses it as the kernel's device."""

import errno
import itertools
import os
import select

from harness import paths
from harness.larder import is_mounted
from harness.processes import Process, wait_until

# The stock daemon has the path compiled in. In a mount namespace of its own it finds the file there; nothing of the
# machine's /dev changes.
_IN_ITS_DEV = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$NEW_DEV"
for name in null zero full random urandom; do
  touch "$NEW_DEV/$name"
  mount --bind "/dev/$name" "$NEW_DEV/$name"
done
touch "$NEW_DEV/cachefiles"
mount --bind "$DEVICE" "$NEW_DEV/cachefiles"
mount --rbind "$NEW_DEV" /dev
exec "$@"
"""


class Device:
    """A larder-device in the foreground; `path` is the file that behaves as /dev/cachefiles."""

    def __init__(self, directory, runtime_directory):
        directory.mkdir()
        self.path = directory / "cachefiles"
        self.log = directory / "log"
        self._runtime_directory = runtime_directory
        self.start()

    def start(self):
        self.process = Process([paths.DEVICE, "--foreground", "--runtime-dir", self._runtime_directory, self.path],
                               self.log)
        wait_until(lambda: is_mounted(self.path) or not self.process.is_running(), 10, "the device")
        if not self.process.is_running():
            raise AssertionError(self.log.read_text())

    def stop(self):
        self.process.stop()


class DeviceFile:
    """A hand-written user of the device."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLIN | select.POLLOUT)

    def stop(self):
        if self.descriptor < 0:
            return
        descriptor, self.descriptor = self.descriptor, -1
        try:
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # closed it is, but the device is gone
                raise

    def write(self, command):
        """What write(2) returns, or the errno's name."""
        data = command if isinstance(command, bytes) else command.encode()
        try:
            return os.write(self.descriptor, data)
        except OSError as error:
            return errno.errorcode[error.errno].replace("ENOTSUP", "EOPNOTSUPP")

    def read(self, size=4096, offset=None):
        """The bytes, or the errno's name."""
        try:
            data = (os.read(self.descriptor, size) if offset is None else
                    os.pread(self.descriptor, size, offset))
        except OSError as error:
            return errno.errorcode[error.errno]
        return data.decode()

    def state(self):
        """The state line, as numbers by name."""
        return {name: int(value, 16) for name, value in (pair.split("=") for pair in self.read().split(" "))}

    def poll(self, seconds=0):
        """What poll(2) says, after that long at most."""
        events = self._poll.poll(seconds * 1000)
        return events[0][1] if events else 0


class StockDaemon(Process):
    """Debian's cachefilesd, unmodified, in the foreground; by default with all that it says in its log.

    It aborts when an object of its own lies at an address that it takes for freed memory, as one in 16 would; without
    randomised addresses none does.
    """

    def __init__(self, directory, device, settings, options=("-d", "-d")):
        directory.mkdir(exist_ok=True)
        config = directory / "cachefilesd.conf"
        config.write_text("".join(f"{setting}\n" for setting in settings))
        # Of its own: what another one said is no word of this one.
        log = next(path for path in (directory / f"log{number}" for number in itertools.count())
                   if not path.exists())
        new_dev = directory / "dev"
        new_dev.mkdir(exist_ok=True)
        super().__init__(["unshare", "--mount", "sh", "-c", _IN_ITS_DEV, "sh", "setarch", "--addr-no-randomize",
                          paths.STOCK_DAEMON, *options, "-s", "-n", "-f", config], log,
                         env={"NEW_DEV": str(new_dev), "DEVICE": str(device.path)})

    def is_bound_and_not_refused(self):
        """Waits for either; it ends if the device or the cache is busy."""
        said = self.wait_for_line("Daemon Started|Device or resource busy", seconds=30)
        return said[0] == "Daemon Started"
