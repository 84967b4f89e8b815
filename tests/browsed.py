"""What tests of pages look for in a browser: readable colours, and a page in a frame."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

READABLE = 4.5  # contrast of WCAG 2.1, level AA
WIDTHS = (1280, 390)
RGB = tuple[float, float, float]
# JavaScript: opens all details; `texts` are the visible ones with their colours, `box` a place.
TEXTS = """
  const rgba = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const box = (el) => {
    const b = el.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom];
  };
  const grounds = (el) => {
    const layers = [];
    for (let at = el; at; at = at.parentElement) {
      layers.push(rgba(getComputedStyle(at).backgroundColor));
    }
    return layers.filter((c) => c[3] > 0);
  };
  for (const one of document.querySelectorAll("details")) one.open = true;
  const texts = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const el = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (text && el.checkVisibility() && !["SCRIPT", "STYLE", "OPTION"].includes(el.tagName))
      texts.push([text, rgba(getComputedStyle(el).color), grounds(el)]);
  }
"""


def luminance(color: RGB) -> float:
    """Relative luminance of WCAG 2.1."""
    parts = [c / 255 for c in color]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: RGB, other: RGB) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def mixed(top: RGB, share: float, base: RGB) -> RGB:
    r, g, b = (share * a + (1 - share) * c for a, c in zip(top, base, strict=True))
    return r, g, b


@contextmanager
def framed(browser: Any, address: str, folder: Path) -> Iterator[Any]:
    """A page in a sandboxed frame, as MLflow shows it; no error may come of what is done to it."""
    outer = folder / "outer.html"
    outer.write_text(f'<iframe sandbox="allow-scripts" src="{address}" width=1100 height=800>')
    tab = browser.new_page()
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(outer.as_uri())
    frame = tab.frames[1]
    frame.wait_for_selector("html[data-ready=true]", state="attached", timeout=60_000)
    yield frame
    assert not complaints
    tab.close()
