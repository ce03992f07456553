"""All settings of FAPM in one model that is validated, frozen and serialisable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fapm import rules
from fapm.errors import ConfigError

Sampling = Literal["none", "near-far", "equal-radius"]
DistanceUnit = Literal["median-radius", "one"]
CoarseUpsampling = Literal["nearest", "row-order"]
Align = Literal["none", "shift", "rigid", "similarity", "auto"]
LightNormalisation = Literal["none", "gain"]

_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {},
    "accurate": {"resize": 336, "ratio": 0.05, "score_sigma": 1.0},
    "paper": {
        "encoder": "wide_resnet50_2.tv_in1k",
        "resize": 256,
        "crop": 224,
        "sampling": "near-far",
        "distance_unit": "one",
        "neighbours": 4,
        "budget_pictures": None,
    },
}
PRESETS = tuple(_PRESETS)

# The groups in which help lists the fields: by the part of the work that they change.
GROUPS = {
    "frame": (
        "resize", "crop", "keep_aspect", "tile", "overlap", "tile_scale", "flat_field", "light",
        "align",
    ),
    "encoder": ("encoder", "weights", "layers", "precision"),
    "memory": (
        "ratio", "budget_pictures", "max_keys", "grid", "radius", "sampling", "far_threshold",
        "layer_wise", "coarse_upsampling", "distance_unit", "neighbours", "sigma", "score_sigma",
    ),
    "fit": (
        "false_positive_rate", "unsure_rate", "augment", "rotations", "robust", "thumbnails",
        "seed",
    ),
}  # fmt: skip


class Config(BaseModel):
    """The settings of a fit. ``Config()`` is the preset ``fast``.

    Raises
    ------
    ConfigError
        From :meth:`create`: an unknown field or preset, a value out of range, or values that
        contradict each other. The message names the field.

    Examples
    --------
    >>> import fapm
    >>> fapm.Config.create("accurate", align="auto")
    Config(resize=336, align='auto', ratio=0.05, score_sigma=1.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    encoder: str = Field(
        "efficientnet_lite0", min_length=1, description="the encoder, by its name in timm"
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="file with the encoder's weights (.safetensors, .pth), or 'random'; default: "
        "the embedded weights, or those of the hub",
    )
    layers: tuple[str, ...] = Field(
        (),
        description="feature layers, by timm's names, e.g. layer2,layer3; default: those at "
        "stride 8 and 16",
    )
    resize: int = Field(
        224,
        ge=32,
        le=4096,
        description="edge in pixels of the square that each picture is resized to",
    )
    crop: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="edge in pixels of a centre crop taken after resizing; the border is not "
        "inspected",
    )
    flat_field: str | None = Field(
        None,
        min_length=1,
        description="picture of a plain, evenly coloured surface under the same light: uneven "
        "light and vignetting are divided out of all pictures",
    )
    keep_aspect: bool = Field(
        False,
        description="keep the aspect ratio of the pictures; --resize is then their shorter edge; "
        "off: each picture is resized to a square",
    )
    tile: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="cut pictures into overlapping tiles of this edge in pixels instead of "
        "resizing them; each tile position has its own memory; use it for small defects in large "
        "pictures",
    )
    overlap: int | None = Field(
        None,
        ge=0,
        le=2048,
        description="least overlap of neighbouring tiles in pixels; default: an eighth of --tile",
    )
    tile_scale: float = Field(
        1.0,
        gt=0,
        le=4,
        description="factor by which pictures are scaled before they are cut into tiles",
    )
    light: LightNormalisation = Field(
        "none",
        description="gain: bring each frame to the brightness of the good pictures first; use it "
        "where the lamp ages or the exposure changes",
    )
    align: Align = Field(
        "none",
        description="register each frame to a template of the good pictures first; auto: "
        "similarity, or none where it would hurt",
    )
    grid: int = Field(
        7,
        ge=1,
        le=64,
        description="G: the picture is divided into G x G patches, each with its own memory; 1 = "
        "one memory for the whole picture",
    )
    layer_wise: bool = Field(
        True,
        description="one memory per layer; off: coarse layers are upsampled and concatenated",
    )
    sampling: Sampling = Field(
        "equal-radius", description="rule that divides the key budget among the patches"
    )
    ratio: float = Field(
        0.1, gt=0, le=1, description="share of all vectors of the good pictures kept as keys"
    )
    budget_pictures: int | None = Field(
        320,
        ge=1,
        description="--ratio counts the vectors of at most this many pictures; with more, time "
        "and size stay the same; the preset paper counts all",
    )
    max_keys: int | None = Field(
        None,
        ge=1,
        description="largest number of keys in all layers together; default: as --ratio gives",
    )
    far_threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="D_th: with near-far sampling, a patch whose distance score is larger gets "
        "more keys",
    )
    distance_unit: DistanceUnit = Field(
        "median-radius",
        description="divisor of a layer's distances: its median covering radius, or one",
    )
    neighbours: int = Field(
        1,
        ge=1,
        le=64,
        description="b: how many nearest keys weight the image score; 1 = no weighting",
    )
    radius: int = Field(
        0,
        ge=0,
        le=8,
        description="search also the patches up to this many patches away; 0 = own patch only",
    )
    rotations: int = Field(
        1,
        ge=1,
        le=36,
        description="memorise each good picture at this many angles around the circle, for parts "
        "in any orientation; the number of keys stays the same; 1 = as it is",
    )
    coarse_upsampling: CoarseUpsampling = Field(
        "nearest",
        description="how coarse layers are brought to the finest grid; row-order repeats an error "
        "of the authors' code, for comparison",
    )
    sigma: float = Field(
        4.0,
        ge=0,
        le=64,
        description="Gaussian smoothing of the anomaly map, in pixels of a frame of 224 px; it "
        "scales with the size of the frame",
    )
    score_sigma: float = Field(
        0.0,
        ge=0,
        le=16,
        description="Gaussian smoothing of the distances before the worst cell is chosen, in cells "
        "of the finest layer; 0 = no smoothing, as in the paper",
    )
    false_positive_rate: float = Field(
        0.01,
        gt=0,
        lt=0.5,
        description="share of good parts that may be called a defect",
    )
    unsure_rate: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="share of good parts that may be unsure or worse; default: 5 x "
        "--false-positive-rate",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "fp32",
        description="number format of the encoder: fp32 runs on every engine, bf16 and int8 are "
        "faster on OpenVINO; auto: int8 if it hardly changes the features of the good pictures, "
        "else bf16 or fp32",
    )
    augment: int = Field(
        0,
        ge=0,
        le=64,
        description="memorise this many copies of each picture too, slightly shifted, turned and "
        "changed in brightness; use it with few pictures",
    )
    robust: bool = Field(
        False, description="leave pictures out of the fit that stand out from the others"
    )
    thumbnails: bool = Field(
        True,
        description="store small copies of the good pictures in the bundle, to show them beside "
        "a new picture",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="seed of all random choices: random weights, and the demo's choice of cells",
    )

    @model_validator(mode="after")
    def _check_contradictions(self) -> Config:
        if self.crop is not None and self.crop > self.resize:
            raise ValueError(f"crop: {self.crop} is larger than resize {self.resize}")
        if self.unsure_rate is not None and self.unsure_rate < self.false_positive_rate:
            raise ValueError(
                f"unsure_rate: {self.unsure_rate} is below false_positive_rate "
                f"{self.false_positive_rate}; the unsure band lies below the threshold"
            )
        self._check_tiles()
        for line in rules.excluded(self.given):
            raise ValueError(line)
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers: {','.join(self.layers)} names a layer twice")
        if self.radius >= self.grid and self.radius > 0:
            raise ValueError(
                f"radius: {self.radius} reaches beyond a grid of {self.grid} x {self.grid}"
            )
        return self

    def _check_tiles(self) -> None:
        if self.tile is None:
            for name in ("overlap", "tile_scale"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: there are no tiles; give --tile too")
        elif self.tile_overlap > self.tile // 2:
            raise ValueError(f"overlap: {self.overlap} is more than half of tile {self.tile}")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        fields = type(self).model_fields
        return [(name, getattr(self, name)) for name in fields if name in self.given]

    @property
    def given(self) -> frozenset[str]:
        """Fields that are not as in the preset ``fast``."""
        fields = type(self).model_fields
        return frozenset(name for name in fields if getattr(self, name) != fields[name].default)

    @property
    def follows_pictures(self) -> bool:
        """Whether the size of frames depends on the pictures."""
        return self.keep_aspect or self.tile is not None

    @property
    def tile_overlap(self) -> int:
        """Least overlap of neighbouring tiles in pixels."""
        if self.overlap is not None:
            return self.overlap
        return (self.tile or 0) // 8

    @property
    def input_size(self) -> int:
        """Shorter edge in pixels of the encoder's input."""
        if self.tile is not None:
            return self.tile
        return self.resize if self.crop is None else self.crop

    @property
    def seen(self) -> tuple[float, float]:
        """Begin and extent of a square frame along the picture's edges, in shares."""
        extent = self.input_size / self.resize
        return (1 - extent) / 2, extent

    @property
    def map_sigma(self) -> float:
        """Gaussian sigma in pixels of the frame."""
        return self.sigma if self.tile is not None else self.sigma * self.input_size / 224

    @property
    def alert_rate(self) -> float:
        """Share of good parts that may be ``unsure`` or ``defect``."""
        return self.unsure_rate or min(5 * self.false_positive_rate, 0.5)

    @classmethod
    def create(cls, preset: str = "fast", **overrides: Any) -> Config:
        """The named preset with single fields replaced.

        Unlike the constructor it raises :class:`ConfigError` with one readable line.
        """
        if preset not in _PRESETS:
            raise ConfigError(f"preset: unknown {preset!r}; choose one of {', '.join(PRESETS)}")
        named = dict(_PRESETS[preset])
        if overrides.get("tile") is not None:
            named.pop("resize", None)  # the preset's: nobody asked for it
        try:
            return cls(**{**named, **overrides})
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    @classmethod
    def restored(cls, fields: Mapping[str, Any]) -> Config:
        """The config that a bundle holds.

        Bundles of earlier versions may hold, beside tiles, what tiles never used.
        """
        unused = ("resize", "keep_aspect") if fields.get("tile") is not None else ()
        return cls(**{name: value for name, value in fields.items() if name not in unused})


def _one_line(error: ValidationError) -> str:
    parts = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"][:1])
        if item["type"] == "extra_forbidden":
            known = ", ".join(Config.model_fields)
            parts.append(f"{field}: no such field; known fields: {known}")
        elif not field:
            parts.append(item["msg"].removeprefix("Value error, "))
        else:
            message = item["msg"].removeprefix("Input should be ")
            parts.append(f"{field}: {item['input']!r} is not valid, it should be {message}")
    return "; ".join(parts)
