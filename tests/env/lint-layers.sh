#!/bin/bash
# lint-layers.sh ROOT: rejects each #include in ROOT's layers that points the
# wrong way (base <- meta <- transfer <- fs <- control), or that uses a library
# outside of its layer.
# lint-layers.sh --self-test: shows that it does.
set -eu

layers=(base meta transfer fs control)

# Where a library's header may stand.
layers_of_library() { # HEADER
	case $1 in
	curl/* | openssl/* | zstd*.h | zdict.h) echo transfer ;;
	fuse*.h | cuse*.h | fuse*/*) echo fs ;;
	jansson*.h) echo meta control ;;
	*) echo "${layers[@]}" ;;
	esac
}

place() { # FOLDER: its place in the chain, -1 if it is no layer
	local i
	for i in "${!layers[@]}"; do
		if [ "${layers[i]}" = "$1" ]; then
			echo "$i"
			return
		fi
	done
	echo -1
}

# Prints why a file in LAYER may not include HEADER, nothing if it may.
reason() { # LAYER HEADER
	local layer=$1 header=$2 folder=${2%%/*} target
	case $header in
	*../* | ./*) echo "includes are written from the project's root" ;;
	*.c) echo "a source file is no interface" ;;
	tests/*) echo "tests are no part of the program" ;;
	esac
	target=$(place "$folder")
	if [ "$target" -gt "$(place "$layer")" ]; then
		echo "$folder is right of $layer"
	elif [ "$target" -lt 0 ]; then
		case " $(layers_of_library "$header") " in
		*" $layer "*) ;;
		*) echo "is for $(layers_of_library "$header") alone" ;;
		esac
	fi
}

lint() { # ROOT
	local root=$1 layer file line header why status=0
	for layer in "${layers[@]}"; do
		[ -d "$root/$layer" ] || continue
		while IFS=: read -r file line header; do
			why=$(reason "$layer" "$header")
			[ -n "$why" ] || continue
			echo "$file:$line: #include of $header: $why" >&2
			status=1
		done < <(find "$root/$layer" -name '*.[ch]' -exec \
			grep -nHoP '^\s*#\s*include\s*[<"]\K[^>"]+' {} +)
	done
	return $status
}

self_test() {
	local root case layer header wanted got failed=0
	root=$(mktemp -d)
	# shellcheck disable=SC2064 # the directory is known now
	trap "rm -rf '$root'" EXIT
	for case in \
		'base base/error.h ok' 'meta base/error.h ok' \
		'control fs/fs.h ok' 'fs transfer/engine.h ok' \
		'base meta/x.h no' 'meta transfer/x.h no' \
		'transfer fs/x.h no' 'fs control/x.h no' \
		'base stdio.h ok' 'base sys/stat.h ok' \
		'transfer curl/curl.h ok' 'control curl/curl.h no' \
		'meta openssl/sha.h no' 'fs zstd.h no' 'control zstd.h no' \
		'meta jansson.h ok' 'control jansson.h ok' \
		'base jansson.h no' 'transfer jansson.h no' \
		'fs fuse_lowlevel.h ok' 'control fuse_lowlevel.h no' \
		'fs fuse3/fuse.h ok' 'base fuse3/fuse.h no' \
		'fs ../base/error.h no' 'fs base/error.c no' \
		'fs tests/unit/test.h no'; do
		read -r layer header wanted <<<"$case"
		rm -rf "${root:?}"/*
		mkdir "$root/$layer"
		printf '#include <stddef.h>\n\t# include "%s"\n' "$header" \
			>"$root/$layer/x.c"
		got=ok
		lint "$root" 2>/dev/null || got=no
		if [ "$got" != "$wanted" ]; then
			echo "lint: $header in $layer: $got, not $wanted" >&2
			failed=1
		fi
	done
	return $failed
}

case ${1:-} in
--self-test)
	self_test
	echo "lint: it rejects what it should"
	;;
'')
	echo "usage: lint-layers.sh ROOT | --self-test" >&2
	exit 2
	;;
*)
	lint "$1"
	echo "lint: the layers hold"
	;;
esac
