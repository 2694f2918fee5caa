#!/bin/sh
# Run every fuzz target for some seconds: `proxy/fuzz/run.sh [SECONDS]`, 10 each by default.
# cargo-fuzz is installed on first use. The compiler is the stable one: RUSTC_BOOTSTRAP lets it
# take the sanitizer flags.
set -eu
cd "$(dirname "$0")"
seconds=${1:-10}
tools=${HOODY_TOOLS:-${CARGO_HOME:-$HOME/.cargo}}
export PATH="$tools/bin:$PATH"
command -v cargo-fuzz >/dev/null || {
    echo "installing cargo-fuzz into $tools (once)"
    cargo install cargo-fuzz --locked --root "$tools"
}
export RUSTC_BOOTSTRAP=1
# A directory of its own: these builds are instrumented.
export CARGO_TARGET_DIR="${FUZZ_TARGET_DIR:-$PWD/target}"
for target in access address alias cookies frame_boundary frames hook names sender table; do
    echo "fuzzing $target for $seconds s"
    cargo fuzz run --fuzz-dir . "$target" -- \
        -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -print_final_stats=0 -verbosity=0
done
