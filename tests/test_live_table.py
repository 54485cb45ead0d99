"""The table of a run as it goes on: what is at work is seen on every terminal, with whole names."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from fluxconv.commands.live import LiveTable
from fluxconv.recipes.executors.base import Progressed
from fluxconv.recipes.graph import Graph, Node
from fluxconv.recipes.markers import Marker, State

VARIANTS = [f"flux-1-dev-gguf-q{number}_k_m-importance-1a2b3c4d" for number in range(40)]


def graph() -> Graph:
    first = [Node(f"{kind}.flux-1-dev", kind) for kind in ("fetch", "quantize", "reference")]
    rest = [Node(f"{kind}.{name}", kind) for name in VARIANTS for kind in ("validate", "card")]
    return Graph([*first, *rest, Node("publish.release", "publish")])


def shown(states: dict[str, State], lines: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the table on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", str(lines))
    table = LiveTable()
    table.began(graph())
    for id, state in states.items():
        table.changed(Marker(id, state), earlier=False)
        if state == "running":
            table.progressed(Progressed(id, "start", ("Draw", 4)))
            table.progressed(Progressed(id, "advance", (1,)))
    console = Console(file=StringIO(), width=80, height=lines)
    with console.capture() as captured:
        console.print(table._render())
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("lines", [8, 24, 50, 100])
def test_what_is_at_work_is_seen_on_a_terminal_of_any_height(
    lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [f"{kind}.{name}" for name in VARIANTS[:30] for kind in ("validate", "card")]
    states: dict[str, State] = dict.fromkeys(done, "done")
    states[f"validate.{VARIANTS[31]}"] = "running"
    states[f"validate.{VARIANTS[35]}"] = "failed"
    found = shown(states, lines, monkeypatch)
    assert len(found) < lines
    (row,) = [line for line in found if line.startswith(VARIANTS[31])]
    assert "… validate" in row and "· card" in row
    assert any(line.startswith(VARIANTS[35]) and "✗ validate" in line for line in found)
    assert found[-1].startswith(f"validate.{VARIANTS[31]}: Draw 25 %")
    names = [line for line in found if line.startswith("flux-1-dev-")]
    assert names == sorted(names, key=lambda line: VARIANTS.index(line.split()[0]))
    if lines < 43:
        hidden = len(VARIANTS) + 2 - len([line for line in found[:-2] if line])
        over = 30 - sum("✓ card" in line for line in found)
        assert found[-2] == f"and {hidden} more, {over} with all done"
    else:
        assert len(names) == len(VARIANTS)
