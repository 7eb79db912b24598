"""Data as users' loaders yield it, calibrated through ``simulate``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import build_device, randomize
from torch import Tensor, nn

import trtcompile
from trtcompile import Input
from trtcompile.errors import CalibrationError
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, DataLoaderCalibrator


class Masked(nn.Module):
    """Reads tokens, a mask, and token types, in another order than tokenizers give them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.types = nn.Embedding(20, 16), nn.Embedding(2, 16)
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        embedded = self.tokens(input_ids) + self.types(token_type_ids)
        hidden: Tensor = self.first(embedded) * attention_mask.unsqueeze(-1)
        result: Tensor = self.last(torch.relu(hidden))
        return result


IDS = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(6) < 4).long().expand(4, 6)
TYPES = torch.zeros(4, 6, dtype=torch.int64)
#: As a tokenizer of Hugging Face orders it.
TOKENIZED = {"input_ids": IDS, "token_type_ids": TYPES, "attention_mask": MASK}
UNNAMED = [Input((2, 6), dtype=torch.int64)] * 3


def table_of(model: nn.Module, inputs: list[Any], batch: Any) -> CalibrationTable | None:
    calibrator = DataLoaderCalibrator([batch], algo_type=CalibrationAlgo.MINMAX_CALIBRATION)
    options = {"enabled_precisions": {torch.int8}, "device": build_device()}
    simulation = trtcompile.simulate(model, inputs, calibrator=calibrator, **options)  # type: ignore[arg-type]
    return simulation.calibration_table


class TestDictionaries:
    def test_they_are_read_by_the_names_of_the_arguments(self) -> None:
        model = randomize(Masked(), 1)
        expected = table_of(model, UNNAMED, (IDS, MASK, TYPES))
        assert expected
        assert table_of(model, UNNAMED, TOKENIZED) == expected

    def test_a_name_of_ones_own_comes_first(self) -> None:
        model = randomize(Masked(), 1)
        inputs = [UNNAMED[0], UNNAMED[1].with_name("mask"), UNNAMED[2]]
        batch = {"token_type_ids": TYPES, "mask": MASK, "attention_mask": TYPES, "input_ids": IDS}
        assert table_of(model, inputs, batch) == table_of(model, UNNAMED, TOKENIZED)

    def test_some_names_are_not_enough(self) -> None:
        model = randomize(Masked(), 1)
        batch = {"input_ids": IDS, "token_type_ids": TYPES, "mask": MASK}
        with pytest.raises(CalibrationError, match=r"only \['input_ids', 'token_type_ids'\] are"):
            table_of(model, UNNAMED, batch)
