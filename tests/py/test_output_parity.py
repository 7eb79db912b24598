"""Outputs of an engine against the simulation's, sample by sample: the oracle in its place, and the engine itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import OracleSession, build_device, install_oracle, randomize
from test_parity import compiled_net, samples
from torch import Tensor, nn

import trtcompile
from trtcompile import CalibrationError, SettingsError, TRTModule, output_parity
from trtcompile.errors import EngineLoadError
from trtcompile.ptq import DataLoaderCalibrator


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> TRTModule:
    install_oracle(monkeypatch)
    return compiled_net()


def spoil(monkeypatch: pytest.MonkeyPatch, sample: int) -> None:
    """Lets engines give 1 % too much for one sample of each batch."""
    run = OracleSession.run

    def wrong(self: OracleSession, inputs: Any) -> Any:
        outputs = [output.clone() for output in run(self, inputs)]
        for output in outputs:
            output[sample] *= 1.01
        return tuple(outputs)

    monkeypatch.setattr(OracleSession, "run", wrong)


def test_a_right_engine(compiled: TRTModule) -> None:
    """Six samples are a batch of four and one of two; positional and keyword inputs, two outputs by name."""
    parity = output_parity(compiled, samples(6, seed=1))
    assert list(parity) == ["linear", "add"]
    assert all(one.sqnr_db > 100 and one.worst_db > 100 for one in parity.values()), parity


def test_a_sample_that_is_wrong_shows(compiled: TRTModule, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 2)
    data = samples(4, seed=1)
    # Beside these the others are little: the ratio over all samples says less.
    data[0]["x"][:2] *= 50
    for one in output_parity(compiled, data).values():
        assert one.worst_sample == 2
        assert one.worst_db == pytest.approx(40.0, abs=1e-3)  # 20 log10(100)
    assert output_parity(compiled, data)["linear"].sqnr_db > 50


def test_samples_are_counted_through_all_batches(
    compiled: TRTModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [batch for seed in range(3) for batch in samples(4, seed)]
    assert output_parity(compiled, data) == output_parity(compiled, data[:1])
    run, calls = OracleSession.run, iter(range(3))

    def wrong(self: OracleSession, inputs: Any) -> Any:
        outputs = run(self, inputs)
        if next(calls) == 2:
            outputs[0][1] *= 1.01
        return outputs

    monkeypatch.setattr(OracleSession, "run", wrong)
    assert output_parity(compiled, data, max_batches=None)["linear"].worst_sample == 9


def test_rows_that_fill_up_a_batch_do_not_count(
    compiled: TRTModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3)
    assert output_parity(compiled, samples(3))["linear"].worst_db > 100


def test_an_output_without_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            y = self.layer(x)
            return y, y.mean(), y.argmax(1)

    install_oracle(monkeypatch)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    compiled = trtcompile.compile(
        randomize(Mean(), 1),
        [x],
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator([x], progress=False),
        device=build_device(disable_tf32=True),
        min_block_size=1,
    )
    parity = output_parity(compiled, [x])
    assert list(parity) == ["linear", "mean"]
    assert all(one.worst_db > 100 for one in parity.values())


def test_what_cannot_be_compared(compiled: TRTModule, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CalibrationError, match="no samples"):
        output_parity(compiled, [])
    with pytest.raises(SettingsError, match="max_batches is 0"):
        output_parity(compiled, [], max_batches=0)
    with pytest.raises(AttributeError, match="keep_lowered"):
        output_parity(compiled_net(keep_lowered=False), samples(4))
    monkeypatch.setattr(TRTModule, "runnable", property(lambda _: "there is no GPU"))
    with pytest.raises(EngineLoadError, match="there is no GPU"):
        output_parity(compiled, samples(4))


@pytest.mark.gpu
def test_the_engine_agrees_with_its_simulation() -> None:
    parity = output_parity(compiled_net(), samples(4, seed=1))
    assert all(one.worst_db > 30 for one in parity.values()), parity
