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
"$full/bin/python" - "$work" <<'PY'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

for number in range(6):
    noise = np.random.default_rng(number).integers(90, 110, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(Path(sys.argv[1], f"{number}.png"))
PY
"$full/bin/fapm" fit "$work" --output "$work/part.fapm" --resize 64 --quiet >/dev/null
"$full/bin/fapm" inspect "$work"/*.png --model "$work/part.fapm" --quiet >"$work/full.txt"
"$base/bin/fapm" inspect "$work"/*.png --model "$work/part.fapm" --quiet >"$work/base.txt"
cmp "$work/full.txt" "$work/base.txt"
"$base/bin/fapm" export "$work/part.fapm" "$work/exported"
for venv in "$full" "$base"; do du -sm "$venv"/lib/python*/site-packages; done
