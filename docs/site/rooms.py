"""Write the sections of api/modules.md while the site is built: one for each room."""

from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[2] / "mmvanilla"
_SECTION = """
## mmvanilla.{room}

::: mmvanilla.{room}
    options:
      show_root_heading: false
      show_root_toc_entry: false
      show_submodules: true
      heading_level: 3
"""


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Add the sections to the page on modules; MkDocs calls this for every page."""
    if page.file.src_uri != "api/modules.md":
        return markdown
    rooms = sorted(path.parent.name for path in _PACKAGE.glob("*/__init__.py"))
    return markdown + "".join(_SECTION.format(room=room) for room in rooms)
