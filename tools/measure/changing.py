"""changing: the benchmark's parts that change files: large writes, many creates, a build, git status.

Import this only after entry.prepare().
"""

import os
import pathlib
import re
import resource
import shutil
import subprocess
import time

from harness import debian_source, trees

_MIB = 1 << 20
_GIB = 1 << 30
_IN_FLIGHT = 16
_SMALL_BYTES = 4096
_OPTIONS = ("", "actimeo=600")
# Longer than acregmin: what is asked again by default is asked again here.
_STATUS_PAUSE_SECONDS = 4
_ENVIRONMENT = {**os.environ, "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_SYSTEM": "/dev/null",
                "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A",
                "GIT_COMMITTER_EMAIL": "a@b", "FORCE_UNSAFE_CONFIGURE": "1"}


def _do(*command, cwd):
    """Seconds that it took; an error that shows what it said if it fails."""
    begin = time.monotonic()
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=_ENVIRONMENT, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command} in {cwd} ended with {done.returncode}: {done.stderr[-1000:]}")
    return time.monotonic() - begin


def _own_cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _write_file(path, size):
    """Writes 1 MiB a call, and waits until all of it is on the server's disk. Seconds, and seconds of CPU."""
    piece = os.urandom(_MIB)
    cpu, begin = _own_cpu(), time.monotonic()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    try:
        for _ in range(size // _MIB):
            os.write(fd, piece)
        os.fsync(fd)
    finally:
        os.close(fd)
    return time.monotonic() - begin, _own_cpu() - cpu


def _create_files(directory, count):
    """Files/s."""
    content = os.urandom(_SMALL_BYTES)
    begin = time.monotonic()
    for number in range(count):
        fd = os.open(directory / f"f{number:07}", os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
    return count / (time.monotonic() - begin)


class Changing:
    """Of one Bench: its stage, its sizes, its comparisons.

    What is made and removed beside the measuring goes through a mount too: the server believes what it knows of names
    for a minute.
    """

    def __init__(self, bench, server):
        self.bench = bench
        self.sizes = bench.sizes
        self.server = server
        self.directories = 0

    def probe(self, *words):
        """What libnfs_probe says of itself: amount per second, and seconds of CPU."""
        done = subprocess.run([self.bench.build / "tests/tools/libnfs_probe", *map(str, words)], check=True,
                              stdout=subprocess.PIPE, text=True)
        found = re.search(r"([\d.]+) (?:MiB|files)/s, ([\d.]+) CPU s", done.stdout)
        return float(found[1]), float(found[2])

    # Writing, against a plain program.

    def writes(self):
        larder = self.bench.stage.larder(self.bench.new_cache(), "writes")
        mounted = larder.mount(self.server.url())
        self.large_write(larder, mounted)
        for words, how in (((), "WRITE FILE_SYNC"), (("commit",), "WRITE, COMMIT")):
            self.small_creates(mounted, words, f"libnfs: CREATE, {how}")
        larder.restart()

    def large_write(self, larder, mounted):
        bench, size = self.bench, self.sizes.written_bytes
        name = f"write of {size // _MIB} MiB, fsync"
        speed = bench.comparison(name, f"libnfs, {_IN_FLIGHT} in flight", "MiB/s")
        cpu = bench.comparison(f"{name}, CPU", "libnfs", "s/GiB", cost=True)

        def ours():
            before = bench.own_cpu(larder)
            seconds, own = _write_file(mounted / "written", size)
            used = bench.own_cpu(larder) - before + own
            self.remove(mounted / "written")
            return size / _MIB / seconds, used * _GIB / size

        def other():
            mib_s, cpu_s = self.probe("write", self.server.url(version=3), "written-by-libnfs", size, _IN_FLIGHT)
            self.remove(mounted / "written-by-libnfs")
            return mib_s, cpu_s * _GIB / size

        for (our_speed, our_cpu), (its_speed, its_cpu) in bench.alternating(self.sizes.write_pairs, ours, other):
            speed.add(our_speed, its_speed)
            cpu.add(our_cpu, its_cpu)

    def small_creates(self, mounted, words, against):
        count = self.sizes.created_files
        compared = self.bench.comparison("creating files of 4 KiB", against, "files/s")

        def ours():
            return _create_files(mounted / self.new_directory(mounted), count)

        def other():
            return self.probe("create", self.server.url(version=3), self.new_directory(mounted), count,
                              _SMALL_BYTES, *words)[0]

        for pair in self.bench.alternating(self.sizes.create_pairs, ours, other):
            compared.add(*pair)

    def remove(self, path):
        """From the server's disk too: the next one begins with what the last one began with."""
        path.unlink()
        subprocess.run(["sync", "--file-system", self.bench.server_disk], check=True)

    def new_directory(self, mounted):
        self.directories += 1
        name = f"created{self.directories}"
        (mounted / name).mkdir()
        return name

    # What people do, against the same on a local disk.

    def workloads(self):
        larder = self.bench.stage.larder(self.bench.new_cache(), "workloads")
        mounts = [(f"options: {options or 'default'}", larder.mount(self.server.url(), options=options))
                  for options in _OPTIONS]
        self.git_status(mounts)
        if self.sizes.build_pairs > 0:
            self.build(mounts)
        larder.restart()

    def git_status(self, mounts):
        """Some seconds after the last one, as when somebody works."""
        local = self.bench.cache_disk / "repository"
        trees.small_files(local, self.sizes.repository_files)
        for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "First")):
            _do("git", *command, cwd=local)
        shutil.copytree(local, mounts[0][1] / "repository", symlinks=True)
        words = ("git", "status", "--porcelain")
        name = f"git status, {self.sizes.repository_files} files"
        compared = [(self.bench.comparison(f"{name}, {label}", "local ext4", "s", cost=True), mounted / "repository")
                    for label, mounted in mounts]
        for repository in (local, *(repository for _, repository in compared)):
            time.sleep(1.1)  # else git takes the files for younger than its index, and reads them all each time
            _do(*words, cwd=repository)
        for _ in range(self.sizes.status_pairs):
            time.sleep(_STATUS_PAUSE_SECONDS)
            for each, repository in compared:
                each.add(_do(*words, cwd=repository), _do(*words, cwd=local))

    def build(self, mounts):
        """`make -j2` of GNU hello, configured beforehand; after each it is cleaned."""
        try:
            tarball = debian_source.fetch(*debian_source.HELLO, self.bench.stage.directory / "fetched")
        except debian_source.Unavailable as unavailable:
            print(f"note: no build, because the source of hello cannot be had: {unavailable}")
            return
        local = self.configured(tarball, self.bench.cache_disk / "build")
        for label, mounted in mounts:
            compared = self.bench.comparison(f"make -j2 of GNU hello, {label}", "local ext4", "s", cost=True)
            source = self.configured(tarball, mounted / self.new_directory(mounted) / "build")
            for pair in self.bench.alternating(self.sizes.build_pairs, lambda at=source: self.make(at),
                                               lambda: self.make(local)):
                compared.add(*pair)

    @staticmethod
    def configured(tarball, directory):
        directory.mkdir()
        _do("tar", "-x", "--no-same-owner", "-f", tarball, "-C", directory, cwd="/")
        source = pathlib.Path(directory) / "hello-2.10"
        _do("./configure", cwd=source)
        return source

    @staticmethod
    def make(source):
        seconds = _do("make", "-j2", cwd=source)
        _do("make", "clean", cwd=source)
        return seconds
