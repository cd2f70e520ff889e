"""Coordinator: gives one operation at a time to one worker, on both sides, and compares what came of it."""

import collections
import contextlib
import dataclasses
import os
import re
import stat
import time

from model import tree
from model.differences import (NOT_DONE, Leniency, Situation, attributes_differ, may_refuse, opener_lost_the_right,
                               possible_refusals, same_error, same_listing)
from model.side import attributes
from model.system import System
from model.worker import Died, Hung, Worker

_DAY_NS = 86_400 * 10**9
_UNSTAMPED_AFTER = frozenset({"fallocate", "mmap"})
_SPECIAL = (stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR)
SERVER_SECONDS = 30  # at most: a hidden name goes a moment after its last close


@dataclasses.dataclass
class Difference:
    """What went wrong: `aspect` says in which respect, so that shrinking looks for the same."""
    operation: dict
    aspect: str
    subject: object
    model: object

    def same_as(self, other):
        return other is not None and (self.operation["op"], self.aspect) == (other.operation["op"], other.aspect)

    def __str__(self):
        return f"{self.operation['op']}: {self.aspect}: subject {self.subject!r}, model {self.model!r}"


@dataclasses.dataclass(frozen=True)
class Directories:
    """Where trees are compared; `server` is the subject seen behind it, or None."""
    subject: str
    model: str
    server: str | None = None

    def below(self, name):
        return Directories(*(path and os.path.join(path, name) for path in (self.subject, self.model, self.server)))


class Coordinator:
    """Owns the workers. begin(), then run() for each operation, then finish(): any number of times."""

    def __init__(self, users, workers, subject_system=None, seconds=60, hidden=None, without_special=False):
        """`hidden` matches names that the subject's listings may show while removed files are open."""
        systems = {"subject": (subject_system or System)(), "model": System()}
        self._users = users
        self._systems = systems
        self._seconds = seconds
        self._hidden = re.compile(hidden or r"(?!)")
        self._without_special = without_special
        self._count = workers
        self._workers = []
        self.has_hung = False  # then the subject is not touched any more but by processes that can be left
        self.outcomes = collections.Counter()  # (operation, result)
        self.allowed = collections.Counter()   # reason of a known difference
        self._start_workers()

    def _start_workers(self):
        for worker in self._workers:
            worker.stop()
        self._workers = [Worker(number, self._systems, self._seconds) for number in range(self._count)]

    def stop(self):
        for worker in self._workers:
            worker.stop()

    def begin(self, directories):
        """Makes the directories, which must not be there, and forgets what was before."""
        self._directories = directories
        self._roots = {}
        for side, path in (("subject", directories.subject), ("model", directories.model)):
            # Two levels: a symbolic link to ../x at the top leads to the outer one.
            self._roots[side] = os.path.join(path, "tree")
            for made in (path, self._roots[side]):
                os.mkdir(made)
                os.chmod(made, 0o777)
        self._identities = [self._users[number % len(self._users)] for number in range(self._count)]
        for worker, user in zip(self._workers, self._identities):
            worker.begin(self._roots, user)
        self._openers = {}
        self._has_mapped = False
        self._leniency = Leniency(time.time_ns() - _DAY_NS, self._counts_directory_links(),
                                  self._hidden_names)

    @property
    def model_root(self):
        return self._roots["model"]

    def _counts_directory_links(self):
        """Some filesystems count subdirectories as links, some do not: compared if both do."""
        return all(os.stat(path).st_nlink == 3
                   for path in (self._directories.subject, self._directories.model))

    def run(self, operation):
        """Returns a Difference, or None, and what the model answered."""
        try:
            if operation["op"] == "check":
                return self.compare_trees(operation), ["ok", None]
            if operation["op"] == "become":
                return self._become(operation), ["ok", None]
            why = self._not_done(operation)
            if why:
                self.allowed[NOT_DONE[why]] += 1
                return None, ["skipped", why]
            return self._run_on_both(operation)
        except Died as died:
            difference = Difference(operation, "death", str(died), None)
        except Hung as hung:
            difference = Difference(operation, "hang", str(hung), None)
            self.has_hung = True
        self._start_workers()
        return difference, ["error", "EIO"]

    def _become(self, operation):
        user = self._users[operation["user"] % len(self._users)]
        self._identities[operation["worker"]] = user
        self._workers[operation["worker"]].become(user)

    def _not_done(self, operation):
        kind = operation["op"]
        if kind == "fallocate":
            status = self._model_status(operation, "h")
            return "privileges" if status and int(status["mode"], 8) & (stat.S_ISUID | stat.S_ISGID) else None
        if kind in ("chown", "fchown") and operation["uid"] == operation["gid"] == -1:
            return "nobody"
        if kind == "same_file":
            status = self._model_status(operation, "h")
            return "same number" if status and status["nlink"] == 0 else None
        if kind in ("chmod", "fchmod", "chown", "fchown"):
            if self._has_mapped:
                return "mapped"
            return "sgid directory" if kind.endswith("chown") and self._is_sgid_directory(operation) else None
        if kind == "link":
            return "special" if self._type_on_model(operation["path"]) in ("s", "b", "c") else None
        if kind == "mknod":
            return "special" if self._without_special and stat.S_IFMT(operation["mode"]) in _SPECIAL else None
        if kind in ("write", "pwrite", "copy_file_range"):
            situation = self._situation(operation, "to_h" if kind == "copy_file_range" else "h")
            return "answered early" if opener_lost_the_right(situation) else None
        if kind == "ftruncate":
            opener = self._situation(operation).opener
            return "cut" if opener and self._is_privileged_of_another(self._model_status(operation, "h"), opener) else None
        if kind == "mmap":
            return "mapped" if opener_lost_the_right(self._situation(operation)) else None
        if kind not in ("open", "truncate"):
            return None
        try:
            status = os.stat(os.path.join(self.model_root, operation["path"]))
        except OSError:
            return None
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            return "device"
        if (kind == "truncate" or "O_TRUNC" in operation["flags"]) and \
                self._is_privileged_of_another(attributes(status), self._identities[operation["worker"]]):
            return "cut"
        return "same size" if kind == "truncate" and status.st_size == operation["size"] else None

    @staticmethod
    def _is_privileged_of_another(status, user):
        return bool(status) and "mode" in status and int(status["mode"], 8) & (stat.S_ISUID | stat.S_ISGID) != 0 and \
            user.uid not in (0, status["uid"])

    def _type_on_model(self, path):
        try:
            return stat.filemode(os.lstat(os.path.join(self.model_root, path)).st_mode)[0]
        except OSError:
            return None

    def _is_sgid_directory(self, operation):
        try:
            status = self._model_status(operation, "h") if "h" in operation else \
                attributes(os.stat(os.path.join(self.model_root, operation["path"])))
        except OSError:
            return False
        return bool(status) and status["type"] == "d" and int(status["mode"], 8) & stat.S_ISGID != 0

    def _model_status(self, operation, key):
        result, _ = self._workers[operation["worker"]].do("model", {"op": "fstat", "h": operation.get(key)})
        return result[1] if result[0] == "ok" else None

    def _run_on_both(self, operation):
        worker = self._workers[operation["worker"]]
        subject, seen, model, expected = worker.do_both(operation, possible_refusals(operation))
        if model is None:
            rule = may_refuse(operation, subject[1], self._situation(operation))
            if rule:
                self.allowed[rule.reason] += 1
                return None, subject
            model, expected = worker.do("model", operation)
        if operation["op"] in ("list", "list_handle") and subject[0] == "ok":
            subject[1][:] = [entry for entry in subject[1] if not self._hidden.fullmatch(entry[0])]
        self.outcomes[operation["op"], model[0] if model[0] != "error" else model[1]] += 1
        self._has_mapped |= operation["op"] == "mmap" and model[0] == "ok"
        self._remember(operation, model, expected)
        return self._compare(operation, subject, model) or self._compare_seen(operation, seen, expected), model

    def _situation(self, operation, handle="h"):
        kind = "h" if handle in operation else "map"
        opener, flags = self._openers.get((kind, operation.get(handle if kind == "h" else kind)), (None, ()))
        return Situation(operation, self._hidden_names, opener, flags,
                         lambda: self._model_status(operation, handle) or self._status_behind(operation),
                         self._model_names)

    def _model_names(self, directory):
        try:
            return os.listdir(os.path.join(self.model_root, directory))
        except OSError:
            return ["it cannot be read"]

    def _status_behind(self, operation):
        """Of a mapping's file: the handle may be closed by now."""
        handle = self._openers.get(("file of map", operation.get("map")))
        return self._model_status({"worker": operation["worker"], "h": handle}, "h")

    def _remember(self, operation, model, expected):
        kind = operation["op"]
        if model[0] != "ok":
            return
        if kind in ("unlink", "rename", "rename_with_flags") and not self._leniency.hidden_names_were:
            self._leniency.hidden_names_were = self._hidden_names() > 0
        if kind == "open":
            self._openers["h", operation["new"]] = self._identities[operation["worker"]], tuple(operation["flags"])
        elif kind == "dup":
            self._openers["h", operation["new"]] = self._openers["h", operation["h"]]
        elif kind == "mmap":
            self._openers["map", operation["new"]] = self._openers["h", operation["h"]]
            self._openers["file of map", operation["new"]] = operation["h"]
        self._remember_stamps(operation, expected)

    def _remember_stamps(self, operation, expected):
        kind = operation["op"]
        if kind in _UNSTAMPED_AFTER:
            status = self._model_status(operation, "h") if "h" in operation else None
            if status and (kind != "mmap" or operation["writes"]):
                self._leniency.unstamped.add(status["ino"])

    def _hidden_names(self):
        """How many open descriptors of the model are of names that were removed."""
        count = 0
        for worker in self._workers:
            with contextlib.suppress(OSError):
                for fd in os.scandir(f"/proc/{worker.pid}/fd"):
                    target = os.readlink(fd.path)
                    count += target.startswith(self.model_root) and target.endswith(" (deleted)")
        return count

    def _compare(self, operation, subject, model):
        if subject[0] == model[0] == "error" and same_error(operation, subject[1], model[1]):
            return None
        if operation["op"] in ("stat", "lstat", "fstat") and subject[0] == model[0] == "ok":
            return self._compare_seen(operation, {"status": subject[1]}, {"status": model[1]})
        if model[0] == "skipped" and subject[0] != "ok":
            return None  # before it was skipped, the subject had to say what the handle is
        if subject == model or (operation["op"] in ("list", "list_handle") and same_listing(subject, model)):
            return None
        return Difference(operation, "result", subject, model)

    def _compare_seen(self, operation, seen, expected):
        if not expected:
            return None
        for what, attributes in expected.items():
            name = "existence" if what not in seen else attributes_differ(seen[what], attributes, self._leniency)
            if name is not None:
                ours = seen.get(what, {})
                return Difference(operation, f"{name} of {what}", ours.get(name, ours), attributes.get(name, attributes))
        return None

    def compare_trees(self, operation):
        """Subject and model, whole, as root sees them."""
        model = tree.scan(self._directories.model)
        found = tree.differences(tree.scan(self._directories.subject, self._hidden), model, self._leniency)
        if found or operation["op"] == "check":
            return self._tree_difference(operation, found)
        # At the end nothing is open, and soon no name may be hidden any more: close(2) does not wait for that.
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            found = tree.differences(tree.scan(self._directories.subject), model, self._leniency)
            if not found or time.monotonic() > deadline:
                return self._tree_difference(operation, found)
            time.sleep(0.05)

    @staticmethod
    def _tree_difference(operation, found, where="tree"):
        if not found:
            return None
        path, name, subject, model = found[0]
        return Difference(operation, f"{where}: {name}", f"{path}: {subject} ({len(found)} in all)", f"{path}: {model}")

    def finish(self):
        """Closes everything, compares everything, removes everything; returns a Difference or None."""
        operation = {"op": "finish"}
        try:
            errors = [[worker.end(side) for worker in self._workers] for side in ("subject", "model")]
        except (Died, Hung) as trouble:
            self._start_workers()
            return Difference(operation, "end", str(trouble), None)
        if errors[0] != errors[1]:
            return Difference(operation, "closing", *errors)
        return self.compare_trees(operation) or self._compare_server(operation) or self._remove(operation)

    def _compare_server(self, operation):
        if self._directories.server is None:
            return None
        model = tree.scan(self._directories.model)
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            found = tree.differences(tree.scan(self._directories.server), model, self._leniency)
            if not found or time.monotonic() > deadline:
                return self._tree_difference(operation, found, "server")
            time.sleep(0.05)

    def _remove(self, operation):
        error = tree.remove(self._directories.subject)
        tree.remove(self._directories.model)
        if error is None and os.path.lexists(self._directories.server or self._directories.subject):
            error = "it is still there"
        return error and Difference(operation, "removing the tree", error, None)

    def abandon(self):
        """After a difference: closes and removes without looking."""
        for worker in self._workers:
            with contextlib.suppress(Died, Hung):
                for side in ("subject", "model"):
                    worker.end(side)
        for path in (self._directories.subject, self._directories.model, self._directories.server):
            if path is not None:
                self.remove(path)

    def remove(self, path):
        if self.has_hung:
            tree.remove_if_it_can_be(path)
        else:
            tree.remove(path)
