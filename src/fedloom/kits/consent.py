"""What a site's own settings say to a run, before anything is trained or sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedloom.aggregation.registry import METHODS
from fedloom.kits.site import SiteSettings


def refusals(
    site: SiteSettings,
    *,
    model: str,
    method: str,
    classes: Sequence[str] | None = None,
    epsilon: float | None = None,
) -> list[str]:
    """Why the site does not take part, one line for each reason; empty if it does.

    model: id of the base, as the server names it.  classes: that the server names.  epsilon: what the run will spend at
    this site in all; None if it adds no noise.
    """
    return list(_refusals(site, model, method, classes or (), epsilon))


def _refusals(
    site: SiteSettings, model: str, method: str, classes: Sequence[str], epsilon: float | None
) -> Iterator[str]:
    accept, privacy = site.accept, site.privacy
    if model not in accept.models:
        yield f"the base model {model!r} is not in accept.models of site.toml ({', '.join(accept.models)})"
    if method not in accept.methods:
        yield f"the method {method!r} is not in accept.methods of site.toml ({', '.join(accept.methods)})"
    foreign = [name for name in classes if name not in (accept.classes or classes)]
    if foreign:
        yield f"the classes {', '.join(map(repr, foreign))} are not in accept.classes of site.toml"
    if privacy.keep_private and not (method in METHODS and METHODS[method].personal):
        yield f"the method {method!r} sends every factor, and privacy.keep_private of site.toml wants one to stay"
    if privacy.epsilon is not None and epsilon is None:
        yield f"the run adds no noise, so that no epsilon holds; privacy.epsilon of site.toml is {privacy.epsilon:g}"
    elif privacy.epsilon is not None and epsilon is not None and not epsilon <= privacy.epsilon:
        yield f"the run spends epsilon {epsilon:g}, and privacy.epsilon of site.toml allows {privacy.epsilon:g}"
