#!/bin/bash
# libfuse.sh BUILD: finds a libfuse with passthrough (>= 3.17) for the build, or
# makes one, and writes what the Makefile needs of it to BUILD/fuse.mk:
#
#   FUSE_CFLAGS, FUSE_LIBS, FUSE_ORIGIN (a line for people)
#
# In this order:
#   1. the system's libfuse3, if pkg-config finds it and it is new enough;
#   2. BUILD/libfuse: libfuse $version, built here as a static library from the
#      upstream tarball of Debian's source package, once;
#   3. the system's libfuse3 as it is, and then hibfs serves all I/O itself.
#
# HIBFS_LIBFUSE=system skips the second (for a machine without network).
#
# Why 3.17.2 and not 3.18 from sid: it is what the stable release carries, so
# that its tarball stays on the mirrors while sid's is replaced without notice,
# and it is the very version that 1. finds on Debian 13: one version to test.
# The fixes in 3.18 that matter are in example programs that are not built here.
set -eu

build=$1
version=3.17.2
tarball=fuse3_$version.orig.tar.gz
sha256=3d932431ad94e86179e5265cddde1d67aa3bb2fb09a5bd35c641f86f2b5ed06f
suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "libfuse: $*" >&2; }

write_mk() { # CFLAGS LIBS ORIGIN
	mkdir -p "$build"
	printf 'FUSE_CFLAGS := %s\nFUSE_LIBS := %s\nFUSE_ORIGIN := %s\n' \
		"$@" >"$build/fuse.mk.new"
	mv "$build/fuse.mk.new" "$build/fuse.mk"
	say "$3"
}

# The Debian mirror that this machine's apt already uses. The origin is known
# only after an `apt-get update`; before it, the path tells.
mirror() {
	# shellcheck disable=SC2016 # apt expands these
	apt-get indextargets --format \
		'$(ORIGIN)|$(LABEL)|$(SUITE)|$(REPO_URI)' 'Created-By: Packages' |
		awk -F '|' '$1 == "Debian" && $2 == "Debian" { print $4; exit }
			$1 == "" && $4 ~ /\/debian\/?$/ { guess = $4 }
			END { if (guess) print guess }' | head -n 1
}

# Downloads the source package into $1 with an apt of its own, so that the
# machine's sources and package lists stay as they are.
download() {
	local work=$1 uri
	uri=$(mirror)
	if [ -z "$uri" ]; then
		say "apt knows no Debian mirror"
		return 1
	fi
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial" \
		"$work/parts"
	echo "deb-src [signed-by=$keyring] $uri $suite main" \
		>"$work/sources.list"
	cat >"$work/apt.conf" <<-END
		Dir::Etc::SourceList "$work/sources.list";
		Dir::Etc::SourceParts "$work/parts";
		Dir::State::Lists "$work/lists";
		Dir::Cache "$work/cache";
		APT::Sandbox::User "";
		Acquire::Retries "3";
		Acquire::Languages "none";
	END
	(
		cd "$work"
		export APT_CONFIG=$work/apt.conf
		apt-get -q update && apt-get -q source --download-only --only-source fuse3
	) >"$work/apt.log" 2>&1 || {
		tail -n 5 "$work/apt.log" >&2
		return 1
	}
}

make_static() {
	local work=$PWD/$build/libfuse.work root=$build/libfuse
	rm -rf "$work" "$root"
	mkdir -p "$work"
	say "building libfuse $version as a static library, once"
	download "$work" || return 1
	if ! echo "$sha256  $work/$tarball" | sha256sum --check --status; then
		say "$tarball from the mirror is not the pinned one; not used"
		return 1
	fi
	tar -xzf "$work/$tarball" -C "$work" || return 1
	# The prefix is where fusermount3 is looked for, not where this goes.
	{
		meson setup "$work/out" "$work"/fuse-$version --prefix=/usr \
			--sysconfdir=/etc --libdir=lib --buildtype=release \
			-Db_pie=true -Ddebug=true -Ddefault_library=static \
			-Dutils=false -Dexamples=false -Dtests=false \
			-Duseroot=false -Dinitscriptdir= &&
			ninja -C "$work/out" &&
			DESTDIR=$work/root meson install -C "$work/out" --no-rebuild
	} >"$work/build.log" 2>&1 || {
		tail -n 20 "$work/build.log" >&2
		return 1
	}
	mkdir -p "$root"
	cp -r "$work/root/usr/include" "$work/root/usr/lib/libfuse3.a" "$root"
	rm -rf "$work"
}

new_enough() { pkg-config --atleast-version=3.17 fuse3 2>/dev/null; }
system_cflags() { pkg-config --cflags fuse3 | sed 's/-I/-isystem /g'; }

if new_enough; then
	write_mk "$(system_cflags) -DHIBFS_HAVE_PASSTHROUGH" \
		"$(pkg-config --libs fuse3)" \
		"the system's $(pkg-config --modversion fuse3)"
	exit
fi

if [ "${HIBFS_LIBFUSE:-}" != system ]; then
	if [ -f "$build/libfuse/libfuse3.a" ] || make_static; then
		write_mk "-isystem $build/libfuse/include/fuse3 -DHIBFS_HAVE_PASSTHROUGH" \
			"$build/libfuse/libfuse3.a -ldl -lrt -pthread" \
			"$version, static, in $build/libfuse"
		exit
	fi
fi

if ! pkg-config --exists fuse3; then
	say "no libfuse3 at all; tests/env/install-deps.sh build installs it"
	exit 1
fi
write_mk "$(system_cflags)" "$(pkg-config --libs fuse3)" \
	"the system's $(pkg-config --modversion fuse3), without passthrough"
say "NOTICE: hibfs built with it serves every read and write itself (about"
say "NOTICE: 30 times slower for small I/O than passthrough). To try again:"
say "NOTICE: rm $build/fuse.mk"
