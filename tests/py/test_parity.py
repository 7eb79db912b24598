"""An engine's intermediate values against the simulation's: the oracle in its place, and the engine itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import OracleSession, build_device, install_oracle, randomize
from torch import Tensor, nn

import trtcompile
from trtcompile import CalibrationError, Input, SettingsError, TRTModule, layer_parity
from trtcompile.errors import EngineLoadError
from trtcompile.parity import with_outputs
from trtcompile.ptq import DataLoaderCalibrator


class Net(nn.Module):
    """Two convolutions and a linear layer; the second output takes no part in INT8."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor, *, shift: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.two(torch.relu(self.one(x))))
        return {"logits": self.head(y.flatten(1)), "shifted": x + shift}


def samples(rows: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, 8, 8, generator=generator)
    return [{"x": x, "shift": torch.randn(rows, 3, 8, 8, generator=generator)}]


def compiled_net(**options: Any) -> TRTModule:
    inputs = [Input((4, 3, 8, 8), name="x")]
    return trtcompile.compile(
        randomize(Net(), 6),
        inputs,
        kwarg_inputs={"shift": Input((4, 3, 8, 8))},
        **{
            "enabled_precisions": {torch.int8},
            "calibrator": DataLoaderCalibrator(samples(8)),
            "device": build_device(disable_tf32=True),
            **options,
        },
    )


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> TRTModule:
    install_oracle(monkeypatch)
    return compiled_net()


QUANTIZED = ["input_0", "relu", "relu_1", "reshape"]


def test_the_further_outputs_are_the_tensors_of_those_names(compiled: TRTModule) -> None:
    nodes = {n.name: n for n in compiled.network_graph.graph.nodes}
    wanted = [nodes["relu"], nodes["convolution_1"]]
    module = with_outputs(compiled, wanted)
    (batch,) = samples(4, seed=1)
    model = randomize(Net(), 6)
    with torch.no_grad():
        hidden = torch.relu(model.one(batch["x"]))
        expected = hidden, model.two(hidden)
    for actual, reference in zip(module(batch["x"], batch["shift"]), expected, strict=True):
        assert actual.shape == reference.shape
        error = (actual - reference).std() / reference.std()
        assert 1e-3 < error < 0.1  # that of INT8


def test_names_are_the_same_where_data_is_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)
    compiled = compiled_net(enabled_precisions={torch.float, torch.half, torch.int8})
    parity = layer_parity(compiled, samples(4, seed=1))
    assert list(parity) == [*QUANTIZED, "linear", "add"]
    # The oracle rounds to FP16 after each operator, as the network says; the simulation does not.
    assert all(db > 30 for db in parity.values()), parity


def test_parity_of_what_is_quantized_and_of_the_outputs(compiled: TRTModule) -> None:
    parity = layer_parity(compiled, samples(6, seed=1))
    assert list(parity) == [*QUANTIZED, "linear", "add"]
    assert all(db > 100 for db in parity.values())


def test_parity_of_layers(compiled: TRTModule) -> None:
    parity = layer_parity(compiled, samples(3), tensors=["convolution_1", "convolution"])
    assert list(parity) == ["convolution", "convolution_1", "linear", "add"]
    assert all(db > 100 for db in parity.values())


def test_a_difference_shows_from_where_it_is(
    compiled: TRTModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose second quantized tensor is 1 % too large."""
    run = OracleSession.run

    def wrong(self: OracleSession, inputs: Any) -> Any:
        outputs = run(self, inputs)
        return (*outputs[:1], outputs[1] * 1.01, *outputs[2:])

    monkeypatch.setattr(OracleSession, "run", wrong)
    parity = layer_parity(compiled, samples(4))
    assert parity["relu"] == pytest.approx(40.0, abs=1e-3)  # 20 log10(100)
    assert parity["input_0"] > 100


def test_rows_that_fill_up_a_batch_do_not_count(
    compiled: TRTModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OracleSession.run

    def wrong(self: OracleSession, inputs: Any) -> Any:
        outputs = run(self, inputs)
        return (torch.cat([outputs[0][:3], outputs[0][3:] + 1]), *outputs[1:])

    monkeypatch.setattr(OracleSession, "run", wrong)
    assert layer_parity(compiled, samples(3))["input_0"] > 100
    assert layer_parity(compiled, samples(4))["input_0"] < 40


def test_batches_are_limited(compiled: TRTModule) -> None:
    seen = []

    def batches() -> Any:
        for batch in samples(4) * 3:
            seen.append(batch)
            yield batch

    layer_parity(compiled, batches(), max_batches=2)
    assert len(seen) == 2
    with pytest.raises(CalibrationError, match="no samples"):
        layer_parity(compiled, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [({"max_batches": 0}, "max_batches is 0"), ({"device": "gpu"}, "device is 'gpu'")],
)
def test_arguments(compiled: TRTModule, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        layer_parity(compiled, [], **options)


def test_names_that_are_none(compiled: TRTModule) -> None:
    with pytest.raises(SettingsError, match="tensors has conv, input_0, which"):
        layer_parity(compiled, samples(4), tensors=["conv", "convolution", "input_0"])


def test_it_needs_the_machine_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRTModule, "runnable", property(lambda _: "there is no GPU"))
    with pytest.raises(EngineLoadError, match="there is no GPU"):
        layer_parity(compiled_net(), samples(4))


def test_a_module_without_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)
    with pytest.raises(AttributeError, match="keep_lowered"):
        layer_parity(compiled_net(keep_lowered=False), samples(4))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "precisions", [{torch.int8}, {torch.int8, torch.half}], ids=["int8", "fp16"]
)
def test_the_engine_agrees_with_its_simulation(precisions: set[torch.dtype]) -> None:
    compiled = compiled_net(enabled_precisions=precisions)
    parity = layer_parity(compiled, samples(4, seed=1))
    assert list(parity) == [*QUANTIZED, "linear", "add"]
    # A value between two integers may round either way, which is a whole step: 1/127 of the range.
    assert all(db > 30 for db in parity.values()), parity
    named = layer_parity(compiled, samples(4, seed=1), tensors=["convolution", "convolution_1"])
    assert all(db > 30 for db in named.values()), named
    simulation = layer_parity(compiled, samples(4, seed=1), device="cuda")
    assert simulation.keys() == parity.keys()
