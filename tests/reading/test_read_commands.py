"""`campana read answer` and `score` end to end: bad input is told and counted, nothing else is lost; a killed batch goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PASSAGE = "Anna went to Rome in 1998.  Ben stayed."


def question(number: int = 1, **changes: Any) -> dict[str, Any]:
    row = {"id": f"q{number}", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 13}], "is_impossible": False}
    return {**row, **changes}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {**question(number), "context": PASSAGE, **changes}


def squad(*questions: dict[str, Any]) -> str:
    return json.dumps({"data": [{"title": "Trips", "paragraphs": [{"context": PASSAGE, "qas": list(questions)}]}]}, ensure_ascii=False)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)


@pytest.fixture
def answer(campana: Any, reader_folder: Path, tmp_path: Path) -> Any:
    """Write a file, answer it: (exit code, answers, stderr)."""

    def run(content: str | bytes, name: str = "f.jsonl", *more: object) -> tuple[int, list[dict[str, Any]], str]:
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        code, out, err = campana("read", "answer", path, "-m", reader_folder, *more)
        return code, [json.loads(line) for line in out.splitlines()], err

    return run


def ids(answers: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in answers]


def test_one_question(campana: Any, reader_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(PASSAGE, encoding="utf-8")
    code, out, _ = campana("read", "answer", "-m", reader_folder, "-q", "Where?", "-p", f"@{tmp_path / 'p.txt'}", "--threshold", 1e9)
    said = json.loads(out)
    assert code == 0
    assert said["schema"] == "campana.reading/1"
    assert PASSAGE[said["start"] : said["end"]] == said["answer"] != ""
    assert (said["reason"], said["num_windows"], said["question_cut"], said["threshold"]) == (None, 1, False, 1e9)
    assert all(PASSAGE[one["start"] : one["end"]] == one["text"] for one in said["nbest"])
    code, out, _ = campana("read", "answer", "-m", reader_folder, "-q", "Where?", "-p", PASSAGE, "--threshold", -1e9, "--nbest", 3)
    said = json.loads(out)
    assert (said["answer"], said["start"], said["reason"], len(said["nbest"])) == (None, None, "no answer is likelier", 3)


def test_words_that_do_not_go_together(campana: Any, reader_folder: Path, tmp_path: Path) -> None:
    for words in (["-q", "Where?"], [], [tmp_path / "f", "-q", "Where?", "-p", "Rome"]):
        code, _, err = campana("read", "answer", "-m", reader_folder, *words)
        assert (code, "give either FILE, or --question and --passage" in err) == (2, True)
    code, _, err = campana("read", "answer", "-m", reader_folder, "-q", "a", "-p", "b", "--precision", "fp61")
    assert (code, "known: fp32, bf16" in err) == (2, True)
    code, _, err = campana("read", "answer", "-m", tmp_path / "nothing", "-q", "a", "-p", "b")
    assert (code, "nothing" in err) == (2, True)
    code, _, err = campana("read", "answer", tmp_path / "no.jsonl", "-m", reader_folder)
    assert (code, "no data file here" in err) == (2, True)


def test_a_path_that_cannot_be_opened_is_named(campana: Any, tmp_path: Path) -> None:
    asked = tmp_path / "q.jsonl"
    asked.write_text(lines(row(1)), encoding="utf-8")
    none, file = tmp_path / "none.json", tmp_path / "file"
    file.touch()
    for path, problem in ((none, "No such file or directory"), (tmp_path, "Is a directory")):
        code, _, err = campana("read", "score", asked, "--predictions", path)
        assert (code, err) == (1, f"error: {path}: {problem}\n")
    code, _, err = campana("read", "edit", asked, "-o", tmp_path / "none" / "e.jsonl", "--operators", "number")  # needs no files of others
    assert (code, err) == (1, f"error: {tmp_path}/none/e.jsonl.part: No such file or directory\n")
    code, _, err = campana("gc", "--store", file / "store")
    assert (code, "there is no store here" in err) == (2, True)
    code, _, err = campana("plan", Path(__file__).parents[2] / "studies/quickstart.yaml", "--store", file / "store")
    assert (code, err) == (1, f"error: {file}/store/store.json: Not a directory\n")


def test_empty_passage_and_question(answer: Any) -> None:
    code, said, err = answer(lines(row(1, context=""), row(2, question=" \n"), row(3)))
    assert (code, ids(said)) == (0, ["q1", "q2", "q3"])
    assert [one["reason"] for one in said[:2]] == ["empty passage", "empty question"]
    assert (said[0]["answer"], said[0]["margin"], said[0]["num_windows"]) == (None, None, 0)
    assert "1 x empty passage (first: q1)" in err
    assert "1 x empty question (first: q2)" in err


def test_duplicate_ids_are_told_apart(answer: Any) -> None:
    code, said, err = answer(lines(row(1), row(1, question="When?"), row(2), row(1)))
    assert (code, ids(said)) == (0, ["q1", "q1#2", "q2", "q1#3"])
    assert "2 x duplicate id (first: q1, q1)" in err


def test_is_impossible_as_text(campana: Any, reader_folder: Path, tmp_path: Path) -> None:
    content = squad(question(1, is_impossible="false"), question(2, is_impossible="True", answers=[]), question(3, is_impossible="maybe"))
    (tmp_path / "f.json").write_text(content)
    code, out, err = campana("read", "score", tmp_path / "f.json", "-m", reader_folder, "--json")
    scores = json.loads(out)["results"][0]["scores"]
    assert (code, scores["num_has_answer"], scores["num_no_answer"]) == (0, 2, 1)
    assert "3 x is_impossible as text" in err
    assert "1 x is_impossible not understood (taken as not said) (first: q3)" in err


def test_answers_not_at_their_offset_are_found_again(campana: Any, reader_folder: Path, tmp_path: Path) -> None:
    wrong = [question(n, answers=[{"text": text, "answer_start": 2}]) for n, text in enumerate(["Rome", "ｒｏｍｅ", "１９９８", "Paris"])]
    (tmp_path / "f.json").write_text(squad(*wrong), encoding="utf-8")
    code, out, err = campana("read", "score", tmp_path / "f.json", "-m", reader_folder, "--json")
    assert code == 0
    assert json.loads(out)["results"][0]["scores"]["num_questions"] == 4
    assert "1 x answer not at its offset (found again)" in err
    assert "2 x answer not at its offset (found in another form)" in err
    assert "1 x answer not in the passage (kept for scoring) (first: 3)" in err.replace("q3", "3")


def test_half_and_full_width_mixed(answer: Any) -> None:
    passage = "安娜于１９９８年去了 Rome，２００１年去了Ｐａｒｉｓ。\u3000她说：「好」。"
    code, said, err = answer(lines(row(1, context=passage, question="何时？", answers=["1998"])), "f.jsonl", "--threshold", "1e9")
    assert code == 0
    assert "found in another form" in err
    assert passage[said[0]["start"] : said[0]["end"]] == said[0]["answer"]
    assert all(passage[one["start"] : one["end"]] == one["text"] for one in said[0]["nbest"])


@pytest.mark.slow
def test_a_line_of_ten_megabytes(answer: Any) -> None:
    passage = "Anna went to Rome in 1998 . " * (10_000_000 // 28)
    code, said, err = answer(lines(row(1), row(2, context=passage), row(3)), "f.jsonl", "--threshold", "1e9")
    assert (code, ids(said), " x " in err) == (0, ["q1", "q2", "q3"], False)
    assert said[1]["num_windows"] > 10_000
    assert passage[said[1]["start"] : said[1]["end"]] == said[1]["answer"]


def test_truncated_json(answer: Any) -> None:
    whole = squad(*(question(n) for n in range(5)))
    code, said, err = answer(whole[: whole.index('"q3"') + 20], "f.json")
    assert (code, ids(said)) == (0, ["q0", "q1", "q2"])
    assert "1 x truncated JSON (first: f.json:1)" in err
    text = lines(*(row(n) for n in range(3)))
    code, said, err = answer(text[:-30])
    assert (code, ids(said)) == (0, ["q0", "q1"])
    assert "1 x truncated JSON (first: f.jsonl:3)" in err


def test_byte_order_mark_and_line_ends(answer: Any) -> None:
    for name, content in (("f.jsonl", lines(row(1), row(2)).replace("\n", "\r\n")), ("g.json", squad(question(1), question(2)))):
        code, said, err = answer(b"\xef\xbb\xbf" + content.encode(), name)
        assert (code, ids(said), err) == (0, ["q1", "q2"], "")


def test_not_utf8(answer: Any) -> None:
    chinese = lines(row(2, context="安娜去了罗马。")).encode("gb18030")
    code, said, err = answer(lines(row(1)).encode() + chinese + lines(row(3)).encode())
    assert (code, ids(said)) == (0, ["q1", "q3"])
    assert "1 x not UTF-8 (first: f.jsonl:2)" in err
    code, said, err = answer(chinese)
    assert (code, said) == (2, [])
    assert "no question in this file" in err
    assert "iconv -f GB18030 -t UTF-8 f.jsonl" in err
    code, _, err = answer(lines(row(1)).encode("utf-16"))
    assert (code, "iconv -f UTF-16" in err) == (2, True)


def test_parquet_with_other_columns(answer: Any, campana: Any, reader_folder: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"instruction": ["a", "b"], "text": ["c", "d"]}), tmp_path / "f.parquet")
    code, _, err = campana("read", "answer", tmp_path / "f.parquet", "-m", reader_folder)
    assert code == 2
    assert "2 x no passage (first: f.parquet:1, f.parquet:2)" in err
    assert "the fields of its first row: instruction, text" in err
    assert '"question": "..."' in err
    code, _, err = answer(b"PAR1 and nothing", "g.parquet")
    assert (code, "a damaged Parquet file" in err) == (2, True)
    pq.write_table(pa.Table.from_pylist([row(1), row(2, question=None)]), tmp_path / "h.parquet")
    code, out, err = campana("read", "answer", tmp_path / "h.parquet", "-m", reader_folder)
    assert (code, [json.loads(line)["id"] for line in out.splitlines()]) == (0, ["q1"])
    assert "1 x no question (first: h.parquet:2)" in err


def test_lone_surrogates_become_one_character(answer: Any) -> None:
    code, said, err = answer('{"id": "q1", "question": "Where\\ud800?", "context": "Rome \\udfff is"}\n', "f.jsonl", "--threshold", "1e9")
    assert (code, ids(said)) == (0, ["q1"])
    assert "2 x lone surrogates (replaced)" in err
    assert "Rome \ufffd is"[said[0]["start"] : said[0]["end"]] == said[0]["answer"]


def test_a_file_is_there_when_it_is_whole(answer: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code, _, _ = answer(lines(row(1), row(2)), "f.jsonl", "-o", out)
    assert (code, ids([json.loads(line) for line in out.read_text().splitlines()])) == (0, ["q1", "q2"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "out.jsonl"]
    code, _, err = answer(lines({"text": "nothing"}), "g.jsonl", "-o", tmp_path / "none.jsonl")
    assert (code, "no question" in err) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "g.jsonl", "out.jsonl"]


def unfinished(answer: Any, out: Path, content: str, num_lines: int, torn: str = "") -> list[str]:
    """The state of a batch that was killed after some lines; returns the lines of the whole batch."""
    from campana.models.cache import sha256_of

    assert answer(content, "f.jsonl", "-o", out)[0] == 0
    whole = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.unlink()
    out.with_name(out.name + ".part").write_text("".join(whole[:num_lines]) + torn, encoding="utf-8")
    note = {"schema": "campana.reading.job/1", "threshold": None, "nbest": 5, "precision": "fp32"}
    note |= {"questions": [sha256_of(out.with_name("f.jsonl"))], "reader": None}
    out.with_name(out.name + ".part.json").write_text(json.dumps(note))
    return whole


@pytest.mark.parametrize("torn", ["", '{"schema": "campana.reading/1", "id": "q3", "ans'])
def test_a_batch_goes_on_after_its_last_whole_line(answer: Any, tmp_path: Path, reader_folder: Path, torn: str) -> None:
    from campana.models.cache import sha256_of

    out, content = tmp_path / "out.jsonl", lines(*(row(n, question=f"Where {n}?") for n in range(8)))
    whole = unfinished(answer, out, content, 3, torn)
    note = out.with_name("out.jsonl.part.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "reader": sha256_of(reader_folder)}))
    code, _, err = answer(content, "f.jsonl", "-o", out)
    assert (code, "3 questions are answered already" in err) == (0, True)
    got = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    expected = [json.loads(line) for line in whole]
    assert [(one["id"], one["answer"], one["start"]) for one in got] == [(one["id"], one["answer"], one["start"]) for one in expected]
    assert [one["margin"] for one in got] == pytest.approx([one["margin"] for one in expected], abs=1e-5)


def test_a_batch_of_another_job_is_not_gone_on_with(answer: Any, tmp_path: Path) -> None:
    out, content = tmp_path / "out.jsonl", lines(row(1), row(2))
    unfinished(answer, out, content, 1)
    before = out.with_name("out.jsonl.part").read_bytes()
    code, _, err = answer(content + lines(row(3)), "f.jsonl", "-o", out, "--nbest", "2")
    assert code == 2
    assert "an unfinished run with other nbest and questions and reader" in err
    assert "rm " in err
    assert out.with_name("out.jsonl.part").read_bytes() == before


def test_two_runs_do_not_write_one_file(answer: Any, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "out.jsonl"
    with out.with_name("out.jsonl.part").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, _, err = answer(lines(row(1)), "f.jsonl", "-o", out)
    assert (code, "another run is writing this file" in err, out.exists()) == (2, True, False)


@pytest.mark.slow
def test_a_killed_batch_goes_on(tmp_path: Path, reader_folder: Path) -> None:
    content = lines(*(row(n, context=PASSAGE * 40, question=f"Where {n}?") for n in range(3000)))
    (tmp_path / "f.jsonl").write_text(content)
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    command = [
        sys.executable,
        "-c",
        "from campana.cli import main; main()",
        "read",
        "answer",
        "f.jsonl",
        "-m",
        str(reader_folder),
        "-o",
        str(out),
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as first:
        while first.poll() is None and not (part.exists() and part.stat().st_size):
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    kept = part.read_bytes()
    num_whole = kept.count(b"\n")
    assert 0 < num_whole < 3000
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ})
    assert f"{num_whole} questions are answered already" in second.stderr
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert ids(answers) == [f"q{n}" for n in range(3000)]
    assert out.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
