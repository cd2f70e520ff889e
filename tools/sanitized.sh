#!/bin/bash
# Runs ctest on a build with a sanitizer, and fails on any report, also of a program that went on
# after it or whose exit nobody looks at: the engines that integration tests start.
#
# usage: tools/sanitized.sh BUILD CTEST_ARGUMENT...
set -euo pipefail
cd "$(dirname "$0")/.."

build=$1
shift
reports=$(mktemp -d "${TMPDIR:-/tmp}/larder-reports.XXXXXX")
trap 'rm -rf "$reports"' EXIT
chmod 1777 "$reports"  # engines run as another user
# An engine that may not trace itself cannot look for leaks; the tests below the mounts do.
if [[ $* == *integration* ]]; then leaks=0; else leaks=1; fi
export ASAN_OPTIONS="log_path=$reports/asan:detect_leaks=$leaks"
export UBSAN_OPTIONS="log_path=$reports/ubsan:print_stacktrace=1"
export TSAN_OPTIONS="log_path=$reports/tsan:second_deadlock_stack=1"

status=0
ctest --output-on-failure --no-tests=error --test-dir "$build" "$@" || status=$?
shopt -s nullglob
found=("$reports"/*)
for report in "${found[@]:0:5}"; do
  echo "a report of the sanitizer:"
  head -n 60 "$report"
done
if [[ ${#found[@]} != 0 ]]; then
  echo "${#found[@]} programs had something to report"
  exit 1
fi
exit "$status"
