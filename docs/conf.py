"""Sphinx configuration."""

from importlib.metadata import version as _version

project = "mlopskit"
author = "The mlopskit developers"
copyright = "The mlopskit developers, Apache-2.0"
release = _version("mlopskit")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = True
suppress_warnings = ["ref.python"]  # Two rooms have a TensorSpec each, and mean their own.

html_theme = "furo"
html_title = f"mlopskit {release}"
html_static_path = ["_static"]
