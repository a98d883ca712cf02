"""Web pages to look at without a server or a network: one file, filled by Jinja2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from cmt.io.files import atomic_write


def write_page(path: Path, package: str, template: str, **values: Any) -> None:
    """Fills a template and escapes what users named.

    Args:
      path: the HTML file.
      package: the one whose folder `templates` has the template, which may extend
        `page.html.jinja` and include what is beside that.
      template: its file name.
      **values: what the template names; it may name nothing else.
    """
    packages = (package, "cmt.pictures")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(values)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8"))
