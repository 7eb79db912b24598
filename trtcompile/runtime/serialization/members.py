"""What the members of a saved module are called."""

SIGNATURE = "signature.json"
"""Arguments, their names, and the structures of inputs and outputs."""

CALIBRATION = "calibration.json"
"""The calibration table, or null."""

REPORT = "report.json"
"""The partition report, or null."""

ENGINES = "engines.json"
"""All of the engines but their plans, in the order in which they run."""

EXECUTOR = "executor.json"
"""The graph of the PyTorch remainder, and dtype and shape of its constants."""

PLAN = "plans/{}.plan"
"""TensorRT's serialized engine, by position in ``ENGINES``."""

CONSTANT = "constants/{}.bin"
"""The elements of a constant, by position in ``EXECUTOR``."""
