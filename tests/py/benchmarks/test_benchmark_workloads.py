from __future__ import annotations

import pytest
import torch
from metrics import sqnr_db
from torch import nn
from workloads import (
    Workload,
    build,
    random_images,
    randomize,
    settle,
    with_example_on_path,
    workload,
)


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    model = build("resnet50")
    randomize(model, seed=0)
    settle(model, random_images(16, 32, seed=1))
    return model


@pytest.fixture(scope="module")
def narrow_vgg16() -> nn.Module:
    with_example_on_path()
    from vgg import VGG16

    model = VGG16(width=0.25).eval()
    randomize(model, seed=0)
    return model


@pytest.mark.parametrize("name", ["narrow_vgg16", "resnet50"])
def test_no_tensor_is_constant(name, request):
    model = request.getfixturevalue(name)
    for key, tensor in model.state_dict().items():
        if tensor.dim() == 0:
            assert tensor != 0, key
        else:
            some = tensor.flatten()[:1000]
            assert len(some.unique()) > 0.9 * len(some), key
            assert tensor.isfinite().all(), key


def test_randomize_depends_on_the_seed_alone():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4))

    def values(seed: int) -> torch.Tensor:
        randomize(model, seed)
        return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])

    before = torch.random.get_rng_state()
    assert torch.equal(values(0), values(0))
    assert not torch.equal(values(0), values(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_randomize_refuses_layers_it_does_not_know():
    with pytest.raises(ValueError, match=r"1\.weight is of a GroupNorm"):
        randomize(nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4)), seed=0)


def test_settled_model_is_in_eval_mode_with_momentum_kept(resnet50):
    norms = [module for module in resnet50.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(module.training for module in resnet50.modules())
    assert {norm.momentum for norm in norms} == {0.1}
    for norm in norms:
        assert len(norm.running_var.unique()) > 0.9 * norm.num_features


@torch.no_grad()
def test_outputs_depend_on_every_residual_branch(resnet50):
    images = random_images(4, 32, seed=2)
    reference = resnet50(images)
    assert reference.isfinite().all()
    assert reference.abs().max() < 100  # far from FP16's limit
    for layer in (resnet50.layer1, resnet50.layer2, resnet50.layer3, resnet50.layer4):
        for block in layer:
            kept = block.bn3.weight.clone(), block.bn3.bias.clone()
            block.bn3.weight.zero_()
            block.bn3.bias.zero_()
            # The lowest bound that outputs of any side must pass.
            assert sqnr_db(reference, resnet50(images)) < 6.0
            block.bn3.weight.copy_(kept[0])
            block.bn3.bias.copy_(kept[1])
    assert sqnr_db(reference, resnet50(images)) > 60


def test_images_differ_by_more_than_noise():
    images = random_images(16, 32, seed=0)
    assert images.shape == (16, 3, 32, 32)
    assert torch.equal(images, random_images(16, 32, seed=0))
    # The mean over 1,024 pixels of noise alone would deviate by 1/32 of a pixel.
    assert images.mean(dim=(2, 3)).std() > 5 * images.std() / 32


@pytest.mark.parametrize(("batch", "images", "expected"), [(1, 5, 5), (4, 5, 8), (16, 5, 16)])
def test_workload_has_whole_batches(batch, images, expected, monkeypatch):
    tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))
    monkeypatch.setattr("workloads.build", lambda name: tiny)
    made = workload("vgg16", batch, images=images)
    assert isinstance(made, Workload)
    assert made.input_shape == (batch, 3, 32, 32)
    assert len(made.calibration) == len(made.evaluation) == expected
    assert not torch.equal(made.calibration, made.evaluation)


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="'alexnet'"):
        build("alexnet")
