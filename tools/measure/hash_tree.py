#!/usr/bin/env python3
"""hash_tree.py DIRECTORY PART PARTS: reads a share of a tree; a line "KIND HASH NAME" for each entry.

Names are hexadecimal: they may hold any byte. Several of these side by side, with PART from 0 to
PARTS - 1, are that many readers of the whole tree.
"""

import hashlib
import os
import stat
import sys

_PIECE = 1 << 20


def _entries(tree):
    """All paths below `tree`, in an order that depends on the names alone."""
    unvisited = [b""]
    while unvisited:
        directory = unvisited.pop()
        with os.scandir(os.path.join(tree, directory)) as listing:
            found = sorted(listing, key=lambda entry: entry.name)
        for entry in found:
            path = os.path.join(directory, entry.name)
            yield path
            if entry.is_dir(follow_symlinks=False):
                unvisited.append(path)


def _hash(path):
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _line(tree, name):
    path = os.path.join(tree, name)
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode):
        return f"file {_hash(path)} {name.hex()}"
    if stat.S_ISLNK(mode):
        return f"link {hashlib.sha256(os.readlink(path)).hexdigest()} {name.hex()}"
    return f"{stat.S_IFMT(mode):o} - {name.hex()}"


def main():
    tree, part, parts = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for number, name in enumerate(_entries(tree)):
        if number % parts == part:
            print(_line(tree, name))


if __name__ == "__main__":
    try:
        main()
    except OSError as trouble:
        sys.exit(f"hash_tree: {trouble}")
