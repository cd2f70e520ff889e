"""Shrink: the shortest sequence that still shows the difference (delta debugging), and its script."""

import time


# What is easier to read than most values, for operations that have such a key.
_SIMPLER = {"worker": 0, "data": [1, 10], "offset": 0, "mode": 0o777, "flags": ["O_CREAT", "O_RDWR"], "size": 0}


def replay(coordinator, directories, operations):
    """Runs the operations in fresh directories; returns the Difference, or None, and how many were run."""
    coordinator.begin(directories)
    for number, operation in enumerate(operations, 1):
        difference, _ = coordinator.run(operation)
        if difference is not None:
            coordinator.abandon()
            return difference, number
    difference = coordinator.finish()
    if difference is not None:
        coordinator.abandon()
    return difference, len(operations)


class Shrinker:
    """`directories(n)` gives a fresh place for the nth try."""

    def __init__(self, coordinator, directories, seconds):
        self._coordinator = coordinator
        self._directories = directories
        self._seconds = seconds
        self.tries = 0

    def shrink(self, operations, difference):
        """Returns what is left of the operations and its difference; the input if it does not come again."""
        self._deadline = time.monotonic() + self._seconds
        self._wanted = difference
        kept, found = self._try(operations)
        if found is None:
            return operations, None
        pieces = 2
        while len(kept) > 1 and not self._is_late():
            smaller = self._without_a_piece(kept, pieces)
            if smaller is not None:
                kept, found = smaller
                pieces = max(pieces - 1, 2)
            elif pieces >= len(kept):
                break
            else:
                pieces = min(pieces * 2, len(kept))
        return self._with_simpler_values(kept, found)

    def _with_simpler_values(self, operations, found):
        for number in range(len(operations)):
            for key, value in _SIMPLER.items():
                operation = operations[number]
                if operation.get(key, value) == value or self._is_late():
                    continue
                simpler = {**operation, key: value if key != "data" else [1, 10]}
                tried, difference = self._try([*operations[:number], simpler, *operations[number + 1:]])
                if difference is not None and len(tried) == len(operations):
                    operations, found = tried, difference
        return operations, found

    def _without_a_piece(self, operations, pieces):
        size = -(-len(operations) // pieces)
        for start in reversed(range(0, len(operations), size)):
            if self._is_late():
                return None
            shorter, found = self._try(operations[:start] + operations[start + size:])
            if found is not None:
                return shorter, found
        return None

    def _try(self, operations):
        self.tries += 1
        found, used = replay(self._coordinator, self._directories(self.tries), operations)
        return operations[:used], found if self._wanted.same_as(found) else None

    def _is_late(self):
        return time.monotonic() > self._deadline


def script(operations, users, difference):
    """For people: one line an operation, and what it should have done."""
    identities, lines = {}, []
    for operation in operations:
        worker = operation.get("worker", 0)
        if operation["op"] == "become":
            identities[worker] = users[operation["user"] % len(users)]
            continue
        user = identities.get(worker, users[worker % len(users)])
        lines.append(f"worker {worker} ({user}): {call(operation)}")
    return "\n".join([*lines, f"then    {difference.aspect}", f"subject {difference.subject}",
                      f"model   {difference.model}"])


_OCTAL = {"mode", "mask"}


def call(operation):
    """An operation as a call: open(path='a', flags=O_CREAT|O_RDWR, mode=0o644, new=3)."""
    words = []
    for key, value in operation.items():
        if key in ("op", "worker", "look"):
            continue
        if key in _OCTAL and operation["op"] != "access":
            value = oct(value)
        elif key == "flags":
            value = "|".join(value)
        elif key == "data":
            value = f"{value[1]} bytes of seed {value[0]}"
        elif isinstance(value, str):
            value = repr(value if len(value) < 60 else value[:20] + "..." + value[-20:])
        words.append(f"{key}={value}")
    return f"{operation['op']}({', '.join(words)})"
