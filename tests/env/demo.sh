#!/bin/bash
# The main job, once through, on the embedded store: mount, write, pause, look
# at the freed disk, resume, compare. Called by `make demo`; HIBFS_BUILD is where
# hibfs and hibctl are. Everything lies in one temporary directory and is gone
# at the end.
set -euo pipefail

build=${HIBFS_BUILD:?the directory with hibfs and hibctl}
export PATH=$build:$PATH
dir=$(mktemp -d /tmp/hibfs-demo.XXXXXX)
export HIBFS_SOCKET=$dir/control.sock

finish() {
	hibctl shutdown >/dev/null 2>&1 || true
	for _ in $(seq 50); do
		mountpoint -q "$dir/mnt" || break
		sleep 0.1
	done
	umount -l "$dir/mnt" 2>/dev/null || true
	rm -rf "$dir"
}
trap finish EXIT

bold=
plain=
if [ -t 1 ]; then
	bold=$(printf '\033[1m')
	plain=$(printf '\033[0m')
fi
say() {
	printf '\n%s# %s%s\n' "$bold" "$*" "$plain"
}
run() {
	printf '%s$ %s%s\n' "$bold" "$*" "$plain"
	"$@"
}
used() {
	du -sm "$dir/source" | cut -f1
}

mkdir "$dir/source" "$dir/mnt" "$dir/store"

say "Mount a directory; the store is another directory."
run hibfs -o "store=file://$dir/store,socket=$HIBFS_SOCKET" \
	"$dir/source" "$dir/mnt"

say "A tenant, with one index shard of 64 MiB in 200 files."
mkdir -p "$dir/mnt/tenant1/shard1/segments"
for i in $(seq 200); do
	head -c 327680 /dev/urandom >"$dir/mnt/tenant1/shard1/segments/$i.seg"
done
ln -s segments/200.seg "$dir/mnt/tenant1/shard1/current"
(cd "$dir/mnt/tenant1" && find . -type f -print0 | sort -z |
	xargs -0 sha256sum) >"$dir/before"
run hibctl list
echo "The source uses $(used) MiB."

say "Pause it: the data goes to the store, the disk is free."
run hibctl pause tenant1/shard1
run hibctl list
after_pause=$(used)
echo "The source uses $after_pause MiB. The names and sizes are still there:"
run ls -l "$dir/mnt/tenant1/shard1"
if [ "$after_pause" -gt 4 ]; then
	echo "demo: the pause has not freed the disk" >&2
	exit 1
fi

say "Resume it, and compare every byte."
run hibctl resume tenant1/shard1
run hibctl list
(cd "$dir/mnt/tenant1" && find . -type f -print0 | sort -z |
	xargs -0 sha256sum) >"$dir/after"
run cmp "$dir/before" "$dir/after"
echo "All $(wc -l <"$dir/after") files are as they were."

say "What happened:"
run hibctl events
echo
echo "demo: passed"
