"""LoopFs: a small filesystem of its own in a file, to be filled, cut short, frozen or made read-only."""

import errno
import fcntl
import os
import pathlib
import subprocess

_FIFREEZE = 0xC0045877  # of linux/fs.h
_FITHAW = 0xC0045878
_LEAST_BYTES = {"xfs": 300 << 20}


class LoopFs:
    """A loop-mounted image; `mountpoint` is where its files are. Created and mounted by its constructor."""

    def __init__(self, directory, size_bytes, kind="ext4", mkfs_options=(), mount_options="noatime",
                 mountpoint=None):
        if size_bytes < _LEAST_BYTES.get(kind, 0):
            raise ValueError(f"mkfs.{kind} needs at least {_LEAST_BYTES[kind]} bytes")
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.image = self.directory / "image"
        self.mountpoint = pathlib.Path(mountpoint or self.directory / "mnt")
        self.mountpoint.mkdir(exist_ok=True)
        self._mount_options = mount_options
        self.size_bytes = size_bytes
        self._mkfs = [f"mkfs.{kind}", "-q", *mkfs_options, self.image]
        self.make_anew()

    def make_anew(self):
        """An empty filesystem, mounted; it is not mounted before."""
        # Another file: mount(8) takes the loop device that one still has, of whatever size that is.
        self.image.unlink(missing_ok=True)
        with open(self.image, "xb") as image:
            image.truncate(self.size_bytes)
        subprocess.run(self._mkfs, check=True, stdout=subprocess.DEVNULL)
        self.mount()

    def mount(self):
        # The loop device detaches itself with the mount.
        subprocess.run(["mount", "-o", f"loop,{self._mount_options}", self.image, self.mountpoint],
                       check=True)

    def unmount(self):
        subprocess.run(["umount", self.mountpoint], check=True)

    def remount(self, options):
        """For example "ro"."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.mountpoint], check=True)

    def cut_short(self, size_bytes):
        """The disk loses its end: reads of blocks there give EIO, once they are not in memory."""
        self._resize(size_bytes)

    def make_whole(self):
        """The end is there again, as zeroes."""
        self._resize(self.size_bytes)

    def _resize(self, size_bytes):
        os.truncate(self.image, size_bytes)
        # The device must know, or the next write behind the end makes the image whole again.
        devices = subprocess.run(["losetup", "--noheadings", "--output", "NAME", "--associated",
                                  self.image], check=True, capture_output=True, text=True)
        for device in devices.stdout.split():
            subprocess.run(["losetup", "--set-capacity", device], check=True)

    def freeze(self):
        """Whatever writes to it hangs until thaw(), reads do not."""
        self._control(_FIFREEZE)

    def thaw(self):
        """Does nothing if it is not frozen."""
        try:
            self._control(_FITHAW)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def _control(self, request):
        directory = os.open(self.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, request, 0)
        finally:
            os.close(directory)

    def free_bytes(self):
        """What root may still write."""
        status = os.statvfs(self.mountpoint)
        return status.f_bfree * status.f_frsize

    def fill(self, leave_bytes=0):
        """Takes the free space but `leave_bytes`; returns the file that holds it."""
        filler = self.mountpoint / "filler"
        with open(filler, "ab") as file:
            step = self.free_bytes()
            while step >= 4096:
                wanted = min(step, self.free_bytes() - leave_bytes)
                if wanted <= 0:
                    break
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, wanted)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2
        return filler

    def detach(self):
        """Unmounts, by force if need be."""
        if os.path.ismount(self.mountpoint):
            self.thaw()
            if subprocess.run(["umount", self.mountpoint], check=False, capture_output=True).returncode:
                subprocess.run(["umount", "--lazy", self.mountpoint], check=True)

    stop = detach

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.detach()
