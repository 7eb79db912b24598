"""The example: its model, its data, and its two scripts on a network of the least width."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checks import build_device
from torch import nn
from torch.utils.data import Subset

EXAMPLE = Path(__file__).parents[3] / "examples" / "cifar10_vgg"
MODULES = ("vgg", "data", "evaluate", "checkpoint", "plot", "train", "quantize")


@pytest.fixture(scope="module")
def example() -> Any:
    """The example's modules. Their plain names are given back after the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        for name in MODULES:
            patch.delitem("sys.modules", name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def digits(example: Any) -> Any:
    return example.data.digits(seed=3)


def few(example: Any, dataset: Any, count: int) -> Any:
    """The first images of a data set, as a data set."""
    return example.data.ImageDataset(
        dataset.images[:count], dataset.labels[:count], dataset.sources[:count]
    )


def few_of_each(example: Any, splits: Any, count: int) -> Any:
    return example.data.Splits(*(few(example, dataset, count) for dataset in splits))


# --- vgg.py


@pytest.mark.parametrize(
    ("width", "first", "last", "units"), [(1.0, 64, 512, 4096), (0.25, 16, 128, 1024)]
)
def test_vgg16_has_13_convolutions(
    example: Any, width: float, first: int, last: int, units: int
) -> None:
    model = example.vgg.VGG16(width=width).eval()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    channels = [m.out_channels for m in convolutions]
    assert len(convolutions) == 13
    assert channels == [first] * 2 + [2 * first] * 2 + [4 * first] * 3 + [last] * 6
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 13
    linears = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    assert linears == [units, units, 10]
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.3, 0.55])
def test_channels_are_multiples_of_8(example: Any, width: float) -> None:
    model = example.vgg.VGG16(width=width)
    channels = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert min(channels) >= 8 and all(c % 8 == 0 for c in channels)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_of_nothing_is_refused(example: Any, width: float) -> None:
    with pytest.raises(ValueError, match=f"width is {width}"):
        example.vgg.VGG16(width=width)


# --- data.py, digits


def test_digits_items(digits: Any) -> None:
    for dataset in digits:
        image, label = dataset[5]
        assert image.shape == (3, 32, 32) and image.dtype == torch.float32
        assert type(label) is int and 0 <= label < 10
    assert len(digits.train) == 4 * len(digits.plain_train)
    assert len(digits.test) >= 360
    assert len(digits.plain_train) + len(digits.test) == 1797


def test_digits_are_normalised(example: Any, digits: Any) -> None:
    image, _ = digits.test[0]
    restored = (image * example.data.STD + example.data.MEAN) * 255
    torch.testing.assert_close(restored, digits.test.images[0].float(), atol=1e-3, rtol=0)


def test_digits_follow_their_seed(example: Any, digits: Any) -> None:
    torch.manual_seed(99)  # the global generator has no part in it
    again, other = example.data.digits(seed=3), example.data.digits(seed=4)
    for first, second, third in zip(digits, again, other, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.labels, second.labels)
        assert torch.equal(first.sources, second.sources)
        assert not torch.equal(first.sources, third.sources)


def test_digits_keep_the_sides_apart(digits: Any) -> None:
    train, plain, test = (set(dataset.sources.tolist()) for dataset in digits)
    assert train == plain
    assert not train & test
    assert train | test == set(range(1797))


def test_digits_folds_hold_out_each_image_once(example: Any) -> None:
    folds = [example.data.digits(seed=1, fold=fold, folds=3, copies=1) for fold in range(3)]
    held_out = torch.cat([splits.test.sources for splits in folds])
    assert held_out.sort().values.tolist() == list(range(1797))
    with pytest.raises(ValueError, match="fold is 3 of 3"):
        example.data.digits(fold=3, folds=3)


def test_digits_are_stratified(digits: Any) -> None:
    train = torch.bincount(digits.plain_train.labels, minlength=10)
    test = torch.bincount(digits.test.labels, minlength=10)
    share = test / (train + test)
    assert (share - 0.25).abs().max() < 0.01


def test_digits_labels_belong_to_their_sources(digits: Any) -> None:
    from sklearn.datasets import load_digits

    target = torch.from_numpy(load_digits().target)
    for dataset in digits:
        assert torch.equal(dataset.labels, target[dataset.sources])


def test_a_drawn_digit_is_its_original(digits: Any) -> None:
    """Along the line from ground to stroke colour, the picture is the original enlarged."""
    from sklearn.datasets import load_digits

    originals = torch.from_numpy(load_digits().images)[:, None]
    enlarged = nn.functional.interpolate(originals, size=(28, 28), mode="bilinear")
    enlarged = enlarged[:, 0, 2:26, 2:26].flatten(1)  # inside the margin, where borders differ
    for dataset in (digits.plain_train, digits.test):
        for index in range(0, len(dataset), 90):
            image = dataset.images[index].double()
            difference = image - image[:, :1, :1]
            strongest = difference.flatten(1)[:, difference.square().sum(dim=0).argmax()]
            stroke = (difference * strongest.view(3, 1, 1)).sum(dim=0)[4:28, 4:28].flatten()
            correlation = torch.corrcoef(torch.cat([stroke[None], enlarged]))[0, 1:]
            assert correlation.argmax() == dataset.sources[index]
            assert correlation.max() > 0.999


def test_digits_stand_out_from_their_ground(example: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    foreground, ground = example.data._colour_pairs(5000, generator)
    contrast = (foreground.mean(dim=1) - ground.mean(dim=1)).flatten()
    assert contrast.abs().min() >= example.data.MIN_CONTRAST
    assert 0.4 < (contrast > 0).float().mean() < 0.6  # light on dark, and dark on light


def test_copies_differ_and_test_images_are_plain(example: Any, digits: Any) -> None:
    same = digits.train.sources == digits.train.sources[0]
    assert len(digits.train.images[same].unique(dim=0)) == 4
    one_copy = example.data.digits(seed=3, copies=1)
    assert torch.equal(one_copy.test.images, digits.test.images)


# --- data.py, CIFAR-10


def test_cifar10_without_the_data_says_what_to_do(example: Any, tmp_path: Path) -> None:
    with pytest.raises(example.data.DatasetMissingError, match="choose the digits") as caught:
        example.data.cifar10(tmp_path, download=False)
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


def test_cifar10_reads_what_torchvision_loads(
    example: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        train: generator.integers(0, 256, (20, 32, 32, 3), np.uint8) for train in (True, False)
    }

    def fake(root: str, train: bool, download: bool) -> SimpleNamespace:
        return SimpleNamespace(data=arrays[train], targets=list(range(10)) * 2)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fake)
    splits = example.data.cifar10(tmp_path, download=False)
    for dataset, train in zip(splits, (True, True, False), strict=True):
        expected = torch.from_numpy(arrays[train].transpose(0, 3, 1, 2).copy())
        assert torch.equal(dataset.images, expected)
        assert dataset.labels.tolist() == list(range(10)) * 2
    assert not set(splits.train.sources.tolist()) & set(splits.test.sources.tolist())

    image, _ = splits.test[0]
    assert torch.equal(image, splits.test[0][0])
    torch.manual_seed(0)
    augmented = torch.stack([splits.train[0][0] for _ in range(8)])
    assert augmented.shape == (8, 3, 32, 32) and len(augmented.unique(dim=0)) > 1
    torch.manual_seed(0)
    assert torch.equal(augmented, torch.stack([splits.train[0][0] for _ in range(8)]))


def test_an_unknown_data_set_is_refused(example: Any) -> None:
    with pytest.raises(ValueError, match="no data set 'mnist'"):
        example.data.load("mnist", data_dir="data", seed=0)


# --- data.py, calibration images


def test_calibration_images_come_from_the_training_split(example: Any, digits: Any) -> None:
    subset, indices = example.data.calibration_subset(digits.plain_train, 200, seed=7)
    assert len(subset) == len(set(indices)) == 200
    assert subset.dataset is digits.plain_train
    assert torch.equal(subset[3][0], digits.plain_train[indices[3]][0])
    example.data.require_disjoint(subset, digits.test)
    sources = set(digits.plain_train.sources[indices].tolist())
    assert not sources & set(digits.test.sources.tolist())
    assert example.data.calibration_subset(digits.plain_train, 200, seed=7)[1] == indices
    assert example.data.calibration_subset(digits.plain_train, 200, seed=8)[1] != indices


def test_calibrating_with_test_images_is_refused(example: Any, digits: Any) -> None:
    with pytest.raises(ValueError, match="2 calibration images are also test images"):
        example.data.require_disjoint(Subset(digits.test, [0, 1]), digits.test)


@pytest.mark.parametrize("count", [0, 1025])
def test_the_number_of_calibration_images_is_bounded(example: Any, digits: Any, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} calibration images"):
        example.data.calibration_subset(digits.plain_train, count)


# --- evaluate.py


def test_every_batch_has_the_engines_size(example: Any, digits: Any) -> None:
    dataset = few(example, digits.test, 21)
    sizes = []

    def classify(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.flatten(1)[:, :10]

    logits, labels = example.evaluate.classify_all(
        classify, dataset, batch_size=8, device=torch.device("cpu")
    )
    assert sizes == [8, 8, 8]
    assert torch.equal(logits, torch.stack([image.flatten()[:10] for image, _ in dataset]))
    assert torch.equal(labels, dataset.labels)


def test_accuracy_and_signal_to_noise(example: Any) -> None:
    predicted = torch.tensor([0, 1, 0, 1, 3])
    assert example.evaluate.accuracy(predicted, torch.tensor([0, 1, 1, 0, 3])) == 0.6
    reference = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0))
    noise = 0.1 * torch.randn(2000, 10, generator=torch.Generator().manual_seed(1))
    signal_to_noise = example.evaluate.signal_to_noise_db
    assert signal_to_noise(reference, reference + noise) == pytest.approx(20, abs=0.3)
    constant = reference.mean(dim=0).expand(2000, 10)
    assert signal_to_noise(reference, constant) == pytest.approx(0, abs=1e-3)


# --- checkpoint.py and train.py


def test_checkpoint_round_trip(example: Any, tmp_path: Path) -> None:
    model = example.vgg.VGG16(width=0.05)
    model(torch.randn(4, 3, 32, 32))  # moves the running statistics
    path = tmp_path / "new" / "vgg16.pt"
    metadata = {"data": "digits", "width": 0.05, "seed": 1, "test_accuracy": 0.25}
    example.checkpoint.save_checkpoint(path, model, metadata)
    loaded, read = example.checkpoint.load_checkpoint(path)
    assert read == json.loads(json.dumps(metadata))
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert [p.name for p in path.parent.iterdir()] == ["vgg16.pt"]
    with pytest.raises(FileNotFoundError, match=r"train\.py"):
        example.checkpoint.load_checkpoint(tmp_path / "absent.pt")


@pytest.fixture(scope="module")
def trained(example: Any, digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `train.py`, and a second one of the same seed beside it."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example.train, "load", lambda *_, **__: few_of_each(example, digits, 96))
        for name in ("first.pt", "second.pt"):
            example.train.main(
                [
                    *("--data=digits", "--width=0.05", "--epochs=1", "--batch-size=32"),
                    *("--seed=3", "--device=cpu", f"--output={folder / name}"),
                ]
            )
    torch.set_num_threads(threads)
    return folder


def test_train_repeats_itself_and_records_its_accuracy(
    example: Any, digits: Any, trained: Path
) -> None:
    model, metadata = example.checkpoint.load_checkpoint(trained / "first.pt")
    again, _ = example.checkpoint.load_checkpoint(trained / "second.pt")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert (metadata["data"], metadata["width"], metadata["seed"]) == ("digits", 0.05, 3)
    logits, labels = example.evaluate.classify_all(
        model, few(example, digits.test, 96), batch_size=32, device=torch.device("cpu")
    )
    assert metadata["test_accuracy"] == example.evaluate.accuracy(logits.argmax(dim=1), labels)


def test_training_lowers_the_loss(example: Any, digits: Any) -> None:
    torch.manual_seed(0)
    dataset = few(example, digits.plain_train, 64)
    model = example.vgg.VGG16(width=0.1, dropout=0.0)
    options = {"epochs": 30, "batch_size": 32, "lr": 2e-3, "device": torch.device("cpu")}
    cpu = {"batch_size": 64, "device": torch.device("cpu")}
    model.eval()
    logits, labels = example.evaluate.classify_all(model, dataset, **cpu)
    before = nn.functional.cross_entropy(logits, labels)
    example.train.train(model, dataset, **options)
    assert not model.training
    logits, _ = example.evaluate.classify_all(model, dataset, **cpu)
    assert nn.functional.cross_entropy(logits, labels) < 0.9 * before


def test_defaults_suit_the_data(example: Any) -> None:
    parse = example.train.parse_arguments
    assert parse(["--data", "digits"]).epochs < parse([]).epochs
    assert parse(["--epochs", "2"]).epochs == 2
    assert parse([]).width == 1.0


# --- plot.py


def test_the_picture_is_a_png(example: Any, tmp_path: Path) -> None:
    entropy = {f"relu_{i}": 0.01 * (i + 1) for i in range(12)}
    minmax = {name: 1.5 * scale for name, scale in entropy.items()}
    path = tmp_path / "scales.png"
    example.plot.plot_scales(entropy, minmax, path, title="Activation scales")
    assert path.read_bytes().startswith(b"\x89PNG")


# --- quantize.py


def compiled_stand_in(
    logits_of: Any, *, runnable: str | None, plan: bytes, engine_logits_of: Any = None
) -> Any:
    class StandIn:
        lowered = staticmethod(logits_of)
        engines = (SimpleNamespace(plan=plan),)
        spec = SimpleNamespace(device=SimpleNamespace(torch_device=torch.device("cpu")))

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            assert self.runnable is None
            return engine_logits_of(images)

    StandIn.runnable = runnable
    return StandIn()


def constant_classifier(label: int) -> Any:
    return lambda images: torch.eye(10)[label].expand(len(images), 10)


def test_an_engine_that_cannot_run_gets_no_figures(example: Any, digits: Any) -> None:
    test = few(example, digits.test, 50)
    model = constant_classifier(int(test.labels[0]))
    refused = {"runnable": "this machine has no GPU", "plan": bytes(1000)}
    rows = dict(
        example.quantize.compare(
            model,
            compiled_stand_in(model, **{**refused, "plan": bytes(4000)}),
            compiled_stand_in(constant_classifier(int(test.labels[1])), **refused),
            test,
            8,
        )
    )
    first, second = ((test.labels == test.labels[i]).sum().item() for i in (0, 1))
    assert test.labels[0] != test.labels[1]
    assert rows["FP32 accuracy"] == f"{2 * first:.2f} % ({first} of 50)"
    assert rows["INT8 simulation accuracy"] == f"{2 * second:.2f} % ({second} of 50)"
    assert rows["  right in FP32, wrong in INT8"] == str(first)
    assert rows["  wrong in FP32, right in INT8"] == str(second)
    assert rows["INT8 engine accuracy"] == "not run: this machine has no GPU"
    assert rows["latency"].startswith("not run")
    assert rows["INT8 engine size"] == "0.00 MB (0.25 of FP32)"


def test_an_engine_that_can_run_is_measured(
    example: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own logits count, not the simulation's."""
    test = few(example, digits.test, 50)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).eval()
    wrong = constant_classifier(int(test.labels[0]))
    int8 = compiled_stand_in(model, runnable=None, plan=b"1", engine_logits_of=wrong)
    timed = []
    monkeypatch.setattr(
        example.quantize,
        "median_latency_ms",
        lambda classify, images: timed.append((classify, len(images))) or 1.5,
    )
    fp32 = compiled_stand_in(model, runnable=None, plan=b"12", engine_logits_of=model)
    rows = dict(example.quantize.compare(model, fp32, int8, test, 8))
    count = int((test.labels == test.labels[0]).sum())
    assert rows["INT8 engine accuracy"] == f"{2 * count:.2f} % ({count} of 50)"
    assert rows["  right in FP32, wrong in INT8"] == "0"
    assert timed == [(model, 8), (fp32, 8), (int8, 8)]
    assert rows["INT8 engine, batch 8"] == "1.500 ms"


@pytest.mark.engine
def test_quantize_compiles_and_writes_its_files(
    example: Any,
    digits: Any,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = few_of_each(example, digits, 40)
    monkeypatch.setattr(example.quantize, "load", lambda *_, **__: small)
    arguments = [f"--checkpoint={trained / 'first.pt'}", f"--output={tmp_path}"]
    capability = build_device().compute_capability
    if capability is not None:
        arguments.append(f"--compute-capability={capability[0]}")
    example.quantize.main([*arguments, "--batch-size=16", "--calibration-images=24"])

    printed = capsys.readouterr().out
    for label in ("FP32 accuracy", "INT8 simulation accuracy", "INT8 engine size"):
        assert label in printed
    assert "24, from the training split" in printed
    assert "INT8 100.0%" in printed
    indices = json.loads((tmp_path / "calibration_indices.json").read_text())["indices"]
    assert len(set(indices)) == 24 and max(indices) < 40
    sidecar = json.loads((tmp_path / "calibration.cache.json").read_text())
    assert "24" in json.dumps(sidecar)
    header, first, *_ = (tmp_path / "calibration.cache").read_text().splitlines()
    assert header.endswith("EntropyCalibration2") and first.startswith("input_0: ")
    assert (tmp_path / "scales.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "vgg16_int8.trtc").stat().st_size > 0
