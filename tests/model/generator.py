"""Generator: random operations that are likely to meet each other. Same seed and same model, same operations."""

import os
import stat

from model import tree
from model.worker import GROUPS

_FILES = ["a", "b", "c", "g.txt"]
_DIRECTORIES = ["d", "e"]
_ODD = ["name with spaces", "\udcff\udcfe", "x" * 255]
_SIZES = [0, 1, 10, 100, 4095, 4096, 4097, 20_000, 65_536, 65_537, 100_000, 300_000]
_RARE_SIZES = [1 << 20, (1 << 20) + 1, 3_000_017]
_FILE_MODES = [0o644, 0o600, 0o664, 0o666, 0o755, 0o777, 0o700, 0o444, 0o000, 0o640, 0o060, 0o004, 0o4755, 0o2755,
               0o6775, 0o2664, 0o1666]
_DIRECTORY_MODES = [0o777, 0o777, 0o777, 0o755, 0o775, 0o1777, 0o2777, 0o2775, 0o700, 0o711, 0o733, 0o555, 0o000]
_MOST_HANDLES = 8  # of a worker
_MANY_NAMES = 50
_SCAN_EVERY = 10

_WEIGHTS = {
    "open": 90, "close": 40, "dup": 4, "read": 18, "pread": 25, "write": 35, "pwrite": 35, "lseek": 10,
    "data_and_holes": 6, "ftruncate": 22, "truncate": 14, "fsync": 6, "fdatasync": 3, "fallocate": 5,
    "copy_file_range": 8, "mmap": 12, "map_read": 10, "map_write": 20, "munmap": 2, "unlink": 24, "rmdir": 6,
    "mkdir": 12, "mknod": 6, "symlink": 12, "readlink": 5, "link": 12, "rename": 36, "rename_with_flags": 4,
    "chmod": 14, "fchmod": 6, "chown": 8, "fchown": 4, "utimens": 12, "futimens": 5, "touch": 4, "stat": 12,
    "lstat": 8, "fstat": 6, "same_file": 5, "access": 8, "list": 14, "list_handle": 3, "statfs": 2, "flock": 10,
    "lock": 14, "get_lock": 5, "umask": 2, "become": 3, "check": 1,
}
OPERATIONS = tuple(_WEIGHTS)


class Generator:
    """next() gives an operation; heard() tells it what came of it."""

    def __init__(self, random, model_root, workers, users):
        self._random = random
        self._root = model_root
        self._workers = workers
        self._users = users
        self._handles = {}   # number: worker
        self._recent = []    # paths that were opened, so that handles and names meet
        self._mappings = {}
        self._last = 0, None  # worker and handle
        self._numbers = 0
        self._made = 0
        self._names = {}

    def next(self):
        if self._made % _SCAN_EVERY == 0:
            self._names = tree.names_by_type(self._root)
        self._made += 1
        while True:
            kind = self._random.choices(OPERATIONS, [*_WEIGHTS.values()])[0]
            if kind == "open" and len(self._handles) >= _MOST_HANDLES * self._workers:
                kind = "close"
            if sum(map(len, self._names.values())) > _MANY_NAMES and self._random.random() < 0.3:
                kind = self._random.choice(["unlink", "rmdir", "rename"])
            worker = self._last[0] if self._chance(0.3) else self._random.randrange(self._workers)
            operation = {"op": kind, "worker": worker}
            if getattr(self, "_" + kind)(operation) is not False:
                if self._random.random() < 0.7:
                    operation["look"] = True
                return operation

    def heard(self, operation, result):
        kind, worked = operation["op"], result[0] == "ok"
        if kind in ("open", "dup") and worked:
            self._handles[operation["new"]] = operation["worker"]
        elif kind == "close":
            self._handles.pop(operation["h"], None)
        elif kind == "mmap" and worked:
            self._mappings[operation["new"]] = operation["worker"]
        elif kind == "munmap":
            self._mappings.pop(operation["map"], None)

    # Pieces

    def _chance(self, probability):
        return self._random.random() < probability

    def _new_name(self, likely=(*_FILES, *_FILES, *_DIRECTORIES)):
        directories = ["", *self._names.get("d", [])]
        directory = self._random.choice(directories)
        if self._chance(0.05) and self._names.get("l"):
            directory = self._random.choice(self._names["l"])  # a link in the middle, to whatever
        if directory.count("/") > 3:
            directory = ""
        name = self._random.choice(likely if self._chance(0.8) else [*_FILES, *_DIRECTORIES, *_ODD])
        return directory + "/" + name if directory else name

    def _existing(self, *types):
        paths = [path for kind in types for path in self._names.get(kind, [])]
        return self._random.choice(paths) if paths else self._new_name(_DIRECTORIES if types == ("d",) else _FILES)

    def _path(self, *types):
        """Mostly of one of these types; sometimes of any, new, or odd."""
        roll = self._random.random()
        if roll < 0.70:
            path = self._existing(*types)
        elif roll < 0.80 and self._recent:
            path = self._random.choice(self._recent)
        elif roll < 0.90:
            path = self._existing("-", "d", "l", "p", "c", "b", "s")
        else:
            path = self._new_name()
        if self._chance(0.02):
            path += self._random.choice(["/", "/.", "/..", "/a", "x" * 256])
        return path

    def _handle(self, operation, key="h"):
        """One of the worker's own."""
        own = [number for number, worker in self._handles.items() if worker == operation["worker"]]
        if not own:
            return False
        last = self._last[1]  # what is done to one file one after the other finds most
        operation[key] = last if last in own and self._chance(0.4) else self._random.choice(own)
        self._last = operation["worker"], operation[key]
        return True

    def _mapping(self, operation):
        own = [number for number, worker in self._mappings.items() if worker == operation["worker"]]
        if not own:
            return False
        operation["map"] = self._random.choice(own)
        return True

    def _number(self):
        self._numbers += 1
        return self._numbers

    def _size(self):
        return self._random.choice(_RARE_SIZES if self._chance(0.03) else _SIZES)

    def _offset(self):
        return self._size() if self._chance(0.7) else self._random.randrange(70_000)

    def _data(self):
        return [self._random.getrandbits(32), min(self._size(), 400_000)]

    def _ids(self):
        ids = [-1, *(user.uid for user in self._users)]
        groups = [-1, *(user.gid for user in self._users), *GROUPS]
        return self._random.choice(ids), self._random.choice(groups)

    def _times(self):
        """Between 1980 and 2015, with nanoseconds: no clock of ours shows them."""
        return [self._random.randrange(315_532_800, 1_420_070_400) * 10**9 + self._random.randrange(10**9)
                for _ in range(2)]

    # Handles

    def _open(self, operation):
        flags = [self._random.choice(["O_RDONLY", "O_WRONLY", "O_RDWR", "O_RDWR", "O_RDWR", "O_RDWR"])]
        for name, probability in (("O_CREAT", 0.5), ("O_EXCL", 0.12), ("O_TRUNC", 0.15), ("O_APPEND", 0.2),
                                  ("O_NOFOLLOW", 0.1), ("O_DIRECTORY", 0.04), ("O_SYNC", 0.04), ("O_DSYNC", 0.02)):
            if self._chance(probability):
                flags.append(name)
        path = self._path("-") if self._chance(0.8) else self._path("-", "l", "d", "p")
        if "O_CREAT" in flags and self._chance(0.3):
            path = self._new_name(_FILES)
        if "O_EXCL" in flags and "O_CREAT" not in flags:
            flags.remove("O_EXCL")  # undefined
        if self._chance(0.1):
            path, flags = self._path("d"), ["O_RDONLY", "O_DIRECTORY"]
        operation.update(path=path, flags=flags, mode=self._random.choice(_FILE_MODES), new=self._number())
        self._recent = [*self._recent[-5:], path]

    def _dup(self, operation):
        operation["new"] = self._number()
        return self._handle(operation)

    def _close(self, operation):
        return self._handle(operation)

    def _read(self, operation):
        operation["length"] = self._size()
        return self._handle(operation)

    def _pread(self, operation):
        operation.update(length=self._size(), offset=self._offset())
        return self._handle(operation)

    def _write(self, operation):
        operation["data"] = self._data()
        return self._handle(operation)

    def _pwrite(self, operation):
        operation.update(data=self._data(), offset=-1 if self._chance(0.02) else self._offset())
        return self._handle(operation)

    def _lseek(self, operation):
        whence = self._random.choice(["SEEK_SET", "SEEK_CUR", "SEEK_END"])
        operation.update(offset=self._random.choice([0, 0, 1, -1, self._offset(), -self._offset()]), whence=whence)
        return self._handle(operation)

    def _data_and_holes(self, operation):
        return self._handle(operation)

    def _ftruncate(self, operation):
        operation["size"] = -1 if self._chance(0.02) else self._size()
        return self._handle(operation)

    def _fsync(self, operation):
        return self._handle(operation)

    def _fdatasync(self, operation):
        return self._handle(operation)

    def _fallocate(self, operation):
        # Extend, keep the size, punch a hole.
        operation.update(how=self._random.choice([0, 1, 3]), offset=self._offset(), length=self._size())
        return self._handle(operation)

    def _copy_file_range(self, operation):
        operation.update(length=self._size(), offset=self._offset(), to_offset=self._offset())
        return self._handle(operation) and self._handle(operation, "to_h")

    def _mmap(self, operation):
        operation.update(length=self._size(), writes=self._chance(0.7), new=self._number())
        return self._handle(operation)

    def _map_read(self, operation):
        operation.update(length=self._size(), offset=self._offset())
        return self._mapping(operation)

    def _map_write(self, operation):
        operation.update(data=self._data(), offset=self._random.choice([0, 1, self._offset()]), msync=self._chance(0.7))
        return self._mapping(operation)

    def _munmap(self, operation):
        return self._mapping(operation)

    def _fchmod(self, operation):
        operation["mode"] = self._random.choice(_FILE_MODES)
        return self._handle(operation)

    def _fchown(self, operation):
        operation["uid"], operation["gid"] = self._ids()
        return self._handle(operation)

    def _futimens(self, operation):
        operation["times"] = self._times()
        return self._handle(operation)

    def _fstat(self, operation):
        return self._handle(operation)

    def _same_file(self, operation):
        operation["path"] = self._path("-")
        return self._handle(operation)

    def _list_handle(self, operation):
        return self._handle(operation)

    def _flock(self, operation):
        operation["kind"] = self._random.choice(["read", "write", "write", "none"])
        return self._handle(operation)

    def _lock(self, operation):
        operation.update(kind=self._random.choice(["read", "write", "write", "none"]),
                         offset=self._random.choice([0, 0, 10, 100, 5000]), length=self._random.choice([0, 1, 50, 5000]))
        return self._handle(operation)

    def _get_lock(self, operation):
        self._lock(operation)
        operation["kind"] = self._random.choice(["read", "write"])
        return self._handle(operation)

    # Names

    def _truncate(self, operation):
        operation.update(path=self._path("-"), size=self._size())

    def _unlink(self, operation):
        operation["path"] = self._path("-", "-", "l", "p", "c", "b", "s")

    def _rmdir(self, operation):
        operation["path"] = self._path("d")

    def _mkdir(self, operation):
        path = self._new_name(_DIRECTORIES) if self._chance(0.8) else self._path("d")
        operation.update(path=path, mode=self._random.choice(_DIRECTORY_MODES))

    def _mknod(self, operation):
        kind = self._random.choice([stat.S_IFIFO, stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
        device = os.makedev(240, 7) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        operation.update(path=self._new_name(_FILES), mode=kind | self._random.choice(_FILE_MODES), device=device)

    def _symlink(self, operation):
        name = self._random.choice([*_FILES, *_DIRECTORIES])
        target = self._random.choice([name, "../" + name, name + "/" + name, "./" + name, "nowhere", "x" * 1000, "", "."])
        operation.update(path=self._new_name() if self._chance(0.8) else self._path("-"), target=target)

    def _readlink(self, operation):
        operation["path"] = self._path("l")

    def _link(self, operation):
        operation.update(path=self._path("-", "-", "-", "l", "d"), to=self._new_name() if self._chance(0.8) else self._path("-"))

    def _rename(self, operation):
        if self._chance(0.25):
            operation.update(path=self._path("d"), to=self._path("d"))
            if self._chance(0.2):
                operation["to"] = operation["path"] + "/a"  # into itself
        else:
            operation.update(path=self._path("-", "-", "l", "p"), to=self._path("-") if self._chance(0.6) else self._new_name())

    def _rename_with_flags(self, operation):
        self._rename(operation)
        operation["how"] = self._random.choice([1, 1, 2])  # NOREPLACE, EXCHANGE

    # Attributes

    def _chmod(self, operation):
        path = self._path("-", "d")
        directories = path in self._names.get("d", [])
        operation.update(path=path, mode=self._random.choice(_DIRECTORY_MODES if directories else _FILE_MODES))

    def _chown(self, operation):
        operation.update(path=self._path("-", "d", "l"), follow=self._chance(0.6))
        operation["uid"], operation["gid"] = self._ids()

    def _utimens(self, operation):
        operation.update(path=self._path("-", "-", "d", "l"), times=self._times(), follow=self._chance(0.7))

    def _touch(self, operation):
        operation["path"] = self._path("-", "d")

    def _stat(self, operation):
        operation["path"] = self._path("-", "d", "l")

    def _lstat(self, operation):
        operation["path"] = self._path("-", "d", "l")

    def _access(self, operation):
        operation.update(path=self._path("-", "d"), mode=self._random.randrange(8))

    def _list(self, operation):
        operation["path"] = self._path("d") if self._chance(0.8) else "."

    def _statfs(self, operation):
        operation["path"] = "."

    # The worker itself, and everything

    def _umask(self, operation):
        operation["mask"] = self._random.choice([0, 0o022, 0o022, 0o077, 0o007])

    def _become(self, operation):
        operation["user"] = self._random.randrange(len(self._users))

    def _check(self, operation):
        pass
