#!/bin/sh
# Runs the tests with the race detector, unless RACE is empty, and repeats the failures at the end, because the output of one
# package is easily overlooked among that of thirty.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The status of a pipe is that of tee, so the status of the tests passes through a file.
{ "${GO:-go}" test ${RACE--race} -timeout 20m "$@"; echo $? >"$log.status"; } 2>&1 | tee "$log"
read -r status <"$log.status"
rm -f "$log.status"
if [ "$status" -ne 0 ]; then
	printf '\nFailures:\n'
	grep -n -E '^ *--- FAIL|_test\.go:[0-9]+: |^panic:|DATA RACE|^FAIL[[:space:]]' "$log" | cut -c 1-200 | tail -n 25
fi
exit "$status"
