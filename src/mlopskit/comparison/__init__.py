"""Compares tools: one recorded workload through each tool's own client, and through mlopskit."""

from mlopskit.comparison.measure import compare
from mlopskit.comparison.result import ToolComparison, ToolResult, Verdict

__all__ = ["ToolComparison", "ToolResult", "Verdict", "compare"]
