#!/usr/bin/env bash
# Proves that the lowest versions that pyproject.toml allows inspect and export what the newest ones
# have fitted, and run what those have exported.
# usage: lowest_versions.sh FULL_VENV LOWEST_VENV
set -euo pipefail
full=$1 lowest=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$full/bin/python" scripts/noise_pictures.py "$work"
"$full/bin/fapm" fit "$work" --output "$work/part.fapm" --resize 64 --quiet >/dev/null
"$full/bin/fapm" fit "$work" --output "$work/tiles.fapm" --tile 32 --quiet >/dev/null
for venv in "$full" "$lowest"; do
  "$venv/bin/fapm" --version
  "$venv/bin/fapm" inspect "$work"/*.png --model "$work/part.fapm" --quiet --jsonl - >"$work/$(basename "$venv").jsonl"
  "$venv/bin/fapm" inspect "$work"/0.png --model "$work/tiles.fapm" --quiet >/dev/null
  "$venv/bin/fapm" export "$work/part.fapm" "$work/by_$(basename "$venv")"
done
"$lowest/bin/python" - "$work/$(basename "$full").jsonl" "$work/$(basename "$lowest").jsonl" "$work/by_$(basename "$full")" <<'PY'
import json
import sys
from pathlib import Path

import numpy as np
import openvino
from PIL import Image

new, old = ([json.loads(line) for line in Path(name).open()] for name in sys.argv[1:3])
scores = [record["score"] for record in new]
np.testing.assert_allclose([record["score"] for record in old], scores, rtol=1e-3)
exact = {"INFERENCE_PRECISION_HINT": "f32"}
model = openvino.Core().compile_model(Path(sys.argv[3], "model.xml"), "CPU", exact)
frames = [np.asarray(Image.open(record["source"]).convert("RGB"))[None] for record in new]
np.testing.assert_allclose([model(f)["scores"][0] for f in frames], scores, rtol=1e-3)
print(f"OpenVINO {openvino.__version__}, NumPy {np.__version__}: the same scores")
PY
