"""What any page of ours must be: balanced, self-contained, its ids unique, its numbers numbers."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}
NAMESPACES = ("http://www.w3.org/",)


class Page(HTMLParser):
    """Collects elements, ids, visible text and everything that could be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"{tag}: an attribute twice"
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        self.addresses += [
            str(attributes[a]) for a in ("href", "src", "action", "srcset") if attributes.get(a)
        ]
        assert not [name for name in attributes if name.startswith("on")], f"{tag}: a script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def checked(text: str) -> Page:
    """Parse a page and hold it to the rules."""
    page = Page(text)
    assert page.open == []
    assert page.count("script") == 0
    assert len(page.ids) == len(set(page.ids)), "an id twice"
    outside = [address for address in page.addresses if not address.startswith("#") and address != "data:,"]
    assert outside == [], "something to be fetched"
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids), "a link to nowhere"
    for address in re.findall(r"https?://[^\s\"'<)]+|url\([^#)][^)]*\)|@import", text):
        assert address.startswith(NAMESPACES), address
    assert not re.search(r"\b(nan|inf|None|Infinity)\b", page.text), "a number that is none"
    assert all(character.isprintable() or character == "\n" for character in text)
    return page
