"""What `make site` adds to the pages of docs/: hooks of MkDocs, named in mkdocs.yml.

- README.md, CHANGELOG.md and CONTRIBUTING.md are pages of the site, and the front page is README.md.
- Links are written as GitHub reads them, relative to the file; here they are turned to the pages of the site.
- A folder in the navigation stands for all of its pages, and has a page that lists them.
- `::: settings` on a page stands for tables of all settings, and `::: records` for every record that a method of
  `Workspace` returns.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from settings_table import tables

ROOT = Path(__file__).parent.parent
DOCS = "docs"

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE.txt",
}
"""Files outside of docs/, and what they are called in the site."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)((?:#[^)\s]*)?)(?=\))")
CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.M | re.S)

ITEM = re.compile(r"(?:[-*]|1\.) ")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in the place of the folder."""
    assert config.nav is not None
    config.nav = [_opened(entry) for entry in config.nav]
    return config


def _opened(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_opened(each) for each in entry]
    if not isinstance(entry, dict):
        return entry
    return {title: _pages(value) if _is_folder(value) else _opened(value) for title, value in entry.items()}


def _is_folder(value: Any) -> bool:
    return isinstance(value, str) and value.endswith("/")


def _pages(folder: str) -> list[str]:
    return [f"{folder}index.md", *(f"{folder}{path.name}" for path in sorted((ROOT / DOCS / folder).glob("*.md")))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/, and a list of pages to each folder that has no index of its own."""
    for name, uri in OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        _add(files, config, uri, relink(text, name) if uri.endswith(".md") else text)
    for folder in _folders(config.nav):
        _add(files, config, f"{folder}index.md", _list_of(folder))
    return files


def _add(files: Files, config: MkDocsConfig, uri: str, text: str) -> None:
    if files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, content=text))


def _folders(entry: Any) -> set[str]:
    if isinstance(entry, str):
        return {f"{posixpath.dirname(entry)}/"} if posixpath.basename(entry) == "index.md" and "/" in entry else set()
    values = entry.values() if isinstance(entry, dict) else entry
    return set().union(*map(_folders, values))


def _list_of(folder: str) -> str:
    pages = sorted((ROOT / DOCS / folder).glob("*.md"))
    lines = [f"- [{_title(path)}]({path.name})" for path in pages]
    return "\n".join([f"# {folder.strip('/').capitalize()}", "", *lines, ""])


def _title(path: Path) -> str:
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)
    return found[1] if found else path.stem


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn the links of a page, and put the records in their place."""
    if page.file.generated_by is None:
        markdown = relink(markdown, f"{DOCS}/{page.file.src_uri}")
    markdown = re.sub(r"^::: settings$", lambda _: tables(), markdown, flags=re.M)
    return re.sub(r"^::: records$", "\n\n".join(f"::: {name}" for name in records()), markdown, flags=re.M)


def relink(markdown: str, name: str) -> str:
    """Turn the links of a file, named relative to the repository, to the pages of the site; code is left alone."""
    parts = CODE.split(markdown)
    for number, part in enumerate(parts[::2]):
        # As in hf:NAME[:CONFIG], which is no link.
        plain = re.sub(r"(?<!\\)\[(?=:)", r"\\[", part)
        parts[2 * number] = LINK.sub(lambda link: _turned(link, name), plain)
    return _spaced("".join(parts))


def _spaced(markdown: str) -> str:
    """Put an empty line between a paragraph and the list that follows it: GitHub needs none, Python-Markdown does."""
    lines: list[str] = []
    fenced = False
    for line in markdown.split("\n"):
        before = lines[-1] if lines else ""
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and ITEM.match(line) and before and before[0] not in " |#>" and not ITEM.match(before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _turned(link: re.Match[str], name: str) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link[1]))
    if target in OUTSIDE:
        target = OUTSIDE[target]
    elif target.startswith(f"{DOCS}/"):
        target = target.removeprefix(f"{DOCS}/")
        if (ROOT / DOCS / target).is_dir():
            target += "/index.md"
    else:
        return link[0]  # the build says that it leads nowhere
    start = posixpath.dirname(OUTSIDE.get(name, name.removeprefix(f"{DOCS}/")))
    return posixpath.relpath(target, start or ".") + link[2]


def records() -> list[str]:
    """Return the records that the public methods of `Workspace` return, as names that its module imports."""
    tree = ast.parse((ROOT / "continual" / "workspace.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("continual.")
        for alias in node.names
    }
    workspace = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Workspace")
    methods = [node for node in workspace.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    named = [
        node.id
        for method in methods
        if method.returns is not None
        for node in ast.walk(method.returns)
        if isinstance(node, ast.Name) and node.id in imported
    ]
    return [f"continual.workspace.{name}" for name in dict.fromkeys(named)]
