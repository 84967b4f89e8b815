"""Draw the formulas of the manual as MathML, which a browser shows without script or network.

A formula stands between dollar signs, as on GitHub: `$x$` in a line, `$$x$$` by itself. The
extension `arithmatex` of Markdown marks it, and MkDocs calls `on_page_content` for each page.
"""

import re
from html import unescape

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

MARKED = re.compile(r'(<(?:span|div) class="arithmatex">)\\([(\[])(.*?)\\[)\]]', re.DOTALL)
CONVERTER = LatexToMathML(fancy_error=False)


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Replace the TeX of each formula; a formula that is not valid stops the build."""

    def drawn(match: re.Match[str]) -> str:
        wrapper, bracket, text = match.groups()
        tex = unescape(text).strip()
        try:
            return wrapper + CONVERTER.convert_with_local_state(tex, displaystyle=bracket == "[")
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: formula ${tex}$: {error}") from None

    return MARKED.sub(drawn, html)
