#!/usr/bin/env bash
# Builds the targets and runs each for so many seconds, from its seeds and from what earlier runs found: fuzz.sh SECONDS [TARGET…].
# Fails at the first input that a target does not bear, and says how to replay it.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?seconds for each target}; shift
cargo=${CARGO:-cargo}
# Instrumented programs are for this machine alone, and lie under its name.
host=$(rustc -vV | sed -n 's/^host: //p')
if [ $# = 0 ]; then
  "$cargo" build --release --quiet
  set -- $(sed -n 's/^path = "targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)
else
  "$cargo" build --release --quiet $(printf -- '--bin %s ' "$@")
fi
for target; do
  program=target/$host/release/$target corpus=target/corpus/$target log=target/$target.log
  mkdir -p "$corpus" "target/found/$target" "corpus/$target"
  COTERIE_FUZZ_SEEDS=$corpus "$program"
  # The first folder takes what is new; the committed ones are read only.
  if ! "$program" "$corpus" "corpus/$target" -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 \
      -artifact_prefix="target/found/$target/" -print_final_stats=1 -verbosity=1 >"$log" 2>&1; then
    tail -n 40 "$log"
    found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    printf '\n%s: FAILED; replay it: (cd tests/fuzz && %s %s)\n' "$target" "$program" "${found:-"$corpus/*"}" >&2
    exit 1
  fi
  first=$(sed -n 's/.*INITED cov: \([0-9]*\).*/\1/p' "$log")
  last=$(sed -n 's/.*\(DONE\|NEW\|pulse\|REDUCE\) *cov: \([0-9]*\).*/\2/p' "$log" | tail -n 1)
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  speed=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  printf '%-16s %9s runs, %7s a second, cov: %s -> %s\n' "$target" "$runs" "$speed" "$first" "$last"
  [ "${last:-0}" -gt 0 ] || { echo "$target: it is not guided by coverage" >&2; exit 1; }
done
