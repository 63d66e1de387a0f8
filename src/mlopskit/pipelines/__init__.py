"""Pipelines: plain functions as steps, run by whichever runner is configured."""

from mlopskit.pipelines.base import CAPABILITIES, Runner
from mlopskit.pipelines.entities import NoValue, PipelineRun, StepRun
from mlopskit.pipelines.graph import Graph, Node, Pipeline, Step, pipeline, step
from mlopskit.pipelines.promises import Promise
from mlopskit.pipelines.scratch import step_folder

__all__ = [
    "CAPABILITIES",
    "Graph",
    "NoValue",
    "Node",
    "Pipeline",
    "PipelineRun",
    "Promise",
    "Runner",
    "Step",
    "StepRun",
    "pipeline",
    "step",
    "step_folder",
]
