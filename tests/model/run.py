#!/usr/bin/env python3
"""Does the same random operations on two directories and compares all that can be seen of them.

The subject is a mount (or any directory), the model a directory of a local filesystem. The exit status is 0 if they
agree, 1 if not, 2 if that could not be found out.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True

from model import faults, tree
from model.coordinator import Coordinator, Directories
from model.generator import OPERATIONS, Generator
from model.shrink import Shrinker, replay, script
from model.worker import users


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", required=True, metavar="DIR", help="a directory of the mount")
    parser.add_argument("--model", required=True, metavar="DIR", help="a directory of a local filesystem")
    parser.add_argument("--server", metavar="DIR", help="the subject's directory as the server has it")
    parser.add_argument("--seed", type=int, help="replays exactly (default: a new one, printed)")
    parser.add_argument("--seconds", type=float, help="how long (default: 10, or until --operations are done)")
    parser.add_argument("--operations", type=int, help="how many")
    parser.add_argument("--length", type=int, default=400, metavar="N",
                        help="operations of a sequence, after which whole trees are compared (default: 400)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="processes (default: 4)")
    parser.add_argument("--users", type=int, default=4, metavar="N", help="root and N-1 others (default: 4)")
    parser.add_argument("--first-user", type=int, default=0, metavar="N", help="whom worker 0 is (default: root)")
    parser.add_argument("--parallel", action="store_true",
                        help="each worker runs at once with the others, in a subtree of its own")
    parser.add_argument("--log", metavar="FILE", help="every operation and its results as JSON lines")
    parser.add_argument("--replay", metavar="FILE", help="runs the operations of such a file instead")
    parser.add_argument("--shrink-seconds", type=float, default=60, metavar="N", help="0: do not (default: 60)")
    parser.add_argument("--hang-seconds", type=float, default=60, metavar="N",
                        help="an operation that takes longer hangs (default: 60)")
    parser.add_argument("--hidden-names", metavar="REGEX",
                        help="names that the subject may list for files that are removed but open (default: none)")
    parser.add_argument("--without-special", action="store_true", help="make no sockets and devices")
    parser.add_argument("--plant", choices=sorted(faults.FAULTS), help="a bug in the subject, to test the test")
    parser.add_argument("--quiet", action="store_true", help="no table of what was done")
    found = parser.parse_args(words)
    if found.seconds is None and found.operations is None:
        found.seconds = 10
    if found.seed is None:
        found.seed = random.SystemRandom().getrandbits(32)
    return found


class Failure(Exception):
    """A difference, with the operations that led to it."""

    def __init__(self, difference, operations, seed):
        super().__init__(str(difference))
        self.difference = difference
        self.operations = operations
        self.seed = seed


class Lane:
    """One coordinator and its sequences: the whole test, or with --parallel one of several."""

    def __init__(self, options, name, workers, log=None, first_user=0):
        self.options = options
        self.first_user = first_user
        self.users = users(options.users, first_user)
        self.coordinator = Coordinator(self.users, workers, faults.FAULTS.get(options.plant), options.hang_seconds,
                                       options.hidden_names, options.without_special)
        self.done = 0
        self.workers = workers
        self._log = log
        self._base = Directories(options.subject, options.model, options.server).below(name)
        for path in (self._base.subject, self._base.model):
            os.mkdir(path)
            os.chmod(path, 0o755)

    def directories(self, number):
        return self._base.below(f"try-{number}")

    def run_sequence(self, number, seed, most):
        """Raises Failure."""
        self.coordinator.begin(self._base.below(f"sequence-{number}"))
        generator = Generator(random.Random(seed), self.coordinator.model_root, self.workers, self.users)
        operations = []
        for _ in range(most):
            operation = generator.next()
            operations.append(operation)
            difference, result = self.coordinator.run(operation)
            generator.heard(operation, result)
            self._write_log(seed, operation, result, difference)
            self.done += 1
            if difference is not None:
                self._fail(difference, operations, seed)
        difference = self.coordinator.finish()
        if difference is not None:
            self._fail(difference, operations, seed)

    def _fail(self, difference, operations, seed):
        self.coordinator.abandon()
        raise Failure(difference, operations, seed)

    def _write_log(self, seed, operation, result, difference):
        if self._log is not None:
            line = {"seed": seed, "operation": operation, "model": result}
            if difference is not None:
                line["difference"] = str(difference)
            self._log.write(json.dumps(line) + "\n")

    def stop(self):
        self.coordinator.stop()
        for path in (self._base.subject, self._base.model):
            self.coordinator.remove(path)


def report(lane, failure, output):
    """Shrinks and prints; returns the operations that are left."""
    options = lane.options
    output(f"DIFFERENCE: {failure.difference}")
    who = f"--workers {lane.workers} --users {options.users} --first-user {lane.first_user}"
    output(f"seed {failure.seed}, after {len(failure.operations)} operations; again with: --seed {failure.seed} {who}"
           f" --length {options.length} --operations {options.length}")
    operations, difference = failure.operations, failure.difference
    if options.shrink_seconds > 0 and not lane.coordinator.has_hung:
        shrinker = Shrinker(lane.coordinator, lane.directories, options.shrink_seconds)
        operations, found = shrinker.shrink(operations, difference)
        if found is None:
            output("it did not come again when the same operations were replayed: a matter of time?")
        else:
            difference = found
            output(f"shrunk to {len(operations)} operations in {shrinker.tries} tries:")
    path = os.path.join(tempfile.gettempdir(), f"larder-model-{failure.seed}.jsonl")
    with open(path, "w") as file:
        file.writelines(json.dumps({"operation": operation}) + "\n" for operation in operations)
    output(script(operations[-60:], lane.users, difference))
    output(f"again with: --replay {path} {who}")
    return operations


def sequences(options, seed):
    """(number, seed, operations) until time or operations are over."""
    deadline = time.monotonic() + options.seconds if options.seconds is not None else None
    left = options.operations
    for number in itertools.count():
        if (deadline is not None and time.monotonic() >= deadline) or (left is not None and left <= 0):
            return
        most = options.length if left is None else min(options.length, left)
        yield number, seed + number, most
        if left is not None:
            left -= most


def run_lane(lane, seed, failures):
    try:
        for number, sequence_seed, most in sequences(lane.options, seed):
            if failures:
                return
            lane.run_sequence(number, sequence_seed, most)
    except Failure as failure:
        failures.append((lane, failure))


def print_table(lanes, seconds, output):
    done = sum(lane.done for lane in lanes)
    outcomes, allowed = lanes[0].coordinator.outcomes.copy(), lanes[0].coordinator.allowed.copy()
    for lane in lanes[1:]:
        outcomes.update(lane.coordinator.outcomes)
        allowed.update(lane.coordinator.allowed)
    if not lanes[0].options.quiet:
        for name in sorted({name for name, _ in outcomes}):
            results = sorted(((count, result) for (each, result), count in outcomes.items() if each == name), reverse=True)
            output(f"{name:18}" + " ".join(f"{result}:{count}" for count, result in results))
        for reason, count in allowed.most_common():
            output(f"allowed {count} times: {reason}")
    never = sorted(set(OPERATIONS) - {name for name, result in outcomes if result == "ok"} - {"become", "check"})
    output(f"{done} operations in {seconds:.1f} s, {done / max(seconds, 0.001):.0f} a second"
           + (f"; never successful: {', '.join(never)}" if never else ""))


def run(options, output=print):
    """Returns the operations that show a difference, shrunk, or None if there is none."""
    output(f"seed {options.seed}")
    name = f"model-{os.getpid()}-{options.seed}"
    log = open(options.log, "w") if options.log else None
    lanes = []
    try:
        if options.parallel:
            for number in range(options.workers):
                lanes.append(Lane(options, f"{name}-{number}", 1, log, number))
        else:
            lanes.append(Lane(options, name, options.workers, log, options.first_user))
        if options.replay:
            return run_replay(lanes[0], output)
        return run_lanes(lanes, output)
    finally:
        for lane in lanes:
            lane.stop()
        if log is not None:
            log.close()


def run_lanes(lanes, output):
    failures, started = [], time.monotonic()
    # Far apart, so that no two lanes have a sequence in common.
    threads = [threading.Thread(target=run_lane, args=(lane, lane.options.seed + number * 1_000_000, failures))
               for number, lane in enumerate(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print_table(lanes, time.monotonic() - started, output)
    return report(*failures[0], output) if failures else None


def run_replay(lane, output):
    with open(lane.options.replay) as file:
        operations = [json.loads(line)["operation"] for line in file]
    difference, used = replay(lane.coordinator, lane.directories(0), operations)
    output(f"{used} operations: {difference or 'no difference'}")
    return operations[:used] if difference else None


def main():
    options = arguments()
    try:
        sys.exit(1 if run(options) else 0)
    except OSError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
