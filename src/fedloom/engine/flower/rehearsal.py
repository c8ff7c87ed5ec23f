"""`fedloom join --dry-run`: what would be sent and to whom, from the kit and the site's own files; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.data.sources import read_rows
from fedloom.errors import FedLoomError
from fedloom.kits.read_client import ClientKit
from fedloom.kits.site import SiteSettings


def rehearsed(kit: ClientKit, site: SiteSettings) -> Iterator[str]:
    """Line by line. Raises: DataError if the site's rows cannot be read."""
    yield f"To {kit.address}, and only if it has a certificate of the authority {kit.ca_fingerprint}"
    yield f"as {kit.client} with the key {kit.fingerprint}, for the run {kit.run}, until {kit.expires:%Y-%m-%d}."
    yield _rows(kit, site)
    yield "Sent once a run begins, if this site accepts it:"
    yield "  the name of this client, versions of Python, fedloom, torch, transformers and peft"
    yield "  the digest of the base model's weights, names and shapes of the layers that carry factors"
    yield "  the numbers of rows trained on, held out and left out, and a digest of them all"
    yield "  for a classifier whose run does not name them, the names of the classes"
    yield "Sent in each round that this client takes part in:"
    kept = "one of the two stays here, as keep_private is set" if site.privacy.keep_private else "both, unless frozen"
    yield f"  factors a and b of each layer ({kept}), and the head of a classifier"
    yield "  losses, scores, numbers of tokens, seconds, the most memory that training took; memory_limit of site.toml"
    yield "Accepted from the server, anything else is refused:"
    yield f"  base models {', '.join(site.accept.models)}; methods {', '.join(site.accept.methods)}"
    limit = "no limit" if site.memory_limit is None else f"at most {site.memory_limit}"
    budget = "none" if site.privacy.epsilon is None else f"epsilon {site.privacy.epsilon:g} in all"
    yield f"  memory of the worker: {limit}; privacy budget: {budget}"
    yield "Nothing was sent."


def _rows(kit: ClientKit, site: SiteSettings) -> str:
    if site.data is None:
        raise FedLoomError("this site has no rows yet", where=kit.site, do="Set data there, or give --data FILE")
    rows = read_rows(site.data, client=kit.client)
    columns = ", ".join(map(str, rows[0])) if rows else "none"
    return f"Rows: {len(rows)} in {site.data}, columns {columns}. They stay here."
