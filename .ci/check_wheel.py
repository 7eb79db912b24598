"""Checks an installed wheel from outside the source tree: check_wheel.py WHEEL."""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from pathlib import Path

import torch._dynamo


def check(condition: bool, what: str) -> None:
    print(f"{'ok' if condition else 'FAILED':<6}  {what}")
    if not condition:
        sys.exit(1)


def main(wheel: str) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in files}
    only_ours = all(f == "trtcompile" or f.endswith(".dist-info") for f in folders)
    check(only_ours, f"the wheel holds the package alone: {', '.join(sorted(folders))}")
    check("trtcompile/py.typed" in files, "the wheel has py.typed")
    check("trtcompile/ptq/count_values.cu" in files, "the wheel has the CUDA source")
    check(any(f.endswith("licenses/LICENSE") for f in files), "the wheel has the licence")

    check("trtcompile" not in sys.modules, "trtcompile is not imported yet")
    check("trt" in torch._dynamo.list_backends(), "torch.compile lists the backend trt")
    backend = torch._dynamo.lookup_backend("trt")
    check(callable(backend), f"the backend loads: {backend.__module__}.{backend.__name__}")

    import trtcompile

    package = Path(trtcompile.__file__).resolve()
    site = Path(sysconfig.get_path("purelib")).resolve()
    check(package.is_relative_to(site), f"trtcompile comes from the wheel: {package}")
    tensorrt = [name for name in sys.modules if name.startswith("tensorrt")]
    check(not tensorrt, f"import trtcompile imports no TensorRT: {tensorrt}")


if __name__ == "__main__":
    main(*sys.argv[1:])
