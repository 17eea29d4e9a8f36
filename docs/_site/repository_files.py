"""Pages of the site that lie elsewhere in the repository: the examples, CONTRIBUTING.md, the chart's README.

Links in the Markdown files are written as the repository has them, so that they work there too. This hook translates
them: ``docs/`` is the root of the site, and everything else keeps its path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]
INCLUDED: Final = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "SECURITY.md",
    "examples/*/*",
    "helm/tq-exporter/README.md",
    "helm/tq-exporter/values.yaml",
)

_LINK: Final = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")
_FENCE: Final = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that are not below ``docs/``."""
    for pattern in INCLUDED:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                uri = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate the links of one page."""
    uri = page.file.src_uri
    folder = posixpath.dirname(uri if page.file.generated_by else f"docs/{uri}")
    code = [match.span() for match in _FENCE.finditer(markdown)]

    def translated(match: re.Match[str]) -> str:
        if any(start <= match.start() < end for start, end in code):
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if target.endswith("/") or (ROOT / target).is_dir():
            target = f"{target}/README.md" if (ROOT / target / "README.md").exists() else f"{target}/index.md"
        return match[1] + posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(uri))

    return _LINK.sub(translated, markdown)
