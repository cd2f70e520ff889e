#!/bin/bash
# Installs what building, testing and checking Larder needs on Debian 12 (bookworm), by apt-get.
#
# usage: tools/install_dependencies.sh [--list] [build] [test] [check]     (without a name: all sets)
#
# Says what is missing and installs only that; does nothing, and asks nothing, when all is there.
set -euo pipefail

# PACKAGE, or PACKAGE=PROGRAM: the package is missing only if the program is not there either.
build_packages=(
  g++=g++ cmake=cmake ninja-build=ninja pkg-config=pkg-config
  libfmt-dev libcli11-dev nlohmann-json3-dev libisal-dev nettle-dev libfuse3-dev
  libgtest-dev libgmock-dev  # a build tree is configured with its tests unless LARDER_TESTS is OFF
)
test_packages=(
  python3=python3 libnfs-dev
  nfs-ganesha nfs-ganesha-vfs nfs-ganesha-mem
  cachefilesd  # the stock daemon, which tests/integration/74_stock_daemon.py runs over larder-device
  git=git rsync=rsync  # workloads of tests/integration/91_workloads.py
  iproute2=ip mount=mount util-linux=setpriv e2fsprogs=mkfs.ext4 xfsprogs=mkfs.xfs
)
# The kernel of tests/integration/77_kernel_cache.py; there is none for other architectures.
[[ $(uname -m) == x86_64 ]] && test_packages+=(user-mode-linux=linux.uml)
check_packages=(
  python3=python3 clang-19 clang-tidy-19 clang-format-19 libclang-rt-19-dev
)

fail() {
  echo "install_dependencies: $*" >&2
  exit 1
}

is_installed() {
  local package=${1%%=*} program=${1#*=}
  [[ $program != "$1" ]] && command -v "$program" >/dev/null && return 0
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]]
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

# A package that brings a server starts it at once and at every boot. The tests start their own, so a
# server that was not there before is kept from starting.
without_starting_servers() {
  local policy=/usr/sbin/policy-rc.d ours=no status=0
  if [[ ! -e $policy ]]; then
    ours=yes
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  "$@" || status=$?
  if [[ $ours == yes ]]; then
    as_root rm -f "$policy"
    trap - EXIT
  fi
  return "$status"
}

install_packages() {
  local server new_servers=()
  for server in nfs-ganesha rpcbind cachefilesd; do
    is_installed "$server" || new_servers+=("$server")
  done
  without_starting_servers as_root apt-get install -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "$@" </dev/null || return 1
  if [[ -d /run/systemd/system ]]; then
    for server in "${new_servers[@]}"; do
      if is_installed "$server"; then
        as_root systemctl disable --quiet "$server" 2>/dev/null || true
      fi
    done
  fi
}

list_only=no
packages=()
for word in "$@"; do
  case $word in
    --list) list_only=yes ;;
    build) packages+=("${build_packages[@]}") ;;
    test) packages+=("${test_packages[@]}") ;;
    check) packages+=("${check_packages[@]}") ;;
    *) fail "unknown set '$word'; there are build, test and check" ;;
  esac
done
if [[ ${#packages[@]} == 0 ]]; then
  packages=("${build_packages[@]}" "${test_packages[@]}" "${check_packages[@]}")
fi

missing=()
for package in "${packages[@]}"; do
  if [[ $list_only == yes ]]; then
    echo "${package%%=*}"
  elif ! is_installed "$package"; then
    missing+=("${package%%=*}")
  fi
done
[[ ${#missing[@]} == 0 ]] && exit 0

echo "Missing packages: ${missing[*]}"
command -v apt-get >/dev/null ||
  fail "there is no apt-get here; install the equivalents of these packages by hand"
if [[ $(id -u) != 0 ]] && ! command -v sudo >/dev/null; then
  fail "installing them needs root; as root run: apt-get install ${missing[*]}"
fi

export DEBIAN_FRONTEND=noninteractive
# The lists on this machine may be absent or older than the mirror's packages: fetch them, then retry.
if ! install_packages "${missing[@]}" 2>/dev/null; then
  as_root apt-get update || fail "apt-get update failed; is there a network and a Debian mirror?"
  install_packages "${missing[@]}" ||
    fail "apt-get could not install: ${missing[*]} (Larder is built on Debian 12, bookworm)"
fi
