"""What may differ between a mount and a local directory, and why; everything else is a bug.

Never compared: st_ino (only which names are one file), atime, ctime, st_blocks, the size of directories, the numbers
of statfs, positions in directories and fifos, where holes are, which of several conflicting locks F_GETLK shows.
A time is compared to the nanosecond if a utimens set it; otherwise both must be of today.
"""

import dataclasses
import stat
from collections.abc import Callable

_HANDLE_CALLS = frozenset({"read", "pread", "write", "pwrite", "ftruncate", "fallocate", "copy_file_range",
                           "data_and_holes", "map_read", "map_write", "fsync", "fdatasync", "mmap", "list_handle"})


@dataclasses.dataclass(frozen=True)
class Situation:
    """What a rule may ask about the moment; `model` looks at the model alone."""
    operation: dict
    hidden_names: Callable            # how many there may be: of files that are open and were removed
    opener: object                    # the User who opened the handle, or None
    flags: tuple                      # with which he opened it
    handle_status: Callable           # fstat of the handle on the model, as attributes(), or None
    model_names: Callable             # what is in the directory that "path" or "to" names on the model


def opener_lost_the_right(situation):
    """By the mode alone its opener could not open the file again as it is open."""
    opener, status = situation.opener, situation.handle_status()
    if opener is None or opener.uid == 0 or not status or "mode" not in status:
        return False
    mode = int(status["mode"], 8)
    wanted = (0 if "O_WRONLY" in situation.flags else stat.S_IROTH) | \
        (0 if "O_RDONLY" in situation.flags else stat.S_IWOTH)
    if opener.uid == status["uid"]:
        mode >>= 6
    elif status["gid"] in (opener.gid, *opener.groups):
        mode >>= 3
    return mode & wanted != wanted


def _only_hidden_names_are_left(situation):
    directory = situation.operation["to" if situation.operation["op"] == "rename" else "path"]
    return situation.hidden_names() > 0 and not situation.model_names(directory)


_OPEN_DIRECTORY_CALLS = frozenset({"fchmod", "fchown", "futimens", "fstat", "list_handle", "fsync", "fdatasync", "flock",
                                   "lock", "get_lock", "same_file"})


def _is_a_removed_directory(attributes):
    return attributes.get("type") == "d" and attributes["nlink"] == 0


def _handle_of_a_removed_directory(situation):
    return _is_a_removed_directory(situation.handle_status() or {})


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The subject may refuse; then the model does not do it either, so that both stay alike."""
    operations: frozenset
    errnos: frozenset
    reason: str
    when: Callable = lambda situation: True


REFUSALS = (
    Refusal(frozenset({"rename_with_flags"}), frozenset({"EINVAL"}),
            "NFSv3's RENAME has no flags"),
    Refusal(frozenset({"fallocate"}), frozenset({"EOPNOTSUPP"}),
            "NFSv3 has neither ALLOCATE nor DEALLOCATE"),
    Refusal(_HANDLE_CALLS, frozenset({"EACCES"}),
            "an NFSv3 server knows no open files: it checks each READ and WRITE against the mode as it is now",
            opener_lost_the_right),
    Refusal(frozenset({"rmdir", "rename"}), frozenset({"ENOTEMPTY", "EEXIST", "EBUSY"}),
            "a file that is removed while it is open keeps a hidden name in its directory",
            _only_hidden_names_are_left),
    Refusal(_HANDLE_CALLS | _OPEN_DIRECTORY_CALLS, frozenset({"ESTALE"}),
            "a fifo is opened by the kernel alone: removed while it is open, it is gone from the server",
            lambda situation: (situation.handle_status() or {}).get("type") == "p"),
    Refusal(_HANDLE_CALLS | _OPEN_DIRECTORY_CALLS, frozenset({"ESTALE", "ENOENT"}),
            "a directory that is removed while it is open is gone from the server: its handle is stale",
            _handle_of_a_removed_directory),
)

# Both are right: POSIX leaves the choice.
SAME_ERRNOS = (
    (frozenset({"rmdir", "rename"}), frozenset({"ENOTEMPTY", "EEXIST"}), "a directory that is not empty"),
    (frozenset({"lock"}), frozenset({"EAGAIN", "EACCES"}), "a lock that another process holds"),
)

# Done on neither side; the coordinator finds out from the model.
NOT_DONE = {
    "device": "a mount may be nodev: devices are made, seen and removed, never opened",
    "same size": "truncate(2) to the size that the file has: filesystems differ in whether mtime changes",
    "mapped": "taking the right to a file that is mapped, or mapping one whose opener has lost it: an NFSv3 server "
              "refuses the pages then, and the program dies",
    "answered early": "writing to a file whose opener has lost the right to: the server refuses it when the write was "
                      "answered long ago, and a later call of somebody else tells",
    "nobody": "chown(-1, -1): what becomes of suid then, filesystems do not agree on",
    "same number": "a removed directory's number may be given to a new file at once, by the server",
    "sgid directory": "chown of one: nfs-ganesha takes the bit off, as Linux does for files alone",
    "special": "links of sockets and devices, or making them: once nfs-ganesha has forgotten what it knew of one (another "
               "of its names was removed, or the server restarted), it answers EINVAL to all about it",
    "privileges": "fallocate of a suid or sgid file: tmpfs keeps the bits, ext4 does not",
    "cut": "truncating somebody else's suid or sgid file: an NFS server may leave the bits, and lets only the owner take "
           "them off",
}

# Where a time is not compared, beside the rule above.
MTIME_EXCEPTIONS = {
    "mapping": "stores through a mapping and fallocate: tmpfs stamps neither, others late; to the sequence's end",
    "fifo": "what goes through a fifo the kernel alone sees: it stamps a local one, and asks no filesystem",
    "hidden": "a directory's time changes again when the hidden name of a removed file goes at its last close",
}


def possible_refusals(operation):
    """The errnos for which may_refuse() is to be asked."""
    return {error for rule in REFUSALS if operation["op"] in rule.operations for error in rule.errnos}


def may_refuse(operation, error, situation):
    """The rule that allows it, or None."""
    for rule in REFUSALS:
        if operation["op"] in rule.operations and error in rule.errnos and rule.when(situation):
            return rule
    return None


def same_error(operation, one, other):
    return one == other or any(operation["op"] in operations and {one, other} <= errnos
                               for operations, errnos, _ in SAME_ERRNOS)


def same_listing(subject, model):
    """"?" is the type of what may be listed but not looked at: READDIRPLUS is refused then, READDIR tells none."""
    if subject[0] != "ok" or model[0] != "ok":
        return False
    types = dict(map(tuple, model[1]))
    return [[name, types.get(name) if kind == "?" else kind] for name, kind in subject[1]] == model[1]


@dataclasses.dataclass
class Leniency:
    """What is known of a sequence so far that attributes_differ() has to allow for."""
    earliest_now_ns: int
    compare_directory_links: bool
    hidden_names: Callable
    hidden_names_were: bool = False
    unstamped: set = dataclasses.field(default_factory=set)  # st_ino of the model: "mapping" above


def attributes_differ(subject, model, leniency):
    """The name of the first attribute that differs, or None."""
    if _is_a_removed_directory(model):
        return None  # nobody can ask the server any more
    if model.get("type") == "p" and model["nlink"] == 0:
        return None  # the same: the kernel alone has a fifo open
    if subject.keys() != model.keys():
        return "existence" if "error" in subject or "error" in model else "type"
    for name, value in model.items():
        if name in ("ino", "file") and not isinstance(value, str):
            continue
        if name == "mtime":
            if _mtimes_differ(subject, model, leniency):
                return name
        elif name == "nlink":
            if _links_differ(subject, model, leniency):
                return name
        elif name == "mode" and _is_about_privileges(subject[name], value):
            continue
        elif subject[name] != value:
            return name
    return None


def _is_about_privileges(subject, model):
    """sgid without the group's x: whether it goes depends on who writes, which the kernel does not tell a filesystem in
    user space. And an NFSv3 server knows who opened, not who writes: what root would leave, it takes off."""
    subject, model = int(subject, 8), int(model, 8)
    differ = subject ^ model
    return (differ == stat.S_ISGID and not model & stat.S_IXGRP) or \
        (not differ & ~(stat.S_ISUID | stat.S_ISGID) and not subject & differ)


def _mtimes_differ(subject, model, leniency):
    if model["ino"] in leniency.unstamped:
        return False
    set_long_ago = model["mtime"] < leniency.earliest_now_ns
    if model["type"] == "d" and leniency.hidden_names_were and set_long_ago:
        return False
    if model["type"] == "p" and not set_long_ago:
        return False
    if set_long_ago and model["type"] == "l":
        return False  # some servers (nfs-ganesha's VFS) leave the times of a symlink as they are
    if set_long_ago:
        return subject["mtime"] != model["mtime"]
    return subject["mtime"] < leniency.earliest_now_ns


def _links_differ(subject, model, leniency):
    if model["type"] == "d":
        return leniency.compare_directory_links and subject["nlink"] != model["nlink"]
    # A hidden name is a link, too.
    return subject["nlink"] != model["nlink"] and \
        not model["nlink"] < subject["nlink"] <= model["nlink"] + leniency.hidden_names()
