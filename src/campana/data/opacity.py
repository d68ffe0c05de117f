"""Whether a chat template shows every content unchanged, read off its syntax tree.

    shows_contents_unchanged("{% for m in messages %}{{ m.role + m.content }}{% endfor %}")          # True
    shows_contents_unchanged("{% for m in messages %}{{ m.role + m.content | trim }}{% endfor %}")   # False

True only where the tree shows it; False costs speed, never exactness.
"""

from __future__ import annotations

from typing import Any

from campana.errors import DataError


def shows_contents_unchanged(source: str) -> bool:
    """Whether a template's output is made of fixed texts and whole contents, chosen by roles alone.

    Each `content` must be printed as it is, or only asked for being there; messages may be used for nothing but their fields, their
    number and their order. Raises DataError for a template that does not parse.
    """
    import jinja2
    from jinja2 import nodes
    from transformers.utils.chat_template_utils import _compile_jinja_template  # pyright: ignore[reportPrivateUsage]  # its environment

    try:
        tree = _compile_jinja_template(source).environment.parse(source)
    except jinja2.TemplateError as error:
        raise DataError(f"the chat template is not valid Jinja: {error}") from error
    if any(tree.find_all((nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock))):
        return False
    uses = _Uses(tree)
    accesses = tree.find_all((nodes.Getattr, nodes.Getitem))
    return all(map(uses.allows_access, accesses)) and all(map(uses.allows_name, tree.find_all(nodes.Name)))


class _Uses:
    """What is done with messages in a tree."""

    def __init__(self, tree: Any) -> None:
        from jinja2 import nodes

        self._parents: dict[int, Any] = {}
        for node in [tree, *tree.find_all(nodes.Node)]:
            for child in node.iter_child_nodes():
                self._parents[id(child)] = node
        loops = tree.find_all(nodes.For)
        self._turns = {loop.target.name for loop in loops if isinstance(loop.target, nodes.Name) and _list_name(loop.iter) == "messages"}

    def allows_access(self, node: Any) -> bool:
        """A field access: contents are printed, and neighbours in the loop are not looked at."""
        field = _field(node)
        return field not in {"previtem", "nextitem"} and (field != "content" or self._is_printed(node))

    def allows_name(self, node: Any) -> bool:
        """A mention of the messages, or of one of them: only its fields, order and number are used."""
        if node.ctx != "load" or node.name not in {"messages", *self._turns}:
            return True
        return self._allows_list(node) if node.name == "messages" else self._allows_turn(node)

    def _allows_list(self, node: Any) -> bool:
        from jinja2 import nodes

        user = self._parents[id(node)]
        if isinstance(user, nodes.For) and user.iter is node:
            return True
        if isinstance(user, nodes.Filter):
            return user.name in {"length", "count"}
        if not isinstance(user, nodes.Getitem) or user.node is not node:
            return False
        if isinstance(user.arg, nodes.Slice):
            loop = self._parents[id(user)]
            return isinstance(loop, nodes.For) and loop.iter is user
        return self._allows_turn(user)

    def _allows_turn(self, node: Any) -> bool:
        from jinja2 import nodes

        user = self._parents[id(node)]
        if getattr(user, "node", None) is not node or _field(user) is None:
            return False
        return not isinstance(self._parents[id(user)], nodes.Call)

    def _is_printed(self, node: Any) -> bool:
        from jinja2 import nodes

        user = self._parents[id(node)]
        if isinstance(user, nodes.If) and user.test is node:
            return True
        while isinstance(user, nodes.Add | nodes.Concat):
            user = self._parents[id(user)]
        return isinstance(user, nodes.Output)


def _list_name(node: Any) -> str | None:
    """The name of a list, or of the list that a slice is of."""
    from jinja2 import nodes

    while isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None


def _field(node: Any) -> str | None:
    """The constant name of a field access."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None
