"""Outputs that are registered dataclasses, such as those of transformers, come back; nothing is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_compiled import IMAGE, hand_compile, random_arguments, simulate
from loaded_modules import assert_same, saved_and_loaded
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from trtcompile import _tensorrt
from trtcompile.errors import EngineLoadError, UnsupportedGraphError
from trtcompile.runtime.serialization import load, save
from trtcompile.runtime.serialization.json_values import MalformedError, dump, parse
from trtcompile.runtime.serialization.trees import (
    UnsavableError,
    treespec_from_json,
    treespec_to_json,
)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about files: on a GPU machine the same ones must load as elsewhere."""
    monkeypatch.setattr(_tensorrt, "gpu_capability", lambda gpu_id: None)


@dataclass
class Scored:
    scores: Tensor
    extra: Any = None
    hidden: Any = None


torch.export.register_dataclass(Scored)


@dataclass
class Unregistered:
    scores: Tensor


class Returns(nn.Module):
    def forward(self, x: Tensor) -> Any:
        y = torch.relu(x) * 2
        return {"first": Scored(y, hidden=(y + 1, [y - 1])), "second": Scored(y.tanh())}


class ReturnsModelOutput(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(x) * 2
        return self.kind(last_hidden_state=y, hidden_states=(y + 1, y - 1))


def check(model: nn.Module, tmp_path: Path) -> Any:
    module, stand_ins = hand_compile(model, [IMAGE])
    loaded = saved_and_loaded(module, tmp_path / "module")
    assert_same(loaded, module)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "module").read_bytes()
    arguments = random_arguments(module)
    output, expected = simulate(loaded, stand_ins, *arguments), model(*arguments)
    assert type(output) is type(expected)
    assert pytree.tree_structure(output) == pytree.tree_structure(expected)
    for value, wanted in zip(pytree.tree_leaves(output), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(value, wanted)
    return output


def test_a_dataclass(tmp_path: Path) -> None:
    output = check(Returns(), tmp_path)
    assert type(output["first"]) is Scored
    assert output["first"].extra is None and output["second"].hidden is None
    assert len(output["first"].hidden) == 2


def test_an_output_of_transformers(tmp_path: Path) -> None:
    outputs = pytest.importorskip(
        "transformers.modeling_outputs", reason="needs its classes: pip install transformers"
    )
    output = check(ReturnsModelOutput(outputs.BaseModelOutputWithPooling), tmp_path)
    assert output.pooler_output is None
    assert torch.equal(output["last_hidden_state"], output.last_hidden_state)


def test_a_named_tuple_is_refused(tmp_path: Path) -> None:
    from collections import namedtuple

    kind = namedtuple("Pair", "a b")  # noqa: PYI024

    class ReturnsPair(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return kind(x.relu(), x * 2)

    module, _ = hand_compile(ReturnsPair(), [IMAGE])
    with pytest.raises(
        UnsupportedGraphError, match=r"type .*\.Pair\. Return .*registered dataclas"
    ):
        save(module, tmp_path / "module")
    assert list(tmp_path.iterdir()) == []


def through_json(value: Any) -> Any:
    return parse(dump(value))


NAME = f"{Scored.__module__}.Scored"


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"dataclass": [NAME, [["scores"], []]]}, "stands where a dataclass should"),
        ({"dataclass": NAME}, "stands where a list should"),
        ({"dataclass": [3, [], []]}, "3 stands where a string should"),
        ({"dataclass": [f"{__name__}.Unregistered", [["scores"], []], ["*"]]}, "no such dataclass"),
        ({"dataclass": ["os.system", [], ["*"]]}, "no such dataclass"),
        ({"dataclass": ["collections.OrderedDict", [], []]}, "no such dataclass"),
        ({"dataclass": [NAME, [["scores"], []], "*"]}, "stands where a list should"),
    ],
)
def test_other_descriptions_are_refused(value: Any, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        treespec_from_json(through_json(value))


def test_two_classes_of_one_name_are_refused() -> None:
    kinds = []
    for index in range(2):

        @dataclass
        class Twice:
            x: Tensor

        torch.export.register_dataclass(Twice, serialized_type_name=f"twice.{index}")
        kinds.append(Twice)
    value = treespec_to_json(pytree.tree_structure(kinds[0](torch.zeros(1))))
    with pytest.raises(MalformedError, match="more than one is registered"):
        treespec_from_json(value)
    for kind in kinds:
        pytree._deregister_pytree_node(kind)


def test_a_context_that_is_no_json_is_refused() -> None:
    @dataclass
    class Odd:
        x: Tensor

    pytree.register_pytree_node(
        Odd,
        lambda odd: ([odd.x], {1, 2}),
        lambda values, _: Odd(*values),
        serialized_type_name="odd.Odd",
    )
    with pytest.raises(UnsavableError, match=r"Odd of \{1, 2\}"):
        treespec_to_json(pytree.tree_structure(Odd(torch.zeros(1))))
    pytree._deregister_pytree_node(Odd)


DEFINES = """
import torch
from dataclasses import dataclass

@dataclass
class Answer:
    value: torch.Tensor

torch.export.register_dataclass(Answer, serialized_type_name="answers.Answer")
"""


def test_the_class_has_to_be_there_and_is_not_imported(tmp_path: Path) -> None:
    """A file cannot make ``load`` import a module, even one that is there."""
    (tmp_path / "answers.py").write_text(DEFINES)
    sys.path.insert(0, str(tmp_path))
    try:
        from answers import Answer  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))

    class Answers(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return Answer(x.relu() * 2)

    module, _ = hand_compile(Answers(), [IMAGE])
    path = tmp_path / "module"
    save(module, path)
    assert load(path).out_spec == module.out_spec
    code = (
        "import json, sys\n"
        "from trtcompile import EngineLoadError, load\n"
        "try: load(sys.argv[1])\n"
        "except EngineLoadError as error: message = str(error)\n"
        "imported = 'answers' in sys.modules\n"
        "import answers\n"
        "spec = load(sys.argv[1]).out_spec\n"
        "print(json.dumps([message, imported, spec.type is answers.Answer]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
    )
    message, imported, right = json.loads(done.stdout.splitlines()[-1])
    assert "answers.Answer, and no such dataclass is registered" in message
    assert "Import the module that defines and registers it before loading" in message
    assert not imported and right
    pytree._deregister_pytree_node(Answer)
    with pytest.raises(EngineLoadError, match=r"answers\.Answer"):
        load(path)
