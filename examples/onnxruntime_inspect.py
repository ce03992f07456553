"""Inspect pictures with ONNX Runtime alone: python onnxruntime_inspect.py EXPORTED PICTURE...

EXPORTED is what `fapm export part.fapm EXPORTED --to onnx` wrote. Needs numpy, pillow, onnxruntime.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder, pictures = Path(sys.argv[1]), sys.argv[2:]
about = json.loads((folder / "detector.json").read_text())
session = onnxruntime.InferenceSession(folder / "model.onnx")
size, crop = about["resize"], about["crop"] or about["resize"]
start = (size - crop) // 2
method = getattr(Image.Resampling, about["interpolation"].upper())

for path in pictures:
    picture = Image.open(path).convert("RGB").resize((size, size), method, reducing_gap=3.0)
    frame = np.array(picture)[start : start + crop, start : start + crop]
    score, anomaly_map, *_ = session.run(None, {"frame": frame[None]})
    verdict = "defect" if score[0] > about["threshold"] else "good"
    y, x = np.unravel_index(anomaly_map[0].argmax(), anomaly_map[0].shape)
    print(f"{verdict} {score[0]:.6g} worst at {x / crop:.2f}, {y / crop:.2f} {path}")
