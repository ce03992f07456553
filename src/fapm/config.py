"""Every knob of FAPM, once: validated, frozen, serialisable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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


class Config(BaseModel):
    """What a detector is fitted with. `Config()` is the preset `fast`.

    Raises
    ------
    ConfigError
        From :meth:`create`: an unknown field or preset, a value out of range, or values that
        contradict each other. The message names the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    encoder: str = Field(
        "efficientnet_lite0", min_length=1, description="encoder: a timm model name"
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="weights file (.safetensors, .pth), or 'random'; default: embedded or hub",
    )
    layers: tuple[str, ...] = Field(
        (), description="taps by timm's name, e.g. layer2,layer3; default: stride 8 and 16"
    )
    resize: int = Field(
        224, ge=32, le=4096, description="edge the whole picture is resized to, in pixels"
    )
    crop: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="edge of a centre crop after the resize; it blinds the border",
    )
    keep_aspect: bool = Field(
        False,
        description="frames keep the pictures' aspect ratio, and resize is their shorter edge; "
        "off: squashed to a square",
    )
    tile: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="edge of overlapping tiles, in pixels, that pictures are cut into instead of "
        "being resized; each place has its own memory: for small defects in large pictures",
    )
    overlap: int | None = Field(
        None,
        ge=0,
        le=2048,
        description="pixels that tiles overlap by, at least; default: an eighth of tile",
    )
    tile_scale: float = Field(
        1.0,
        gt=0,
        le=4,
        description="what pictures are scaled by before they are cut into tiles",
    )
    light: LightNormalisation = Field(
        "none",
        description="gain: each frame is made as bright as the good ones first, against a lamp "
        "that ages and another exposure",
    )
    align: Align = Field(
        "none",
        description="how parts may lie in a frame: each is registered to a template of the good "
        "ones first; auto: the freest of these that costs nothing on the good pictures",
    )
    grid: int = Field(
        7,
        ge=1,
        le=64,
        description="G: the picture has G x G patches; 1 = one memory for all (not patch-wise)",
    )
    layer_wise: bool = Field(
        True, description="one memory per layer; off: coarse layers upsampled and concatenated"
    )
    sampling: Sampling = Field("equal-radius", description="how the key budget is shared out")
    ratio: float = Field(0.1, gt=0, le=1, description="share of all normal vectors kept as keys")
    budget_pictures: int | None = Field(
        320,
        ge=1,
        description="ratio counts the vectors of at most this many pictures: beyond, time and "
        "size stay flat; the preset paper counts all",
    )
    max_keys: int | None = Field(
        None,
        ge=1,
        description="most keys of all layers together; default: what ratio gives",
    )
    far_threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="D_th: a patch with a larger distance score is sampled again (near-far)",
    )
    distance_unit: DistanceUnit = Field(
        "median-radius", description="what distances are divided by, per layer"
    )
    neighbours: int = Field(
        1, ge=1, le=64, description="b: nearest keys that weigh the image score; 1 = no weighting"
    )
    radius: int = Field(
        0,
        ge=0,
        le=8,
        description="patches up to this far away are searched too; 0 = own patch only",
    )
    rotations: int = Field(
        1,
        ge=1,
        le=36,
        description="angles around the circle each good picture is memorised at, for parts in any "
        "orientation; the number of keys stays the same; 1 = as it is",
    )
    coarse_upsampling: CoarseUpsampling = Field(
        "nearest", description="row-order repeats a defect of the authors' code, for comparison"
    )
    sigma: float = Field(
        4.0,
        ge=0,
        le=64,
        description="Gaussian smoothing of the map, pixels at 224 px; scales with the size",
    )
    score_sigma: float = Field(
        0.0,
        ge=0,
        le=16,
        description="Gaussian smoothing of the distances before the worst cell is taken, in cells "
        "of the finest layer; 0 = each cell by itself, as the paper has it",
    )
    false_positive_rate: float = Field(
        0.01, gt=0, lt=0.5, description="share of good parts allowed above the threshold"
    )
    unsure_rate: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="share of good parts allowed to be at least unsure; default: five times that",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "fp32",
        description="what the encoder computes in: fp32 runs on every engine, bf16 and int8 are "
        "faster on OpenVINO; auto: int8 if it keeps the features of the good pictures, else bf16 "
        "or fp32",
    )
    augment: int = Field(
        0,
        ge=0,
        le=64,
        description="copies of each picture that a fit memorises too, lightly shifted, turned and "
        "lit anew: for few pictures",
    )
    robust: bool = Field(
        False, description="pictures that stand out from the others are left out of the fit"
    )
    thumbnails: bool = Field(
        True, description="small pictures of the normals travel in the bundle, for comparison"
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="seed of everything random (random weights; the demo's choice of cells)",
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
        if self.rotations > 1 and self.align != "none":
            raise ValueError(
                "rotations: parts that are aligned all lie one way; use either --rotations or "
                "--align"
            )
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
        if not self.follows_pictures:
            return
        what = "keep_aspect" if self.tile is None else "tile"
        if self.tile is not None and self.resize != type(self).model_fields["resize"].default:
            raise ValueError(
                "resize: tiles are cut from pictures as they are; use --tile-scale to shrink them"
            )
        if self.tile is not None and self.keep_aspect:
            raise ValueError("tile: does not go with keep-aspect; use either")
        for name, unused in (
            ("crop", None), ("align", "none"), ("rotations", 1), ("coarse_upsampling", "nearest"),
        ):  # fmt: skip
            if getattr(self, name) != unused:
                raise ValueError(f"{what}: does not go with {name.replace('_', '-')}; use either")

    @property
    def follows_pictures(self) -> bool:
        """Whether the size of frames depends on the pictures."""
        return self.keep_aspect or self.tile is not None

    @property
    def tile_overlap(self) -> int:
        """Pixels that tiles overlap by, at least."""
        if self.overlap is not None:
            return self.overlap
        return (self.tile or 0) // 8

    @property
    def input_size(self) -> int:
        """Shorter edge of what the encoder sees, in pixels."""
        if self.tile is not None:
            return self.tile
        return self.resize if self.crop is None else self.crop

    @property
    def seen(self) -> tuple[float, float]:
        """Where a square frame begins along the picture's edges, and its extent, in shares."""
        extent = self.input_size / self.resize
        return (1 - extent) / 2, extent

    @property
    def map_sigma(self) -> float:
        """Gaussian sigma in pixels of the frame."""
        return self.sigma if self.tile is not None else self.sigma * self.input_size / 224

    @property
    def alert_rate(self) -> float:
        """Share of good parts allowed to be at least unsure."""
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
