"""debian_source: the upstream tarball of a Debian source package, pinned by version and hash."""

import hashlib
import os
import pathlib
import subprocess

_LIST = "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n"
_SECONDS = 120

# GNU hello: what fetch() takes before the directory.
HELLO = ("hello", "2.10-3", "hello_2.10.orig.tar.gz", "31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b")


class Unavailable(Exception):
    """No network, no apt, or not the file that was asked for; the text says which."""


def fetch(package, version, file, sha256, directory):
    """Returns the path of `file`. LARDER_SOURCES may name a directory that has it already."""
    kept = pathlib.Path(os.environ.get("LARDER_SOURCES", "/nonexistent")) / file
    path = kept if kept.exists() else _download(f"{package}={version}", pathlib.Path(directory)) / file
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
    if found != sha256:
        raise Unavailable(f"{path} is {found}, not {sha256}")
    return path


def _download(what, directory):
    """Leaves apt's own lists alone: they rarely have sources."""
    (directory / "lists/partial").mkdir(parents=True)
    (directory / "sources.list").write_text(_LIST)
    options = [f"Dir::Etc::SourceList={directory}/sources.list", "Dir::Etc::SourceParts=/dev/null",
               f"Dir::State::Lists={directory}/lists", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
               "APT::Sandbox::User=root", "Acquire::Retries=2"]
    words = [word for option in options for word in ("-o", option)]
    try:
        for command in (["update"], ["source", "--download-only", what]):
            subprocess.run(["apt-get", "-q", *words, *command], cwd=directory, check=True, capture_output=True,
                           text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"apt-get source {what}: {error} {getattr(error, 'stderr', '') or ''}") from error
    return directory
