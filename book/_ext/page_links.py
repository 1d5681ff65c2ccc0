"""What a page offers: notebooks and script, places to run it, a card for those who link it."""

import os
from html import escape
from typing import Any

from docutils import nodes

GITHUB = "https://github.com/"
BRANCH = "notebooks"  # which book/_tools/launch.py fills
FILES = {  # what is said → file below the site's root, by chapter
    "Student notebook": "downloads/student/{}.ipynb",
    "Notebook with solutions": "downloads/solution/{}.ipynb",
    "Script": "downloads/script/{}.py",
    "Slides": "slides/{}.html",
}
PDF = "downloads/query-key-interaction.pdf"  # which `make publish` puts there


def launch(repository: str, chapter: str) -> dict[str, str]:
    """Where a chapter opens: service → address; none where the repository is not on GitHub."""
    if not repository.startswith(GITHUB):
        return {}
    name, file = repository.removeprefix(GITHUB), f"{chapter}.ipynb"
    return {
        "Binder": f"https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{file}",
        "Colab": f"https://colab.research.google.com/github/{name}/blob/{BRANCH}/{file}",
        "Codespace": f"https://codespaces.new/{name}/tree/{BRANCH}",
    }


def group(label: str, tooltip: str, icon: str, links: dict[str, str]) -> dict[str, Any]:
    """A menu in the header of a page: what is said → address."""
    buttons = [{"type": "link", "text": text, "url": url} for text, url in links.items()]
    return {"type": "group", "label": label, "tooltip": tooltip, "icon": icon, "buttons": buttons}


def offer(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Put the menus into a page's header; those of the theme name files that are not the source."""
    if doctree is None:
        return
    repository, site = (os.environ.get(name, "").rstrip("/") for name in ("REPOSITORY", "SITE"))
    folder, _, name = pagename.rpartition("/")
    menus = [each for each in context["header_buttons"] if "download" not in each["label"]]
    if folder == "notebooks":
        files = {text: context["pathto"](path.format(name), 1) for text, path in FILES.items()}
        if "WITH_PDF" in os.environ:
            files["The book as PDF"] = context["pathto"](PDF, 1)
        menus.insert(0, group("download-buttons", "Download", "fas fa-download", files))
        if places := launch(repository, name):
            menus.insert(0, group("launch-buttons", "Run it elsewhere", "fas fa-rocket", places))
    source = f"{pagename}.{'py' if folder == 'notebooks' else 'md'}"
    for menu in menus:
        if menu["label"] == "source-buttons":
            edit = {"Suggest a change": f"{repository}/edit/main/{source}"}
            menu["buttons"] += group("", "", "", edit)["buttons"]
    context["header_buttons"] = menus
    context["metatags"] = context.get("metatags", "") + card(doctree, site, pagename)


def card(doctree: Any, site: str, pagename: str) -> str:
    """Tags for a preview of the page; its picture needs the address of the site."""
    title, words = (
        " ".join(next(doctree.findall(kind), nodes.Text("")).astext().split())
        for kind in (nodes.title, nodes.paragraph)
    )
    said = {"title": title, "description": words[:200], "type": "article"}
    if site:
        said |= {"image": f"{site}/_static/page.png", "url": f"{site}/{pagename}.html"}
    tags = [
        f'<meta property="og:{name}" content="{escape(text)}" />' for name, text in said.items()
    ]
    return "\n".join(["", *tags])
