#!/usr/bin/env bash
# Everything that wants a GPU, in one call of less than 9 minutes: correctness, the sanitizer, benchmarks. From the repository:
#
#     bash bench/gpu.sh                  # on a GPU: writes bench/results/NAME.json and NAME.md, named by GPU and versions
#     bash bench/gpu.sh --dry            # on any machine: the same steps on tiny shapes, by Triton's interpreter; no results
#
# It wants torch, triton, numpy, safetensors, pytest and hypothesis; not pydantic, PyYAML or an installed campfire. With OUT set,
# results are copied there, too.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
case " $* " in
  *" --dry "*) export TRITON_INTERPRET=1 ;;
  *) export CAMPFIRE_CACHE="${CAMPFIRE_CACHE:-$(mktemp -d)}" ;; # nothing measured before is believed
esac
exec timeout --signal=INT 535 "${PYTHON:-python3}" bench/gpu/run.py "$@"
