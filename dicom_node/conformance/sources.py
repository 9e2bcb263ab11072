"""What a class says of its own fields, for tables of them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise


def field_words(of: type) -> dict[str, str]:
    """Return the text under each annotated field of a class, by name of the field, in order."""
    module = ast.parse(textwrap.dedent(inspect.getsource(of)))
    (body,) = (node.body for node in module.body if isinstance(node, ast.ClassDef))
    words = {}
    for node, following in pairwise(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            words[node.target.id] = inspect.cleandoc(str(following.value.value)).replace("\n", " ")
    return words
