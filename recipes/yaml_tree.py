"""A YAML file as a tree in which every part knows its line.

As editors read it (YAML 1.2): `off` and `no` are words, `010` is ten and `1:30` is text. Anchors,
aliases and merge keys mean what they do elsewhere, within bounds: a file of a few lines can stand
for more than any memory holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from fluxconv.converters.visible import visible
from fluxconv.recipes.problems import Place, Problem

#: Mappings and lists within one another; a recipe has four.
_DEEPEST = 30
#: Parts of a file with its aliases written out; a release of a hundred checkpoints has a tenth.
_MOST_PARTS = 20_000
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
#: What a plain word may be, in this order, and its first characters, as PyYAML wants to know them.
_RESOLVED = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    ),
    ("merge", re.compile(r"^<<$"), ["<"]),
)


class Unreadable(Exception):
    """The file is no YAML that is read here; `problem` says where and why."""

    def __init__(self, sentence: str, line: int | None = None) -> None:
        super().__init__(sentence)
        self.problem = Problem(sentence, line=line)


@dataclass
class Branch:
    """A mapping (values by key), a list, or a scalar, and the line where it, or its key, stands."""

    value: dict[str, Branch] | list[Branch] | Any
    line: int

    def plain(self) -> Any:
        """The data alone."""
        if isinstance(self.value, dict):
            return {key: branch.plain() for key, branch in self.value.items()}
        if isinstance(self.value, list):
            return [branch.plain() for branch in self.value]
        return self.value

    def lines(self, place: Place = ()) -> Iterator[tuple[Place, int]]:
        """The line of every part of it."""
        yield place, self.line
        if isinstance(self.value, dict):
            for key, branch in self.value.items():
                yield from branch.lines((*place, key))
        elif isinstance(self.value, list):
            for number, branch in enumerate(self.value):
                yield from branch.lines((*place, number))


def read_tree(text: str) -> tuple[Branch, list[Problem]]:
    """The one document in `text`, and what is wrong with it though it can be read: keys that are
    given twice, or are no words. Raises `Unreadable`."""
    try:
        node = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(_syntax(error), mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Unreadable(f"holds {chr(error.character)!a}, which is no text", line) from None
    if node is None:
        raise Unreadable("is empty; `fluxconv recipe init` writes one to begin with")
    growing = _Growing()
    return growing.branch(node, node.start_mark.line + 1), growing.problems


class _Composer(yaml.SafeLoader):
    """Nodes with the words of YAML 1.2; an alias is a node of its own, with its own line."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Unreadable("is nested too deeply for a recipe", event.start_mark.line + 1)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            # The same content, which is what tells that an alias stands within itself.
            node = type(node)(node.tag, node.value, event.start_mark, event.end_mark)
        return node


for _name, _pattern, _first in _RESOLVED:
    _Composer.add_implicit_resolver(f"{_TAG}{_name}", _pattern, _first)


class _Growing:
    """Branches from nodes, in one go, with what is wrong on the way."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._parts = 0
        self._open: set[int] = set()

    def branch(self, node: yaml.Node, line: int) -> Branch:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Unreadable(
                f"stands for more than {_MOST_PARTS} values, once its aliases are written out",
                line,
            )
        if isinstance(node, yaml.ScalarNode):
            return Branch(self._scalar(node, line), line)
        if id(node.value) in self._open:
            raise Unreadable("an alias stands within what it stands for", line)
        self._open.add(id(node.value))
        value: dict[str, Branch] | list[Branch]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            value = self._mapping(node)
        elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            value = [self.branch(each, each.start_mark.line + 1) for each in node.value]
        else:
            raise Unreadable(
                f"has the tag {visible(node.tag)}, which a recipe has no use for", line
            )
        self._open.remove(id(node.value))
        return Branch(value, line)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Branch]:
        found: dict[str, Branch] = {}
        merged: dict[str, Branch] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                for name, branch in self._merged(value, line):
                    merged.setdefault(name, branch)
                continue
            if not (isinstance(key, yaml.ScalarNode) and key.tag == f"{_TAG}str" and key.value):
                self.problems.append(Problem("a key must be a word", line=line))
                continue
            if key.value in found:
                first = found[key.value].line
                said = f"the key '{visible(key.value)}' is given twice, first in line {first}"
                self.problems.append(Problem(said, line=line))
                continue
            found[key.value] = self.branch(value, line)
        return {**merged, **found}

    def _merged(self, node: yaml.Node, line: int) -> Iterator[tuple[str, Branch]]:
        """What `<<` brings in; of several mappings the first that has a key wins."""
        branch = self.branch(node, line)
        for each in branch.value if isinstance(branch.value, list) else [branch]:
            if not isinstance(each.value, dict):
                raise Unreadable("`<<` takes an alias of keys and values", line)
            yield from each.value.items()

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = node.value
        match node.tag.removeprefix(_TAG):
            case "str" | "merge":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return self._number(text, line)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        said = f"has the tag {visible(node.tag)}, which a recipe has no use for"
        raise Unreadable(said, line)

    @staticmethod
    def _number(text: str, line: int) -> int:
        try:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        except ValueError:  # an explicit tag, or more digits than Python reads
            raise Unreadable(f"'{visible(text)}' is no number", line) from None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """The parser's complaint on one line. It speaks of YAML's grammar; the commonest slips get a
    sentence of their own."""
    said = f"{error.problem or error.context}"
    if "\\t" in said:
        return "is not valid YAML: a line begins with a tab; use spaces"
    if "expected a single document" in f"{error.context}":
        return "holds several documents; a recipe is one, without a line of `---` between parts"
    return f"is not valid YAML: {visible(said, 200)}"
