"""A repository in which every word tries to do something on the page that shows it."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from PIL import Image

METADATA = """---
license: other
license_name: "<script>alert('licence')</script>"
license_link: "javascript:alert(1)"
base_model: ["<img src=x onerror=alert(2)>", black-forest-labs/FLUX.1-dev]
pipeline_tag: text-to-image
library_name: "\\"><svg onload=alert(3)>"
tags: ["{{ 7 * 7 }}", "a</li></ul></main><script>alert(4)</script>"]
extra_gated_prompt: "<script>alert(5)</script> [agree](javascript:alert(5))"
widget:
- text: '" onerror="alert(6)'
  output: {url: ../../../../etc/passwd}
- text: elsewhere
  output: {url: "https://other.invalid/x.png"}
- text: at home
  output: {url: images/a%20b.png}
---
"""
TEXT = """# Hostile <script>alert(7)</script>

<script>document.title = "taken"</script><img src=x onerror=alert(8)>
<a href="javascript:alert(9)">click</a> [click](javascript:alert(9))
<a href="java&#9;script:alert(9)">x</a>
<iframe src="https://other.invalid"></iframe><object data="x"></object><embed src="x">
<form action="https://other.invalid"><input name="token"><button>Send</button></form>
<style>body { display: none }</style><link rel="stylesheet" href="https://other.invalid/x.css">
<div style="position:fixed;inset:0;background:red" id="main" class="bar skip">over</div>
<base href="https://other.invalid/"><meta http-equiv="refresh" content="0;url=https://other.invalid">
<svg><script>alert(10)</script><foreignObject><img src=x onerror=alert(11)></foreignObject></svg>
</div></article></main></body>

![outside](https://other.invalid/pixel.png) ![proto](//other.invalid/pixel.png)
[![badge](https://other.invalid/badge.svg)](https://other.invalid/) ![up](../../secret.png)
![at home](images/a%20b.png) ![bad](http://[::1) ![](/\\\\other.invalid/x.png)

<b onmouseover="alert(12)" onfocus=alert(12) tabindex=1 autofocus>b</b>
<table><tr><td background="https://other.invalid/t.png">cell</td></tr></table>
<video src="https://other.invalid/v.mp4" autoplay></video>
<img srcset="https://other.invalid/s.png 1x" src="images/a%20b.png">
<picture><source srcset="https://other.invalid/p.png"><img src="images/x.svg"></picture>

```python
x = "</code></pre><script>alert(13)</script>"
```

```<script>alert(14)</script>
y
```

<Gallery />

The last words.

<math><mtext><table><mglyph><style><!--</style>
<img title="--&gt;&lt;img src=1 onerror=alert(15)&gt;">
"""
SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50">
<script>alert(16)</script><rect width="50" height="50" onload="alert(17)" fill="teal"/></svg>"""
#: Names that a page might take for more than names.
NAMES = (
    "a<b onclick=alert(18)>\"'&.txt",
    "\u202etxt.exe",
    "javascript:alert(19)",
    "%2e%2e",
    "?x#y",
)
COMMIT = "Add <script>alert(20)</script> \u202e{{ 7 * 7 }}"


def hostile_files() -> dict[str, bytes]:
    """The whole repository."""
    picture = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 90, 40)).save(picture, "PNG")
    script = b"<script>alert(21)</script>"
    return {
        "README.md": (METADATA + TEXT).encode(),
        "images/a b.png": picture.getvalue(),
        "images/x.svg": SVG,
        "page.html": script,
        "broken.png": script,
        **dict.fromkeys(NAMES, script),
    }


class Elements(HTMLParser):
    """Every element of a page, with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
