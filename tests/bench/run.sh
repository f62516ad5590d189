#!/bin/bash
# The first measurements: 4 KiB reads and writes through the mount beside the
# source, in turns; time from lock to locked; a pause and a resume to a store in
# a directory. Prints a Markdown table, with the machine it ran on. Called by
# `make bench`; HIBFS_BUILD is where hibfs and hibctl are, BENCH_DIR a directory
# on the file system to measure (default: a new one below /var/tmp).
set -euo pipefail

build=${HIBFS_BUILD:?the directory with hibfs and hibctl}
rounds=${BENCH_ROUNDS:-5}
dir=$(mktemp -d "${BENCH_DIR:-/var/tmp}/hibfs-bench.XXXXXX")
export HIBFS_SOCKET=$dir/sock

finish() {
	"$build/hibctl" shutdown >/dev/null 2>&1 || true
	sleep 0.5
	umount -l "$dir/mnt" 2>/dev/null || true
	rm -rf "$dir"
}
trap finish EXIT

mkdir "$dir/source" "$dir/mnt" "$dir/store"
"$build/hibfs" -o "store=file://$dir/store,socket=$HIBFS_SOCKET,log_level=error" \
	"$dir/source" "$dir/mnt"
mkdir -p "$dir/mnt/bench/io" "$dir/source/plain" "$dir/mnt/bench/data"

median() {
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# iops FOLDER PATTERN [fio options...]
iops() {
	local folder=$1 pattern=$2
	shift 2
	fio --name=bench --directory="$folder" --filename=file --size=256m --bs=4k \
		--rw="$pattern" --ioengine=psync --invalidate=0 "$@" \
		--output-format=json |
		jq '.jobs[0] | (.read.iops + .write.iops) | floor'
}

iops "$dir/mnt/bench/io" write >/dev/null
iops "$dir/source/plain" write >/dev/null

echo "$(date -u +%F), $(uname -sr), $(nproc) CPUs, $(df -T "$dir" | awk 'NR == 2 { print $2 }'), $("$build/hibfs" --version)"
echo "fio $(fio --version), psync, one thread, 256 MiB, median of $rounds in turns"
echo
echo '| what | source | mount | mount / source |'
echo '|---|---|---|---|'
for direct in 0 1; do
	for pattern in randread randwrite; do
		: >"$dir/a"
		: >"$dir/b"
		for _ in $(seq "$rounds"); do
			iops "$dir/source/plain" $pattern --direct=$direct \
				--time_based --runtime=2 >>"$dir/a"
			iops "$dir/mnt/bench/io" $pattern --direct=$direct \
				--time_based --runtime=2 >>"$dir/b"
		done
		a=$(median <"$dir/a")
		b=$(median <"$dir/b")
		kind=$([ $direct = 1 ] && echo "O_DIRECT" || echo "page cache")
		echo "| 4 KiB $pattern, $kind, IOPS | $a | $b | $(jq -n "$b / $a * 100 | floor / 100") |"
	done
done

echo
python3 - "$build" "$dir" <<'PYTHON'
import json, os, resource, subprocess, sys

build, top = sys.argv[1:]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
files = [open(f"{top}/mnt/bench/io/{n}", "wb", buffering=0) for n in range(1000)]
times = []
for _ in range(11):
    out = subprocess.check_output(
        [f"{build}/hibctl", "--json", "lock", "--ttl", "1m", "--owner", "b", "bench/io"]
    )
    times.append(json.loads(out)["shards"][0]["freeze_ms"])
    subprocess.check_output([f"{build}/hibctl", "unlock", "--owner", "b", "bench/io"])
times.sort()
print(f"lock to locked, 1,000 files open for writing: "
      f"median {times[5]:.1f} ms, most {times[-1]:.1f} ms, of 11")
PYTHON

for n in $(seq 256); do
	head -c 4194304 /dev/urandom >"$dir/mnt/bench/data/$n"
done
sync
for verb in pause resume pause; do
	start=$(date +%s.%N)
	cpu=$(awk '{ print $14 + $15 }' "/proc/$("$build/hibctl" --json status | jq .pid)/stat")
	"$build/hibctl" "$verb" bench/data >/dev/null 2>&1
	end=$(date +%s.%N)
	cpu_end=$(awk '{ print $14 + $15 }' "/proc/$("$build/hibctl" --json status | jq .pid)/stat")
	echo "$verb of 1 GiB in 256 files, store in a directory: $(jq -n "($end - $start) * 100 | floor / 100") s, $(jq -n "($cpu_end - $cpu) / $(getconf CLK_TCK)") CPU s"
done
