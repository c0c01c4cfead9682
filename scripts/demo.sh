#!/usr/bin/env bash
# The walk of `make demo`: train on the embedded base, evaluate on held-out requests, route five.
# Usage: scripts/demo.sh BIN ADAPTER   (BIN: the environment's bin folder)
set -euo pipefail

bin=$1
adapter=$2
router="$bin/mlx-router"
train_limits=()
eval_limits=()

if ! "$bin/python" -c 'import sys; from mlx_router.runtime import prepare; sys.exit(not prepare().blas.fast)'; then
    echo "This machine's MLX has only the reference BLAS, some fifty times slower: the demo is cut to 30 updates and" \
         "30 test rows, and its router will be poor. \`$router doctor\` says what to do."
    train_limits=(--max-updates 30 --valid-rows 10 --calibrate false)
    eval_limits=(--limit 30)
fi

say() { printf '\n$ mlx-router %s\n' "$*"; }

# ${array[@]+…}: bash 3.2, which macOS has, takes an empty array for an unset variable.
say train --config configs/support.yaml --overwrite
"$router" train --config configs/support.yaml --adapter "$adapter" --overwrite ${train_limits[@]+"${train_limits[@]}"}

say eval "$adapter" --data data/support/test.jsonl --failures 5
"$router" eval "$adapter" --data data/support/test.jsonl --failures 5 ${eval_limits[@]+"${eval_limits[@]}"}

for request in \
    "Where's my order ORD-1234?" \
    "Please refund order ORD-7781, the lid arrived cracked." \
    "Let me talk to a person, my parcel has been opened." \
    "I want a refund." \
    "What's your refund policy?"; do
    printf '\n$ mlx-router route %s "%s"\n' "$adapter" "$request"
    # 1 is an invalid output, which is an answer too; 2 means that it could not run.
    "$router" route "$adapter" "$request" || test $? -eq 1
done
