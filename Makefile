# `make help` lists the targets. Everything that is made lies under build/:
# each flavor in build/FLAVOR, libfuse and what was found of it in
# build/libfuse and build/fuse.mk.
#
#   make LAYERS="base meta" TESTS=test_file check-unit
#
# builds and runs a part, also while another layer does not compile. V=1 shows
# the commands.

VERSION := 0.1.0

PREFIX ?= /usr/local
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
BASH_COMPLETION_DIR ?= $(PREFIX)/share/bash-completion/completions

CFLAGS ?= -g
PYTEST ?= /usr/bin/python3 -B -m pytest tests/integration
CLANG_FORMAT ?= clang-format-14
JOBS ?= $(shell nproc)

# release: what is installed. test: release with fault points. asan, tsan: test
# under the sanitizers.
FLAVOR ?= release
LAYERS ?= base meta transfer fs control
TESTS ?= $(basename $(notdir $(wildcard tests/unit/test_*.c)))

O := build/$(FLAVOR)
say = $(if $(filter 1,$(V)),,@echo '  $1	$@';)

warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wformat=2 -Wundef
ifeq ($(DEVELOPER),1)
warnings += -Werror
endif

hardening := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
release_flags := -O2 $(hardening)
test_flags := -O2 $(hardening) -DHIBFS_FAULT_POINTS
asan_flags := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
	-fno-sanitize-recover=all -DHIBFS_FAULT_POINTS
tsan_flags := -O1 -fno-omit-frame-pointer -fsanitize=thread \
	-DHIBFS_FAULT_POINTS
ifeq ($($(FLAVOR)_flags),)
$(error FLAVOR is release, test, asan or tsan, not "$(FLAVOR)")
endif

# Targets that build nothing here, or build through a make of their own after
# the packages are there. Only the others need libfuse.
indirect := help clean lint fmt demo check check-unit check-long asan tsan \
	bench deps-build deps-check uninstall
ifneq ($(filter-out $(indirect),$(or $(MAKECMDGOALS),all)),)
include build/fuse.mk

packages := libcurl libcrypto libzstd jansson
ifneq ($(shell pkg-config --exists $(packages) && echo yes),yes)
$(error Packages are missing; tests/env/install-deps.sh build installs them)
endif
package_cflags := $(shell pkg-config --cflags $(packages))
curl_libs := $(shell pkg-config --libs libcurl libcrypto libzstd)
jansson_libs := $(shell pkg-config --libs jansson)
endif

cflags := -std=gnu17 -pthread $(warnings) $($(FLAVOR)_flags) $(CFLAGS)
cppflags := -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	-DHIBFS_VERSION='"$(VERSION)"' $(FUSE_CFLAGS) $(package_cflags) \
	$(CPPFLAGS)
ldflags := -pthread $(filter -fsanitize=%,$($(FLAVOR)_flags)) $(LDFLAGS)
daemon_libs := $(FUSE_LIBS) $(curl_libs) $(jansson_libs)

sources := $(foreach layer,$(LAYERS),$(wildcard $(layer)/*.c))
hibctl_objects := $(patsubst %.c,$(O)/%.o,$(wildcard control/hibctl*.c))
lib_objects := $(filter-out $(hibctl_objects) $(O)/control/main.o,\
	$(sources:%.c=$(O)/%.o))
programs := $(if $(wildcard control/main.c),$(O)/hibfs) \
	$(if $(hibctl_objects),$(O)/hibctl)
tests := $(TESTS:%=$(O)/tests/unit/%)
# Programs that the integration tests run, beside hibfs and hibctl.
tools := $(patsubst %.c,$(O)/%,$(wildcard tests/integration/tools/*.c))

.PHONY: all
all: $(programs) $(if $(filter release,$(FLAVOR)),,$(tools))

$(O)/hibfs: $(O)/control/main.o $(O)/libhibfs.a
	$(call say,LINK)$(CC) $(ldflags) -o $@ $^ $(daemon_libs)

# No libfuse and no libcurl: reaching into transfer/ or fs/ fails to link.
$(O)/hibctl: $(hibctl_objects) $(O)/libhibfs.a
	$(call say,LINK)$(CC) $(ldflags) -o $@ $^ $(jansson_libs)

$(tests) $(tools): $(O)/%: $(O)/%.o $(O)/libhibfs.a
	$(call say,LINK)$(CC) $(ldflags) -o $@ $^ $(daemon_libs)

$(O)/libhibfs.a: $(lib_objects)
	@rm -f $@
	$(call say,AR)$(AR) rcs $@ $^

$(O)/%.o: %.c Makefile build/fuse.mk
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(cppflags) $(cflags) -MMD -MP -c -o $@ $<

build/fuse.mk: tests/env/libfuse.sh
	tests/env/libfuse.sh build

.PRECIOUS: $(O)/tests/unit/%.o $(O)/tests/integration/tools/%.o
-include $(lib_objects:.o=.d) $(hibctl_objects:.o=.d) $(tests:=.d) $(tools:=.d) \
	$(O)/control/main.d

# The tests of this flavor; a failure does not keep the next from running.
.PHONY: unit
unit: $(tests)
	@tests/env/run-unit.sh $(FLAVOR) $(tests)

# --- what developers call ---------------------------------------------------

flavor = +$(MAKE) --no-print-directory -j$(JOBS) DEVELOPER=1 FLAVOR=

.PHONY: help
help:
	@echo 'make all         hibfs and hibctl, in build/release'
	@echo 'make demo        the five-minute tour (as root; installs what it needs)'
	@echo 'make check       everything a change must pass (as root; likewise)'
	@echo 'make check-unit  the unit tests;  make asan, make tsan: under sanitizers'
	@echo 'make check-long  the tests that take long'
	@echo 'make bench       the measurements of docs/BENCHMARKS.md'
	@echo 'make lint        layering and format;  make fmt: format the sources'
	@echo 'make install     to DESTDIR and PREFIX=/usr/local;  make uninstall'
	@echo 'make clean'

.PHONY: deps-build deps-check
deps-build deps-check: deps-%:
	tests/env/install-deps.sh build $(filter-out build,$*)

.PHONY: demo
demo: deps-build
	$(flavor)release all
	HIBFS_BUILD=$(CURDIR)/build/release tests/env/demo.sh

.PHONY: check-unit asan tsan
check-unit:
	$(flavor)test unit
asan tsan:
	$(flavor)$@ unit

# The integration tests run against the build with fault points, and print at
# their end which requirement no test shows.
.PHONY: check check-long
check: deps-check
	+$(MAKE) --no-print-directory lint
	$(flavor)release all
	$(flavor)test all
	$(flavor)test unit
	$(flavor)asan unit
	$(flavor)tsan unit
	HIBFS_BUILD=$(CURDIR)/build/test $(PYTEST) -m 'not long' \
		--requirements $(PYTEST_ARGS)

check-long: deps-check
	$(flavor)test all
	HIBFS_BUILD=$(CURDIR)/build/test $(PYTEST) -m long $(PYTEST_ARGS)

.PHONY: bench
bench: deps-check
	$(flavor)release all
	HIBFS_BUILD=$(CURDIR)/build/release tests/bench/run.sh

c_files = $(wildcard $(foreach d,base meta transfer fs control tests/unit \
	tests/fuzz tests/bench,$d/*.[ch]))

# Other versions of clang-format decide differently, so the format is checked
# only where the pinned one is (Debian 12 has it, Debian 13 does not).
.PHONY: lint fmt
lint:
	tests/env/lint-layers.sh --self-test
	tests/env/lint-layers.sh .
	@if command -v $(CLANG_FORMAT) >/dev/null; then \
		$(CLANG_FORMAT) --dry-run -Werror $(c_files) && \
		echo 'lint: format is as .clang-format says'; \
	else echo 'lint: no $(CLANG_FORMAT) here, format not checked'; fi
fmt:
	$(CLANG_FORMAT) -i $(c_files)

.PHONY: clean
clean:
	rm -rf build

# --- install ----------------------------------------------------------------

manuals = $(wildcard man/*.[1-8])
units = $(wildcard contrib/systemd/*.service contrib/systemd/*.target)
completions = $(wildcard contrib/completion/hibctl)

# `mount -t fuse.hibfs` needs no helper of ours: mount(8) runs fuse3's
# /sbin/mount.fuse, which starts the program named behind the dot from PATH.
.PHONY: install uninstall
install: all
	install -d $(DESTDIR)$(BINDIR)
	install -m 755 $(O)/hibfs $(O)/hibctl $(DESTDIR)$(BINDIR)
	$(foreach m,$(manuals),install -D -m 644 $m \
		$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $m))/$(notdir $m)$(nl))
	$(foreach u,$(units),install -D -m 644 $u \
		$(DESTDIR)$(UNITDIR)/$(notdir $u)$(nl))
	$(foreach c,$(completions),install -D -m 644 $c \
		$(DESTDIR)$(BASH_COMPLETION_DIR)/$(notdir $c)$(nl))

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/hibfs $(DESTDIR)$(BINDIR)/hibctl
	$(foreach m,$(manuals),rm -f \
		$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $m))/$(notdir $m)$(nl))
	$(foreach u,$(units),rm -f $(DESTDIR)$(UNITDIR)/$(notdir $u)$(nl))
	$(foreach c,$(completions),rm -f \
		$(DESTDIR)$(BASH_COMPLETION_DIR)/$(notdir $c)$(nl))

define nl


endef
