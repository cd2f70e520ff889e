#!/bin/bash
# Formats every C++ and C file of src/, programs/ and tests/ with clang-format 19.
#
# usage: tools/format.sh [--check] [FILE...]     --check changes nothing, and fails if it would
set -euo pipefail
cd "$(dirname "$0")/.."

tool=${CLANG_FORMAT:-clang-format-19}
command -v "$tool" >/dev/null || { echo "format: $tool is missing: tools/install_dependencies.sh check" >&2; exit 1; }

mode=(-i)
if [[ ${1:-} == --check ]]; then
  mode=(--dry-run -Werror)
  shift
fi
if [[ $# -gt 0 ]]; then
  files=("$@")
else
  mapfile -t files < <(find src programs tests -name '*.cc' -o -name '*.h' -o -name '*.c')
fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 40 "$tool" "${mode[@]}"
