"""A page read back: its tags, its scripts and its text."""

import html.parser

VOID = {"meta", "input", "br", "img", "hr", "link"}


class Parsed(html.parser.HTMLParser):
    """Tags with their attributes, scripts, and text; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.scripts, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)

    def items(self):
        return [attributes for tag, attributes in self.tags if attributes.get("class") == "item"]
