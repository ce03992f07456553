#!/usr/bin/env bash
# Proves that a base install, without torch, inspects and exports what a full one has fitted.
# usage: torch_free.sh FULL_VENV BASE_VENV
set -euo pipefail
full=$1 base=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if "$base/bin/python" -c "import torch" 2>/dev/null; then
  echo "torch is installed in $base"; exit 1
fi
"$full/bin/python" scripts/noise_pictures.py "$work"
"$full/bin/fapm" fit "$work" --output "$work/part.fapm" --resize 64 --quiet >/dev/null
"$full/bin/fapm" inspect "$work"/*.png --model "$work/part.fapm" --quiet >"$work/full.txt"
"$base/bin/fapm" inspect "$work"/*.png --model "$work/part.fapm" --quiet >"$work/base.txt"
cmp "$work/full.txt" "$work/base.txt"
"$base/bin/fapm" export "$work/part.fapm" "$work/exported"
for venv in "$full" "$base"; do du -sm "$venv"/lib/python*/site-packages; done
