"""Which operators go into engines, and why the others do not."""

from trtcompile.partition.report import NodeRow, PartitionReport, PlacementRow, make_report
from trtcompile.partition.split import EnginePartition, PartitionedGraph, partition
from trtcompile.partition.support import Verdicts, judge, left_by_option

__all__ = [
    "EnginePartition",
    "NodeRow",
    "PartitionReport",
    "PartitionedGraph",
    "PlacementRow",
    "Verdicts",
    "judge",
    "left_by_option",
    "make_report",
    "partition",
]
