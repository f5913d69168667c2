"""Writes docs/operators.md, the page of all operators, from the registry. `--check` only says whether it is
fresh.
"""

from __future__ import annotations

from typing import Any

from registry import ROOT, input_names, operators, write_or_check

HEAD = """# Operators

Written by `make docs` from the operators' records; do not edit. Every operator is a function of `mx.nd`;
names with a leading underscore are what methods, Python's operators and saved graphs call. An operator that does not
run on GPUs yet says so below its name.
"""


def section(op: dict[str, Any]) -> str:
    """One operator: its call, other names, doc sentence, parameters."""
    required = [p["name"] for p in op["params"] if p["required"]]
    optional = [f"{p['name']}={p['default']}" for p in op["params"] if not p["required"]]
    call = ", ".join([*input_names(op), *required, *optional])
    lines = [f"## {op['name']}", "", f"`{op['name']}({call})`", ""]
    if op.get("doc"):
        lines += [op["doc"].strip(), ""]
    if not op["gpu"]:
        lines += ["Not on GPUs yet.", ""]
    if op["aliases"]:
        lines += ["Also called " + ", ".join(f"`{alias}`" for alias in sorted(op["aliases"])) + ".", ""]
    if op["params"]:
        lines += ["| parameter | type | default |", "| --- | --- | --- |"]
        for p in op["params"]:
            default = "required" if p["required"] else f"`{p['default']}`"
            lines.append(f"| `{p['name']}` | {str(p['type']).replace('|', 'or')} | {default} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    shown = [op for op in operators() if not op["hidden"]]
    write_or_check({ROOT / "docs" / "operators.md": HEAD + "\n" + "\n".join(section(op) for op in shown)})
