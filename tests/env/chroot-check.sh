#!/bin/bash
# chroot-check.sh [--worktree] SUITE [COMMAND...]: makes a clean Debian SUITE
# (bookworm, trixie) with nothing but make beyond its minimum, puts a fresh
# clone of HEAD (or the files of the working tree) into it, and runs each
# COMMAND there, by default `make demo` and `make check`.
#
# As root, with debootstrap. All lies below ${TMPDIR:-/var/tmp}; it runs in
# namespaces of its own, so that what is left at the end, process or mount,
# ends with it.
set -eu

from=clone
if [ "${1:-}" = --worktree ]; then
	from=worktree
	shift
fi
suite=${1:?usage: chroot-check.sh [--worktree] SUITE [COMMAND...]}
shift
[ $# -gt 0 ] || set -- 'make demo' 'make check'

if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
	echo "chroot-check.sh: needs root and the package debootstrap" >&2
	exit 1
fi
repository=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck disable=SC2016 # apt expands these
mirror=$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' \
	'Created-By: Packages' | awk -F '|' '$1 == "Debian" && $2 == "Debian" {
		print $3; exit }')
: "${mirror:?apt knows no Debian mirror; run apt-get update}"

root=$(mktemp -d "${TMPDIR:-/var/tmp}/hibfs-$suite.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"

echo "== debootstrap $suite"
debootstrap --variant=minbase --include=make "$suite" "$root" "$mirror" \
	>"$root.log" || {
	tail "$root.log" >&2
	exit 1
}
rm -f "$root.log"
cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
mkdir "$root/root/hibfs"
if [ $from = worktree ]; then
	git -C "$repository" ls-files -z --cached --others --exclude-standard |
		tar -C "$repository" --null --ignore-failed-read -T - -cf - |
		tar -C "$root/root/hibfs" -xf -
else
	git clone -q --no-local "$repository" "$root/root/hibfs"
fi

# shellcheck disable=SC2016 # the inner shell expands these
inside='
	set -eu
	root=$1
	shift
	mount --make-rprivate /
	# A mount point for its root: tools that ask for one find it.
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	for command in "$@"; do
		echo "== $command"
		start=$SECONDS
		env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
			http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" \
			chroot "$root" bash -c "cd /root/hibfs && $command"
		echo "== $command: succeeded after $((SECONDS - start)) s"
	done
'
unshare --mount --pid --fork --kill-child bash -c "$inside" bash "$root" "$@"
