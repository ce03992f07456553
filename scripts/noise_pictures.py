"""Six small pictures of noise, to fit on. usage: noise_pictures.py FOLDER"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

for number in range(6):
    noise = np.random.default_rng(number).integers(90, 110, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(Path(sys.argv[1], f"{number}.png"))
