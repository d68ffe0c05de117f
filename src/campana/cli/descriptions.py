"""`campana describe`: the registered kinds, their fields, and the JSON Schemas of what campana reads and writes."""

from __future__ import annotations

import json
from typing import Any

from campana.cli.reference import field_rows, first_paragraph
from campana.errors import UserError
from campana.parts import GROUPS, find, known, nearest

SCHEMAS = ("study", "report", "plan", "show")


def describe(group: str | None, kind: str | None, schema: str | None, as_json: bool) -> str:
    """The text to print."""
    if schema is not None:
        return json.dumps(_schema(schema), ensure_ascii=False, indent=1)
    if group is not None and group not in GROUPS:
        holders = [f"campana describe {each} {group}" for each in GROUPS if group in known(each)]
        raise UserError(f"unknown group {group!r}", hint=" or ".join(holders) or nearest(group, list(GROUPS)))
    groups = [group] if group else list(GROUPS)
    if kind is not None and group is not None:
        part = find(group, kind)
        rows = [{"field": row[0], "type": row[1], "default": row[2], "what": row[3]} for row in field_rows(part)]
        if as_json:
            return json.dumps(
                {"group": group, "kind": kind, "version": part.version, "what": first_paragraph(part), "fields": rows}, indent=1
            )
        lines = [f"{group} {kind} (version {part.version}): {first_paragraph(part)}"]
        lines += [f"  {row['field']}: {row['type']}, {row['default']}\n      {row['what']}" for row in rows]
        return "\n".join(lines)
    listed = {name: {found: first_paragraph(part) for found, part in known(name).items()} for name in groups}
    if as_json:
        return json.dumps(listed, ensure_ascii=False, indent=1)
    return "\n".join(f"{name}\n" + "\n".join(f"  {found:<14} {what}" for found, what in kinds.items()) for name, kinds in listed.items())


def _schema(name: str) -> dict[str, Any]:
    if name == "study":
        from campana.study.schema import study_schema

        return study_schema()
    if name == "report":
        from campana.report.schema import REPORT_SCHEMA

        return REPORT_SCHEMA
    if name == "plan":
        from campana.cli.plans import PLAN_SCHEMA

        return PLAN_SCHEMA
    if name == "show":
        from campana.cli.results import SHOW_SCHEMA

        return SHOW_SCHEMA
    raise UserError(f"unknown schema {name!r}", hint=nearest(name, list(SCHEMAS)))
