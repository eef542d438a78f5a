#!/usr/bin/env bash
# Measure a GPU for benchmarks/README.md, in about 8 minutes.
#
#   benchmarks/gpu.sh RESULTS [DATASET]
#
# RESULTS is a folder for tables, JSON files and outputs. DATASET is as in `--dataset`.
# PARTS names the parts to run, in order. Each has a time limit in seconds, for example BN=90.
# PYTHON is the interpreter (python3). A part whose packages are missing fails, the others go on.
set -u
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
results=$(cd "$1" && pwd)
dataset=${2:-auto}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1

part() { # part NAME LIMIT COMMAND...: run it, keep its output and its wall time
  local name=$1 limit=$2 begun status
  shift 2
  echo "== $name: $*"
  begun=$(date +%s%N)
  timeout -k 10 "$limit" "$@" >"$results/$name.txt" 2>"$results/$name.err"
  status=$?
  echo "$name $((($(date +%s%N) - begun) / 1000000)) ms, status $status" | tee -a "$results/wall.txt"
  tail -n 40 "$results/$name.txt"
  [ $status -eq 0 ] || tail -n 3 "$results/$name.err"
}

for name in ${PARTS:-forms bn warm study peer host startup}; do
  case $name in
    forms) part forms $((${FORMS:-95} + 60)) "$python" -m benchmarks.forms --save \
      --limit "${FORMS:-95}" --output "$results/forms.json" ${FORMS_ARGS:-} ;;
    bn) part bn "${BN:-90}" "$python" -m cifar_jax.main --bn --dataset "$dataset" \
      --workdir "$work/bn"; cp "$work/bn/results.json" "$results/bn.json" ;;
    warm) part warm "${WARM:-60}" "$python" -m cifar_jax.main --bn --dataset "$dataset" \
      --workdir "$work/warm"; cp "$work/warm/results.json" "$results/warm.json" ;;
    study) part study "${STUDY:-110}" "$python" -m cifar_jax.main study --seeds 10 \
      --dataset "$dataset" --workdir "$work/study" ${STUDY_ARGS:---precision bfloat16}
      cp "$work/study/report.html" "$results/" 2>/dev/null ;;
    peer) part peer "${PEER:-90}" "$python" -m benchmarks.throughput --peer torch --norm batch \
      --only training --steps 88 --repeats 3 --output "$results/throughput.json" ;;
    host) part host "${HOST:-60}" "$python" -m benchmarks.host --output "$results/host.json" ;;
    startup) part startup "${STARTUP:-60}" "$python" -m benchmarks.startup \
      --output "$results/startup.json" ;;
    *) echo "PARTS: $name is not one of forms, bn, warm, study, peer, host, startup" >&2; exit 2 ;;
  esac
done
