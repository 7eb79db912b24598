"""From a network to a serialized engine."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from checks import partition_for_test
from torch import nn

from trtcompile import CompileSpec, EngineBuildError, Input, _tensorrt
from trtcompile.conversion import NetworkDefinition, convert
from trtcompile.engine import Engine, build_engine

RANGED = Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(4, 3, 8, 8))


def network(inputs: Any) -> tuple[NetworkDefinition, Any, CompileSpec]:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    _, partitioned, spec = partition_for_test(model, inputs)
    (part,) = partitioned.engines
    return convert(part.graph_module), part.profiles, spec


def built(inputs: Any) -> Engine:
    definition, ranges, spec = network(inputs)
    return build_engine("engine_0", definition, ranges, spec)


def test_bindings_and_provenance() -> None:
    engine = built([RANGED])
    (binding,) = engine.inputs
    assert (binding.dtype, binding.shape) == (torch.float32, (-1, 3, 8, 8))
    (output,) = engine.outputs
    assert (output.dtype, output.shape) == (torch.float32, (-1, 4, 6, 6))
    assert engine.profiles == (((RANGED.min_shape, RANGED.opt_shape, RANGED.max_shape),),)
    flavour = _tensorrt.load()
    assert (engine.provenance.flavour, engine.provenance.version) == (flavour.name, flavour.version)
    assert engine.provenance.compute_capabilities
    assert (engine.provenance.gpu_name is None) == flavour.builds_ahead_of_time
    assert repr(engine) == f"Engine(engine_0, {len(engine.plan)} bytes, {flavour})"


def test_static_shapes_have_no_profile() -> None:
    engine = built([(2, 3, 8, 8)])
    assert engine.inputs[0].shape == (2, 3, 8, 8)
    assert engine.outputs[0].shape == (2, 4, 6, 6)


def test_plans_differ_by_weights() -> None:
    assert built([(2, 3, 8, 8)]).plan != built([(2, 3, 8, 8)]).plan


def test_engines_are_copied_and_pickled_with_their_plan() -> None:
    engine = built([(2, 3, 8, 8)])
    assert copy.deepcopy(engine) is engine
    restored = pickle.loads(pickle.dumps(engine))  # noqa: S301 (our own bytes)
    assert restored == engine
    assert restored.plan == bytes(engine.plan)
    assert hash(restored) == hash(engine)


def test_a_plan_cannot_be_written_to() -> None:
    plan = memoryview(built([(2, 3, 8, 8)]).plan)
    assert plan.readonly
    assert plan.nbytes == len(plan)


def test_a_refused_network_carries_what_tensorrt_said() -> None:
    definition, ranges, spec = network([(2, 3, 8, 8)])
    tensor = definition.definition.get_output(0)
    # A reshape to another number of elements: the network accepts it, the builder does not.
    layer = definition.definition.add_shuffle(tensor)
    layer.reshape_dims = (7, 11)
    definition.definition.mark_output(layer.get_output(0))
    with pytest.raises(EngineBuildError) as caught:
        build_engine("engine_7", definition, ranges, spec)
    message = str(caught.value)
    assert "could not build engine_7" in message
    assert any(line in message for line in definition.logger.lines)
    assert "torch_executed_ops" in message
