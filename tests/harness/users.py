"""Users: doing something as somebody else, in a child process with that user's identity alone."""

import array
import os
import pickle
import socket
import traceback


class Failed(AssertionError):
    """What was done as the user went wrong in a way that is not an errno."""


def as_user(uid, gid, groups, function, *arguments):
    """Returns what `function` returns there; an OSError is raised here again, with its errno."""
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        _run_child(to_parent, uid, gid, groups, function, arguments)
    os.close(to_parent)
    with open(from_child, "rb") as answer:
        data = answer.read()
    os.waitpid(child, 0)
    kind, value = pickle.loads(data) if data else ("failed", "the child died")
    if kind == "errno":
        raise OSError(value, os.strerror(value))
    if kind == "failed":
        raise Failed(value)
    return value


def _run_child(to_parent, uid, gid, groups, function, arguments):
    try:
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
        answer = ("value", function(*arguments))
    except OSError as error:
        answer = ("errno", error.errno)
    except BaseException:  # whatever it is: the parent reports it, and this child must not go on
        answer = ("failed", traceback.format_exc())
    os.write(to_parent, pickle.dumps(answer))
    os._exit(0)


def open_as_user(uid, gid, groups, path, flags=os.O_RDONLY):
    """A descriptor that the user opened, passed to the caller."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        as_user(uid, gid, groups, _open_and_send, theirs, path, flags)
        _, messages, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        return array.array("i", messages[0][2])[0]


def _open_and_send(connection, path, flags):
    fd = os.open(path, flags)
    connection.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])


def read_file(path):
    with open(path, "rb") as file:
        return file.read()
