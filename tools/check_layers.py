#!/usr/bin/env python3
"""Holds the table of layers: who may include whom. Reads every #include and every CMake edge.

usage: tools/check_layers.py            fails on an arrow that the table does not have
       tools/check_layers.py --print    prints the table as docs/architecture.md shows it
       tools/check_layers.py --self-test

Changing the table is a decision: write it down in docs/decisions/.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# folder: (what it may include, from top to bottom; one word on what it is). A name that ends in .h
# allows that header only, not the rest of its folder.
LAYERS = {
    "programs": (["engine", "keeper", "cachefilesd", "device", "cli", "handover", "base"], "parse arguments, call run(), nothing else"),
    "engine": (["fuse", "adapters/localdir", "adapters/nfs", "cachefiles", "netfs", "fscache",
                "control", "handover", "os", "base"], "puts the parts together"),
    "keeper": (["handover", "os", "base"], "outlives the engine, holds what must"),
    "cachefilesd": (["control", "handover", "culling", "cachefiles/layout.h", "os", "base"],
                    "the other end of a cache channel: brings a cache up, culls, reaps"),
    "device": (["control", "handover", "os", "base"],
               "a file like the kernel's /dev/cachefiles, at the other end of a cache channel"),
    "cli": (["control", "handover", "os", "base"], "the user's commands"),
    "fuse": (["netfs", "handover", "os", "base"], "kernel requests in, replies out"),
    "adapters/localdir": (["netfs/adapter.h", "netfs/attributes.h", "netfs/changes.h", "os", "base"],
                          "a directory plays the server: the example"),
    "adapters/nfs": (["netfs/adapter.h", "netfs/attributes.h", "netfs/changes.h", "os", "base"],
                     "the NFSv3 client"),
    "netfs": (["fscache", "base"], "what network filesystems have in common"),
    "cachefiles": (["fscache/backend.h", "culling", "os", "base"], "the cache in a directory"),
    "control": (["os", "base"], "text commands on a Unix socket"),
    "handover": (["os", "base"], "messages and records that keeper and engine share"),
    "culling": (["os", "base"], "chooses what makes room"),
    "fscache": (["base"], "caches, volumes, cookies and their states"),
    "os": (["base"], "the door to the operating system"),
    "base": ([], "words that every layer uses"),
    "testing": (["netfs/adapter.h", "netfs/attributes.h", "netfs/changes.h", "fscache/backend.h", "os",
                 "base"], "fakes; only tests link it"),
}

# What tests may include beside their own folder's rights.
TEST_EXTRA = {
    "": ["testing"],
    "keeper": ["control"],  # its scripted engine answers on the control socket
    "fuse": ["fscache"],  # its played kernel mounts a share with a cache in memory
}

# header: folders where it may stand.
SPECIAL_HEADERS = {
    "linux/fuse.h": ["fuse", "testing", "keeper/testing"],
    "fuse3/": ["device/fuse_file.cc"],  # no data path: docs/decisions/0013
    "nfsc/": [],  # libnfs: an opponent in tests/tools, never part of the product
    "thread": ["base", "keeper/testing"],
    "condition_variable": ["base"],
    "mutex": ["base"],
    "shared_mutex": ["base"],
    "future": ["base"],
}
SPECIAL_FILES = {
    ("engine/mount.cc", "thread"): "only hardware_concurrency(): how many threads a session gets",
}

# System calls on files go through os/filesystem.h, so that fakes and faults can stand in for them.
FILE_CALLS = """open openat openat2 creat pread pwrite preadv preadv2 pwritev pwritev2 rename renameat
renameat2 unlink unlinkat link linkat symlink symlinkat mkdir mkdirat mknod mknodat rmdir truncate
ftruncate fallocate posix_fallocate fsync fdatasync syncfs stat lstat fstat fstatat statx statfs
fstatfs statvfs fstatvfs getxattr setxattr fgetxattr fsetxattr listxattr removexattr utimensat
futimens chmod fchmod fchmodat chown lchown fchown fchownat opendir fdopendir readlink readlinkat
access faccessat lseek flock copy_file_range sync_file_range""".split()
FILE_CALL = re.compile(r"(?<![\w>])::(" + "|".join(FILE_CALLS) + r")\(")

# file or folder: why it may call the system itself.
FILE_CALLS_ALLOWED = {
    "os": "the door",
    "base": "below the door: its own log and descriptors",
    "adapters/localdir": "plays the server with files of this machine, which are not the cache's",
    "handover/table.cc": "the memory that keeper and engine share",
    "handover/cache_directory.cc": "prepares a cache directory as root, to be passed on",
    "keeper": "prepares the runtime directory as root and passes descriptors on",
    "cli": "opens /dev/fuse, examines mount points, starts the keeper",
    "control/server.cc": "the socket's own name",
    "device/run.cc": "the file that is mounted over",
    "device/working_directory.cc": "/proc/PID/cwd, which is no file of a cache's",
    "cachefilesd/background.cc": "/dev/null",
    "cachefilesd/kernel_channel.cc": "the kernel's device",
    "cachefilesd/pid_file.cc": "the pid file, as root",
    "cachefilesd/rights.cc": "names to Landlock what stays within reach",
    "cachefilesd/run.cc": "the engine's runtime directory, as root",
}

_INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def folder_of(path):
    """The layer that a path below src/ belongs to: the longest name in the table, or None."""
    parts = path.split("/")
    for length in (2, 1):
        name = "/".join(parts[:length])
        if name in LAYERS and len(parts) > length:
            return name
    return None


def is_test(path):
    return bool(re.search(r"_test\.(cc|h)$|_tests?_[a-z]+\.h$|_test_[a-z]+\.(h|cc)$", path)) or "/testing/" in path


def is_allowed(layer, included, test):
    """May `layer` include the header `included` (a path below src/)?"""
    target = folder_of(included)
    if target == layer:
        return True
    rights = list(LAYERS[layer][0])
    if test:
        rights += TEST_EXTRA[""] + TEST_EXTRA.get(layer, [])
    return included in rights or target in rights


def within(path, names):
    return any(path == name or path.startswith(name + "/") for name in names)


def check_source(layer, path, text):
    """The complaints about one file; `path` is below src/ (or programs/...)."""
    found = []
    for quote, included in _INCLUDE.findall(text):
        if quote == '"':
            if folder_of(included) is None:
                found.append(f'includes "{included}", which is in no layer (paths start at src/)')
            elif not is_allowed(layer, included, is_test(path)):
                found.append(f'includes "{included}": {layer} may not include {folder_of(included)}')
            continue
        for header, folders in SPECIAL_HEADERS.items():
            matches = included.startswith(header) if header.endswith("/") else included == header
            if matches and not within(path, folders) and (path, header) not in SPECIAL_FILES:
                if is_test(path) and header in ("thread", "future", "mutex"):
                    continue  # a test may bring threads of its own to bear
                found.append(f"includes <{included}>, which only {', '.join(folders) or 'tests/tools'} may")
    if not is_test(path) and not within(path, FILE_CALLS_ALLOWED):
        for match in FILE_CALL.finditer(_COMMENT.sub("", text)):
            found.append(f"calls ::{match.group(1)}: files are reached through os/filesystem.h")
    return found


def cmake_edges(text):
    """(library, its DEPS, its TEST_DEPS) of a larder_library() call, or None."""
    call = re.search(r"larder_library\((\w+)([^)]*)\)", re.sub(r"#[^\n]*", "", text))
    if call is None:
        return None
    words, edges, into = call.group(2).split(), {"DEPS": [], "TEST_DEPS": []}, None
    for word in words:
        if word in edges:
            into = word
        elif "::" not in word:
            edges[into].append(word)
    return call.group(1), edges["DEPS"], edges["TEST_DEPS"]


def program_edges(text):
    """What target_link_libraries() calls of programs/ name, as libraries of ours."""
    calls = re.findall(r"target_link_libraries\([^)]*\)", text)
    return [name for call in calls for name in re.findall(r"\blarder_(\w+)", call)]


def library_folder(name):
    """The folder of the library `name`: its last part."""
    return next((folder for folder in LAYERS if folder.split("/")[-1] == name), None)


def check_edges(layer, name, deps, test_deps):
    found = []
    if layer != "programs" and name != layer.split("/")[-1]:
        found.append(f"the library is called {name}, not as its folder")
    for kind, names in (("", deps), ("test", test_deps)):
        for dep in names:
            target = library_folder(dep)
            rights = [right.removesuffix(".h").rsplit("/", 1)[0] if right.endswith(".h") else right
                      for right in LAYERS[layer][0]]
            if kind:
                rights += TEST_EXTRA[""] + TEST_EXTRA.get(layer, [])
            if target not in rights:
                found.append(f"links {dep}: {layer} may not use {target or 'it'}")
    return found


def check_table():
    """Arrows point down: the table has no cycle."""
    done, found = set(), []

    def visit(layer, above):
        if layer in above:
            found.append("the table has a cycle: " + " -> ".join([*above, layer]))
            return
        if layer in done:
            return
        for right in LAYERS[layer][0]:
            visit(folder_of(right + ("" if right.endswith(".h") else "/x")), [*above, layer])
        done.add(layer)

    for layer in LAYERS:
        visit(layer, [])
    return found


def check_tree(root):
    found = [("table", complaint) for complaint in check_table()]
    for path in sorted([*(root / "src").rglob("*"), *(root / "programs").rglob("*")]):
        if path.suffix not in (".h", ".cc", ".def") and path.name != "CMakeLists.txt":
            continue
        relative = path.relative_to(root).as_posix()
        below = relative.removeprefix("src/")
        layer = "programs" if relative.startswith("programs/") else folder_of(below)
        if path.name == "CMakeLists.txt":
            edges = cmake_edges(path.read_text())
            if layer == "programs":
                edges = ("programs", program_edges(path.read_text()), [])
            if edges and layer:
                found += [(relative, complaint) for complaint in check_edges(layer, *edges)]
        elif layer is None:
            found.append((relative, "is in a folder that the table does not have"))
        else:
            found += [(relative, complaint) for complaint in check_source(layer, below, path.read_text())]
    return found


def printed_table():
    lines = ["| folder | may include | what it is |", "| --- | --- | --- |"]
    for layer, (rights, what) in LAYERS.items():
        lines.append(f"| `{layer}` | {', '.join(f'`{right}`' for right in rights) or 'nothing'} | {what} |")
    return "\n".join(lines) + "\n"


def self_test():
    """Each rule strikes where it should, and only there."""
    assert not check_table()
    assert not check_source("fuse", "fuse/x.cc", '#include "netfs/share.h"\n#include <linux/fuse.h>\n')
    assert check_source("fuse", "fuse/x.cc", '#include "fscache/cache.h"\n')
    assert check_source("netfs", "netfs/x.cc", '#include "cachefiles/cache.h"\n')
    assert check_source("netfs", "netfs/x.cc", '#include "testing/stepper.h"\n')
    assert not check_source("netfs", "netfs/x_test.cc", '#include "testing/stepper.h"\n')
    assert check_source("cachefiles", "cachefiles/x.cc", '#include "fscache/cookie.h"\n')
    assert not check_source("cachefiles", "cachefiles/x.cc", '#include "fscache/backend.h"\n')
    assert check_source("adapters/nfs", "adapters/nfs/x.cc", '#include "adapters/localdir/local_tree.h"\n')
    assert check_source("engine", "engine/x.cc", "#include <linux/fuse.h>\n")
    assert check_source("cachefiles", "cachefiles/x.cc", "  if (::open(path, 0) < 0) {\n")
    assert not check_source("cachefiles", "cachefiles/x.cc", "Object::open(path); root->open(x); // ::open(2)\n")
    assert not check_source("os", "os/x.cc", "::open(path, 0);\n")
    assert check_edges("fscache", "fscache", ["os", "base"], [])
    assert not check_edges("cachefiles", "cachefiles", ["fscache", "culling", "os", "base"], ["testing"])
    assert program_edges("target_link_libraries(larder PRIVATE larder_cli larder_x)") == ["cli", "x"]
    assert check_edges("programs", "programs", ["fuse"], [])
    assert cmake_edges("larder_library(a DEPS b fmt::fmt\n  TEST_DEPS c)") == ("a", ["b"], ["c"])


def main(words):
    if words == ["--print"]:
        print(printed_table(), end="")
        return 0
    if words == ["--self-test"]:
        self_test()
        return 0
    if words:
        print(__doc__, file=sys.stderr)
        return 2
    found = check_tree(ROOT)
    for path, complaint in found:
        print(f"{path}: {complaint}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
