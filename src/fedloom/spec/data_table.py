"""What a user says of the rows: their columns, how a common source is divided, what is held out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedloom.spec.table import Table


class ColumnsTable(Table):
    """Which columns of a row mean what; those left out are looked for under their usual names."""

    prompt: str | None = Field(None, examples=["instruction"], description="generation: what is asked")
    context: str | None = Field(
        None, examples=["context"], description="generation: text that goes with the prompt; may be empty"
    )
    response: str | None = Field(
        None, examples=["answer"], description="generation: what should be answered; only it is learned"
    )
    messages: str | None = Field(None, examples=["messages"], description="generation: a chat, list of {role, content}")
    text: str | None = Field(None, examples=["text"], description="classification: the text")
    image: str | None = Field(
        None,
        examples=["image"],
        description="image-classification: the image, as the path of a file, as the file's bytes, or as its pixels",
    )
    label: str | None = Field(None, examples=["label"], description="classification of texts or images: the class")


class PartitionTable(Table):
    """How one common source is divided among the clients (for trials; real sites have data of their own)."""

    kind: Literal["iid", "dirichlet", "column"] = Field("iid", description="iid, dirichlet or column")
    column: str | None = Field(
        None, examples=["category"], description="dirichlet, column: the column whose values are divided"
    )
    alpha: float = Field(0.3, gt=0, description="dirichlet: concentration; smaller is more unequal")


class DataTable(Table):
    """What the rows look like and what is held out."""

    source: str | None = Field(
        None, examples=["all.jsonl"], description="one source for all clients, divided by [data.partition]"
    )
    columns: ColumnsTable = ColumnsTable()
    partition: PartitionTable = PartitionTable()
    holdout: float = Field(
        0.1, gt=0, lt=1, description="share of each client's rows kept for evaluation, never trained on"
    )
    max_rows: int | None = Field(
        None, examples=[1000], ge=2, description="rows per client, drawn at random; left out: all"
    )
