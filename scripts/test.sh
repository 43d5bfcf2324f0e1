#!/bin/sh
# Runs the tests with the race detector, and repeats at the end what failed: among the output of thirty
# packages, that of one is easily lost.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A pipe has the status of its last command, so that of the first goes through a file.
{ "${GO:-go}" test -race -timeout 20m "$@"; echo $? >"$log.status"; } 2>&1 | tee "$log"
read -r status <"$log.status"
rm -f "$log.status"
if [ "$status" -ne 0 ]; then
	printf '\nWhat failed:\n'
	grep -n -E '^ *--- FAIL|_test\.go:[0-9]+: |^panic:|DATA RACE|^FAIL[[:space:]]' "$log" | cut -c 1-200 | tail -n 25
fi
exit "$status"
