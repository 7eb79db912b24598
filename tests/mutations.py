"""The mutations that ``tests/mutate.py`` applies: mistakes that the named tests must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One mistake, made by replacing text in one file.

    ``old`` occurs exactly once in ``file``. Each of ``tests`` (pytest node ids; a parametrized test
    without its brackets, or a whole file, stands for all in it) passes before and fails after.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        name="layering: settings imports the engine",
        file="trtcompile/settings.py",
        old="from trtcompile.errors import SettingsError\n",
        new="import trtcompile.engine\nfrom trtcompile.errors import SettingsError\n",
        tests=("tests/py/test_layering.py::test_imports_point_one_way",),
    ),
    Mutation(
        name="layering: a neighbour may be imported",
        file="tests/py/test_layering.py",
        old="TIER[target] == TIER[unit] and (unit, target) not in SAME_TIER",
        new="TIER[target] == TIER[unit] and False",
        tests=("tests/py/test_layering.py::test_a_bad_file_is_found[a neighbour]",),
    ),
    Mutation(
        name="capture: hooks that forward registers stay",
        file="trtcompile/capture.py",
        old="if isinstance(value, dict))",
        new="if name in ('_parameters', '_buffers', '_modules'))",
        tests=(
            "tests/py/test_capture.py::TestTheModelStaysAsItWas::test_hooks_that_forward_registers",
        ),
    ),
    Mutation(
        name="batch norm: scale on the input channels",
        file="trtcompile/lowering/fold_batch_norm.py",
        old="return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))",
        new="return weight * scale.reshape(1, -1, *[1] * (weight.dim() - 2))",
        tests=(
            "tests/py/lowering/test_fold_batch_norm.py::test_a_norm_behind_a_layer_is_folded[square]",
            "tests/py/lowering/test_fold_batch_norm.py::test_a_norm_behind_a_layer_is_folded[linear]",
        ),
    ),
    Mutation(
        name="batch norm: bias of the layer dropped",
        file="trtcompile/lowering/batch_norm.py",
        old="shift = -self.mean if bias is None else bias.double() - self.mean",
        new="shift = -self.mean",
        tests=(
            "tests/py/lowering/test_fold_batch_norm.py::test_a_norm_behind_a_layer_is_folded[2d]",
            "tests/py/lowering/test_fold_batch_norm.py::test_the_folded_weight_is_the_one_that_fp64_gives",
        ),
    ),
    Mutation(
        name="batch norm: groups of a transposed kernel interleaved",
        file="trtcompile/lowering/fold_batch_norm.py",
        old="scale.reshape(groups, 1, -1, ",
        new="scale.reshape(-1, groups).t().reshape(groups, 1, -1, ",
        tests=(
            (
                "tests/py/lowering/test_fold_batch_norm.py::test_a_norm_behind_a_layer_is_folded"
                "[transposed grouped]"
            ),
        ),
    ),
    Mutation(
        name="batch norm: folded under other readers",
        file="trtcompile/lowering/fold_batch_norm.py",
        old="or set(layer.users) != {node}:",
        new="or node not in layer.users:",
        tests=(
            "tests/py/lowering/test_fold_batch_norm.py::test_a_convolution_with_other_readers_keeps_its_weights",
        ),
    ),
    Mutation(
        name="compile: the model's memory stays shared",
        file="trtcompile/capture.py",
        old="copies[view] = value.clone()",
        new="copies[view] = value",
        tests=(
            "tests/py/test_compile.py::TestIndependence::test_lowered_is_on_the_cpu_and_shares_nothing",
            "tests/py/test_capture.py::TestGraph::test_weights_are_shared_until_they_are_owned",
        ),
    ),
    Mutation(
        name="constants: random operators folded",
        file="trtcompile/lowering/fold_constants.py",
        old='if target.namespace != "aten" or torch.Tag.nondeterministic_seeded in target.tags:',
        new='if target.namespace != "aten":',
        tests=("tests/py/lowering/test_fold_constants.py::test_random_operators_are_not_folded",),
    ),
    Mutation(
        name="no-ops: a view of equal rank",
        file="trtcompile/lowering/remove_no_ops.py",
        old="return len(before) == len(after) and all(",
        new="return len(before) == len(after) or all(",
        tests=(
            "tests/py/lowering/test_remove_no_ops.py::test_what_changes_something_stays[view of equal rank]",
            "tests/py/lowering/test_remove_no_ops.py::test_what_changes_something_stays[strides]",
            "tests/py/lowering/test_remove_no_ops.py::test_what_changes_something_stays[offset]",
        ),
    ),
    Mutation(
        name="no-ops: strides of sizes that are 1",
        file="trtcompile/lowering/remove_no_ops.py",
        old='if str(size) != "1"]',
        new="]",
        tests=("tests/py/lowering/test_remove_no_ops.py::test_strides_with_a_dynamic_batch",),
    ),
    Mutation(
        name="export: joined dimensions bind a dynamic size",
        file="trtcompile/export_repairs.py",
        old="and guard_or_false(a.shape[end] > 1)",
        new="and False",
        tests=(
            (
                "tests/py/conversion/test_shape.py::test_computes_what_pytorch_computes"
                "[aten.reshape.default-dynamic_repeated_heads]"
            ),
        ),
    ),
    Mutation(
        name="cast: floats beyond the integers",
        file="trtcompile/conversion/ops/shape.py",
        old="x = _within(net, x, wanted)",
        new="pass",
        tests=(
            (
                "tests/py/conversion/test_shape.py::test_computes_what_pytorch_computes"
                "[aten._to_copy.default-float_too_large_for_int64]"
            ),
        ),
    ),
    Mutation(
        name="no-ops: a copy whose memory is read",
        file="trtcompile/lowering/settle_memory.py",
        old="key=lambda dim: (-value.stride(dim), dim))",
        new="key=lambda dim: dim)",
        tests=(
            "tests/py/lowering/test_settle_memory.py::test_the_order_of_a_transposed_result",
            "tests/py/lowering/test_settle_memory.py::test_the_same_memory_is_read[operator on a permutation]",
        ),
    ),
    Mutation(
        name="bytes: a cast before operators that others read",
        file="trtcompile/lowering/cast_bytes.py",
        old="and all(map(_is_cast, node.users)):",
        new="and any(map(_is_cast, node.users)):",
        tests=(
            "tests/py/lowering/test_cast_bytes.py::test_what_is_no_cast_of_moved_bytes_stays[read as bytes too]",
        ),
    ),
    Mutation(
        name="placement: padding that is not zero",
        file="trtcompile/ptq/movement.py",
        old="return isinstance(value, (int, float)) and value == 0",
        new="return isinstance(value, (int, float))",
        tests=(
            "tests/py/ptq/test_placement_chains.py::test_padding_with_another_value_has_a_scale_of_its_own",
        ),
    ),
    Mutation(
        name="placement: no Q on the residual",
        file="trtcompile/ptq/placement/residuals.py",
        old='yield Read(residual, node, f"residual added to {layer_name(main)}")',
        new="return",
        tests=(
            "tests/py/ptq/test_placement.py::test_identity_shortcut_is_quantized_once_for_the_convolution_and_the_add",
            "tests/py/ptq/test_placement.py::test_bottleneck_with_projection_shortcut",
        ),
    ),
    Mutation(
        name="placement: the longer path is the residual",
        file="trtcompile/ptq/placement/residuals.py",
        old="main, residual = max(candidates,",
        new="main, residual = min(candidates,",
        tests=(
            "tests/py/ptq/test_placement.py::test_projection_shortcut_is_the_residual_and_shares_the_block_input",
            "tests/py/ptq/test_placement.py::test_the_shorter_of_two_paths_is_the_residual_in_whatever_order",
        ),
    ),
    Mutation(
        name="placement: weight axis of transposed convolutions",
        file="trtcompile/ptq/placement/weights.py",
        old="WeightedOperator(node, weight, 1 if node.args[6] else 0)",
        new="WeightedOperator(node, weight, 0)",
        tests=(
            "tests/py/ptq/test_placement.py::test_transposed_convolutions[1]",
            "tests/py/ptq/test_insert.py::test_the_simulation_of_one_layer_against_numpy[transposed]",
        ),
    ),
    Mutation(
        name="placement: a residual stream is quantized",
        file="trtcompile/ptq/placement/residuals.py",
        old="    norm = _norm_behind(node)\n",
        new="    norm = None\n",
        tests=(
            "tests/py/ptq/test_placement_rules.py::TestTransformers::test_convolutions_between_norms_do_not_make_it_a_cnn",
        ),
    ),
    Mutation(
        name="placement: grouped convolutions write anything",
        file="trtcompile/ptq/placement/depthwise.py",
        old="if node.target is not CONVOLUTION or node.args[8] == 1:",
        new="if node.target is not None:",
        tests=(
            "tests/py/test_given_quantization.py::test_depthwise_weights_without_an_int8_kernel_are_dequantized[False]",
            "tests/py/ptq/test_placement_rules.py::TestDepthwise::test_what_a_user_excludes_takes_those_in_front_with_it",
            "tests/py/ptq/test_placement_rules.py::TestTransformers::test_a_convnext_block",
        ),
    ),
    Mutation(
        name="placement: excluded modules by their own path only",
        file="trtcompile/ptq/placement/exclusions.py",
        old="for path in reversed(enclosing_modules(node)):",
        new="for path in enclosing_modules(node)[-1:]:",
        tests=("tests/py/ptq/test_placement_rules.py::TestExclusion::test_by_module[2]",),
    ),
    Mutation(
        name="placement: a gate's Q is free",
        file="trtcompile/ptq/placement/written.py",
        old="return len(sources) == 1 and _all_can(sources, situation)",
        new="return any(can_be_written_in_int8(source, situation) for source in sources)",
        tests=(
            "tests/py/ptq/test_placement_rules.py::TestPayoff::test_what_follows_fp16_is_fp16_too",
        ),
    ),
    Mutation(
        name="placement: products with constants by row",
        file="trtcompile/ptq/placement/weights.py",
        old="return WeightedOperator(node, weight, 0 if node.target is LINEAR else last)",
        new="return WeightedOperator(node, weight, 0)",
        tests=(
            "tests/py/ptq/test_placement_rules.py::TestProductsWithWeights::test_scales_lie_along_the_columns",
            "tests/py/ptq/test_placement_rules.py::TestProductsWithWeights::test_einsum",
        ),
    ),
    Mutation(
        name="placement: a chain that floating point reads too",
        file="trtcompile/ptq/placement/moves.py",
        old="            if not further:\n                return []\n",
        new="",
        tests=(
            "tests/py/ptq/test_placement_chains.py::test_a_chain_that_floating_point_reads_too_is_quantized_only_for_int8",
            "tests/py/ptq/test_placement_chains.py::test_one_reader_in_floating_point_at_the_end_of_a_chain_is_enough",
        ),
    ),
    Mutation(
        name="placement: what floating point computes is quantized to be averaged",
        file="trtcompile/ptq/placement/pools.py",
        old="if can_be_written_in_int8(source, situation) and leads_to_quantized(node, situation):",
        new="if leads_to_quantized(node, situation):",
        tests=(
            "tests/py/ptq/test_placement_chains.py::test_what_floating_point_computes_is_averaged_in_floating_point",
        ),
    ),
    Mutation(
        name="calibration: what a pool drops has a say in the scale",
        file="trtcompile/ptq/request.py",
        old="tuple(name for name in group if name not in self.carried) or group",
        new="group",
        tests=(
            "tests/py/ptq/test_carried.py::test_the_scale_in_front_of_a_pool_is_that_of_what_it_keeps",
            "tests/py/ptq/test_native_cache_refusals.py::TestSharedScales::test_what_is_behind_a_pool_is_what_counts",
        ),
    ),
    Mutation(
        name="concatenations: of another dimension",
        file="trtcompile/lowering/nest_concatenations.py",
        old="            and _dim(other) == _dim(node)\n",
        new="",
        tests=(
            "tests/py/lowering/test_nest_concatenations.py::test_others_stay[another dimension]",
        ),
    ),
    Mutation(
        name="batch norm: the layer has scale and shift exchanged",
        file="trtcompile/conversion/ops/elementwise.py",
        old="factors = [shift, scale]",
        new="factors = [scale, shift]",
        tests=(
            "tests/py/conversion/test_elementwise.py::test_computes_what_pytorch_computes[aten.addcmul.default-by_channel]",
        ),
    ),
    Mutation(
        name="placement: norms of the model's input are INT8",
        file="trtcompile/ptq/placement/norms.py",
        old="if value is None or not is_written_by_int8_product(value, situation):",
        new="if value is None:",
        tests=(
            "tests/py/ptq/test_placement_norms.py::test_a_norm_of_the_models_input_keeps_its_floats",
        ),
    ),
    Mutation(
        name="placement: concatenations with constants are passed",
        file="trtcompile/ptq/placement/moves.py",
        old=" or any(map(is_constant, node.all_input_nodes)):",
        new=":",
        tests=(
            "tests/py/ptq/test_placement_chains.py::test_a_concatenation_with_a_constant_is_quantized_as_one",
        ),
    ),
    Mutation(
        name="calibration: what is concatenated twice counts twice",
        file="trtcompile/ptq/quantize.py",
        old="if all(map(only_moves, nodes)) or _is_in_larger(value, placement)",
        new="if all(map(only_moves, nodes))",
        tests=(
            "tests/py/ptq/test_carried.py::test_what_is_concatenated_several_times_counts_once",
        ),
    ),
    Mutation(
        name="simulation: norms that write floats are FP32",
        file="trtcompile/simulation.py",
        old="return kernel if all(map(is_quantize, kernel[-1].users)) else []",
        new="return kernel",
        tests=("tests/py/test_simulation.py::test_a_norm_that_writes_floats_computes_in_fp16",),
    ),
    Mutation(
        name="analysis: a concatenation needs only the layers in front of it",
        file="trtcompile/ptq/analysis/layers.py",
        old="concatenations = self._moved_on(reader) if _moves(reader) else [reader]",
        new="concatenations = [reader]",
        tests=(
            "tests/py/ptq/analysis/test_switched.py::test_a_layer_off_is_a_layer_that_the_placement_leaves_out",
        ),
    ),
    Mutation(
        name="calibration: what is read in front of a pool has no say in the scale",
        file="trtcompile/ptq/quantize.py",
        old="if all(map(only_moves, nodes)) or",
        new="if any(map(only_moves, nodes)) or",
        tests=("tests/py/ptq/test_carried.py::test_what_is_read_in_front_of_the_pool_too_counts",),
    ),
    Mutation(
        name="placement: the last layers for small images are taken for gates",
        file="trtcompile/ptq/placement/gates.py",
        old="if any(size != 1 for size in shape[2:]) or _is_int8_already(data, situation):",
        new="if any(size != 1 for size in shape[2:]):",
        tests=(
            "tests/py/ptq/test_placement_rules.py::TestGates::test_the_last_layers_for_small_images_are_no_gates",
        ),
    ),
    Mutation(
        name="placement: a pool beside INT8 readers reads floating point",
        file="trtcompile/ptq/placement/moves.py",
        old="if not is_float32(value) or (only_moves(value) and not readers):",
        new="if not is_float32(value) or only_moves(value) or readers:",
        tests=(
            "tests/py/ptq/test_placement_chains.py::test_a_concatenation_is_quantized_as_one",
            "tests/py/ptq/test_placement_chains.py::test_a_value_that_int8_alone_reads_along_several_chains",
        ),
    ),
    Mutation(
        name="insert: weight scales of the wrong axis",
        file="trtcompile/ptq/insert.py",
        old="dims = [d for d in range(weight.dim()) if d != axis]",
        new="dims = [d for d in range(weight.dim()) if d != weight.dim() - 1 - axis]",
        tests=("tests/py/ptq/test_insert.py::test_weight_scales_against_numpy",),
    ),
    Mutation(
        name="insert: activation scale times 2",
        file="trtcompile/ptq/insert.py",
        old="scale = number_format.scale_of(scales[layer_name(value)])",
        new="scale = number_format.scale_of(2 * scales[layer_name(value)])",
        tests=(
            "tests/py/ptq/test_insert.py::test_scales_are_those_of_the_table",
            "tests/py/ptq/test_insert.py::test_the_simulation_of_one_layer_against_numpy",
        ),
    ),
    Mutation(
        name="insert: a channel of zeros gets a scale of zero",
        file="trtcompile/ptq/insert.py",
        old="scales = torch.where(amax > 0, amax, torch.ones_like(amax)) / largest",
        new="return amax / largest",
        tests=("tests/py/ptq/test_insert.py::test_a_channel_of_zeros_stays_zero",),
    ),
    Mutation(
        name="insert: scales of weights may be subnormal",
        file="trtcompile/ptq/insert.py",
        old="return scales.clamp(min=MIN_SCALE)",
        new="return scales",
        tests=("tests/py/ptq/test_insert.py::test_a_channel_of_subnormal_numbers_is_no_nan",),
    ),
    Mutation(
        name="graph copy: branches create their tensors where they did",
        file="trtcompile/ptq/graph_copy.py",
        old="        set_device(moved, device)\n",
        new="",
        tests=("tests/py/ptq/test_graph_copy.py::test_an_interpreter_gets_such_branches",),
    ),
    Mutation(
        name="simulate: the simulation follows the model's weights",
        file="trtcompile/compiler.py",
        old="    own_constants(captured, captured.graph_module)\n",
        new="",
        tests=("tests/py/test_simulate.py::test_a_simulation_keeps_the_weights_it_was_made_of",),
    ),
    Mutation(
        name="accuracy budget: the model is smoothed again after the search",
        file="trtcompile/accuracy_budget.py",
        old="        return self._maxima\n",
        new="        return {name: 2 * largest for name, largest in self._maxima.items()}\n",
        tests=(
            "tests/py/test_accuracy_budget.py::test_a_smoothed_model_is_compiled_as_it_was_measured",
        ),
    ),
    Mutation(
        name="fingerprint: weights not hashed",
        file="trtcompile/ptq/fingerprint.py",
        old="digest.update(raw.numpy().data)",
        new="del raw",
        tests=(
            "tests/py/ptq/test_fingerprint.py::test_changed_weights_change_what_they_lead_to_and_nothing_before",
        ),
    ),
    Mutation(
        name="fingerprint: the batch size hashed",
        file="trtcompile/ptq/fingerprint.py",
        old="args = (args[0], *_known_shape(node))",
        new="args = (args[0], str(tuple(node.meta['val'].shape)))",
        tests=("tests/py/ptq/test_fingerprint.py::test_the_batch_size_does_not_matter",),
    ),
    Mutation(
        name="batches: the last short batch dropped",
        file="trtcompile/ptq/batches.py",
        old="    if pieces:\n        yield fitted(layout.filled(pieces, held), held, last)\n",
        new="",
        tests=(
            "tests/py/ptq/test_batches.py::test_the_remainder_is_filled_with_its_own_samples",
            "tests/py/ptq/test_collect.py::test_the_remainder_is_counted",
        ),
    ),
    Mutation(
        name="collect: rows that fill up the batch are counted",
        file="trtcompile/ptq/collect.py",
        old="return value[: rows * batch.valid]",
        new="return value",
        tests=("tests/py/ptq/test_collect.py::test_rows_that_fill_up_the_batch_are_not_counted",),
    ),
    Mutation(
        name="entropy: one bin off",
        file="trtcompile/ptq/entropy.py",
        old="candidates = numbers[CELLS - 1 :]",
        new="candidates = numbers[CELLS - 1 :] - 1",
        tests=("tests/py/ptq/test_entropy.py::test_choice_is_that_of_the_plain_loop",),
    ),
    Mutation(
        name="histogram: odd pairs merged",
        file="trtcompile/ptq/histogram.py",
        old="bins = torch.arange(BINS, device=self.device) >> shift",
        new="bins = (torch.arange(BINS, device=self.device) + 1).clamp(max=BINS - 1) >> shift",
        tests=("tests/py/ptq/test_histogram.py::test_many_values_cross_chunks_and_growth",),
    ),
    Mutation(
        name="precision: softmax in FP16",
        file="trtcompile/precision/assign.py",
        old="        aten.softmax.int,\n",
        new="",
        tests=("tests/py/precision/test_assign.py::test_sensitive_operators_stay_in_fp32",),
    ),
    Mutation(
        name="precision: no cast of outputs",
        file="trtcompile/precision/assign.py",
        old='if node.op == "output" or (node.op == "call_function" and not is_qdq(node)):',
        new='if node.op == "call_function" and not is_qdq(node):',
        tests=(
            "tests/py/precision/test_assign.py::test_casts_are_only_at_the_borders",
            "tests/py/precision/test_assign.py::test_outputs_are_fp32_also_where_the_model_reads_them_again",
        ),
    ),
    Mutation(
        name="precision: a named dtype overruled",
        file="trtcompile/precision/assign.py",
        old="if _names_a_dtype(node) or floating_dtype(node) != torch.float32:",
        new="if floating_dtype(node) != torch.float32:",
        tests=("tests/py/precision/test_assign.py::test_an_explicit_dtype_argument_is_obeyed",),
    ),
    Mutation(
        name="partition: outputs of an engine reversed",
        file="trtcompile/partition/split.py",
        old="graph.output(tuple(copies[n] for n in outputs))",
        new="graph.output(tuple(copies[n] for n in reversed(outputs)))",
        tests=("tests/py/partition/test_split.py::test_several_outputs_in_the_models_order",),
    ),
    Mutation(
        name="partition: INT8 weights in an earlier engine",
        file="trtcompile/partition/grouping.py",
        old="latest = first_read if first_read % 2 == parity else first_read - 1",
        new="latest = parity",
        tests=(
            "tests/py/partition/test_grouping.py::test_int8_weights_are_in_the_engine_of_their_operator",
        ),
    ),
    Mutation(
        name="partition: an engine on both sides of a bypass",
        file="trtcompile/partition/grouping.py",
        old="levels[node] = before if before % 2 == _parity(node, verdicts) else before + 1",
        new="levels[node] = _parity(node, verdicts)",
        tests=(
            "tests/py/partition/test_grouping.py::test_no_cycle_where_an_engine_and_a_bypass_meet",
        ),
    ),
    Mutation(
        name="option ignored: min_block_size",
        file="trtcompile/compiler.py",
        old="partition(graph_module, verdicts, profiles, spec.min_block_size)",
        new="partition(graph_module, verdicts, profiles, 1)",
        tests=("tests/py/partition/test_grouping.py::test_small_blocks_are_left_to_pytorch",),
    ),
    Mutation(
        name="option ignored: torch_executed_ops by family",
        file="trtcompile/node_info.py",
        old='return name in operators or name.rpartition(".")[0] in operators',
        new="return name in operators",
        tests=("tests/py/partition/test_support.py::test_exclusion_by_overload_and_by_family",),
    ),
    Mutation(
        name="option ignored: disable_tf32",
        file="trtcompile/engine.py",
        old="    if spec.device.disable_tf32:\n",
        new="    if False:\n",
        tests=("tests/py/test_settings.py::TestBuilderOptions::test_disable_tf32",),
    ),
    Mutation(
        name="report: what PyTorch runs is called INT8",
        file="trtcompile/partition/report.py",
        old="precision=dtype_name(node) if engine is None else precision_of(node),",
        new="precision=precision_of(node),",
        tests=("tests/py/partition/test_report.py::test_what_pytorch_runs_is_never_called_int8",),
    ),
    Mutation(
        name="linear: the weight is not transposed",
        file="trtcompile/conversion/ops/linear.py",
        old="net.matmul(x, net.tensor(weight), transpose_b=True)",
        new="net.matmul(x, net.tensor(weight))",
        tests=("tests/py/conversion/test_linear.py::test_computes_what_pytorch_computes",),
    ),
    Mutation(
        name="entropy: any share may be clipped",
        file="trtcompile/ptq/entropy.py",
        old="(candidates <= occupied[:, None]) & (_clipped(counts) <= MOST_CLIPPED)",
        new="candidates <= occupied[:, None]",
        tests=("tests/py/ptq/test_entropy.py::test_what_is_no_outlier_is_not_cut_off",),
    ),
    Mutation(
        name="FP16: large constants overflow",
        file="trtcompile/precision/assign.py",
        old="_saturated(constant) if dtype == torch.float16 else constant.to(dtype)",
        new="constant.to(dtype)",
        tests=("tests/py/precision/test_assign.py::test_large_constants_stay_finite",),
    ),
    Mutation(
        name="FP16: what the model computes in FP16 is cast to FP32",
        file="trtcompile/precision/assign.py",
        old="if source not in own_fp16 and _needs_cast(source, wanted):",
        new="if _needs_cast(source, wanted):",
        tests=("tests/py/precision/test_assign.py::test_a_model_in_fp16_stays_as_it_is",),
    ),
    Mutation(
        name="forward: dictionaries are read by position",
        file="trtcompile/runtime/module.py",
        old="return {key: _ordered_as(value, given[key]) for key, value in expected.items()}",
        new="return dict(zip(expected, given.values(), strict=True))",
        tests=("tests/py/test_arguments.py::test_dictionaries_are_read_by_key",),
    ),
    Mutation(
        name="the caller's default device reaches the constants",
        file="trtcompile/default_device.py",
        old='if torch.get_default_device().type == "cpu":',
        new="if True:",
        tests=(
            "tests/py/test_compile.py::TestIndependence::test_the_callers_default_device_changes_nothing",
        ),
    ),
    Mutation(
        name="copies share TensorRT's session",
        file="trtcompile/runtime/engine_module.py",
        old='return {**self.__dict__, "_session": None}',
        new="return self.__dict__",
        tests=(
            "tests/py/runtime/test_module.py::TestModule::test_a_deep_copy_loads_its_engines_itself",
        ),
    ),
    Mutation(
        name="forward: constants are not compared",
        file="trtcompile/runtime/module.py",
        old="or leaf != expected",
        new="or False",
        tests=("tests/py/test_arguments.py::test_constants",),
    ),
    Mutation(
        name="dims: sizes of one name are not compared",
        file="trtcompile/runtime/module.py",
        old="if shapes[index][other_dim] != size:",
        new="if False:",
        tests=("tests/py/test_dims.py::TestForward::test_the_sizes_have_to_be_equal",),
    ),
    Mutation(
        name="dims: two ranges of one name",
        file="trtcompile/inputs.py",
        old="            if own != first:\n",
        new="            if False:\n",
        tests=(
            "tests/py/test_dims.py::TestInput::test_refused",
            "tests/py/test_dims.py::TestForward::test_two_ranges_of_one_name_are_refused_before_any_work",
        ),
    ),
    Mutation(
        name="dims: each dimension gets a symbol of its own",
        file="trtcompile/ranged_export.py",
        old="labels.append(spec.dims.get(dim, label))",
        new="labels.append(label)",
        tests=("tests/py/test_dims.py::TestCapture::test_sizes_of_one_name_are_one",),
    ),
    Mutation(
        name="profiles: the wrong one is chosen",
        file="trtcompile/engine.py",
        old="            if all(_is_within(s, ranges) for s, ranges in zip(shapes, profile, strict=True)):\n",
        new="            if any(_is_within(s, ranges) for s, ranges in zip(shapes, profile, strict=True)):\n",
        tests=("tests/py/test_profiles.py::TestChoice::test_the_first_that_takes_all_inputs",),
    ),
    Mutation(
        name="profiles: one context for all",
        file="trtcompile/runtime/session.py",
        old="context = self._contexts[index] = self._create_context(index)",
        new="context = self._contexts[index] = self._contexts.get(0) or self._create_context(0)",
        tests=(
            "tests/py/runtime/test_profile_contexts.py::test_each_profile_has_a_context_of_its_own",
        ),
    ),
    Mutation(
        name="profiles: only the first is built",
        file="trtcompile/engine.py",
        old="        for profile in profiles:\n            _add_profile",
        new="        for profile in profiles[:1]:\n            _add_profile",
        tests=("tests/py/test_profiles.py::TestCompile::test_one_engine",),
    ),
    Mutation(
        name="cond: the simulation's branches move with the executor",
        file="trtcompile/partition/split.py",
        old="root.add_module(name, copy.deepcopy(value))",
        new="root.add_module(name, value)",
        tests=(
            "tests/py/test_cond.py::test_devices_in_the_branches_follow_and_those_of_the_simulation_stay",
        ),
    ),
    Mutation(
        name="cond: branches are not hashed",
        file="trtcompile/ptq/fingerprint.py",
        old="digest.update(graph_hash(value).encode())",
        new="pass",
        tests=("tests/py/test_cond.py::test_the_branches_count_for_what_identifies_a_model",),
    ),
    Mutation(
        name="profiles: one size each taken for a static shape",
        file="trtcompile/engine.py",
        old="return all(-1 not in binding.shape for binding in self.inputs)",
        new="return all(low == high for profile in self.profiles for low, _, high in profile)",
        tests=("tests/py/test_profiles.py::TestCompile::test_profiles_of_one_size_each",),
    ),
    Mutation(
        name="torch.compile: sizes of a range compiled in",
        file="trtcompile/backend/dynamo_graph.py",
        old="            if index in self._places:\n",
        new="            if False:\n",
        tests=("tests/py/test_backend.py::TestRanges::test_integers_beside_a_range",),
    ),
    Mutation(
        name="load: a registered dataclass of any kind",
        file="trtcompile/runtime/serialization/trees.py",
        old="if _type_name(k) == name and is_dataclass(k)]",
        new="if _type_name(k) == name]",
        tests=(
            "tests/py/runtime/test_serialization_dataclasses.py::test_other_descriptions_are_refused",
        ),
    ),
    Mutation(
        name="fallback: module patterns ignored",
        file="trtcompile/partition/support.py",
        old="if any(fnmatchcase(path, pattern) for path in enclosing_modules(node)):",
        new="if False:",
        tests=("tests/py/test_fallback.py::TestOptions::test_by_module",),
    ),
    Mutation(
        name="attention: fully masked rows",
        file="trtcompile/conversion/ops/attention.py",
        old="reads_something = None if is_causal else _rows_that_read(net, attn_mask)",
        new="reads_something = None",
        tests=("tests/py/conversion/test_attention.py",),
    ),
    Mutation(
        name="argmax: the last of equal elements",
        file="trtcompile/conversion/ops/arg_reduction.py",
        old="net.select(hit, positions, last), reduction.MIN",
        new="net.select(hit, positions, 0), reduction.MAX",
        tests=("tests/py/conversion/test_arg_reduction.py",),
    ),
    Mutation(
        name="constants: what was in memory",
        file="trtcompile/lowering/fold_constants.py",
        old='if "empty" in str(target):',
        new="if False:",
        tests=("tests/py/lowering/test_fold_constants.py::test_what_was_in_memory_is_not_folded",),
    ),
    Mutation(
        name="mse: levels instead of the points between them",
        file="trtcompile/ptq/mse.py",
        old="point = (levels - 0.5) * step[:, None]",
        new="point = (levels - 1.0) * step[:, None]",
        tests=("tests/py/ptq/test_mse.py::test_closed_form_is_the_integral",),
    ),
    Mutation(
        name="percentile: the lower edge of the bin",
        file="trtcompile/ptq/percentile.py",
        old="bins = int(torch.searchsorted(kept, needed)) + 1",
        new="bins = int(torch.searchsorted(kept, needed))",
        tests=("tests/py/ptq/test_percentile.py::test_the_bin_of_the_percentile",),
    ),
    Mutation(
        name="processes: the last one's statistics left out",
        file="trtcompile/ptq/processes.py",
        old="for theirs in found[1:]:",
        new="for theirs in found[1:-1]:",
        tests=("tests/py/ptq/test_processes.py::test_all_processes_get_the_table_of_one",),
    ),
    Mutation(
        name="native calibrators: the cache is not handed over",
        file="trtcompile/ptq/native.py",
        old="            self.calibrator.write_calibration_cache(format_text(table))\n",
        new="            pass\n",
        tests=("tests/py/ptq/test_native.py::test_the_table_is_that_of_a_loader",),
    ),
    Mutation(
        name="given quantization: a calibrator beside it is ignored",
        file="trtcompile/ptq/given.py",
        old="if spec.calibrator is not None and not isinstance(spec.calibrator, UnitScales):",
        new="if False:",
        tests=("tests/py/test_given_quantization.py::test_two_sources_of_scales",),
    ),
    Mutation(
        name="given quantization: fake quantized weights are folded to floats",
        file="trtcompile/lowering/pipeline.py",
        old="    split_fake_quantize,  # before weights that are fake quantized would be folded to floats\n",
        new="",
        tests=("tests/py/test_given_quantization.py::test_quantization_aware_training",),
    ),
    Mutation(
        name="analysis: the mean of each batch of outputs is taken for that of all",
        file="trtcompile/ptq/analysis/noise.py",
        old="self._spread += spread + float(step.square().sum()) * self._count * count / total",
        new="self._spread += spread",
        tests=("tests/py/ptq/analysis/test_noise.py::test_outputs_are_centred_over_all_batches",),
    ),
    Mutation(
        name="analysis: a residual stays quantized without its layer",
        file="trtcompile/ptq/analysis/layers.py",
        old="            if mains:\n",
        new="            if not mains:\n",
        tests=(
            "tests/py/ptq/analysis/test_switched.py::test_what_belongs_to_a_layer",
            "tests/py/ptq/analysis/test_switched.py::test_a_layer_off_is_a_layer_that_the_placement_leaves_out",
        ),
    ),
    Mutation(
        name="analysis: outputs for rows that fill up a batch are scored",
        file="trtcompile/ptq/analysis/data.py",
        old="samples_of(value, piece).cpu()",
        new="value.cpu()",
        tests=(
            "tests/py/ptq/analysis/test_analyze.py::TestSensitivity::test_a_metric_gets_outputs_and_labels",
        ),
    ),
    Mutation(
        name="accuracy budget: of every metric more is better",
        file="trtcompile/ptq/analysis/budget.py",
        old="sign = 1.0 if higher_is_better else -1.0",
        new="sign = 1.0",
        tests=(
            "tests/py/ptq/analysis/test_budget.py::TestOneBadLayer::test_it_is_the_one_left_out[less is better]",
        ),
    ),
    Mutation(
        name="accuracy budget: what was left out for nothing stays out",
        file="trtcompile/ptq/analysis/budget.py",
        old="        for name in reversed(ranked):\n",
        new="        for name in ranked[:0]:\n",
        tests=(
            "tests/py/ptq/analysis/test_budget.py::test_a_layer_that_was_left_out_for_nothing_is_put_back",
        ),
    ),
    Mutation(
        name="accuracy budget: the model is calibrated again after the search",
        file="trtcompile/accuracy_budget.py",
        old="    if simulation.calibration_table is not None:\n",
        new="    if False:\n",
        tests=(
            "tests/py/test_accuracy_budget.py::test_the_scales_are_found_once_for_each_placement",
        ),
    ),
    Mutation(
        name="analysis page: names of tensors are taken for HTML",
        file="trtcompile/ptq/analysis/page.py",
        old="<h3>{escape(row.name)}</h3>",
        new="<h3>{row.name}</h3>",
        tests=(
            "tests/py/ptq/analysis/test_page.py::test_names_are_text_and_nothing_comes_from_elsewhere",
        ),
    ),
    Mutation(
        name="accuracy: no guard band between training and test crops",
        file="benchmarks/accuracy_data.py",
        old="MARGIN = 8\n",
        new="MARGIN = 0\n",
        tests=(
            "tests/py/benchmarks/test_benchmark_accuracy_data.py::test_the_guard_band_is_half_a_crop_wide",
        ),
    ),
    Mutation(
        name="accuracy: what became right counts as lost",
        file="benchmarks/paired_flips.py",
        old="lost=int((was_right & ~is_right).sum()),",
        new="lost=int((~was_right & is_right).sum()),",
        tests=(
            "tests/py/benchmarks/test_benchmark_accuracy.py::test_flips_are_counted_one_by_one",
        ),
    ),
    Mutation(
        name="simulation: scales are put into Q alone",
        file="benchmarks/simulation.py",
        old="_PER_TENSOR = (qd.quantize_per_tensor.default, qd.dequantize_per_tensor.default)",
        new="_PER_TENSOR = (qd.quantize_per_tensor.default,)",
        tests=(
            "tests/py/benchmarks/test_benchmark_accuracy.py::test_scales_put_in_are_those_it_could_have_been_made_with",
        ),
    ),
    Mutation(
        name="native comparison: the result is paired with the input",
        file="benchmarks/reader_pairs.py",
        old="found.append(Reader(kind, node.input[0], node.output[0], weight))",
        new="found.append(Reader(kind, node.output[0], node.output[0], weight))",
        tests=(
            "tests/py/benchmarks/test_benchmark_native.py::test_paired_tensors_hold_the_same_values",
        ),
    ),
    Mutation(
        name="native caches: fewer entries than operators are taken from the front",
        file="trtcompile/ptq/native_cache/scopes.py",
        old="if len(present) != 1 or set(entries[present[0]]) != set(range(len(ours))):",
        new="if len(present) != 1 or not set(range(len(ours))) <= set(entries[present[0]]):",
        tests=(
            "tests/py/ptq/test_native_cache_refusals.py::TestScopes::test_another_number_of_operators_is_not_shifted",
        ),
    ),
    Mutation(
        name="native caches: the value in front of a folded norm",
        file="trtcompile/lowering/fold_batch_norm.py",
        old="    layer.meta[FOLDED_NORM] =",
        new="    layer.meta['nothing'] =",
        tests=(
            "tests/py/ptq/test_native_cache_refusals.py::TestScopes::test_a_folded_norm",
            "tests/py/ptq/test_native_cache.py::test_every_tensor_gets_its_own_scale[api_chain]",
        ),
    ),
    Mutation(
        name="native caches: a part stands for the whole",
        file="trtcompile/ptq/native_cache/matching.py",
        old="if _only_source(user) is not None and _keeps_all(user):",
        new="if _only_source(user) is not None:",
        tests=(
            "tests/py/ptq/test_native_cache_refusals.py::TestSharedScales::test_a_part_is_not_the_whole",
        ),
    ),
    Mutation(
        name="native caches: weights of an ONNX file are compared by shape alone",
        file="trtcompile/ptq/native_cache/onnx_file.py",
        old="return bool(np.abs(a - b).max(initial=0) <= _TOLERANCE * np.abs(a).max(initial=0))",
        new="return True",
        tests=("tests/py/ptq/test_native_cache.py::test_weights_of_another_model_are_noticed",),
    ),
    Mutation(
        name="smooth quant: only the first reader's weights are multiplied",
        file="trtcompile/ptq/smooth_quant.py",
        old="    for reader in norm.readers:\n        weight =",
        new="    for reader in norm.readers[:1]:\n        weight =",
        tests=(
            "tests/py/ptq/test_smooth_quant.py::test_the_function_is_the_same_to_the_bit",
            "tests/py/ptq/test_smooth_quant.py::test_all_readers_get_the_same_factors",
        ),
    ),
    Mutation(
        name="smooth quant: the bias of the norm is not divided",
        file="trtcompile/ptq/smooth_quant.py",
        old="old.detach() / factors",
        new="old.detach() / (factors if place == 2 else 1)",
        tests=("tests/py/ptq/test_smooth_quant.py::test_the_function_is_the_same_to_the_bit",),
    ),
    Mutation(
        name="smooth quant: alpha and 1 - alpha are exchanged",
        file="trtcompile/ptq/smooth_quant.py",
        old="exponents = alpha * torch.log2(x) - (1 - alpha) * torch.log2(w)",
        new="exponents = (1 - alpha) * torch.log2(x) - alpha * torch.log2(w)",
        tests=("tests/py/ptq/test_smooth_quant.py::test_factors_are_those_of_the_formula",),
    ),
    Mutation(
        name="movement: a permutation may take the channels elsewhere",
        file="trtcompile/ptq/movement.py",
        old="return bool(given[0][-1] % (last + 1) == last)",
        new="return True",
        tests=("tests/py/ptq/test_movement.py::test_the_last_axis",),
    ),
    Mutation(
        name="smooth quant: linear layers behind movements are not measured",
        file="trtcompile/ptq/smooth_quant.py",
        old="                readers[user] = moved\n",
        new="                readers[user] = value\n",
        tests=("tests/py/ptq/test_smooth_quant.py::test_linear_layers_behind_movements",),
    ),
    Mutation(
        name="auto calibration: the worst range",
        file="trtcompile/ptq/auto.py",
        old="amax[row.index(min(row))]",
        new="amax[row.index(max(row))]",
        tests=("tests/py/ptq/test_auto.py::test_it_avoids_what_fails_and_is_never_worse",),
    ),
    Mutation(
        name="auto calibration: simulated with FP32 weights",
        file="trtcompile/ptq/auto.py",
        old="int8 = {} if reader.weight is None else",
        new="int8 = {} if True else",
        tests=("tests/py/ptq/test_auto.py::test_the_score_is_that_of_plain_loops",),
    ),
    Mutation(
        name="auto calibration: the first samples are kept",
        file="trtcompile/ptq/input_sample.py",
        old="        for key in sorted(self.rows):\n",
        new="        for key in self.rows:\n",
        tests=(
            "tests/py/ptq/test_input_sample.py::test_order_parts_and_batch_sizes_do_not_matter",
        ),
    ),
    Mutation(
        name="legacy calibration: bin 0 takes part in the regression",
        file="trtcompile/ptq/legacy.py",
        old="    y[0] = -LEVEL\n",
        new="",
        tests=(
            "tests/py/ptq/test_legacy.py::test_the_range_is_tensorrts_on_its_bins[zeros]",
            "tests/py/ptq/test_legacy.py::test_the_rule_value_by_value",
        ),
    ),
    Mutation(
        name="calibration: a thread's share is not counted",
        file="trtcompile/ptq/histogram.py",
        old="for part in flat.chunk(shares)\n",
        new="for part in flat.chunk(shares)[1:]\n",
        tests=("tests/py/ptq/test_histogram.py::test_threads_count_the_same",),
    ),
    Mutation(
        name="precision: a ReLU that others read stays FP32 with its pooling",
        file="trtcompile/precision/pooled_convolution.py",
        old="    while len(node.users) == 1:\n        (node,) = node.users\n",
        new="    while node.users:\n        node = next(iter(node.users))\n",
        tests=("tests/py/precision/test_assign.py::TestPooledConvolutions",),
    ),
    Mutation(
        name="placement: few channels in front of many stay FP16",
        file="trtcompile/ptq/placement/few_channels.py",
        old="pixels < _LEAST_PIXELS or leads_to(",
        new="pixels < _LEAST_PIXELS or not leads_to(",
        tests=("tests/py/ptq/test_placement_rules.py::TestFewChannels",),
    ),
    Mutation(
        name="placement: a vector that an INT8 product computes is not read as INT8",
        file="trtcompile/ptq/placement/one_row.py",
        old="if _is_written_by_int8_convolution(data, situation) or ",
        new="if ",
        tests=("tests/py/ptq/test_placement_rules.py::TestOneRow",),
    ),
    Mutation(
        name="placement: a last layer of one row is INT8 behind linear layers, too",
        file="trtcompile/ptq/placement/one_row.py",
        old="return source.target is not LINEAR and ",
        new="return ",
        tests=(
            "tests/py/ptq/test_placement_rules.py::TestOneRow::test_what_leads_to_large_weights_is_int8",
        ),
    ),
    Mutation(
        name="placement: an INT8 kernel writes a first layer into a concatenation",
        file="trtcompile/ptq/placement/concatenated.py",
        old="                written.append(user)",
        new="                pass",
        tests=(
            "tests/py/ptq/test_placement_concatenated.py::test_what_a_kernel_may_compute_on_the_way[relu]",
            "tests/py/ptq/test_placement_concatenated.py::test_what_a_kernel_may_compute_on_the_way[silu]",
        ),
    ),
    Mutation(
        name="placement: any layer of few channels is no part of a concatenation",
        file="trtcompile/ptq/placement/concatenated.py",
        old=" or is_pointwise or situation.follows_product[data]:",
        new=":",
        tests=(
            "tests/py/ptq/test_placement_concatenated.py::test_other_kernels_write_to_concatenations[one pixel]",
            "tests/py/ptq/test_placement_concatenated.py::test_other_kernels_write_to_concatenations[product in front]",
        ),
    ),
    Mutation(
        name="placement: a first layer in floating point takes its block with it",
        file="trtcompile/ptq/placement/written.py",
        old="    if is_left_out_for_concatenation(value, situation):",
        new="    if False:",
        tests=(
            "tests/py/ptq/test_placement_norms.py::test_a_block_behind_a_first_layer_in_floating_point_is_int8",
        ),
    ),
    Mutation(
        name="output parity: the best sample is told",
        file="trtcompile/output_parity.py",
        old="self._worst = min(self._worst, (one.db, self._samples + place))",
        new="self._worst = max((one.db, self._samples + place), (0.0, 0))",
        tests=("tests/py/test_output_parity.py::test_a_sample_that_is_wrong_shows",),
    ),
    Mutation(
        name="output parity: samples are counted in each batch anew",
        file="trtcompile/output_parity.py",
        old="        self._samples += samples",
        new="        self._samples = samples",
        tests=("tests/py/test_output_parity.py::test_samples_are_counted_through_all_batches",),
    ),
    Mutation(
        name="analysis: channels that were added count",
        file="trtcompile/ptq/padded_channels.py",
        old="    if positions is None:",
        new="    if True:",
        tests=(
            "tests/py/ptq/analysis/test_analyze.py::test_channels_that_were_added_for_whole_vectors_do_not_count",
        ),
    ),
    Mutation(
        name="aligned channels: each part begins where the first does",
        file="trtcompile/ptq/padded_channels.py",
        old="positions += [size + position for position in part.positions]",
        new="positions += list(part.positions)",
        tests=("tests/py/ptq/test_align_channels.py::test_parts_become_whole_vectors[transition]",),
    ),
    Mutation(
        name="aligned channels: what is added has no scale",
        file="trtcompile/ptq/padded_channels.py",
        old="before=quantize, fill=1.0)",
        new="before=quantize)",
        tests=("tests/py/ptq/test_align_channels.py::test_networks_with_wider_parts",),
    ),
    Mutation(
        name="aligned channels: however many zeros it takes",
        file="trtcompile/ptq/align_channels.py",
        old=" <= _MOST_ADDED * sum(counts):",
        new=":",
        tests=(
            "tests/py/ptq/test_align_channels.py::test_how_many_zeros_are_worth_it[more than half]",
        ),
    ),
    Mutation(
        name="aligned channels: channels are shuffled all the same",
        file="trtcompile/ptq/padded_channels.py",
        old="if len(after) != 2 or any(size != 1 for size in before[2:]) or after[1] != before[1]:",
        new="if False:",
        tests=(
            "tests/py/ptq/test_align_channels.py::test_what_channels_would_matter_to[flattened]",
        ),
    ),
    Mutation(
        name="builder: kernels are timed once",
        file="trtcompile/engine.py",
        old="spec.num_avg_timing_iters or _AVG_TIMING_ITERS",
        new="spec.num_avg_timing_iters or 1",
        tests=("tests/py/test_settings.py::TestBuilderOptions::test_num_avg_timing_iters",),
    ),
    Mutation(
        name="compiler: threads do not wait for each other",
        file="trtcompile/one_thread.py",
        old="    with compile_lock:\n        yield\n",
        new="    assert compile_lock\n    yield\n",
        tests=("tests/py/test_threads.py::test_threads_take_turns",),
    ),
    Mutation(
        name="count kernels: what lies between the values of a view is counted",
        file="trtcompile/ptq/histogram.py",
        old="    if values.is_contiguous() or values.is_contiguous(memory_format=torch.channels_last):\n",
        new="    if values.dim() == 4:\n",
        tests=("tests/py/ptq/test_count_kernels.py::test_views",),
    ),
    Mutation(
        name="count kernels: values inside the old range are counted again when it grows",
        file="trtcompile/ptq/count_values.cu",
        old="const unsigned low = beyond ? range_bits(static_cast<int>(counted.previous)) : 0u;",
        new="const unsigned low = 0u;",
        tests=(
            "tests/py/ptq/test_count_kernels.py::test_groups_of_tensors_whose_ranges_grow",
            "tests/py/ptq/test_count_kernels.py::test_zeros_and_extremes",
        ),
    ),
    Mutation(
        name="count kernels: a half's infinity is a number",
        file="trtcompile/ptq/count_values.cu",
        old="if (bits >= 0x7c00u)",
        new="if (bits > 0x7c00u)",
        tests=(
            "tests/py/ptq/test_count_kernels.py::test_nonfinite_values_are_remembered[inf-dtype1]",
        ),
    ),
    Mutation(
        name="count queue: a histogram twice in one group",
        file="trtcompile/ptq/count_queue.py",
        old="if observer in self._waiting:",
        new="if False:",
        tests=(
            "tests/py/ptq/test_count_queue.py::test_tensors_wait_until_a_histogram_comes_again",
        ),
    ),
    Mutation(
        name="collect: the last batch is not checked",
        file="trtcompile/ptq/collect.py",
        old="        graph.check_finite()\n",
        new="",
        tests=("tests/py/ptq/test_collect.py::test_what_is_found_late_names_its_batch[2]",),
    ),
    Mutation(
        name="fp8: what is too large becomes NaN",
        file="trtcompile/float8.py",
        old="return x.clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)",
        new="return x.to(E4M3)",
        tests=("tests/py/conversion/test_quantize_fp8.py::test_computes_what_pytorch_computes",),
    ),
    Mutation(
        name="fp8: a table's scale is used as it is",
        file="trtcompile/ptq/number_format.py",
        old="table_scale * INT8_MAX / self.largest",
        new="table_scale",
        tests=(
            "tests/py/test_fp8_end_to_end.py::test_the_scales_map_the_largest_value_to_448",
            "tests/py/test_fp8_end_to_end.py::test_the_simulation_against_the_definition",
        ),
    ),
    Mutation(
        name="fp8: convolutions too",
        file="trtcompile/ptq/quantize.py",
        old="{node for node in taken if refused[node] is None}",
        new="set(taken)",
        tests=(
            "tests/py/test_fp8_end_to_end.py::test_what_has_no_fp8_kernels_stays_in_floating_point",
        ),
    ),
    Mutation(
        name="fp8: built for GPUs that have none",
        file="trtcompile/engine.py",
        old="_LEAST_FP8 = (8, 9)",
        new="_LEAST_FP8 = (7, 5)",
        tests=("tests/py/test_fp8_end_to_end.py::TestRefusals::test_a_gpu_without_fp8",),
    ),
    Mutation(
        name="int4: the halves of a byte swapped",
        file="trtcompile/conversion/network.py",
        old="packed = nibbles[0::2] | (nibbles[1::2] << 4)",
        new="packed = nibbles[1::2] | (nibbles[0::2] << 4)",
        tests=("tests/py/conversion/test_quantize_int4.py::test_computes_what_pytorch_computes",),
    ),
    Mutation(
        name="int4: one scale for a whole row",
        file="trtcompile/int4_blocks.py",
        old="return (blocks.abs().amax(2) / INT4_MAX)",
        new="return (blocks.abs().amax((1, 2)).reshape(-1, 1).expand(blocks.shape[:2]) / INT4_MAX)",
        tests=("tests/py/conversion/test_quantize_int4.py::test_blocks_against_loops",),
    ),
    Mutation(
        name="simulation: what a kernel writes is not rounded",
        file="trtcompile/simulation.py",
        old="        _write(graph_module, kernel[-1])\n",
        new="",
        tests=(
            "tests/py/test_simulation.py::test_products_are_fp32_up_to_what_their_kernel_writes",
        ),
    ),
    Mutation(
        name="simulation: the activation rounds as an operator of its own",
        file="trtcompile/simulation.py",
        old="if not (is_sum or user.target in _ACTIVATIONS)",
        new="if not is_sum",
        tests=(
            "tests/py/test_simulation.py::test_products_are_fp32_up_to_what_their_kernel_writes",
        ),
    ),
    Mutation(
        name="placement: all tokens are quantized for the one that is read",
        file="trtcompile/ptq/movement.py",
        old="if not only_moves(node) or picks_part(node):",
        new="if not only_moves(node):",
        tests=(
            "tests/py/ptq/test_placement_chains.py::test_what_a_part_is_picked_from_has_no_say_in_its_scale",
        ),
    ),
    Mutation(
        name="native calibrators: the next batch is written while the last is counted",
        file="trtcompile/ptq/native.py",
        old="            torch.cuda.synchronize(request.device)\n            try:",
        new="            try:",
        tests=(
            "tests/py/ptq/test_native.py::test_a_batch_is_done_with_before_the_next_is_written",
        ),
    ),
    Mutation(
        name="upload: a tensor begins anew in the next piece",
        file="trtcompile/ptq/pinned_upload.py",
        old="part.copy_(source[start : start + count])",
        new="part.copy_(source[:count])",
        tests=("tests/py/ptq/test_pinned_upload.py::test_copies_are_equal_and_own_their_memory",),
    ),
    Mutation(
        name="files: a device is replaced by a file",
        file="trtcompile/atomic_files.py",
        old="target.exists() and not target.is_file()",
        new="False",
        tests=("tests/py/test_atomic_files.py::test_what_is_no_file_is_never_replaced",),
    ),
    Mutation(
        name="dictionaries of data: values in the dictionary's order whatever the arguments are called",
        file="trtcompile/compiler.py",
        old="arguments = named_after(names, arguments)",
        new="pass",
        tests=(
            "tests/py/ptq/test_calibration_data.py::TestDictionaries::test_they_are_read_by_the_names_of_the_arguments",
        ),
    ),
    Mutation(
        name="given quantization: a fake quantizer of the user's does what torch.ao's would",
        file="trtcompile/fake_quantizers.py",
        old='if type(module).forward.__module__.startswith("torch."):',
        new="if isinstance(module, torch.ao.quantization.FakeQuantize):",
        tests=(
            "tests/py/test_given_quantization.py::test_a_fake_quantizer_of_ones_own_does_what_its_forward_does",
        ),
    ),
    Mutation(
        name="given quantization: scales along input channels pass for INT8",
        file="trtcompile/ptq/given.py",
        old=" and not _has_scales_along_inputs(node):",
        new=":",
        tests=(
            "tests/py/test_given_quantization.py::test_scales_along_anything_but_output_channels_are_no_int8",
        ),
    ),
    Mutation(
        name="given quantization: what is no scale goes into an engine",
        file="trtcompile/ptq/given.py",
        old="return next((problem for problem in map(problem_of_scale, values) if problem), None)",
        new="return None if values else None",
        tests=("tests/py/test_given_quantization.py::test_what_is_no_scale",),
    ),
    Mutation(
        name="processes: the first is said to be interrupted, whichever was",
        file="trtcompile/ptq/processes.py",
        old="told[dist.get_rank()] = int(interrupted)",
        new="told[0] = int(interrupted)",
        tests=("tests/py/ptq/test_processes.py::test_who_is_interrupted_tells_the_others",),
    ),
    Mutation(
        name="native calibrators: every input has the calibrator's batch size",
        file="trtcompile/ptq/native.py",
        old="given.opt_shape[0] if given.opt_shape[:1] not in ((), (engine_size,)) else size",
        new="size",
        tests=("tests/py/ptq/test_native.py::test_inputs_that_belong_to_the_batch_as_a_whole",),
    ),
    Mutation(
        name="batches: a list of samples is one sample with labels, silently",
        file="trtcompile/ptq/batches.py",
        old="or len(alike) < 2:",
        new="or len(alike) < 9:",
        tests=(
            "tests/py/ptq/test_batches.py::test_a_list_of_samples_is_not_taken_for_one_with_labels_silently",
        ),
    ),
    Mutation(
        name="processes: statistics of different weights are merged",
        file="trtcompile/ptq/processes.py",
        old="if theirs_hash != first_hash:",
        new="if False:",
        tests=("tests/py/ptq/test_processes.py::test_processes_that_do_not_agree",),
    ),
)
