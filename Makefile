# The front door. CMake builds (CMakePresets.json); this only spares the typing.
#
# JOBS=N limits parallel work, TEST_JOBS=N the tests side by side; FUZZ_SECONDS=N is how long each
# fuzzer runs; UNITY=ON compiles each folder of preset dev in one from then on, which takes a third
# of the time but sees no missing include; DESTDIR and PREFIX are for `make install`.

JOBS ?= $(shell nproc)
# They wait more than they compute: for servers, time limits, stamps that settle.
TEST_JOBS ?= $(shell expr 2 '*' $(JOBS))
FUZZ_SECONDS ?= 30
SIM_RUNS ?= 20000
TIDY_SECONDS ?= 150
PREFIX ?= /usr/local

# A compiler cache is used if there is one.
CCACHE := $(shell command -v ccache 2>/dev/null)
ifneq ($(CCACHE),)
export CMAKE_C_COMPILER_LAUNCHER ?= $(CCACHE)
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(CCACHE)
endif

INSTALL_DEPENDENCIES := tools/install_dependencies.sh
# What demo, bench and soak run.
MEASURED := larder larder-engine larder_rpc_proxy larder_norpcb larder_tun_delay bench_readers bench_objects cachefilesd larder-device libnfs_probe
CTEST := ctest --output-on-failure --no-tests=error
# For the build that is changed and built again a file at a time is best.
unity-dev := $(if $(UNITY),-D CMAKE_UNITY_BUILD=$(UNITY) -D CMAKE_UNITY_BUILD_BATCH_SIZE=0)
# build(preset[, target...]), configured first where that is to be done
build = cmake --preset $(1) $(unity-$(1)) >build/configure-$(1).log || { cat build/configure-$(1).log; exit 1; }; \
        cmake --build --preset $(1) -j $(JOBS) $(if $(2),--target $(2))

.PHONY: all help dependencies test unit check format layers docs tidy clang check-all asan tsan asan-short \
        tsan-short test-build asan-build tsan-build tidy-short soak-short bench-short demo-short fuzz sim cull-sim golden demo bench soak install clean

all: | build  ## the programs, optimised, in build/release/programs
	$(INSTALL_DEPENDENCIES) build
	@$(call build,release,larder larder-engine cachefilesd larder-device)

help:  ## this text
	@echo "make, or make TARGET:"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | expand -t 14 | sed 's/^/  /'

dependencies:  ## installs what building, testing and checking needs (Debian 12; root or sudo)
	$(INSTALL_DEPENDENCIES)

test: test-build  ## builds preset dev and runs every test; the mounting ones need root and /dev/fuse
	$(CTEST) --test-dir build/dev -j $(TEST_JOBS)

test-build: | build
	$(INSTALL_DEPENDENCIES) build test
	@$(call build,dev)

unit: | build  ## only the tests that take no mount, no root and no time
	@$(call build,dev)
	$(CTEST) --test-dir build/dev -j $(JOBS) -L unit

check: | build  ## formats, layers, documents, clang with thread-safety analysis, clang-tidy on all
	$(INSTALL_DEPENDENCIES) build test check
	$(MAKE) format layers docs clang tidy

format:  ## is everything as clang-format-19 leaves it? (tools/format.sh formats)
	tools/format.sh --check

layers:  ## does any include or CMake edge break the table of layers, or a TRY stand where it leaks?
	tools/check_layers.py
	tools/check_try.py

docs:  ## do the documents agree with the code?
	tools/check_docs.py

clang: | build  ## everything with clang 19, whose thread-safety analysis reads our annotations
	@$(call build,clang)

tidy: | build  ## clang-tidy on all sources that are not known to be clean as they are
	tools/tidy.py

check-all: test check asan tsan sim cull-sim fuzz demo soak bench  ## all of it in full: some hours

asan: | build  ## all tests under AddressSanitizer and UBSan
	@$(call build,asan)
	tools/sanitized.sh build/asan -j $(JOBS) -LE 'integration|docs'
	tools/sanitized.sh build/asan -j $(JOBS) -L integration

# The simulation, the crash tests and FaultTest have one thread; the model's self-test runs no
# program of ours.
tsan tsan-short: export GTEST_FILTER = -FaultTest.*
tsan: | build  ## all tests with threads under ThreadSanitizer
	@$(call build,tsan)
	tools/sanitized.sh build/tsan -j $(JOBS) -LE 'integration|docs|sim|crash' -E model
	tools/sanitized.sh build/tsan -j $(JOBS) -L integration

# What fits into a run of CI.
asan-build: | build
	@$(call build,asan,unit_tests sim_test cache_crash_test)

asan-short: asan-build
	tools/sanitized.sh build/asan -j $(JOBS) -L 'unit|sim|crash' -E sim.culling

tsan-build: | build
	@$(call build,tsan,unit_tests larder larder-engine cachefilesd larder-device larder_rpc_proxy larder_norpcb)

tsan-short: tsan-build
	tools/sanitized.sh build/tsan -j $(JOBS) -R '^(unit\.|integration.40_warm)'

soak-short: | build
	@$(call build,dev)
	tools/soak --build build/dev --names 50000 --bytes 512M --culled-seconds 40

bench-short: | build
	@$(call build,dev)
	tools/bench --build build/dev --short

demo-short: | build
	@$(call build,dev)
	tools/demo --build build/dev

tidy-short: | build
	tools/tidy.py --seconds $(TIDY_SECONDS)

sim: | build  ## SIM_RUNS simulations from seeds never run before
	@$(call build,release,sim_test)
	LARDER_SIM_RUNS=$(SIM_RUNS) build/release/tests/sim/sim_test

cull-sim: | build  ## what culling keeps, against an exact LRU, on made loads
	@$(call build,release,larder_cull_sim)
	build/release/tests/cull_sim/larder_cull_sim

golden: | build  ## the bytes on disk against docs/on-disk-format.md
	@$(call build,dev,on_disk_format_test)
	$(CTEST) --test-dir build/dev -L golden

fuzz: | build  ## each fuzzer for FUZZ_SECONDS
	$(INSTALL_DEPENDENCIES) build check
	@$(call build,fuzz,fuzzers)
	tools/fuzz.sh $(FUZZ_SECONDS)

demo bench soak: | build
	$(INSTALL_DEPENDENCIES) build test
	@$(call build,release,$(MEASURED))
	tools/$@

demo:  ## a real NFS server on loopback, read cold and warm through a mount: a table of what was saved
bench:  ## ratios against native reads and against a bare NFS client
soak:  ## a large tree walked and read, a small cache culled: memory, descriptors and ids must not leak

install: | build  ## programs, man page, unit, mount.larder; makes the user larder (with DESTDIR: not)
	$(INSTALL_DEPENDENCIES) build
	@cmake --preset release -DCMAKE_INSTALL_PREFIX=$(PREFIX) >build/configure-release.log || \
	  { cat build/configure-release.log; exit 1; }
	cmake --build --preset release -j $(JOBS) --target larder larder-engine cachefilesd larder-device
	cmake --install build/release
ifeq ($(DESTDIR),)
	getent passwd larder >/dev/null || \
	  useradd --system --user-group --no-create-home --home-dir /nonexistent \
	          --shell /usr/sbin/nologin --comment "Larder" larder
	test ! -d /run/systemd/system || systemctl daemon-reload
endif

clean:  ## removes build/
	rm -rf build

build:
	mkdir -p build
