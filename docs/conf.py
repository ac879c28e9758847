"""The documentation: ``tox run -e docs`` builds it into ``docs/_build/html``.

It needs no network. Set ``SKNSGF_INTERSPHINX=1`` to link to the documentation of other projects.
"""

import os
import sys
from datetime import date
from pathlib import Path

import sknsgf

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
os.environ.setdefault("MPLBACKEND", "Agg")

project = "sknsgf"
author = "the sknsgf developers"
copyright = f"{date.today().year}, {author}"
version = release = sknsgf.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "benchmark_tables",
    "literal_links",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
nitpicky = True
default_role = "literal"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# API reference

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # the docstrings say it with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Names of other projects, which are links only when their inventories are fetched.
if os.environ.get("SKNSGF_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }
else:
    nitpick_ignore_regex = [("py:.*", r"(sklearn|torch|numpy|matplotlib|joblib|pandas)\..*")]

# Gallery

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": [
        f"../examples/{section}" for section in ("synthetic", "pictures", "pipelines", "extending")
    ],
    "within_subsection_order": "gallery.ExampleOrder",
    "filename_pattern": r"plot_",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sknsgf",),
    "write_computation_times": False,  # each page has its own
    "matplotlib_animations": True,
    "capture_repr": (),  # what a page shows it draws or prints
    "reset_modules": ("matplotlib", "gallery.quiet_progress_bars"),
    "remove_config_comments": True,
    "show_memory": False,
    "plot_gallery": os.environ.get("SKNSGF_GALLERY", "1") == "1",
    "abort_on_example_error": False,
    "nested_sections": True,
}

# Pages

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["sknsgf.css"]
html_title = "sknsgf"
html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {
    "index": [],
    "auto_examples/index": [],
    "install": [],
    "tutorial": [],
    "method": [],
    "benchmarks": [],
}
html_theme_options = {
    "logo": {
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
        "text": "sknsgf",
    },
    "show_prev_next": True,
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
