"""Questions and answers from the docstrings of Python libraries. Their source is read; nothing is imported or run."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedloom.data.library import is_public, module_file, public_modules, roots
from fedloom.data.prose import answer

QUESTIONS = {
    "module": "What is the module `{}` for?",
    "class": "What is `{}`?",
    "property": "What is `{}`?",
    "function": "What does `{}` do?",
}
_Documentable = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstring_rows(packages: Sequence[str]) -> list[dict]:
    """One row per public module, class, function and method with a usable docstring: prompt, response, package.

    A dotted name chooses a part ("torch.nn"); "stdlib" is the whole standard library. A name that a package above
    re-exports is asked for by its short form (`torch.nn.Linear`). Rows come in the order of the packages, then of the
    files, then of the source; a question and an answer occur once.
    Raises: DataError for a package that is not installed or has no Python source.
    """
    rows: list[dict] = []
    seen: set[str] = set()
    for package in packages:
        for root, name in roots(package):
            for kind, public_name, docstring in _Library(root, name).read():
                response = answer(docstring)
                prompt = QUESTIONS[kind].format(public_name)
                if response is None or prompt in seen or response in seen:
                    continue
                seen |= {prompt, response}
                rows.append({"prompt": prompt, "response": response, "package": package})
    return rows


@dataclass(frozen=True)
class _Definition:
    """A documented class, function or module. name: dotted below its module; empty for the module itself."""

    kind: str
    module: str
    name: str
    docstring: str


@dataclass
class _Library:
    """One reading of a package: its definitions, and what its packages re-export from modules below them.

    exports: (module, name or "*") -> the package that re-exports it and the name it has there.
    """

    root: Path
    name: str
    definitions: list[_Definition] = field(default_factory=list)
    exports: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)

    def read(self) -> list[tuple[str, str, str]]:
        """Kind, public dotted name and docstring of every public definition."""
        for path, module in public_modules(self.root, self.name):
            self._read_module(path, module)
        while unread := sorted({module for module, _ in self.exports} - self.modules):
            for module in unread:  # private modules whose names a public package shows
                self.modules.add(module)
                file = module_file(self.root, self.name, module)
                if file is not None:
                    self._read_module(file, module)
        named = [(item.kind, self._public_name(item), item.docstring) for item in self.definitions]
        return [item for item in named if all(map(is_public, item[1].split(".")))]

    def _read_module(self, path: Path, module: str) -> None:
        self.modules.add(module)
        tree = _parsed(path)
        if tree is None:
            return
        docstring = ast.get_docstring(tree, clean=False)
        if docstring:
            self.definitions.append(_Definition("module", module, "", docstring))
        for kind, name, text in _documented(tree.body, ""):
            self.definitions.append(_Definition(kind, module, name, text))
        if path.name == "__init__.py":
            self._note_exports(tree, module)

    def _note_exports(self, tree: ast.Module, package: str) -> None:
        for node in tree.body:
            if not isinstance(node, ast.ImportFrom):
                continue
            source = _imported_from(node, package)
            if not source.startswith(f"{package}."):
                continue
            for alias in node.names:
                shown = alias.asname or alias.name
                if is_public(shown):
                    self.exports.setdefault((source, alias.name), (package, shown))

    def _public_name(self, item: _Definition) -> str:
        """The shortest dotted name under which the definition is re-exported; its own name if it is not."""
        top, _, rest = item.name.partition(".")
        module = item.module
        while top and (shown := self.exports.get((module, top)) or self._starred(module, top)):
            module, top = shown
        return ".".join(part for part in (module, top, rest) if part)

    def _starred(self, module: str, name: str) -> tuple[str, str] | None:
        star = self.exports.get((module, "*"))
        return (star[0], name) if star is not None and is_public(name) else None


def _parsed(path: Path) -> ast.Module | None:
    """The syntax tree of a file; None for templates and for files of another Python version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a library's invalid escapes are not the reader's business
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def _imported_from(node: ast.ImportFrom, package: str) -> str:
    """The absolute dotted name of the module that a `from ... import` in a package's __init__ names."""
    if node.level == 0:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
    return ".".join([*above, *([node.module] if node.module else [])])


def _documented(body: Sequence[ast.stmt], owner: str) -> Iterator[tuple[str, str, str]]:
    """Kind, dotted name and docstring of the public classes and functions of a body, in source order.

    Those under `if` and `try` count; those local to a function do not.
    """
    for node in body:
        if isinstance(node, _Documentable):
            if is_public(node.name):
                yield from _definition(node, f"{owner}.{node.name}".strip("."))
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for branch in ("body", "orelse", "finalbody"):
                yield from _documented(getattr(node, branch, []), owner)


def _definition(node: _Documentable, name: str) -> Iterator[tuple[str, str, str]]:
    docstring = ast.get_docstring(node, clean=False)
    if docstring:
        yield _kind(node), name, docstring
    if isinstance(node, ast.ClassDef):
        yield from _documented(node.body, name)


def _kind(node: _Documentable) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return "property" if decorators & {"property", "cached_property"} else "function"
