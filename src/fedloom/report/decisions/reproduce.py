"""How to get the same result again, and how to check that it is the same."""

from __future__ import annotations

from fedloom.report.lang.language import Language
from fedloom.report.markup import Html, code, element, facts, section
from fedloom.report.values import RunSummary


def reproduce_section(summary: RunSummary, say: Language) -> Html:
    """Command, seed, versions, threads and digests, as far as the journal has them."""
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    command = f"fedloom run runs/{summary.name}/experiment.toml --root reproduced"
    known = facts(
        [
            (say("reproduce.command"), code(command)),
            (say("reproduce.seed"), code(summary.settings.get("seed", ""))),
            (say("versions"), code(versions) if versions else None),
            (say("threads"), summary.threads),
            (say("base.digest"), summary.base_digest and code(summary.base_digest)),
            (say("reproduce.digest"), summary.digest and code(summary.digest)),
        ]
    )
    noisy = bool(summary.releases or summary.sums)
    return section(
        say("reproduce"),
        element("p", say("reproduce.noise") if noisy else say("reproduce.says")),
        known,
        element("p", say("reproduce.journal"), class_="soft"),
    )
