"""The site: `sphinx-build -W docs site`. Formulas become MathML, which browsers draw without a script."""

import re
import sys
from pathlib import Path

from docutils.nodes import Element, SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from t2v_lightning import __version__

sys.path.insert(0, str(Path(__file__).parent))
from generated_pages import notebook_page, settings_page

project = "t2v_lightning"
release = __version__
html_title = "t2v_lightning"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]
smartquotes = False
default_role = "code"  # what docstrings put between single backticks

autodoc_type_aliases = {name: name for name in ("ArrayLike", "Embeddings", "Matrix", "NDArray")}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
add_module_names = False
napoleon_use_rtype = False
napoleon_use_ivar = True


ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NOTEBOOK = ROOT / "notebooks" / "small_datasets_example.ipynb"


def readme_as_home(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts the README before what index.md has, its links as seen from this folder."""
    if page == "index":
        app.env.note_dependency(README)
        notebook = NOTEBOOK.relative_to(ROOT).as_posix()
        text = README.read_text().replace(f"]({notebook})", "](docs/notebook.md)")
        text = re.sub(r"\]\((?!https?:|docs/)(\w+/)", r"](../\1", text)
        text = re.sub(r"\]\(([A-Z]+\.md)\)", lambda link: f"]({link[1].lower()})", text)
        source[0] = text.replace("](docs/", "](") + source[0]


def generated(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts what other files say after the first lines of two pages."""
    if page == "settings":
        for file in (ROOT / "configs").rglob("*.yaml"):
            app.env.note_dependency(file)
        source[0] += settings_page()
    if page == "notebook":
        app.env.note_dependency(NOTEBOOK)
        source[0] += notebook_page(NOTEBOOK)


def formula_in_text(html: HTML5Translator, node: Element) -> None:
    html.body.append(tex2mathml(node.astext()))
    raise SkipNode


def formula_of_its_own(html: HTML5Translator, node: Element) -> None:
    html.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (formula_in_text, None), (formula_of_its_own, None))
    app.config.html_math_renderer = "mathml"  # type: ignore[attr-defined]
    app.connect("source-read", readme_as_home)
    app.connect("source-read", generated)
