"""The languages that a report can be written in."""

from __future__ import annotations

from fedloom.report.lang.english import ENGLISH
from fedloom.report.lang.japanese import JAPANESE
from fedloom.report.lang.language import Language

LANGUAGES: dict[str, Language] = {language.code: language for language in (ENGLISH, JAPANESE)}
