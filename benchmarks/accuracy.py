"""Accuracy on labelled data sets: sampling rules side by side, and the presets.

    python benchmarks/accuracy.py [DATA_ROOT] [--table sampling|presets|keys|roi] [--only NAME ...]

DATA_ROOT holds data sets in any layout that ``fapm evaluate`` reads (default: ../shared/data). Each
row is one ``fapm evaluate`` in a process of its own, so that peak memory is its own too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

DATA_SETS = ("mvtec/bottle", "mvtec/transistor", "magnetic_tile", "screw")
# The paper's frame and score.
CROP = ("--resize", "256", "--crop", "224", "--neighbours", "4", "--score-sigma", "0")
SAMPLING = {
    "256 -> crop 224, b = 4, plain": (*CROP, "--sampling", "none"),
    "256 -> crop 224, b = 4, near-far": (*CROP, "--sampling", "near-far"),
    "256 -> crop 224, b = 4, equal-radius": CROP,
    "fast, plain": ("--sampling", "none"),
    "fast, near-far": ("--sampling", "near-far"),
    "fast (equal-radius)": (),
}
PRESETS = {
    "fast": (),
    "accurate": ("--preset", "accurate"),
    "accurate, 10 % of the vectors": ("--preset", "accurate", "--ratio", "0.1"),
}
KEYS = {
    "all keys": (),
    **{f"{count:,} keys": ("--max-keys", str(count)) for count in (15_000, 7_500, 3_000, 2_000)},
}
ROI = {"whole frame": (), "--roi auto": ("--roi", "auto")}
TABLES = {"sampling": SAMPLING, "presets": PRESETS, "keys": KEYS, "roi": ROI}
_CHILD = """\
import resource
from fapm.cli.app import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def evaluate(folder: Path, options: tuple[str, ...]) -> dict[str, Any]:
    """Figures of one evaluation, with ``peak_gb``, the peak resident memory of its process."""
    command = [sys.executable, "-c", _CHILD, "evaluate", str(folder), "--json", "-", *options]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    figures, peak = finished.stdout.splitlines()[:2]
    return {**json.loads(figures), "peak_gb": int(peak) / 1e6}


def row(name: str, setting: str, figures: dict[str, Any]) -> str:
    """One line of the Markdown table."""

    def percent(key: str) -> str:
        return "-" if figures[key] is None else f"{100 * figures[key]:.2f}"

    goods = figures["false_alarms"] + figures["passed"]
    defects = figures["caught"] + figures["missed"]
    return (
        f"| {name} | {setting} | {percent('image_auroc')} | {percent('pixel_auroc')} | "
        f"{percent('aupro')} | {figures['caught']}/{defects} | {figures['false_alarms']}/{goods} | "
        f"{figures['keys']:,} | {figures['fit_seconds']:.1f} | "
        f"{figures['inspect_ms_median']:.1f} | {figures['peak_gb']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("root", type=Path, nargs="?", default=shared)
    parser.add_argument("--table", choices=TABLES, default="sampling")
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, default=DATA_SETS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| data set | setting | image AUROC | pixel AUROC | AUPRO | caught | false alarms "
          "| keys | fit s | inspect ms | peak GB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    results = {}
    for name in arguments.only:
        if not (arguments.root / name).is_dir():
            print(f"| {name} | not here | - | - | - | - | - | - | - | - | - |")
            continue
        for setting, options in TABLES[arguments.table].items():
            figures = evaluate(arguments.root / name, options)
            results[f"{name}, {setting}"] = figures
            print(row(name, setting, figures), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
