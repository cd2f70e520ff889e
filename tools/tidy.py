#!/usr/bin/env python3
"""Runs clang-tidy 19 over src/ and programs/ as .clang-tidy says, once for each content.

usage: tools/tidy.py [--seconds N] [--again] [FILE...]
  --seconds N  begins no file after so many seconds: what CI has time for. What changed last comes
               first, then what reads bytes of others or puts them down, then the rest in an order
               drawn from the commit, so that each has its turn. Says how many are left out; fails if
               there was something to look at, and no time for any of it.
  --again      also what is known to be clean
  FILE         only these

A file that was found clean is not looked at again while it, the headers of ours that it reaches,
its compile command, .clang-tidy, the tool and the system's development packages stay the same:
$XDG_CACHE_HOME/larder-tidy has a file for each such state. The compile commands are those of
preset clang, which is configured first. JOBS=N at once.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/clang"
TOOL = os.environ.get("CLANG_TIDY", "clang-tidy-19")
KNOWN = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "larder-tidy"
KEPT_SECONDS = 30 * 24 * 3600
LONGEST_FILE_SECONDS = 120  # that what was begun in time may still take
CORE = re.compile(r"src/(handover|culling|control)/|src/netfs/coherency\.cc"
                  r"|src/cachefiles/(label|map_log|state_file)\.cc"
                  r"|src/adapters/nfs/(xdr|reply_reader|rpc_message|procedures|mount)\.cc")
# It does not see that ASSERT_TRUE(x) leaves a test without x (clang-tidy 20 does). Tests make values
# that must not be on purpose, and have small numbers.
NOT_IN_TESTS = ("--checks=-bugprone-unchecked-optional-access,-clang-analyzer-optin.core.EnumCastOutOfRange,"
                "-bugprone-implicit-widening-of-multiplication-result")
INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
NOISE = re.compile(r"^\d+ warnings? (generated|treated)|^Suppressed |^Use -")


def output_of(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def compile_commands():
    """Of each source below src/ and programs/, by its name from the root."""
    BUILD.parent.mkdir(exist_ok=True)
    configured = subprocess.run(["cmake", "--preset", "clang"], cwd=ROOT, capture_output=True, text=True)
    if configured.returncode != 0:
        sys.exit(configured.stdout + configured.stderr)
    commands = {}
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        name = os.path.relpath(entry["file"], ROOT)
        if name.startswith(("src/", "programs/")):
            commands[name] = entry["command"].replace(str(ROOT), ".")
    return commands


class States:
    """What a verdict on a file depends on, as a hash."""

    def __init__(self, commands):
        self.commands = commands
        packages = output_of("dpkg-query", "-W", "lib*-dev", "linux-libc-dev")
        self.common = output_of(TOOL, "--version") + packages
        self.found = {}  # path: (hash of its text, what it includes of ours)

    def of(self, name):
        reached = set()
        waiting = [ROOT / name]
        while waiting:
            path = waiting.pop()
            if path not in reached:
                reached.add(path)
                waiting += self.read(path)[1]
        texts = sorted((str(path.relative_to(ROOT)), self.read(path)[0]) for path in reached)
        configs = [(ROOT / folder / ".clang-tidy") for folder in pathlib.Path(name).parents]
        rules = [path.read_text() for path in configs if path.exists()]
        command = [self.commands[name], *extra_arguments(name)]
        return hashlib.sha256(repr([self.common, command, rules, texts]).encode()).hexdigest()

    def read(self, path):
        if path not in self.found:
            text = path.read_bytes()
            places = [(ROOT / "src" / word.decode(), path.parent / word.decode()) for word in INCLUDE.findall(text)]
            ours = [place for pair in places for place in pair if place.exists()]
            self.found[path] = (hashlib.sha256(text).hexdigest(), ours)
        return self.found[path]


def changed_last():
    """The names that differ from origin/main, or, standing on it, in the last commit."""
    for base in ("origin/main", "HEAD~1"):
        diff = subprocess.run(["git", "diff", "--name-only", base], cwd=ROOT, capture_output=True, text=True)
        if diff.returncode == 0 and diff.stdout:
            return set(diff.stdout.split())
    return set()  # a checkout without history


def in_order(names):
    changed = changed_last()
    turn = random.Random(output_of("git", "rev-parse", "HEAD")).random
    def rank(name):
        is_changed = name in changed or name.removesuffix(".cc") + ".h" in changed
        is_core = CORE.match(name) and not name.endswith("_test.cc")
        return 0 if is_changed else 1 if is_core else 2
    return sorted(names, key=lambda name: (rank(name), turn()))


def extra_arguments(name):
    return [NOT_IN_TESTS] if name.endswith("_test.cc") else []


def look_at(name, seconds):
    """What there is to say about it; empty: nothing. None: there was no time for it."""
    if seconds <= 0:
        return None
    command = [TOOL, "-p", BUILD, "--quiet", *extra_arguments(name), name]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                                timeout=seconds + LONGEST_FILE_SECONDS if seconds < float("inf") else None)
    except subprocess.TimeoutExpired:
        return None
    said = [line for line in (result.stdout + result.stderr).splitlines() if not NOISE.match(line)]
    return "\n".join(said) or (f"{name}: {TOOL} ended with {result.returncode}" if result.returncode else "")


def look_at_all(names, states, commands, deadline):
    """How many were looked at, and how many of them are not clean."""
    looked, bad = 0, 0
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("JOBS") or os.cpu_count())) as pool:
        def one(name):
            begun = time.monotonic()
            said = look_at(name, deadline - begun)
            return name, said, time.monotonic() - begun
        for done in concurrent.futures.as_completed([pool.submit(one, name) for name in names]):
            name, said, seconds = done.result()
            if said is None:
                continue
            looked += 1
            if said:
                bad += 1
                print(said, flush=True)
            elif States(commands).of(name) == states[name]:  # not edited meanwhile
                (KNOWN / states[name]).write_text(f"{name}: {seconds:.1f} s\n")
    return looked, bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    begun = time.monotonic()

    commands = compile_commands()
    names = [os.path.relpath(name, ROOT) for name in options.files] or list(commands)
    if unknown := [name for name in names if name not in commands]:
        sys.exit(f"tidy: no compile command for {' '.join(unknown)}")
    KNOWN.mkdir(parents=True, exist_ok=True)
    for verdict in KNOWN.iterdir():
        if verdict.stat().st_mtime < time.time() - KEPT_SECONDS:
            verdict.unlink()

    reader = States(commands)
    states = {name: reader.of(name) for name in names}
    known = {name for name in names if not options.again and (KNOWN / states[name]).exists()}
    for name in known:
        (KNOWN / states[name]).touch()
    looked, bad = look_at_all(in_order(set(names) - known), states, commands, begun + options.seconds)
    left = len(names) - len(known) - looked
    print(f"tidy: {len(names)} files: {len(known)} known to be clean, {looked} looked at, {bad} of them not clean, "
          f"{left} left out{' for want of time: make tidy looks at all' if left else ''} "
          f"({time.monotonic() - begun:.0f} s)")
    sys.exit(1 if bad or (left and not looked) else 0)


if __name__ == "__main__":
    main()
