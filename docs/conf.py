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
exclude_patterns = ["_build", "examples", "mini/report.md"]  # the report is included in results.md
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # it writes np.bool_ as a link; autodoc adds the types itself
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "tadp_da"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
