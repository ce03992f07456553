"""Inspect pictures with OpenVINO alone: python openvino_inspect.py EXPORTED PICTURE...

EXPORTED is what `fapm export part.fapm EXPORTED` wrote. Needs numpy, pillow and openvino, and
picture.py beside it. A picture that cannot be used is named on stderr, and the exit code is then 2.
"""

import json
import sys
from pathlib import Path

import openvino
from picture import line_of, read_frame

folder, pictures = Path(sys.argv[1]), sys.argv[2:]
about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
model = openvino.Core().compile_model(
    folder / "model.xml",
    "CPU",
    {"INFERENCE_PRECISION_HINT": "f32"},  # as it was proven
)
exit_code = 0
for path in pictures:
    try:
        frame = read_frame(path, about)
    except ValueError as error:
        print(error, file=sys.stderr)
        exit_code = 2
        continue
    said = model(frame[None])  # one frame at a time: the graph gives one score
    print(line_of(path, said["scores"][0], said["maps"][0], about))
sys.exit(exit_code)
