"""Whole trees: everything that there is to see, and where two of them differ."""

import hashlib
import os
import shutil
import stat
import subprocess

from model.differences import attributes_differ
from model.side import attributes

_PIECE = 1 << 20
_SECONDS_TO_REMOVE = 10


def _content(path):
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _entry(path, hidden):
    try:
        status = os.lstat(path)
        entry = attributes(status)
        if stat.S_ISREG(status.st_mode):
            entry["content"] = _content(path)
        elif stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            entry["names"] = sorted(name for name in os.listdir(path) if not (hidden and hidden.fullmatch(name)))
        return entry
    except OSError as error:
        return {"error": error.strerror}


def scan(root, hidden=None):
    """Relative path -> what it is, parents first, without names that `hidden` matches. Names of one file share "file", the first of them."""
    found, unvisited, first_names = {}, ["."], {}
    while unvisited:
        relative = unvisited.pop()
        found[relative] = entry = _entry(os.path.join(root, relative), hidden)
        if entry.get("type") == "-" and entry["nlink"] > 1:
            entry["file"] = first_names.setdefault(entry["ino"], relative)
        unvisited += sorted(os.path.normpath(os.path.join(relative, name))
                            for name in entry.get("names", ()))[::-1]
    return found


def names_by_type(root):
    """Relative paths by type ("-", "d", "l", ...), sorted: what operations can be aimed at."""
    found, unvisited = {}, [""]
    while unvisited:
        directory = unvisited.pop()
        try:
            with os.scandir(os.path.join(root, directory)) as entries:
                children = sorted((entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries)
        except OSError:
            continue
        for name, mode in children:
            path = os.path.join(directory, name)
            found.setdefault(stat.filemode(mode)[0], []).append(path)
            if stat.S_ISDIR(mode):
                unvisited.append(path)
    return {kind: sorted(paths) for kind, paths in found.items()}


def differences(subject, model, leniency):
    """(path, attribute, the subject's, the model's) of two scans."""
    found = []
    for path in sorted(subject.keys() | model.keys(), key=os.fsencode):
        ours, theirs = subject.get(path), model.get(path)
        if ours is None or theirs is None:
            found.append((path, "existence", "there" if ours else "missing", "there" if theirs else "missing"))
            continue
        name = attributes_differ(ours, theirs, leniency)
        if name is not None:
            found.append((path, name, ours.get(name, ours), theirs.get(name, theirs)))
    return found


def remove_if_it_can_be(path):
    """Of a filesystem that may hang."""
    removal = subprocess.Popen(["rm", "-rf", "--", path], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        removal.wait(_SECONDS_TO_REMOVE)
    except subprocess.TimeoutExpired:
        removal.kill()


def remove(path):
    """Returns what kept it from going, or None."""
    errors = []
    shutil.rmtree(path, onerror=lambda function, where, info: errors.append(f"{function.__name__} {where}: {info[1]}"))
    return errors[0] if errors else None
