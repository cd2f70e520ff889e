"""How demo, benchmark and soak begin: arguments, rights, what is missing, one clear sentence if they cannot."""

import argparse
import os
import pathlib
import shutil
import sys

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_TOOLS = {"ganesha.nfsd": "nfs-ganesha nfs-ganesha-vfs", "mkfs.ext4": "e2fsprogs", "ip": "iproute2",
          "mount": "mount"}


def parser(name, description):
    made = argparse.ArgumentParser(prog=name, description=description)
    made.add_argument("--build", default=str(_REPOSITORY / "build/release"), metavar="DIR",
                      help="where the programs were built (default: build/release)")
    return made


def prepare(arguments, programs=(), tools=("ganesha.nfsd", "mkfs.ext4")):
    """Makes the test harness importable for the build; ends the program if something is missing."""
    build = pathlib.Path(arguments.build).resolve()
    if os.geteuid() != 0:
        _refuse("this needs root, because it mounts filesystems: run it with sudo")
    # Some hosts leave sbin out of root's PATH.
    os.environ["PATH"] += os.pathsep + os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
    for tool in tools:
        if shutil.which(tool) is None:
            _refuse(f"{tool} is missing: apt-get install {_TOOLS.get(tool, tool)}")
    for program in ("programs/larder", "programs/larder-engine", *programs):
        if not (build / program).exists():
            _refuse(f"{build / program} is missing: build it first, or name the build by --build")
    if not os.path.exists("/dev/fuse"):
        _refuse("there is no /dev/fuse: `modprobe fuse`; in a container, give it the device")
    os.environ["LARDER_BUILD"] = str(build)
    sys.path.insert(0, str(_REPOSITORY / "tests"))


def _refuse(sentence):
    print(f"{pathlib.Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    sys.exit(1)
