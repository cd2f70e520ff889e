"""Install: what `cmake --install` puts where works as the README says, mount(8) and fstab included."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import paths
from harness.case import main
from harness.larder import is_mounted
from harness.mounted_case import MountedCase

_PREFIX = "/usr/local"

# In a mount namespace of its own, where the machine has what was installed; nothing of the machine changes.
_AS_INSTALLED = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o lowerdir="$DESTDIR$PREFIX":$PREFIX $PREFIX
mount -t overlay overlay -o lowerdir="$DESTDIR/sbin":/usr/sbin /usr/sbin
mount --bind "$DESTDIR/fstab" /etc/fstab
trap 'umount "$MOUNTPOINT" || true; larder --runtime-dir "$RUNTIME" stop' EXIT
"""


class Installed(MountedCase):

    def fill(self):
        self.write("file", b"content")

    def setUp(self):
        super().setUp()
        self.root = self.directory / "root"
        subprocess.run(["cmake", "--install", paths.BUILD, "--prefix", _PREFIX], check=True,
                       env=os.environ | {"DESTDIR": str(self.root)}, capture_output=True)
        self.mountpoint = self.directory / "installed mnt"
        self.mountpoint.mkdir()
        self.options = f"ro,cache={self.directory}/installed-cache,runtime_dir={self.directory}/installed-run"

    def as_installed(self, script):
        """What the shell script prints there."""
        environment = os.environ | {
            "DESTDIR": str(self.root), "PREFIX": _PREFIX, "MOUNTPOINT": str(self.mountpoint),
            "RUNTIME": f"{self.directory}/installed-run", "SOURCE": self.proxy.url(), "OPTIONS": self.options,
            "PATH": f"{_PREFIX}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        (self.root / "fstab").touch()
        done = subprocess.run(["unshare", "--mount", "sh", "-c", _AS_INSTALLED + script], env=environment,
                              check=False, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(is_mounted(self.mountpoint))
        return done.stdout

    def test_everything_is_where_the_manual_says(self):
        modes = {"bin/larder": 0o755, "libexec/larder/larder-engine": 0o755,
                 "sbin/cachefilesd": 0o755,
                 "lib/systemd/system/larder.service": 0o644, "share/man/man8/larder.8": 0o644,
                 "lib/systemd/system/larder-cachefilesd@.service": 0o644,
                 "lib/systemd/system/larder-device.service": 0o644,
                 "share/man/man8/cachefilesd.8": 0o644, "share/man/man5/cachefilesd.conf.5": 0o644,
                 "sbin/larder-device": 0o755, "share/man/man8/larder-device.8": 0o644}
        for name, mode in modes.items():
            with self.subTest(name):
                self.assertEqual(stat.S_IMODE(os.stat(f"{self.root}{_PREFIX}/{name}").st_mode), mode)
        self.assertEqual(os.readlink(self.root / "sbin/mount.larder"), f"{_PREFIX}/bin/larder")
        for unit, program in (("larder.service", "bin/larder"), ("larder-cachefilesd@.service", "sbin/cachefilesd"),
                              ("larder-device.service", "sbin/larder-device")):
            text = pathlib.Path(f"{self.root}{_PREFIX}/lib/systemd/system/{unit}").read_text()
            self.assertIn(f"ExecStart={_PREFIX}/{program} ", text)
            # Five failures in ten seconds would end it for good, else; and a restart is not for a busy loop.
            self.assertRegex(text, r"(?s)\[Unit\][^[]*\nStartLimitIntervalSec=0\n.*\nRestartSec=[1-9]")
            # systemd.exec(5): what exists is given to User=, and that is root, who keeps no cache.
            self.assertNotRegex(text, r"\n(Cache|State|Runtime|Logs)Directory=")
        version = subprocess.run([f"{self.root}{_PREFIX}/bin/larder", "version"], check=True, capture_output=True)
        self.assertRegex(version.stdout, rb"larder \d+\.\d+")

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd on this machine")
    def test_systemd_understands_the_units(self):
        places = {f"{_PREFIX}/{name}": f"{self.root}{_PREFIX}/{name}"
                  for name in ("bin/larder", "sbin/cachefilesd", "sbin/larder-device")}
        for unit in sorted((self.root / f"{_PREFIX}/lib/systemd/system".lstrip("/")).iterdir()):
            text = unit.read_text()
            for installed, here in places.items():
                text = text.replace(f"={installed} ", f"={here} ")
            copy = self.directory / unit.name
            copy.write_text(text)
            with self.subTest(unit.name):
                done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], check=False,
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_mount_finds_the_helper(self):
        printed = self.as_installed('mount -t larder "$SOURCE" "$MOUNTPOINT" -o "$OPTIONS"\n'
                                    'cat "$MOUNTPOINT/file"; findmnt -n -o FSTYPE "$MOUNTPOINT"\n')
        self.assertEqual(printed, "contentfuse.larder\n")

    def test_a_line_of_fstab(self):
        self.root.joinpath("fstab").write_text(
            f"{self.proxy.url()} {str(self.mountpoint).replace(' ', chr(92) + '040')} larder "
            f"{self.options},_netdev 0 0\n")
        printed = self.as_installed('mount "$MOUNTPOINT"; cat "$MOUNTPOINT/file"\n')
        self.assertEqual(printed, "content")


del MountedCase  # not to be run itself


if __name__ == "__main__":
    main()
