"""stub"""


class Study: ...


def load(folder):
    return Study()


def text(study):
    return "text"


def html(study):
    return "<!doctype html>"
