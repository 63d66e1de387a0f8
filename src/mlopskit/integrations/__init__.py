"""mlopskit seen from other people's trainers: one module for each, imported by its own name.

``from mlopskit.integrations.lightning import MlopskitLogger`` needs Lightning, and nothing else
here does.
"""
