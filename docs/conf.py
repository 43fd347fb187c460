"""Sphinx configuration; `make docs` builds the site, and warnings are errors."""

import os
from importlib.metadata import version as installed

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # autodoc imports the package; nothing is downloaded

project = "tadp_da"
copyright = "the tadp_da maintainers, Apache-2.0"
version = release = installed("tadp-da")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "examples"]
suppress_warnings = ["myst.header"]  # mini/report.md is generated to be read inside another page

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "tadp_da"
html_theme_options = {"source_directory": "docs/"}
