#!/bin/bash
# install-deps.sh SET...: installs from apt what of the sets is missing.
#
#   build   what `make` needs, and to mount
#   check   what the checks need besides: real servers, databases, file systems
#
# Quick and silent when nothing is missing. Works as root on Debian 12 and 13;
# otherwise it names what is missing and fails.
set -eu

build=(
	gcc libc6-dev make pkg-config
	libfuse3-dev fuse3 libcurl4-openssl-dev libssl-dev libjansson-dev
	libzstd-dev
	# for libfuse.sh, where the system's is too old
	meson ninja-build debian-archive-keyring
)
check=(
	python3 python3-pytest
	# a real S3 server, the proxy that injects faults, certificates
	ceph-mon ceph-osd radosgw nginx-light libnginx-mod-http-lua curl openssl
	# databases as clients: SQLite, and LevelDB for Python
	sqlite3 python3-plyvel
	# file systems on loop devices, and what goes onto them
	e2fsprogs xfsprogs btrfs-progs mount attr acl fio
	zstd jq procps util-linux
)
# Nice to have, where the release has it.
check_optional=(clang-format-14)

declare -a wanted=() optional=() missing=()
for set in "$@"; do
	case $set in
	build) wanted+=("${build[@]}") ;;
	check) wanted+=("${check[@]}") optional+=("${check_optional[@]}") ;;
	*)
		echo "install-deps.sh: unknown set '$set' (build, check)" >&2
		exit 2
		;;
	esac
done

absent() { # PACKAGE...: prints those that are not installed
	local package
	for package in "$@"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null |
			grep -qx installed || echo "$package"
	done
}

if ! command -v dpkg-query >/dev/null; then
	echo "install-deps.sh: not a Debian system; needed (Debian's names):" >&2
	echo "  ${wanted[*]}" >&2
	exit 1
fi
mapfile -t missing < <(absent "${wanted[@]}")
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "install-deps.sh: these packages are missing:" >&2
	echo "  ${missing[*]}" >&2
	echo "Install them as root: apt-get install --no-install-recommends ..." >&2
	exit 1
fi

# The servers are started by the tests alone: not by their packages.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt_get=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
echo "installing: ${missing[*]}"
"${apt_get[@]}" update || echo "apt-get update failed; going on without" >&2
for package in $(absent "${optional[@]}"); do
	if apt-cache show "$package" >/dev/null 2>&1; then
		missing+=("$package")
	fi
done
"${apt_get[@]}" install -y --no-install-recommends "${missing[@]}"
