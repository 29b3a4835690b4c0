"""Chat templates read as what they are, programs: equal or not, and what one does that another does not.

A template is parsed with Jinja's own parser and never rendered or compiled. Two templates that differ in
comments or in white space inside their tags are equal; white space outside is output, and counts.

Not covered: whether a changed text is harmful, and loaders with a template language of their own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser

MAX_TEMPLATE = 256 << 10
"""Characters; the longest real ones have 20 000."""
MAX_TOKENS = 16_000
"""As Jinja's lexer counts them; parsed in 1 s. The longest real templates have 5 000."""
MAX_LOOKS = 500_000
"""Nodes looked at for the words of a message, in half a second; real templates take some thousands."""
MAX_LOOPS = 4
"""Loops in one another; real templates walk messages, calls, arguments."""
_MAX_REPEAT = 100_000
"""Characters that `"A" * n`, `center(n)` and the like may make."""
_PRIVATE = re.compile(r"__\w+__")
_GADGETS = frozenset({"cycler", "joiner", "lipsum", "self", "get_flashed_messages", "url_for"})
"""Globals of template engines that no chat template needs and that lead to Python's own."""
_CONTENT = frozenset({"content", "text", "prompt", "reasoning_content"})
"""Keys of a message under which somebody else's words lie."""
_MATCHERS = frozenset(
    {"startswith", "endswith", "find", "index", "count", "split", "rfind", "partition", "replace"}
)
_PADDERS = frozenset({"center", "ljust", "rjust", "zfill", "indent"})
_MARKUP = re.compile(
    r"\s*(?:</?[\w| :-]+/?>|\[/?[\w ]+\]|(?:<\|[^|]*\|>\w*)+|/(?:no_?)?think|[^A-Za-z]*)\s*", re.ASCII
)
"""`</think>`, `[INST]`, `<|im_end|>`, punctuation: what templates take a message's own structure from.
And `/no_think`, by which users of many models switch reasoning off."""
_STRUCTURE = frozenset({"type", "role"})
"""Keys of a message's parts that say what they are; nobody's words."""
_KINDS = frozenset(
    {
        "type",
        "text",
        "image",
        "image_url",
        "video",
        "audio",
        "input_audio",
        "file",
        "tool_call",
        "tool_result",
    }
)
"""What a part of a message is or holds; templates look for them among its keys."""


class _Generation(Extension):
    """transformers' `{% generation %}` block, which marks what the model wrote and changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja types it as a set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_ENVIRONMENT = Environment(  # noqa: S701 - nothing is rendered
    trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation]
)


@dataclass(frozen=True, slots=True)
class Hazard:
    """What a template does beyond the original's: the id of a finding, and a note in ASCII."""

    id: str
    """`unsafe-template`, `template-trigger` or `odd-template`."""
    note: str


@dataclass(frozen=True, slots=True)
class ParsedTemplate:
    """What the tree of one template shows."""

    canonical: str
    """Equal for two templates that output the same for all inputs by their trees alone."""
    reaches: frozenset[str] = frozenset()
    """Private attributes, other templates and gadgets that it reaches for."""
    triggers: frozenset[str] = frozenset()
    """Literals that it looks for in the words of a message."""
    costs: frozenset[str] = frozenset()
    """Ways to take more time or memory than any conversation needs."""
    unknown: frozenset[str] = frozenset()
    """Filters and tests that Jinja does not have."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A template that cannot be judged, and why."""

    reason: str


def parse_template(text: str) -> ParsedTemplate | Unparsed:
    """Parse a template; bounded in size, and in depth by Python's own limit of recursion."""
    if len(text) > MAX_TEMPLATE:
        return Unparsed(f"{len(text)} characters, more than {MAX_TEMPLATE}")
    try:
        if any(islice(_ENVIRONMENT.lexer.tokeniter(text, None), MAX_TOKENS, None)):
            return Unparsed(f"more than {MAX_TOKENS} tokens")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes such as \d, of which Python's own decoder complains
            tree = Parser(_ENVIRONMENT, text).parse()
        found = _Reading({macro.name: macro for macro in tree.find_all(nodes.Macro)})
        found.walk(tree, loops=0)
        found.walk(tree, loops=0)  # what a macro is called with is known only behind it
        return ParsedTemplate(
            _canonical(tree),
            frozenset(found.reaches),
            frozenset(found.triggers),
            frozenset(found.costs),
            frozenset(found.unknown),
        )
    except TemplateSyntaxError as error:
        return Unparsed(f"does not parse: {error.message}")
    except (RecursionError, ValueError, OverflowError) as error:
        return Unparsed(f"does not parse ({type(error).__name__})")


def same_template(first: str, second: str) -> bool:
    """Whether two templates are the same text, or the same tree."""
    if first == second:
        return True
    one, other = parse_template(first), parse_template(second)
    return (
        isinstance(one, ParsedTemplate)
        and isinstance(other, ParsedTemplate)
        and (one.canonical == other.canonical)
    )


def hazards(text: str, originals: tuple[str, ...]) -> tuple[Hazard, ...]:
    """What a template does that none of the original's templates does, most dangerous first."""
    parsed = parse_template(text)
    if isinstance(parsed, Unparsed):
        return (Hazard("odd-template", _line(parsed.reason)),)
    known = [other for own in originals if isinstance(other := parse_template(own), ParsedTemplate)]
    found = list[Hazard]()
    for identifier, note, name in (
        ("unsafe-template", "reaches for {}", "reaches"),
        ("unsafe-template", "has {}", "costs"),
        ("template-trigger", "looks for {} in the words of a message", "triggers"),
        ("odd-template", "uses {}, which Jinja does not have", "unknown"),
    ):
        fresh: set[str] = set(getattr(parsed, name))
        fresh.difference_update(*(getattr(other, name) for other in known))
        if fresh:
            shown = ", ".join(sorted(fresh)[:4])
            found.append(Hazard(identifier, _line(note.format(shown))))
    return tuple(found)


@dataclass(slots=True)
class _Reading:
    """Walks over a tree."""

    macros: dict[str, nodes.Macro]
    reaches: set[str] = field(default_factory=set)
    triggers: set[str] = field(default_factory=set)
    costs: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    _looks: int = MAX_LOOKS
    _words: set[str] = field(default_factory=set)
    """Names of variables that hold the words of a message; `name.attribute` in a namespace."""

    def walk(self, node: nodes.Node, loops: int) -> None:
        loops += isinstance(node, nodes.For)
        if loops > MAX_LOOPS:
            self.costs.add(f"more than {MAX_LOOPS} loops in one another")
        self._see(node)
        for child in node.iter_child_nodes():
            self.walk(child, loops)

    def _see(self, node: nodes.Node) -> None:
        self._see_words(node)
        self._see_reach(node)
        match node:
            case nodes.Filter(name=name):
                self._see_filter(node, name)
            case nodes.Test(name=name):
                self._see_test(node, name)
            case nodes.Compare():
                self._see_comparison(node)
            case nodes.Call(node=nodes.Getattr(node=value, attr=name)):
                self._see_call(node, value, name)
            case nodes.Call(node=nodes.Name(name="range")):
                self._see_numbers(node.args)
            case nodes.Mul(left=left, right=right):
                self._see_product(left, right)

    def _see_words(self, node: nodes.Node) -> None:
        """Where the words of a message go."""
        match node:
            case nodes.Assign(target=target, node=value) if self._is_words(value):
                self._words.add(_variable(target))
            case nodes.AssignBlock(target=target, body=body) if any(map(self._is_words, body)):
                self._words.add(_variable(target))
            # Over words that were taken apart; the parts of a message as it came have types and keys.
            case nodes.For(target=target, iter=nodes.Call() | nodes.Filter() as value) if self._is_words(
                value
            ):
                self._words.add(_variable(target))
            case nodes.Call(node=nodes.Name(name=name)) if name in self.macros:
                handed = zip(self.macros[name].args, node.args, strict=False)
                self._words.update(target.name for target, value in handed if self._is_words(value))

    def _see_reach(self, node: nodes.Node) -> None:
        match node:
            case nodes.Getattr(attr=name) if name.startswith("_"):
                self.reaches.add(name)
            case nodes.Name(name=name) if name in _GADGETS or name.startswith("__"):
                self.reaches.add(name)
            case nodes.Const(value=str(text)):
                self.reaches.update(_PRIVATE.findall(text))
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
                self.reaches.add("another template")

    def _see_filter(self, node: nodes.Filter, name: str) -> None:
        if name == "attr":
            self.reaches.add("attributes by name (attr)")
        elif name not in _ENVIRONMENT.filters:
            self.unknown.add(f"filter {name}")
        if name in _PADDERS:
            self._see_numbers(node.args)
        if name == "replace" and node.node is not None and self._is_words(node.node):
            self.triggers.update(_literals(node.args[:1]))

    def _see_test(self, node: nodes.Test, name: str) -> None:
        if name not in _ENVIRONMENT.tests:
            self.unknown.add(f"test {name}")
        if self._is_words(node.node):
            self.triggers.update(_literals(node.args))

    def _see_comparison(self, node: nodes.Compare) -> None:
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if any(self._is_words(side) for side in sides):
            self.triggers.update(_literals(sides))

    def _see_call(self, node: nodes.Call, value: nodes.Node, name: str) -> None:
        if name in _MATCHERS and self._is_words(value):
            self.triggers.update(_literals(node.args[:1]))
        if name in _PADDERS:
            self._see_numbers(node.args)
        if name in {"format", "format_map"} and "{" in str(getattr(value, "value", "")):
            self.reaches.add("attributes by name (format)")

    def _see_product(self, left: nodes.Node, right: nodes.Node) -> None:
        for value, times in ((left, right), (right, left)):
            if isinstance(getattr(value, "value", None), str):
                self._see_numbers([times])

    def _see_numbers(self, arguments: list[nodes.Expr] | list[nodes.Node]) -> None:
        for argument in arguments:
            value = getattr(argument, "value", 0)
            if isinstance(value, int | float) and value > _MAX_REPEAT:
                self.costs.add(f"a length of {value:.4g}")
            elif isinstance(argument, nodes.Pow):
                self.costs.add("a length by a power")

    def _is_words(self, node: nodes.Node) -> bool:
        """Whether an expression comes from the words of a message."""
        pending = [node]
        while pending:
            part = pending.pop()
            self._looks -= 1
            if self._looks < 0:
                raise ValueError  # thousands of expressions in one another
            match part:
                case (
                    nodes.Getattr(attr=key)
                    | nodes.Getitem(arg=nodes.Const(value=key))
                    | nodes.Call(node=nodes.Getattr(attr="get"), args=[nodes.Const(value=key), *_])
                ) if key in _STRUCTURE | _CONTENT:
                    if key in _CONTENT:
                        return True
                    continue
                case nodes.Name(name=name) if name in self._words:
                    return True
                case nodes.Getattr(node=nodes.Name(name=name), attr=key) if f"{name}.{key}" in self._words:
                    return True
                case nodes.Compare() | nodes.Test() | nodes.Not():
                    continue  # a truth value, no words
            pending.extend(part.iter_child_nodes())
        return False


def _variable(target: nodes.Node) -> str:
    """The name that something is assigned to."""
    match target:
        case nodes.NSRef(name=name, attr=attribute):
            return f"{name}.{attribute}"
        case nodes.Name(name=name):
            return str(name)
    return ""


def _literals(parts: list[nodes.Expr] | list[nodes.Node]) -> Iterator[str]:
    """Words among these expressions that are no mere structure, quoted in ASCII."""
    for part in parts:
        keys = {
            id(key) for inner in [part, *part.find_all((nodes.Getitem, nodes.Call))] for key in _keys(inner)
        }
        for constant in [part, *part.find_all(nodes.Const)]:
            value = None if id(constant) in keys else getattr(constant, "value", None)
            if isinstance(value, str) and value not in _KINDS and not _MARKUP.fullmatch(value):
                yield ascii(value[:60])


def _keys(node: nodes.Node) -> Iterator[nodes.Node]:
    """Where a key is written that something is fetched by."""
    match node:
        case nodes.Getitem(arg=key):
            yield key
        case nodes.Call(node=nodes.Getattr(attr="get"), args=[key, *_]):
            yield key


def _canonical(tree: nodes.Node) -> str:
    """The tree as text, adjacent pieces of output joined: a comment splits them and outputs nothing."""
    parts = list[str]()
    _put(tree, parts)
    return "".join(parts)


def _put(value: object, parts: list[str]) -> None:
    match value:
        case list() | tuple():
            parts.append("[")
            for item in value:
                _put(item, parts)
            parts.append("]")
        case nodes.Output():
            _put_output(value, parts)
        case nodes.Node():
            parts.append(f"({type(value).__name__}")
            for name in value.fields:
                _put(getattr(value, name), parts)
            parts.append(")")
        case _:
            parts.append(f"{value!r},")


def _put_output(node: nodes.Output, parts: list[str]) -> None:
    for is_data, group in groupby(node.nodes, key=lambda child: isinstance(child, nodes.TemplateData)):
        if is_data:
            data = "".join(str(getattr(child, "data", "")) for child in group)
            parts.append(f"={data!r}" if data else "")
            continue
        for child in group:
            parts.append("{")
            _put(child, parts)
            parts.append("}")


def _line(text: str) -> str:
    plain = "".join(char if char.isprintable() and char.isascii() else "?" for char in text)
    return plain if len(plain) <= 300 else f"{plain[:297]}..."
