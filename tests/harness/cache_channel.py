"""CacheChannel: a cache channel of the engine, driven packet by packet."""

import array
import os
import socket

_MOST_BYTES = 32768


class Refused(Exception):
    """The engine's `error`: its errno by name, and the sentence."""

    def __init__(self, name, sentence):
        super().__init__(f"{name}: {sentence}")
        self.name = name
        self.sentence = sentence


class CacheChannel:
    """Holds what it binds until it is closed. State lines that come in between are in `states`."""

    def __init__(self, runtime_directory, seconds=20):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(seconds)
        self._socket.connect(str(runtime_directory / "control.sock"))
        self.states = []
        try:
            self.command("cache")
        except Refused:
            self.stop()
            raise

    def stop(self):
        self._socket.close()

    def command(self, text, descriptor=None):
        """Its answer; raises Refused."""
        passengers = []
        if descriptor is not None:
            passengers = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self.send(text, passengers)
        while True:
            kind, body = self._receive()
            if kind == "state":
                self.states.append(_state(body))
            elif kind == "ok":
                return body
            else:
                raise Refused(*body.split(" ", 1))

    def send(self, text, passengers=()):
        """Does not wait for the answer."""
        self._socket.sendmsg([text.encode()], passengers)

    def bind(self, directory, *settings):
        """`directory` is opened here, as a daemon does before it gives up its rights."""
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.command(f"dir {directory}", opened)
        finally:
            os.close(opened)
        for setting in settings:
            self.command(setting)
        self.command("bind")

    def state(self):
        """Of now; what was pushed before is older."""
        self.states.clear()
        return _state(self.command("state"))

    def next_state(self):
        """Waits for one to be pushed."""
        if self.states:
            return self.states.pop(0)
        kind, body = self._receive()
        if kind != "state":
            raise AssertionError(f"{kind} {body}, but nothing was asked")
        return _state(body)

    def cull(self, paths):
        """For each path below cache/ the bytes that it gave back, or the errno's name."""
        if len(paths) == 1:
            try:
                return [int(self.command(f"cull {paths[0]}"))]
            except Refused as refused:
                return [refused.name]
        answer = self.command("cull " + "\n".join(paths))
        return [int(line) if line.isdigit() else line for line in answer.splitlines()]

    def _receive(self):
        packet = self._socket.recv(_MOST_BYTES).decode()
        if not packet:
            raise EOFError("the engine hung up")
        kind = packet.split("\n", 1)[0].split(" ", 1)[0]
        return kind, packet[len(kind) + 1:].removesuffix("\n")


def _state(line):
    pairs = (pair.split("=") for pair in line.split())
    return {name: int(value, 16) for name, value in pairs}
