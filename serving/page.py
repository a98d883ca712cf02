"""A web page of predictions to look through: one file, no server, no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

PAGE_FILE = "index.html"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Predictions</title>
<style>
body {{ font: 14px sans-serif; margin: 1em }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr));
  gap: 1em }}
figure {{ margin: 0 }}
img {{ width: 100%; height: 320px; object-fit: contain; background: #eee }}
figcaption {{ overflow-wrap: anywhere }}
td {{ padding-right: 1em }}
</style>
<h1>Predictions of {number} images</h1>
<p><label>Show images with <select id="class"><option value="">anything</option>
{options}
</select></label> <span id="shown"></span></p>
<main>
{figures}
</main>
{skipped}
<script>
const choice = document.getElementById("class");
function show() {{
  let shown = 0;
  for (const figure of document.querySelectorAll("figure")) {{
    const fits = !choice.value
      || JSON.parse(figure.dataset.classes).includes(Number(choice.value));
    figure.hidden = !fits;
    shown += fits;
  }}
  document.getElementById("shown").textContent = shown + " shown";
}}
choice.addEventListener("change", show);
show();
</script>
</html>
"""


def results_page(
    images: Sequence[Mapping[str, Any]], skipped: Sequence[Mapping[str, str]]
) -> str:
    """Makes the page: overlays with their segments, which a class can be chosen of.

    Args:
      images: the entries of "images" in predictions.json, with overlays.
      skipped: the entries of "skipped".
    """
    names = {s["category_id"]: s["category"] for i in images for s in i["segments"]}
    options = (
        f'<option value="{number}">{html.escape(name)}</option>'
        for number, name in sorted(names.items(), key=lambda item: item[1].casefold())
    )
    rows = [_row(entry["file"], entry["reason"]) for entry in skipped]
    table = f"<h2>Not read</h2>\n<table>{''.join(rows)}</table>" if rows else ""
    return _PAGE.format(
        number=len(images),
        options="\n".join(options),
        figures="\n".join(map(_figure, images)),
        skipped=table,
    )


def _figure(entry: Mapping[str, Any]) -> str:
    picture, file = quote(entry["overlay"]), html.escape(entry["file"])
    height, width = entry["size"]
    classes = sorted({segment["category_id"] for segment in entry["segments"]})
    rows = (
        _row(segment["category"], f"{segment['score']:.2f}", f"{segment['area']} px")
        for segment in entry["segments"]
    )
    return (
        f'<figure data-classes="{classes}"><a href="{picture}">'
        f'<img loading="lazy" src="{picture}" alt="{file}"></a>\n'
        f"<figcaption>{file}, {width} x {height}<details><summary>"
        f"{len(entry['segments'])} segments</summary><table>{''.join(rows)}</table>"
        "</details></figcaption></figure>"
    )


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
