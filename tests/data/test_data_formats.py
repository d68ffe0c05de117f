from __future__ import annotations

import pytest
from pydantic import ValidationError

from campana.data.detect import detect_format
from campana.data.format import DroppedRow
from campana.data.formats.alpaca import Alpaca
from campana.data.formats.messages import Messages
from campana.data.formats.sharegpt import ShareGPT
from campana.data.formats.text import Text
from campana.errors import DataError
from campana.parts import find

MOSS = ShareGPT(conversations="turns", round=("Human", "MOSS"), marks=("<|Human|>:", "<eoh>", "<|MOSS|>:", "<eom>"))


def turns(conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


@pytest.mark.parametrize(
    ("part", "row", "expected"),
    [
        (Alpaca(), {"instruction": "Add.", "input": "2 3", "output": "5"}, [("user", "Add.\n2 3"), ("assistant", "5")]),
        (Alpaca(), {"instruction": "Hi", "output": " five "}, [("user", "Hi"), ("assistant", " five ")]),
        (
            Alpaca(),
            {"instruction": "c", "output": "d", "system": "S", "history": [["a", "b"]]},
            [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        ),
        (
            Alpaca(instruction="question", input=None, output="answer"),
            {"question": "q", "answer": "a"},
            [("user", "q"), ("assistant", "a")],
        ),
        (
            Alpaca(input="instances.0.input", output="instances.0.output"),
            {"instruction": "i", "instances": [{"input": "x", "output": "y"}]},
            [("user", "i\nx"), ("assistant", "y")],
        ),
        (
            ShareGPT(),
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            [("system", "s"), ("user", "a"), ("assistant", "b")],
        ),
        (MOSS, {"turns": [{"Human": "<|Human|>: a<eoh>\n", "MOSS": "<|MOSS|>: b <eom>\n"}]}, [("user", "a"), ("assistant", "b")]),
        (
            Messages(),
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]},
            [("user", "a"), ("assistant", "b")],
        ),
        (Text(), {"text": "once upon"}, [("assistant", "once upon")]),
        (
            Text(user_mark="### Human:", assistant_mark="### Assistant:"),
            {"text": "### Human: a### Assistant: b"},
            [("user", "a"), ("assistant", "b")],
        ),
    ],
)
def test_a_row_becomes_its_turns(part, row, expected) -> None:
    conversation = part.read(row, "x:1")
    assert turns(conversation) == expected
    assert conversation.source == "x:1"


@pytest.mark.parametrize(
    ("part", "row", "reason"),
    [
        (Alpaca(), {"instruction": "a", "output": " \n"}, "empty answer"),
        (Alpaca(), {"instruction": "a", "output": None}, "empty answer"),
        (Alpaca(), {"instruction": "", "input": " ", "output": "x"}, "empty prompt"),
        (Alpaca(), {"instruction": "a"}, "missing field"),
        (Alpaca(), {"instruction": "a", "output": ["x"]}, "not text"),
        (Alpaca(), {"instruction": "a", "output": "x", "history": ["y"]}, "bad role order"),
        (Alpaca(), {"instruction": "a", "output": "x", "history": float("nan")}, "bad role order"),
        (Alpaca(), {"instruction": "a", "output": "x", "history": 3}, "bad role order"),
        (ShareGPT(), {"conversations": [{"from": "gpt", "value": "b"}]}, "bad role order"),
        (ShareGPT(), {"conversations": [{"from": "human", "value": "b"}]}, "bad role order"),
        (ShareGPT(), {"conversations": [{"from": "human", "value": "a"}, {"from": "observation", "value": "b"}]}, "unknown role"),
        (ShareGPT(), {"conversations": []}, "no turns"),
        (ShareGPT(), {"conversations": "a"}, "no turns"),
        (ShareGPT(), {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": 3}]}, "not text"),
        (Messages(), {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "bad role order"),
        (Messages(), {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "bad role order"),
        (Messages(), {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "unknown role"),
        (Messages(), {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not text"),
        (Text(), {"text": "  "}, "empty answer"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(part, row, reason) -> None:
    with pytest.raises(DroppedRow) as caught:
        part.read(row, "x:1")
    assert caught.value.reason == reason


def test_a_line_of_code_in_a_row_is_text_and_runs_nowhere() -> None:
    line = "__import__('os')._exit(3)"
    conversation = Alpaca().read({"instruction": line, "output": f"{{{{ {line} }}}}"}, "x:1")
    assert turns(conversation) == [("user", line), ("assistant", f"{{{{ {line} }}}}")]


def test_formats_are_found_by_kind_and_refuse_half_a_pair_of_marks() -> None:
    assert {kind: find("format", kind) for kind in ("alpaca", "sharegpt", "messages", "text")} == {
        "alpaca": Alpaca,
        "sharegpt": ShareGPT,
        "messages": Messages,
        "text": Text,
    }
    with pytest.raises(ValidationError, match="both user_mark and assistant_mark"):
        Text(user_mark="Q:")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"instruction": "a", "input": "", "output": "b"}, Alpaca()),
        ({"instruction": "a", "output": "b"}, Alpaca(input=None)),
        ({"question": "a", "answer": "b"}, Alpaca(instruction="question", input=None, output="answer")),
        ({"conversations": [{"from": "human", "value": "a"}], "chosen": {}}, ShareGPT()),
        ({"conversations": [{"role": "user", "content": "a"}]}, Messages(messages="conversations")),
        ({"messages": [{"role": "user", "content": "a"}], "prompt": "x", "completion": "y"}, Messages()),
        ({"text": "a"}, Text()),
    ],
)
def test_the_format_is_told_by_the_fields(row, part, write_rows) -> None:
    assert detect_format(write_rows("a.jsonl", [row] * 3)) == part


def test_unknown_fields_and_mixed_rows_are_errors_that_name_them(write_rows) -> None:
    with pytest.raises(DataError, match="with the fields frage, antwort") as caught:
        detect_format(write_rows("a.jsonl", [{"frage": "a", "antwort": "b"}]))
    assert "format:" in (caught.value.hint or "")
    with pytest.raises(DataError, match="more than one format"):
        detect_format(write_rows("b.jsonl", [{"question": "a", "answer": "b"}, {"messages": [{"role": "user", "content": "a"}]}]))
