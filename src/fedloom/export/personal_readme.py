"""README.md of a personal directory: what is in it, and the lines of Python that use it."""

from __future__ import annotations

from fedloom.export.personal_format import DESCRIPTION, INDIVIDUAL, MERGED, MIXER, REST, TRUNK, Description
from fedloom.training.base_model import BaseModel

CLASSES = {
    "generation": "AutoModelForCausalLM",
    "classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}
MEANINGS = {
    INDIVIDUAL: "a PEFT adapter: what this client learned for itself",
    REST: "a PEFT adapter: what the other clients learned, put together by the server",
    TRUNK: "a PEFT adapter: what was learned before and always counts whole",
    MIXER: f"for every adapted layer G (2 x in): softmax(G x + (c, 0)) weighs {INDIVIDUAL} and {REST} for a token x, "
    "c = log(share / (1 - share))",
    DESCRIPTION: "how the two are weighed, and which base they belong to",
    MERGED: "a PEFT adapter: both in one, with the constant weights that come closest to the mixer's",
}
WEIGHED = {
    "learned": "Each layer weighs the two for every token.",
    "static": "The two are weighed by constants.",
    "sum": "The two are added.",
}
GENERATE = """\
tokenizer = AutoTokenizer.from_pretrained(base)
{encode}
written = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
CHAT = """\
chat = [{"role": "user", "content": "Your question"}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)"""
PLAIN = 'inputs = tokenizer("Your question\\n", return_tensors="pt")'
CLASSIFY = """\
tokenizer = AutoTokenizer.from_pretrained(base)
logits = model(**tokenizer("Your text", return_tensors="pt")).logits
print({labels}[logits.argmax()])
"""


def readme(description: Description, base: BaseModel, merged: bool) -> str:
    """The whole file. merged: whether there is such a directory."""
    there = [*description.branches, *([MIXER] if description.mixes else []), DESCRIPTION, *([MERGED] if merged else [])]
    listed = "\n".join(f"- `{name}`: {MEANINGS[name]}" for name in there)
    about = "".join(f"\n- {name}: {value}" for name, value in description.about.items())
    return f"""# A personal model

Two adapters on one base, as FedLoom's personal methods leave them at a client. {WEIGHED[description.kind]}

{listed}

With both adapters{" and the mixer" if description.mixes else ""} (needs `fedloom`, `transformers`, no PEFT):

```python
{_code(base)}```

Plain PEFT loads each of the adapters, without FedLoom: `PeftModel.from_pretrained(model, "{MERGED}")`.
{"" if merged else f"There is no `{MERGED}` here, as nothing was known of the tokens that this client sees." + chr(10)}
## Where it comes from

- base: {description.base} (digest {description.base_digest[:12]}){about}
"""


def _code(base: BaseModel) -> str:
    kind = CLASSES[base.task]
    also = "" if base.task == "image-classification" else ", AutoTokenizer"
    classes = "" if base.labels is None else f", num_labels={len(base.labels)}"
    lines = [
        "import fedloom",
        f"from transformers import {kind}{also}",
        "",
        f"base = {base.source!r}",
        f"model = {kind}.from_pretrained(base{classes})",
        'model = fedloom.load_personal(model, ".")  # this directory',
    ]
    return "\n".join(lines) + "\n" + _use(base)


def _use(base: BaseModel) -> str:
    if base.task == "image-classification":
        return ""
    if base.task == "classification":
        return CLASSIFY.format(labels=list(base.labels or ()))
    return GENERATE.format(encode=CHAT if base.tokenizer.chat_template else PLAIN)
