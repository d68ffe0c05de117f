"""An advisory digest of the code that declares a spec's parts. It is never in a key: `version` on a part is what re-keys.

Comments, docstrings and layout are left out, so a harmless edit changes nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from campana.parts import Part, parts_in

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_digest(spec: Part) -> str:
    """16 hex digits over the modules of the spec's class and of the parts in its fields; empty where a source is not at hand."""
    digests = [_module_digest(name) for name in sorted({type(part).__module__ for part in parts_in(spec)})]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16] if all(digests) else ""


@cache
def _module_digest(name: str) -> str:
    try:
        found = importlib.util.find_spec(name)
        source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
        tree = ast.parse(source)
    except (ImportError, ValueError, OSError, SyntaxError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and node.body and _is_text(node.body[0]):
            node.body[0] = ast.Pass()
        node_body = getattr(node, "body", None)
        if isinstance(node, ast.ClassDef) and isinstance(node_body, list):
            node.body = [each for each in node.body if not _is_text(each)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest() if source else ""


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
