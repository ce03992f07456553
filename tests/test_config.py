"""Config: presets, validation and the one line that says what is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from fapm.config import PRESETS, Config
from fapm.errors import ConfigError

BAD_VALUES: list[tuple[str, Any]] = [
    ("encoder", ""),
    ("encoder", 18),
    ("encoder", None),
    ("weights", ""),
    ("weights", 7),
    ("layers", "layer2"),
    ("layers", (2, 3)),
    ("layers", None),
    ("resize", 31),
    ("resize", 4097),
    ("resize", 224.5),
    ("resize", "large"),
    ("resize", None),
    ("crop", 31),
    ("crop", 4097),
    ("crop", "centre"),
    ("flat_field", ""),
    ("flat_field", 7),
    ("keep_aspect", "perhaps"),
    ("keep_aspect", None),
    ("tile", 31),
    ("tile", 4097),
    ("tile", "large"),
    ("overlap", -1),
    ("overlap", 1.5),
    ("tile_scale", 0),
    ("tile_scale", 4.5),
    ("tile_scale", math.nan),
    ("light", "clahe"),
    ("light", None),
    ("align", "affine"),
    ("align", None),
    ("grid", 0),
    ("grid", 65),
    ("grid", 3.5),
    ("layer_wise", "perhaps"),
    ("sampling", "greedy"),
    ("sampling", ""),
    ("sampling", None),
    ("ratio", 0),
    ("ratio", 1.001),
    ("ratio", -0.1),
    ("ratio", math.nan),
    ("budget_pictures", 0),
    ("budget_pictures", 1.5),
    ("max_keys", 0),
    ("max_keys", "many"),
    ("far_threshold", 0),
    ("far_threshold", 1),
    ("far_threshold", math.nan),
    ("distance_unit", "two"),
    ("distance_unit", 1),
    ("neighbours", 0),
    ("neighbours", 65),
    ("radius", -1),
    ("radius", 9),
    ("coarse_upsampling", "bilinear"),
    ("rotations", 0),
    ("rotations", 37),
    ("rotations", None),
    ("score_sigma", -0.1),
    ("score_sigma", 16.5),
    ("score_sigma", math.nan),
    ("sigma", -0.1),
    ("sigma", 65),
    ("sigma", math.nan),
    ("sigma", math.inf),
    ("false_positive_rate", 0),
    ("false_positive_rate", 0.5),
    ("false_positive_rate", math.nan),
    ("unsure_rate", 0),
    ("unsure_rate", 0.5),
    ("unsure_rate", math.nan),
    ("precision", "fp16"),
    ("precision", None),
    ("augment", -1),
    ("augment", 65),
    ("robust", "maybe"),
    ("thumbnails", "some"),
    ("seed", -1),
    ("seed", 2**31),
    ("seed", 0.5),
]

EDGE_VALUES: list[tuple[str, Any]] = [
    ("resize", 32),
    ("resize", 4096),
    ("crop", 32),
    ("crop", 224),
    ("crop", None),
    ("tile", 32),
    ("tile", 4096),
    ("tile", None),
    ("grid", 1),
    ("grid", 64),
    ("ratio", 1),
    ("ratio", 1e-6),
    ("budget_pictures", 1),
    ("budget_pictures", None),
    ("max_keys", 1),
    ("neighbours", 1),
    ("neighbours", 64),
    ("radius", 6),
    ("sigma", 0),
    ("sigma", 64),
    ("false_positive_rate", 0.05),
    ("unsure_rate", 0.01),
    ("unsure_rate", 0.499),
    ("seed", 2**31 - 1),
]


def refusal(preset: str = "fast", **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.create(preset, **overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert "pydantic" not in message
    return message


# Presets


def test_the_presets() -> None:
    assert PRESETS == ("fast", "accurate", "paper")


def test_fast_is_the_default_and_sees_the_whole_frame() -> None:
    assert Config() == Config.create() == Config.create("fast")
    fast = Config.create("fast")
    assert (fast.encoder, fast.resize, fast.crop) == ("efficientnet_lite0", 224, None)
    assert (fast.sampling, fast.distance_unit) == ("equal-radius", "median-radius")
    assert (fast.layers, fast.weights) == ((), None)


def test_accurate_is_fast_on_larger_frames_with_as_many_keys() -> None:
    assert Config.create("accurate") == Config.create("fast", resize=336, ratio=0.05, score_sigma=1)


def test_paper_is_the_papers() -> None:
    paper = Config.create("paper")
    assert paper.model_dump() == {
        **Config().model_dump(),
        "encoder": "wide_resnet50_2.tv_in1k",
        "resize": 256,
        "crop": 224,
        "sampling": "near-far",
        "distance_unit": "one",
        "budget_pictures": None,
        "neighbours": 4,
        "score_sigma": 0.0,
    }
    assert (paper.grid, paper.ratio, paper.neighbours) == (7, 0.1, 4)
    assert (paper.far_threshold, paper.sigma, paper.radius) == (0.5, 4.0, 0)
    assert paper.layer_wise


def test_single_fields_of_a_preset_can_be_replaced() -> None:
    changed = Config.create("paper", ratio=0.25, crop=None)
    assert changed == Config(**{**Config.create("paper").model_dump(), "ratio": 0.25, "crop": None})


@pytest.mark.parametrize(
    ("preset", "input_size", "sigma"),
    [("fast", 224, 4.0), ("accurate", 336, 6.0), ("paper", 224, 4.0)],
)
def test_the_frame_and_the_smoothing_that_scales_with_it(
    preset: str, input_size: int, sigma: float
) -> None:
    config = Config.create(preset)
    assert config.input_size == input_size
    assert config.map_sigma == pytest.approx(sigma)


# A value among values


def test_a_config_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.grid = 3  # type: ignore[misc]
    assert config.grid == 7


def test_equal_configs_are_one_dictionary_key() -> None:
    assert (
        len(
            {
                Config(),
                Config.create("fast"),
                Config.create("accurate", resize=224, ratio=0.1, score_sigma=0),
            }
        )
        == 1
    )


@pytest.mark.parametrize(
    "config",
    [
        *map(Config.create, PRESETS),
        Config.create(layers=("layer1", "layer3"), weights="w.pth", radius=2, thumbnails=False),
        Config.create(ratio=1 / 3, false_positive_rate=1e-7, crop=100, sigma=0),
    ],
    ids=lambda config: config.encoder,
)
def test_json_and_back(config: Config) -> None:
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert Config.create(**json.loads(config.model_dump_json())) == config


# Refusals


@pytest.mark.parametrize(("field", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    message = refusal(**{field: value})
    assert message.startswith(f"{field}: ")
    assert "is not valid, it should be " in message
    if not isinstance(value, tuple):  # of a tuple the wrong item is named
        assert repr(value) in message


def test_every_field_is_among_the_bad_values() -> None:
    assert {field for field, _ in BAD_VALUES} == set(Config.model_fields)


@pytest.mark.parametrize(("field", "value"), EDGE_VALUES)
def test_a_value_at_the_edge_of_its_range_is_accepted(field: str, value: Any) -> None:
    assert getattr(Config.create(**{field: value}), field) == value


def test_several_bad_values_are_all_named() -> None:
    message = refusal(resize=3, sampling="x", bogus=1)
    assert all(part in message for part in ("resize: 3", "; sampling: 'x'", "; bogus: no such"))


def test_an_unknown_field_names_the_known_ones() -> None:
    message = refusal(ratios=0.2)
    assert message.startswith("ratios: no such field; known fields: ")
    assert all(field in message for field in Config.model_fields)


@pytest.mark.parametrize("preset", ["", "exact", None])
def test_an_unknown_preset_names_the_known_ones(preset: Any) -> None:
    message = refusal(preset)
    assert message == f"preset: unknown {preset!r}; choose one of fast, accurate, paper"


def test_a_crop_larger_than_the_picture() -> None:
    assert refusal(crop=225) == "crop: 225 is larger than resize 224"
    assert refusal("paper", resize=128) == "crop: 224 is larger than resize 128"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"overlap": 8}, "overlap: there are no tiles; give --tile too"),
        ({"tile_scale": 0.5}, "tile_scale: there are no tiles; give --tile too"),
        ({"tile": 64, "overlap": 33}, "overlap: 33 is more than half of tile 64"),
        (
            {"tile": 64, "align": "shift"},
            "tile: does not go with align: only whole, square frames are registered; use either",
        ),
        (
            {"tile": 64, "resize": 512},
            "tile: does not go with resize: tiles are cut from pictures as they are; --tile-scale "
            "shrinks them; use either",
        ),
        (
            {"keep_aspect": True, "crop": 64},
            "keep_aspect: does not go with crop: a crop is square; --roi leaves parts of a "
            "picture out; use either",
        ),
    ],
)
def test_what_does_not_go_with_tiles(knobs: dict[str, Any], message: str) -> None:
    assert refusal(**knobs) == message


def test_an_unsure_band_above_the_threshold() -> None:
    message = refusal(false_positive_rate=0.1, unsure_rate=0.05)
    assert message.startswith("unsure_rate: 0.05 is below false_positive_rate 0.1")


def test_a_layer_named_twice() -> None:
    assert refusal(layers=("layer2", "layer2")) == "layers: layer2,layer2 names a layer twice"


@pytest.mark.parametrize(("grid", "radius"), [(1, 1), (7, 7), (3, 8)])
def test_a_search_wider_than_the_grid(grid: int, radius: int) -> None:
    message = refusal(grid=grid, radius=radius)
    assert message == f"radius: {radius} reaches beyond a grid of {grid} x {grid}"


def test_contradictions_are_found_by_the_constructor_too() -> None:
    with pytest.raises(ValidationError, match="larger than resize"):
        Config(resize=64, crop=65)
    with pytest.raises(ValidationError, match="tiles are cut from pictures as they are"):
        Config(tile=64, resize=300)


def test_tiles_replace_what_a_preset_resizes_to() -> None:
    config = Config.create("accurate", tile=64)
    assert (config.resize, config.ratio) == (Config().resize, Config.create("accurate").ratio)


def test_what_bundles_held_beside_tiles_is_dropped() -> None:
    held = {**dict(Config.create("accurate", tile=64)), "resize": 336, "keep_aspect": True}
    assert Config.restored(held) == Config.create("accurate", tile=64)
    kept = Config.create("accurate", keep_aspect=True)
    assert Config.restored(dict(kept)) == kept


def test_the_rate_of_false_positives_alone_can_be_raised() -> None:
    # One knob, one wish: the unsure band moves out of the way.
    config = Config.create(false_positive_rate=0.1)
    assert config.false_positive_rate == 0.1
    assert config.alert_rate >= 0.1
