"""One protocol connection pumped over one transport, callable from any thread."""

from .link import Link, LinkHandler

__all__ = ["Link", "LinkHandler"]
