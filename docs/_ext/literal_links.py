"""Public names written as code, such as `sinkhorn_velocity`, become links to their pages."""

import importlib
import itertools
import pkgutil

import sphinx.addnodes
from docutils import nodes

import sknsgf


def public_names():
    """Return the dotted name of everything public, and of the estimators' methods, by its name."""
    names = {}
    for module in pkgutil.iter_modules(sknsgf.__path__):
        if not module.name.startswith("_"):
            room = importlib.import_module(f"sknsgf.{module.name}")
            names[room.__name__] = room.__name__
            names |= {name: f"{room.__name__}.{name}" for name in room.__all__}
    members = (vars(cls).items() for cls in sknsgf.NSGFSampler.__mro__ if _is_ours(cls))
    for name, member in itertools.chain(*members):
        if not name.startswith("_") and _is_ours(member):
            names.setdefault(name, f"sknsgf.NSGFSampler.{name}")
    return names | {name: f"sknsgf.{name}" for name in sknsgf.__all__}


def _is_ours(item):
    return getattr(item, "__module__", "").startswith("sknsgf")


def link_literals(app, doctree):
    """Wrap every literal that is a public name in a reference to it."""
    known = public_names()
    for literal in list(doctree.findall(nodes.literal)):
        target = known.get(literal.astext().removesuffix("()"))
        outside = not isinstance(literal.parent, (nodes.reference, sphinx.addnodes.pending_xref))
        if target and outside and not isinstance(literal.parent, nodes.title):
            link = sphinx.addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True
            )
            link["refwarn"] = False
            literal.replace_self(link)
            link += literal


def setup(app):
    """Link once a page has been read."""
    app.connect("doctree-read", link_literals)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
