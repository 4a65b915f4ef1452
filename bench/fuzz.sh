#!/usr/bin/env bash
# Fuzzes the readers of plimsoll-heap, each for SECONDS (default 600), one after the other, on stable Rust.
#
#     bash bench/fuzz.sh [SECONDS] [TARGET...]
#
# A finding stops it with libFuzzer's report and leaves the input in fuzz/artifacts. Seeds are the files in testdata.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds="${1:-600}"
shift || true
# What `cargo fuzz -s none` passes: edge coverage for libFuzzer, checks of overflow and of debug assertions, no sanitizer.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1"
target="$(rustc -vV | sed -n 's/^host: //p')"
cargo build --release --target "$target"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
for one in "${targets[@]}"; do
    mkdir -p "corpus/$one" "artifacts/$one"
    case "$one" in
        pprof) seeds=(../crates/plimsoll-heap/testdata/*.pb.gz) ;;
        jemalloc) seeds=(../crates/plimsoll-heap/testdata/{jemalloc,rust}-*) ;;
        jvm) seeds=(../crates/plimsoll-heap/testdata/*.histogram) ;;
        smaps) seeds=(../crates/plimsoll-heap/testdata/*.smaps*) ;;
        heapprofile) seeds=(../crates/plimsoll-heap/testdata/*.heapprofile) ;;
        v8) seeds=(../crates/plimsoll-heap/testdata/v8/*.heapsnapshot) ;;
        digest) seeds=(../crates/plimsoll-heap/testdata/*.digest) ;;
        *) seeds=() ;;
    esac
    for seed in "${seeds[@]}"; do
        # pprof is mutated unpacked: changes to a gzip stream are refused by its checksum.
        case "$seed" in
            *.txt) ;;
            *.gz) gzip -dc "$seed" >"corpus/$one/seed-$(basename "$seed" .gz)" ;;
            *) head -c 8192 "$seed" >"corpus/$one/seed-$(basename "$seed")" ;;
        esac
    done
    printf '== %s, %s s\n' "$one" "$seconds"
    "target/$target/release/$one" "corpus/$one" -artifact_prefix="artifacts/$one/" -max_total_time="$seconds" \
        -max_len=65536 -timeout=120 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
done
