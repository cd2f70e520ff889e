#!/bin/bash
# Formats every C++ and C file under version control with clang-format 19; --check only says which
# files it would change, and fails if there is one. FILE...: only these.
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
  # Not those that are deleted but still in the index.
  mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.cc' '*.h' '*.c' | xargs ls -d 2>/dev/null)
fi
"$tool" "${mode[@]}" "${files[@]}"
