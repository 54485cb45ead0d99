"""The page on choosing a backend has them all, with the sizes that `fluxconv recommend` has."""

from __future__ import annotations

import re

from documented import DOCS

from fluxconv.converters.backends import all_backends
from fluxconv.validators import of_flux_dev

PAGE = (DOCS / "choosing.md").read_text("utf-8")


def test_every_backend_is_in_the_table() -> None:
    table = PAGE.partition("## All backends")[2].partition("\n## ")[0]
    assert set(re.findall(r"`((?:bnb|torchao|quanto|fp8|gguf)-[\w-]+)`", table)) == set(
        all_backends()
    )


def test_sizes_are_those_that_are_recommended_by() -> None:
    sizes = {each.backend.name: each.size / 1e9 for each in of_flux_dev("cuda")}
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.]+)(?: to ([\d.]+))? GB \| ([^|]+) \| ([^|]*)\|", PAGE, re.M
    )
    checked = 0
    for least, most, take, other in rows:
        for name in re.findall(r"`([\w-]+)`", f"{take} {other}"):
            if name in sizes and name in take:
                assert float(least) - 0.06 < sizes[name] < float(most or least) + 0.06, name
                checked += 1
    assert checked >= 8
