#!/bin/bash
# Runs each fuzzer of build/fuzz for the given seconds (default 30), from its corpus in the tree.
#
# usage: tools/fuzz.sh [SECONDS] [FUZZER...]     (names as in tests/fuzz: nfs_url, rpc_connection, ...)
#
# What a fuzzer finds interesting is thrown away; what it crashes on stays in build/fuzz/found.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-30}
shift || true
names=("$@")
if [[ ${#names[@]} == 0 ]]; then
  for program in build/fuzz/tests/fuzz/*_fuzz; do
    [[ -x $program ]] || { echo "fuzz: nothing in build/fuzz: build preset fuzz first" >&2; exit 1; }
    names+=("$(basename "${program%_fuzz}")")
  done
fi

found=build/fuzz/found
mkdir -p "$found"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Each is one thread: as many at once as there are processors.
run() {
  local name=$1 corpus=(tests/fuzz/corpus/"$1")
  [[ -d ${corpus[0]} ]] || corpus=()
  mkdir "$scratch/$name"
  if "build/fuzz/tests/fuzz/${name}_fuzz" "$scratch/$name" "${corpus[@]}" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$found/$name-" >"$scratch/$name.log" 2>&1; then
    echo "fuzz: $name: $(grep -oE 'Done [0-9]+ runs in [0-9]+ second' "$scratch/$name.log" | tail -1)s"
  else
    tail -n 60 "$scratch/$name.log"
    echo "fuzz: $name FAILED; what broke it is in $found"
    return 1
  fi
}

failed=0
while [[ ${#names[@]} -gt 0 ]]; do
  running=()
  for name in "${names[@]:0:$(nproc)}"; do
    run "$name" &
    running+=($!)
  done
  names=("${names[@]:$(nproc)}")
  for pid in "${running[@]}"; do
    wait "$pid" || failed=1
  done
done
exit "$failed"
