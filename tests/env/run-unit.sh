#!/bin/bash
# run-unit.sh FLAVOR PROGRAM...: runs unit test programs one after the other,
# shows what they print, and ends with the sum of their "N passed, N failed".
# A program that crashes or hangs counts as one failure.
set -u

flavor=$1
shift

# The sanitizers of gcc 12 do not start under the address randomisation of
# newer kernels.
run=()
case $flavor in
asan | tsan) run=(setarch -R) ;;
esac
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=0:second_deadlock_stack=1

passed=0
failed=0
for program in "$@"; do
	echo "== $program"
	output=$(timeout -k 5 300 "${run[@]}" "$program" 2>&1)
	status=$?
	printf '%s\n' "$output"
	last=${output##*$'\n'}
	if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
		# A sanitizer's finding shows only in the exit status.
		if [ "$status" -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ]; then
			echo "FAIL $program ended with status $status"
			failed=$((failed + 1))
		fi
	else
		echo "FAIL $program ended with status $status before its end"
		failed=$((failed + 1))
	fi
done
echo "unit tests, $flavor: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
