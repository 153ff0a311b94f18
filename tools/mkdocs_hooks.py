"""MkDocs hooks: pages from files outside ``docs/``, and an API reference with a page a module.

Every Markdown file is written once, where its readers find it in the repository. Its links are
those of the repository; here they are turned into links between the site's pages. What the site
does not have (a config, a script) loses its link.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "aiparsing_d2"
# Pages from files outside docs/.
PAGES = {
    "README.md": "index.md",
    "datasets/README.md": "data_sets.md",
    "MODEL_ZOO.md": "model_zoo.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(<code>)~?")


class _Docstrings(Preprocessor):
    """Show what docstrings share with reStructuredText: ``::`` before code, tables of columns."""

    def run(self, lines: list[str]) -> list[str]:
        shown = []
        in_table = False
        for line in lines:
            if re.fullmatch(r"=+( +=+)+ *", line):
                shown.append("```" if in_table else "```text")
                in_table = not in_table
            elif line == "::":
                shown.append("")
            else:
                shown.append(line if in_table else re.sub(r"(\S)::$", r"\1:", line))
        return shown


class _DocstringExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        md.preprocessors.register(_Docstrings(md), "docstrings", 100)  # before fenced blocks


def on_config(config: MkDocsConfig) -> None:
    """Append the files of ``docs/`` that the navigation leaves out, and the API reference."""
    listed = {page for entry in config.nav for page in entry.values()}
    others = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    config.nav += [page for page in others if page not in listed]
    config.nav.append({"API reference": _api_nav(PACKAGE)})
    config.markdown_extensions.append(_DocstringExtension())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of ``docs/``."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / source).read_text("utf-8")))
    for module in _modules(PACKAGE):
        files.append(File.generated(config, _api_page(module), content=_api_text(module)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the repository's links into the site's."""
    origins = {site: source for source, site in PAGES.items()}
    here = page.file.src_uri
    source = origins.get(here, f"docs/{here}")

    def replace(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in path:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        site = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if site is None:
            if not (REPOSITORY / path).exists():
                return match[0]  # MkDocs reports it
            return text
        relative = posixpath.relpath(site, posixpath.dirname(here) or ".")
        return f"{mark}[{text}]({relative}{'#' * bool(anchor)}{anchor})"

    return _LINK.sub(replace, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show names that docstrings give a role, e.g. ``:class:``, as names."""
    return _ROLE.sub(r"\1", html)


def _modules(package: str) -> list[str]:
    """Return the names of a package and of all its public modules."""
    paths = (REPOSITORY / package).rglob("*.py")
    names = (path.relative_to(REPOSITORY).with_suffix("").parts for path in paths)
    names = (parts[:-1] if parts[-1] == "__init__" else parts for parts in names)
    return sorted(".".join(p) for p in names if not any(part.startswith("_") for part in p))


def _submodules(package: str) -> list[str]:
    return [m for m in _modules(PACKAGE) if m.rpartition(".")[0] == package]


def _is_package(module: str) -> bool:
    return (REPOSITORY / module.replace(".", "/")).is_dir()


def _api_page(module: str) -> str:
    path = "/".join(["api", *module.split(".")[1:]])
    return f"{path}/index.md" if _is_package(module) else f"{path}.md"


def _api_text(module: str) -> str:
    """Return a module's page. A package's shows what it says of itself and lists its modules."""
    if not _is_package(module):
        return f"::: {module}\n"
    here = posixpath.dirname(_api_page(module))
    links = [
        f"- [`{name}`]({posixpath.relpath(_api_page(name), here)})" for name in _submodules(module)
    ]
    return "\n".join([f"::: {module}", "    options:", "      members: false", "", *links, ""])


def _api_nav(package: str) -> list[Any]:
    """Return the navigation below a package: its own page, then its modules."""
    entries: list[Any] = [_api_page(package)]
    for module in _submodules(package):
        name = module.rpartition(".")[2]
        entries.append({name: _api_nav(module) if _is_package(module) else _api_page(module)})
    return entries
