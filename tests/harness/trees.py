"""Trees: directories full of files to be served, and digests that tell whether two trees are equal."""

import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import stat
import subprocess

_PIECE = 1 << 20


def copy_of(source, to):
    """A copy like cp -a; sources that are missing on this machine are the caller's mistake."""
    subprocess.run(["cp", "-a", "--", source, to], check=True)
    return pathlib.Path(to)


def random_bytes(size, seed):
    return random.Random(seed).randbytes(size)


def write_file(path, size, seed):
    """A file of `size` bytes that `seed` determines."""
    generator = random.Random(seed)
    with open(path, "wb") as file:
        for start in range(0, size, _PIECE):
            file.write(generator.randbytes(min(_PIECE, size - start)))
    return path


def small_files(directory, count, sizes=(1, 8192), seed=1, a_directory=1000):
    """`count` files of between sizes[0] and sizes[1] bytes, `a_directory` of them in each directory."""
    generator = random.Random(seed)
    directory = pathlib.Path(directory)
    for number in range(count):
        parent = directory / f"d{number // a_directory:05}"
        if number % a_directory == 0:
            parent.mkdir(parents=True)
        (parent / f"f{number:07}").write_bytes(generator.randbytes(generator.randint(*sizes)))


def many_names(directory, count):
    """`count` empty files in one directory: quick to make, long to list."""
    os.makedirs(directory)
    parent = os.open(directory, os.O_RDONLY)
    try:
        for number in range(count):
            os.close(os.open(f"name-{number:07}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644,
                             dir_fd=parent))
    finally:
        os.close(parent)


def paths_below(directory):
    """Of all that is below; others may take names and directories away meanwhile."""
    for parent, directories, names in os.walk(directory):
        for name in directories + names:
            yield pathlib.Path(parent, name)


def bytes_on_disk(directory):
    """Real blocks of all that is below, as du counts."""
    total = 0
    for path in paths_below(directory):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def odd_names(directory):
    """Names that make trouble: every byte that a name may hold, no UTF-8, 255 bytes, looking like ours."""
    directory = os.fsencode(directory)
    os.makedirs(directory)
    names = [bytes([byte]) for byte in range(1, 256) if bytes([byte]) not in (b"/", b".")]
    names += [b"x" * 255, b"\xff" * 255, b"\xc3\xa4" * 127, b"...", b" leading", b"trailing ",
              b"new\nline", b"tab\t", b"-rf", b"*", b"%41", b"cache", b"graveyard", b"@00",
              b"Iinfs", b"D123", b"T0,0", b".nfs0001", b"con\\aux", "日本".encode()]
    for number, name in enumerate(names):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(b"%d:" % number + name)
    return names


def deep_directories(directory, depth=60):
    """A chain of directories with a file at its end; returns that file."""
    path = pathlib.Path(directory)
    for level in range(depth):
        path = path / f"level{level:03}"
    path.mkdir(parents=True)
    (path / "bottom").write_text("at the bottom\n")
    return path / "bottom"


def hard_links(directory):
    """Two names of a file, a third in another directory."""
    directory = pathlib.Path(directory)
    (directory / "elsewhere").mkdir(parents=True)
    (directory / "first").write_bytes(b"one file, three names\n" * 5000)
    os.link(directory / "first", directory / "second")
    os.link(directory / "first", directory / "elsewhere/third")


def special_files(directory):
    """A fifo, a socket, two devices that nobody has, symbolic links good, bad and long."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True)
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(directory / "character", stat.S_IFCHR | 0o600, os.makedev(240, 7))
    os.mknod(directory / "block", stat.S_IFBLK | 0o600, os.makedev(241, 1000))
    (directory / "target").write_text("the target of a link\n")
    os.symlink("target", directory / "link")
    os.symlink("nowhere", directory / "dangling")
    os.symlink("x" * 1000, directory / "long")
    os.symlink(b"\xff\xfe", os.fsencode(directory / "bytes"))


def sparse_file(path, size, islands):
    """A file of `size` bytes with a little data at each offset in `islands`: {offset: bytes}."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in islands.items():
            os.pwrite(file.fileno(), data, offset)
    return path


def _digest_of_file(path):
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _entry(path):
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    entry = {"type": stat.filemode(status.st_mode)[0],
             "mode": oct(stat.S_IMODE(status.st_mode)),
             "owner": (status.st_uid, status.st_gid), "mtime": status.st_mtime_ns}
    if kind != stat.S_IFDIR:
        entry["links"] = status.st_nlink
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        entry["size"] = status.st_size
    if kind == stat.S_IFREG:
        entry["sha256"] = _digest_of_file(path)
    elif kind == stat.S_IFLNK:
        entry["target"] = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry["device"] = status.st_rdev
    return entry


def digest(tree):
    """Everything that a reader can see of a tree: relative path (bytes) -> its properties, sorted."""
    tree = os.fsencode(tree)
    found = {b".": _entry(tree)}
    unvisited = [tree]
    while unvisited:
        directory = unvisited.pop()
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, tree)] = entry = _entry(path)
            if entry["type"] == "d":
                unvisited.append(path)
    return dict(sorted(found.items()))


def difference(expected, actual, most=20):
    """Where two digests differ, one line each, for people; empty if they are equal."""
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        if path not in actual:
            lines.append(f"missing: {os.fsdecode(path)!r}")
        elif path not in expected:
            lines.append(f"not expected: {os.fsdecode(path)!r}")
        elif expected[path] != actual[path]:
            for key in expected[path].keys() | actual[path].keys():
                old, new = expected[path].get(key), actual[path].get(key)
                if old != new:
                    lines.append(f"{os.fsdecode(path)!r}: {key} is {new}, not {old}")
    hidden = len(lines) - most
    return "\n".join(lines[:most] + ([f"and {hidden} more"] if hidden > 0 else []))


def remove(tree):
    shutil.rmtree(tree, ignore_errors=True)
