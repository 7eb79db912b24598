"""The rules, in the order in which they are applied."""

from __future__ import annotations

from trtcompile.ptq.placement import (
    attention,
    concatenated,
    depthwise,
    edges,
    exclusions,
    few_channels,
    gates,
    moves,
    norms,
    one_row,
    payoff,
    pools,
    residuals,
    weights,
)
from trtcompile.ptq.placement.rule import Rule

#: First the rules that leave operators out, of which the first that matches decides; then those that quantize what is
#: left, each of which sees what the ones above it quantized; then the one that lets values share their scales.
RULES: tuple[Rule, ...] = (
    exclusions.RUNS_IN_PYTORCH,
    exclusions.EXCLUDED_MODULE,
    exclusions.EXCLUDED_OPERATOR,
    exclusions.EXCLUDED_NODE,
    weights.COMPUTED_WEIGHT,
    weights.CONSTANT_INPUT,
    weights.NOT_FLOAT32,
    weights.NO_CHANNEL_AXIS,
    depthwise.GROUPED,
    concatenated.CONCATENATED,
    gates.ONE_PIXEL,
    edges.FIRST_LAYER,
    edges.LAST_LAYER,
    payoff.PAYOFF,
    few_channels.FEW_CHANNELS,
    one_row.ONE_ROW,
    attention.ACTIVATIONS,
    residuals.RESIDUAL_STREAM,
    weights.WEIGHTED,
    residuals.SHORTCUT,
    norms.BATCH_NORM,
    pools.AVERAGE_POOL,
    moves.CHAIN_START,
    moves.SHARED_SCALE,
)
