"""Inspect pictures with ONNX Runtime alone: python onnxruntime_inspect.py EXPORTED PICTURE...

EXPORTED is what `fapm export part.fapm EXPORTED --to onnx` wrote. Needs numpy, pillow and
onnxruntime, and picture.py beside it. A picture that cannot be used is named on stderr, and the
exit code is then 2.
"""

import json
import sys
from pathlib import Path

import onnxruntime
from picture import line_of, read_frame

folder, pictures = Path(sys.argv[1]), sys.argv[2:]
about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(folder / "model.onnx")
exit_code = 0
for path in pictures:
    try:
        frame = read_frame(path, about)
    except ValueError as error:
        print(error, file=sys.stderr)
        exit_code = 2
        continue
    scores, maps = session.run(["scores", "maps"], {"frame": frame[None]})
    print(line_of(path, scores[0], maps[0], about))
sys.exit(exit_code)
