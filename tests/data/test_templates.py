from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.data.format import DroppedRow
from campana.data.opacity import shows_contents_unchanged
from campana.data.templates import NAMED, ChatTemplate, load_template
from campana.errors import DataError
from campana.records import Message

NAMES = ["model", *NAMED]
TRIMS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PIECES = [
    "<|im_end|>",
    "<|im_start|>",
    "<|im_",
    "end|>",
    "<think>",
    "</s>",
    "assistant\n",
    "你好。",
    "👩‍💻",
    " ",
    "\n",
    "\ufdd0",
    "Hi",
    "two",
    "Zq0qZ",
    "{{ 1 }}",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=6).map("".join).filter(lambda text: bool(text.strip()))


def surrogate_free(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    text = texts.filter(surrogate_free)
    messages = [Message("system", draw(text))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(text)), Message("assistant", draw(text))]
    return messages


@pytest.fixture(scope="module")
def templates(make_tokenizer: Callable[..., Any]) -> dict[str, ChatTemplate]:
    tokenizer = make_tokenizer()
    found = {name: load_template(name, tokenizer) for name in NAMES}
    found["spaced"] = load_template("belle", make_tokenizer(spaced=True))
    found["trims"] = load_template("model", make_tokenizer(TRIMS, bos_token="<s>"))
    found["thinks"] = load_template("model", make_tokenizer(THINKS))
    return found


ALL = [*NAMES, "spaced", "trims", "thinks"]


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=30)
@given(messages=conversations())
def test_a_prompt_is_the_beginning_of_its_training_row(name: str, templates: dict[str, ChatTemplate], messages: list[Message]) -> None:
    template = templates[name]
    row = template.encode(messages)
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    answers = answers if template.every_turn else answers[-1:]
    assert len(row.turns) == len(answers)
    for index, (start, end) in zip(answers, row.turns, strict=True):
        assert row.ids[:start] == template.prompt(messages[:index])
        assert row.ids[end - 1] == template.end_id
    inside = [any(start <= place < end for start, end in row.turns) for place in range(len(row.ids))]
    assert row.supervised == inside
    assert row.turns[-1][1] == len(row.ids)


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=30)
@given(messages=conversations())
def test_no_text_becomes_a_control_token(name: str, templates: dict[str, ChatTemplate], messages: list[Message]) -> None:
    template = templates[name]
    harmless = [Message(message.role, "x") for message in messages]
    controls = set(range(5))

    def count(ids: list[int]) -> list[int]:
        return [token for token in ids if token in controls]

    assert count(template.encode(messages).ids) == count(template.encode(harmless).ids)
    assert count(template.prompt(messages[:-1])) == count(template.prompt(harmless[:-1]))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(messages=conversations())
def test_tokens_spell_what_the_template_wrote(
    name: str, tokenizer: Any, templates: dict[str, ChatTemplate], messages: list[Message]
) -> None:
    row = templates[name].encode(messages)
    spelled = [tokenizer.decode(row.ids[start : end - 1], clean_up_tokenization_spaces=False) for start, end in row.turns]
    assert spelled == [message.content for message in messages if message.role == "assistant"]


@settings(deadline=None, max_examples=30)
@given(text=st.text(alphabet="abc 你\n.", min_size=1, max_size=20).filter(str.strip))
def test_the_models_own_prompt_is_what_transformers_makes(tokenizer: Any, templates: dict[str, ChatTemplate], text: str) -> None:
    given_messages = [{"role": "user", "content": text}]
    theirs = tokenizer.apply_chat_template(given_messages, add_generation_prompt=True, return_dict=False)
    assert templates["model"].prompt(given_messages) == theirs


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=15)
@given(batch=st.lists(conversations(), max_size=4))
def test_a_row_does_not_depend_on_its_batch(name: str, templates: dict[str, ChatTemplate], batch: list[list[Message]]) -> None:
    template = templates[name]
    assert template.encode_many(batch) == [template.encode(messages) for messages in batch]


def test_the_first_token_of_an_answer_is_learned_and_the_last_of_the_prompt_is_not(
    tokenizer: Any, templates: dict[str, ChatTemplate]
) -> None:
    # A boundary token masked wrongly: "\n" before the answer and "\n\n" at its start are one token when tokenised together.
    for answer in ("\n\nYes", " Yes", "Yes"):
        row = templates["model"].encode([Message("user", "Q"), Message("assistant", answer)])
        (start, end) = row.turns[0]
        assert tokenizer.decode(row.ids[start:end]) == answer + "<|im_end|>"
        assert tokenizer.decode(row.ids[:start]).endswith("<|im_start|>assistant\n")
        assert row.supervised == [False] * start + [True] * (end - start)


def test_the_default_system_turn_is_part_of_the_prompt(tokenizer: Any, templates: dict[str, ChatTemplate]) -> None:
    row = templates["model"].encode([Message("user", "Q"), Message("assistant", "A")])
    assert tokenizer.decode(row.ids).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nQ<|im_end|>")
    own = templates["model"].encode([Message("system", "S"), Message("user", "Q"), Message("assistant", "A")])
    assert "Be kind." not in tokenizer.decode(own.ids)


def test_our_templates_write_what_they_say(tokenizer: Any, templates: dict[str, ChatTemplate]) -> None:
    messages = [Message("system", "S"), Message("user", "Q"), Message("assistant", "A"), Message("user", "R"), Message("assistant", "B")]
    expected = {
        "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\nB<|im_end|>",
        "alpaca": "S\n\n### Instruction:\nQ\n\n### Response:\nA<|im_end|>\n\n### Instruction:\nR\n\n### Response:\nB<|im_end|>",
        "belle": "S\n\nHuman: Q\n\nAssistant: A<|im_end|>\n\nHuman: R\n\nAssistant: B<|im_end|>",
        "plain": "S\nQ\nA<|im_end|>\nR\nB<|im_end|>",
    }
    for name, text in expected.items():
        assert tokenizer.decode(templates[name].encode(messages).ids, clean_up_tokenization_spaces=False) == text
        assert templates[name].stop_ids == {tokenizer.eos_token_id}


def test_a_start_token_is_set_where_the_tokenizer_sets_one(make_tokenizer: Callable[..., Any]) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(bos_token="<s>")
    plain = load_template("belle", tokenizer).prompt([Message("user", "Q")])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    assert load_template("belle", tokenizer).prompt([Message("user", "Q")]) == [3, *plain]


def test_a_text_alone_is_learned_but_for_its_first_token(templates: dict[str, ChatTemplate]) -> None:
    row = templates["plain"].encode([Message("assistant", "once upon a time")])
    assert row.supervised == [False] + [True] * (len(row.ids) - 1)
    assert row.ids[-1] == templates["plain"].end_id


def test_a_template_that_rewrites_earlier_answers_teaches_the_last_one(tokenizer: Any, templates: dict[str, ChatTemplate]) -> None:
    template = templates["thinks"]
    assert not template.every_turn
    assert template.describe()["supervised_turns"] == "last"
    messages = [Message("user", "Q"), Message("assistant", "A"), Message("user", "R"), Message("assistant", "B")]
    row = template.encode(messages)
    ((start, end),) = row.turns
    assert tokenizer.decode(row.ids[start:end]) == "<think>\n\n</think>\n\nB<|im_end|>"
    assert "<think>" not in tokenizer.decode(row.ids[:start])


def test_an_answer_may_hold_a_thinking_token_and_a_question_may_not(tokenizer: Any, templates: dict[str, ChatTemplate]) -> None:
    think = tokenizer.convert_tokens_to_ids("<think>")
    row = templates["thinks"].encode([Message("user", "<think>"), Message("assistant", "<think>A</think>B")])
    ((start, end),) = row.turns
    assert think not in row.ids[:start]
    assert row.ids[start:end].count(think) == 2
    assert tokenizer.decode(row.ids[:start]).endswith("user\n<think><|im_end|>\n<|im_start|>assistant\n")


def test_a_template_that_trims_trims_in_training_as_in_generation(
    make_tokenizer: Callable[..., Any], templates: dict[str, ChatTemplate]
) -> None:
    template = templates["trims"]
    row = template.encode([Message("user", " Q "), Message("assistant", "  A \n")])
    ((start, end),) = row.turns
    assert make_tokenizer().decode(row.ids[start:end]) == "A<|im_end|>"


REFUSED = [
    (None, "model", "brings no chat template"),
    ("{{ nonsense", "model", "not valid Jinja"),
    ("{% for m in messages %}{{ m.content }}{% endfor %}", "model", "could never learn to stop"),
    (
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}bot: {% endif %}",
        "model",
        "not how an answer starts",
    ),
    ("{{ strftime_now('%d') }}", "model", "date of the day"),
    ("{{ raise_exception('only tools') }}", "model", "only tools"),
]


@pytest.mark.parametrize(("source", "name", "message"), REFUSED)
def test_templates_that_cannot_be_trained_with_are_refused_when_loaded(source, name, message, make_tokenizer) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_template(name, make_tokenizer(source))
    assert "chatml" in (caught.value.hint or "") or "Jinja" in message


def test_a_name_or_a_token_that_is_missing(make_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="unknown template 'chatlm'") as caught:
        load_template("chatlm", make_tokenizer())
    assert "did you mean 'chatml'" in (caught.value.hint or "")

    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE({"a": 0, "<e>": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(DataError, match=r"no token <\|im_start\|>, <\|im_end\|>"):
        load_template("chatml", PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>"))
    with pytest.raises(DataError, match="needs an end token"):
        load_template("belle", PreTrainedTokenizerFast(tokenizer_object=backend))


def test_a_row_that_the_template_refuses_is_dropped_with_the_templates_words(make_tokenizer: Callable[..., Any]) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}" + TRIMS
    template = load_template("model", make_tokenizer(source, bos_token="<s>"))
    good = [Message("user", "Q"), Message("assistant", "A")]
    bad, fine = template.encode_many([[Message("system", "S"), *good], good])
    assert isinstance(bad, DroppedRow)
    assert (bad.reason, bad.detail) == ("refused by the template", "no system turns here")
    assert fine == template.encode(good)


@pytest.mark.parametrize(
    ("body", "unchanged"),
    [
        ("{{ m.role + m['content'] }}", True),
        ("{% if m.content %}{{ m.content }}{% endif %}", True),
        ("{% if m.role == messages[loop.index0 - 1].role %}x{% endif %}{{ m.content }}", True),
        ("{{ m.content | trim }}", False),
        ("{{ (m.role + m.content) | upper }}", False),
        ("{{ m.content.split('x')[-1] }}", False),
        ("{% if 'x' in m.content %}y{% endif %}", False),
        ("{{ m | tojson }}", False),
        ("{{ m.get('content') }}", False),
        ("{{ m[field] }}", False),
        ("{% set c = m.content %}{{ c }}", False),
        ("{% set c = m %}{{ c.content }}", False),
        ("{{ loop.previtem.content }}", False),
        ("{{ m.content if m.role == 'user' else '' }}", False),
        ("{% macro f(x) %}{{ x }}{% endmacro %}{{ f(m.content) }}", False),
        ("{% filter upper %}{{ m.content }}{% endfilter %}", False),
    ],
)
def test_templates_that_show_contents_unchanged_are_told_from_those_that_do_not(body: str, unchanged: bool) -> None:
    assert shows_contents_unchanged("{% for m in messages %}" + body + "{% endfor %}") is unchanged
