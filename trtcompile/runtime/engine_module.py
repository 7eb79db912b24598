"""The submodule through which an executor graph calls an engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trtcompile.engine import Engine
from trtcompile.errors import EngineLoadError
from trtcompile.runtime.compatibility import why_not_runnable
from trtcompile.runtime.session import EngineSession


class EngineModule(nn.Module):
    """Calls an engine; loads it onto the GPU at the first call.

    Args:
        engine: the engine.
        gpu_id: CUDA ordinal of the GPU that runs it.
        use_cuda_graphs: see ``CompileSpec``.
    """

    def __init__(self, engine: Engine, gpu_id: int, *, use_cuda_graphs: bool) -> None:
        super().__init__()
        self.engine = engine
        self._gpu_id = gpu_id
        self._use_cuda_graphs = use_cuda_graphs
        self._session: EngineSession | None = None

    @property
    def why_not_runnable(self) -> str | None:
        """None, or why the engine cannot run on this machine."""
        return why_not_runnable(self.engine.provenance, self._gpu_id)

    def session(self) -> EngineSession:
        """The loaded engine.

        Raises:
            EngineLoadError: the engine cannot run on this machine.
        """
        if self._session is None:
            reason = self.why_not_runnable
            if reason is not None:
                raise EngineLoadError(
                    f"{reason}. Compile the model on the machine that is to run it."
                )
            device = torch.device("cuda", self._gpu_id)
            self._session = EngineSession(
                self.engine, device, use_cuda_graphs=self._use_cuda_graphs
            )
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        """What copies get; a copy loads the engine for itself."""
        return {**self.__dict__, "_session": None}

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the engine; see ``EngineSession.run``."""
        session = self._session or self.session()
        return session.run(inputs)
