#!/bin/bash
# Runs clang-tidy 19 over src/ and programs/ as .clang-tidy says.
#
# usage: tools/tidy.sh [--changed [BASE] | --core | FILE...]
#   --changed  only .cc files that differ from BASE (default: origin/main), or whose header does
#   --core     what parses bytes of others, or puts them down, without tests: what CI has time for
#
# The compile commands are those of preset clang, which is configured if it is not. JOBS=N at once.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=${CLANG_TIDY:-clang-tidy-19}
build=build/clang
command -v "$tool" >/dev/null || { echo "tidy: $tool is missing: tools/install_dependencies.sh check" >&2; exit 1; }

# Files that have no compile command (headers, sources that this build leaves out) are not for us.
compiled() {
  python3 - "$build/compile_commands.json" "$PWD" <<'PYTHON'
import json, os, sys
for entry in json.load(open(sys.argv[1])):
    name = os.path.relpath(os.path.join(entry["directory"], entry["file"]), sys.argv[2])
    if name.startswith(("src/", "programs/")):
        print(name)
PYTHON
}

mkdir -p build
cmake --preset clang >build/configure-clang.log || { cat build/configure-clang.log; exit 1; }
mapfile -t all < <(compiled | sort)

if [[ ${1:-} == --changed ]]; then
  base=${2:-origin/main}
  changed=$(git diff --name-only "$base" --; git ls-files --others --exclude-standard)
  files=()
  for file in "${all[@]}"; do
    grep -qxF -e "$file" -e "${file%.cc}.h" <<<"$changed" && files+=("$file")
  done
elif [[ ${1:-} == --core ]]; then
  mapfile -t files < <(printf '%s\n' "${all[@]}" | grep -v '_test\.cc$' |
    grep -E '^src/(handover|culling|control)/|^src/netfs/coherency\.cc|^src/cachefiles/(label|map_log|state_file)\.cc|^src/adapters/nfs/(xdr|reply_reader|rpc_message|procedures|mount)\.cc')
elif [[ $# -gt 0 ]]; then
  files=("$@")
else
  files=("${all[@]}")
fi
[[ ${#files[@]} == 0 ]] && { echo "tidy: nothing to look at"; exit 0; }

echo "tidy: ${#files[@]} files"
# The longest first, so that no processor waits for one at the end.
wc -c "${files[@]}" | grep -v ' total$' | sort -rn | awk '{print $2}' |
  xargs -P "${JOBS:-$(nproc)}" -n 1 "$tool" -p "$build" --quiet 2> >(grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -' >&2)
