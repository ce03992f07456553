"""What a region of interest saves, and how far what lies outside it still reaches.

    python benchmarks/roi.py [--share 0.25] [--rounds 30] [--encoder NAME --weights random] \\
        [--reach FOLDER]

Latency of the whole graph (uint8 frame in; score, map and worst cell out) on synthetic pictures,
and of the search alone, in turns: of the whole frame, of a centred square at inspection only, and
of the same square at fit. With ``--reach`` a data set's good test pictures get a white square right
of a region that is their left half, 0 to 64 pixels of the frame away from it.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np

from fapm.config import Config
from fapm.datasets.loading import load_dataset
from fapm.detector import Detector
from fapm.engines import openvino_engine as openvino
from fapm.engines.base import Runtime
from fapm.engines.opening import open_encoder
from fapm.frames.layout import layout_of
from fapm.measure.benchmark import synthetic_pictures
from fapm.measure.timing import Stage
from fapm.pictures import codec

PICTURES = 209
SQUARE = 32
DISTANCES = (0, 4, 8, 16, 32, 64)


def latency(config: Config, share: float, rounds: int) -> None:
    pictures = synthetic_pictures(PICTURES, config.seed)
    size = config.input_size
    edge = round(size * share**0.5)
    start = (size - edge) // 2
    roi = np.zeros((size, size), np.bool_)
    roi[start : start + edge, start : start + edge] = True
    whole = Detector(config).fit(pictures)
    narrow = {"whole frame": whole, "at inspection only": whole.restrict(roi)}
    narrow["at fit"] = Detector(config).fit(pictures, roi=roi)
    encoder = open_encoder(whole.fitted_.encoder, Runtime())
    how = whole.fitted_.encoder.spec.interpolation
    frame = layout_of(config).frame(pictures[0], how)

    features = dict(enumerate(encoder.features([frame])))

    def graph(detector: Detector) -> Stage:
        engine = detector.engine_
        return Stage(lambda: engine.run([frame]))

    def search(detector: Detector) -> Stage:
        model = openvino.read_search(detector.fitted_)
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = openvino.core().compile_model(model, "CPU", hints).create_infer_request()
        return Stage(lambda: request.infer(features, share_inputs=True))

    graphs = {name: graph(detector) for name, detector in narrow.items()}
    searches = {name: search(detector) for name, detector in narrow.items()}
    alone = Stage(lambda: encoder.features([frame]))
    for _ in range(rounds):
        for one in (alone, *graphs.values(), *searches.values()):
            one.turn()
    print(
        f"{config.encoder}, {config.precision}, {size} px, {PICTURES} pictures, a region of "
        f"{100 * roi.mean():.0f} % of the frame; encoder alone {alone.median:.2f} ms\n"
    )
    print("| region | keys | whole graph ms | search alone ms |")
    print("|---|---|---|---|")
    for name, detector in narrow.items():
        keys = sum(len(bank.keys) for bank in detector.fitted_.banks)
        both = f"{graphs[name].median:.2f} | {searches[name].median:.3f}"
        print(f"| {name} | {keys:,} | {both} |")


def reach(folder: Path, config: Config) -> None:
    data = load_dataset(folder)
    size = config.input_size
    roi = np.zeros((size, size), np.bool_)
    roi[:, : size // 2] = True
    detector = Detector(config).fit([sample.path for sample in data.train], roi=roi)
    how = detector.fitted_.encoder.spec.interpolation
    frames = [
        layout_of(config).frame(codec.read_image(s.path), how) for s in data.test if s.label == 0
    ]
    before = detector.score(frames)
    print(f"\n{folder.name}, {len(frames)} good pictures, threshold {detector.threshold_:.2f}\n")
    print("| white square beside the region, pixels away | score / without it | called a defect |")
    print("|---|---|---|")
    for distance in DISTANCES:
        left, top = size // 2 + distance, (size - SQUARE) // 2
        changed = [frame.copy() for frame in frames]
        for frame in changed:
            frame[top : top + SQUARE, left : left + SQUARE] = 255
        scores = detector.score(changed)
        alarms = int((scores > detector.threshold_).sum())
        print(f"| {distance} | {np.mean(scores / before):.2f} | {alarms}/{len(frames)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--reach", type=Path)
    arguments = parser.parse_args()
    config = Config.create(
        encoder=arguments.encoder, weights=arguments.weights, precision=arguments.precision
    )
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores\n")
    latency(config, arguments.share, arguments.rounds)
    if arguments.reach:
        reach(arguments.reach, config)


if __name__ == "__main__":
    main()
