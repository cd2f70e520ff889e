"""Where the built programs are, and where tests may write."""

import os
import pathlib
import shutil
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LARDER_BUILD", REPOSITORY / "build" / "dev")).resolve()

RPC_PROXY = BUILD / "tests/harness/proxy/larder_rpc_proxy"
TUN_DELAY = BUILD / "tests/harness/larder_tun_delay"
NO_PORTMAPPER = BUILD / "tests/harness/liblarder_norpcb.so"
LARDER = BUILD / "programs/larder"
ENGINE = BUILD / "programs/larder-engine"
CACHEFILESD = BUILD / "programs/cachefilesd"
DEVICE = BUILD / "programs/larder-device"
STOCK_DAEMON = pathlib.Path("/sbin/cachefilesd")  # of Debian, not ours

_root = None


def temporary_root():
    """This process's own directory for everything that tests write; removed at the end of the process.

    Short, because Unix sockets in it may not have paths of more than 107 bytes.
    """
    global _root
    if _root is None:
        _root = pathlib.Path(tempfile.mkdtemp(prefix=f"larder-test-{os.getpid()}-",
                                              dir=os.environ.get("LARDER_TEST_DIR", "/tmp")))
        os.chmod(_root, 0o755)
    return _root


def remove_temporary_root():
    global _root
    if _root is not None:
        shutil.rmtree(_root, ignore_errors=True)
        _root = None
