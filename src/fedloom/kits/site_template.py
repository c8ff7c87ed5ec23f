"""The commented site.toml of a client, from the descriptions of its fields."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from fedloom.kits.site import AcceptTable, PrivacyTable, SiteSettings
from fedloom.spec.experiment import ColumnsTable, Task
from fedloom.spec.pointless import COLUMNS_OF
from fedloom.spec.template import assigned, comment, described, example

_TABLES: dict[str, type[BaseModel]] = {"accept": AcceptTable, "privacy": PrivacyTable}
_QUIET = "Keys that are commented out are optional: they are shown with an example."


def site_template(settings: SiteSettings, task: Task, named_data: str | None) -> str:
    """TOML that `read_site` reads as the settings; keys that they leave out are commented out.

    named_data: what the operator's pilot.toml says of this site's rows.
    """
    hint = () if named_data is None else (comment(f"The operator's pilot.toml says: {named_data}"),)
    top = [name for name in SiteSettings.model_fields if name not in (*_TABLES, "columns")]
    sections = ["\n".join([comment(SiteSettings.__doc__ or ""), comment(_QUIET)])]
    sections.append("\n".join([*hint, *_lines(settings, SiteSettings, top)]))
    for name, model in _TABLES.items():
        lines = _lines(getattr(settings, name), model, list(model.model_fields))
        sections.append("\n".join([comment(model.__doc__ or ""), f"[{name}]", *lines]))
    return "\n\n".join([*sections, _columns(settings, task)]) + "\n"


def _lines(values: BaseModel, model: type[BaseModel], names: list[str]) -> Iterator[str]:
    for name in names:
        field, value = model.model_fields[name], getattr(values, name)
        yield described(field, assigned(name, example(field) if value is None else value, value is None))


def _columns(settings: SiteSettings, task: Task) -> str:
    """The columns that rows of this task have; the whole table is commented out where none was named."""
    given = settings.columns
    lines = _lines(given or ColumnsTable(), ColumnsTable, list(COLUMNS_OF[task]))
    header = comment(SiteSettings.model_fields["columns"].description or "")
    return "\n".join([header, "#[columns]" if given is None else "[columns]", *lines])
