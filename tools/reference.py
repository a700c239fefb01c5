"""Makes the documentation's source: copies docs/ and adds the reference pages that are read off the code.

Modules and plugins come from `ansible-doc`, roles from their argument specs, kosctl from its own parser,
schemas from the JSON Schemas that the engine validates with, exit codes from its errors.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "runtime"))

from kosnode.errors import KosError  # noqa: E402 - found through the line above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build/docs", help="folder that is made anew")
    out: Path = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out)
    (out / "index.md").write_text((ROOT / "README.md").read_text("utf-8").replace("](docs/", "]("), "utf-8")
    pages = {
        "modules.md": module_page(),
        "roles.md": role_page(),
        "kosctl.md": command_page(),
        "schemas.md": schema_page(),
    }
    for name, text in pages.items():
        (out / "reference").mkdir(exist_ok=True)
        (out / "reference" / name).write_text(text, encoding="utf-8")
    for schema in schema_files():
        shutil.copy(schema, out / "reference" / schema.name)
    print(f"{len(pages)} reference pages and the copy of docs/ are in {out.relative_to(ROOT)}")


def module_page() -> str:
    """Return the page of modules and of plugins of each kind, in Markdown."""
    text = ["# Modules and plugins", ""]
    for kind in ("module", "inventory", "filter", "callback"):
        folder = ROOT / "plugins" / ("modules" if kind == "module" else kind)
        names = filter_names() if kind == "filter" else sorted(path.stem for path in folder.glob("[a-z]*.py"))
        for name in names:
            text += plugin_section(kind, f"kos.fleet.{name}")
    return "\n".join(text) + "\n"


def filter_names() -> list[str]:
    """Return the names of the collection's filters: one documented YAML or Python file each."""
    folder = ROOT / "plugins/filter"
    return sorted({path.stem for path in folder.glob("[a-z]*.*") if path.suffix in {".py", ".yml"}})


def plugin_section(kind: str, name: str) -> list[str]:
    """Return the lines that document one plugin, read through `ansible-doc`."""
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", "--type", kind, name]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "build")}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    documents = json.loads(answer.stdout or "{}")
    if name not in documents or "doc" not in documents[name]:
        raise SystemExit(f"ansible-doc knows no {kind} {name}: {answer.stderr.strip()}")
    document = documents[name]
    doc = document["doc"]
    lines = [f"## {name} ({kind})", "", doc["short_description"], ""]
    lines += [plain(paragraph) + "\n" for paragraph in as_list(doc.get("description"))]
    if doc.get("options"):
        lines += ["| option | type | default | what it is |", "|---|---|---|---|"]
        lines += list(option_rows(doc["options"], ""))
        lines.append("")
    if document.get("examples"):
        lines += ["```yaml", document["examples"].strip(), "```", ""]
    if document.get("return"):
        lines += ["| returns | type | what it is |", "|---|---|---|"]
        for key, value in document["return"].items():
            lines.append(f"| `{key}` | {value.get('type', '')} | {cell(value.get('description'))} |")
        lines.append("")
    return lines


def option_rows(options: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield a table row for each option, and below it those of its own options."""
    for key, value in options.items():
        needed = " (required)" if value.get("required") else ""
        default = f"`{json.dumps(value['default'])}`" if value.get("default") is not None else ""
        choices = value.get("choices")
        chosen = " One of " + ", ".join(f"`{choice}`" for choice in choices) + "." if choices else ""
        kind = value.get("type", "str")
        yield f"| `{prefix}{key}`{needed} | {kind} | {default} | {cell(value.get('description'))}{chosen} |"
        nested = value.get("suboptions") or value.get("options")
        if nested:
            yield from option_rows(nested, f"{prefix}{key}.")


def role_page() -> str:
    """Return the page of roles, from their argument specs."""
    text = ["# Roles", ""]
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        role = path.parent.parent.name
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for entry, spec in specs.items():
            title = f"kos.fleet.{role}" + ("" if entry == "main" else f", tasks from `{entry}`")
            text += [f"## {title}", "", spec.get("short_description", ""), ""]
            text += [plain(paragraph) + "\n" for paragraph in as_list(spec.get("description"))]
            if spec.get("options"):
                text += ["| variable | type | default | what it is |", "|---|---|---|---|"]
                text += list(option_rows(spec["options"], ""))
                text.append("")
    return "\n".join(text) + "\n"


def command_page() -> str:
    """Return the page of kosctl: every verb with its help, and the exit codes."""
    os.environ["COLUMNS"] = "100"
    parser = importlib.import_module("kosnode.cli").build_parser()
    text = ["# kosctl", "", "```text", parser.format_help().strip(), "```", ""]
    for name, sub in verbs(parser):
        text += [f"## kosctl {name}", "", "```text", sub.format_help().strip(), "```", ""]
    kinds: list[type[KosError]] = [KosError, *subclasses(KosError)]
    kinds.sort(key=lambda kind: kind.exit_code)
    text += [
        "## Exit codes",
        "",
        "| exit | kind | meaning |",
        "|---|---|---|",
        "| 0 | | done, or nothing to do |",
    ]
    text += [
        f"| {kind.exit_code} | `{kind.kind}` | {(kind.__doc__ or '').splitlines()[0]} |" for kind in kinds
    ]
    return "\n".join(text) + "\n"


def subclasses(kind: type[KosError]) -> Iterator[type[KosError]]:
    """Yield every class below an error, however deep, that has an exit code of its own."""
    for below in kind.__subclasses__():
        if "exit_code" in vars(below):
            yield below
        yield from subclasses(below)


def verbs(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each documented verb with its parser, nested verbs after their own."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            shown = {choice.dest for choice in action._choices_actions if choice.help != argparse.SUPPRESS}
            for name, sub in action.choices.items():
                if name in shown:
                    yield prefix + name, sub
                    yield from verbs(sub, f"{prefix}{name} ")


def schema_files() -> list[Path]:
    """Return the published schemas: the engine's own, and that of a stack's contract."""
    return sorted(
        path for folder in ("runtime", "pulumi") for path in (ROOT / folder).glob("*/**/*.schema.json")
    )


def schema_page() -> str:
    """Return the page of JSON Schemas: one table each."""
    text = ["# Schemas", ""]
    for path in schema_files():
        schema = json.loads(path.read_text(encoding="utf-8"))
        title = schema.get("title", path.name)
        text += [f"## {title}", "", f"[{path.name}]({path.name}). {schema.get('description', '')}", ""]
        text += ["| key | type | rule | what it is |", "|---|---|---|---|"]
        text += list(property_rows(schema, schema, ""))
        text.append("")
    return "\n".join(text) + "\n"


def property_rows(schema: dict[str, Any], whole: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield a row for each property, references followed, nested ones after their own."""
    if len(prefix.split(".")) > 5:
        return
    for key, given in schema.get("properties", {}).items():
        value = resolve(given, whole)
        kind = value.get("type", "object" if "properties" in value else "")
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        needed = " (required)" if key in schema.get("required", []) else ""
        rules = [
            f"{word} `{json.dumps(value[word])}`"
            for word in ("const", "enum", "pattern", "minimum", "maximum", "maxLength", "maxItems")
            if word in value
        ]
        what = given.get("description") or value.get("description") or given.get("title") or ""
        yield f"| `{prefix}{key}`{needed} | {kind} | {escape('; '.join(rules))} | {cell(what)} |"
        inner = resolve(value.get("items", {}), whole) if value.get("type") == "array" else value
        mark = "[]." if value.get("type") == "array" else "."
        yield from property_rows(inner, whole, f"{prefix}{key}{mark}")


def resolve(value: Any, whole: dict[str, Any]) -> dict[str, Any]:
    """Follow a local `$ref`."""
    if isinstance(value, dict) and "$ref" in value:
        target: Any = whole
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return resolve(target, whole)
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def cell(value: Any) -> str:
    return escape(plain(" ".join(as_list(value))))


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def plain(text: str) -> str:
    """Turn Ansible's semantic markup (O(x), V(x), RV(x), C(x), M(x)) into Markdown code."""
    import re

    return re.sub(r"\b(?:O|V|RV|C|M|E|P|I|B)\(([^)]*)\)", r"`\1`", text)


if __name__ == "__main__":
    main()
