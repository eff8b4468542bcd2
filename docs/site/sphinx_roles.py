"""Let the API pages show the docstrings' references and blocks, which are written as for Sphinx."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")


class SphinxRoles(Extension):
    """Turns ``:class:`package.Name``` into code with the last part of the name."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of an object as it is read."""
        if obj.docstring:
            text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", obj.docstring.value)
            obj.docstring.value = re.sub(r"::\n\n", ":\n\n", text)
