"""Outside data is known by its content, wherever it lies."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from campana.core.digest import DigestCache, digest_path
from campana.errors import DataError


def test_a_file_and_a_folder_are_known_by_content_alone(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    assert digest_path(folder / "a.txt") == "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    before = digest_path(folder)
    shutil.copytree(folder, tmp_path / "two")
    (tmp_path / "two" / "empty").mkdir()
    assert digest_path(tmp_path / "two") == before
    (tmp_path / "two" / "a.txt").rename(tmp_path / "two" / "c.txt")
    assert digest_path(tmp_path / "two") != before


def test_a_cached_digest_is_used_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("one")
    cache = DigestCache(tmp_path / "store")
    status = path.stat()
    cache.put(path, os.stat_result([*status[:6], status.st_size, 0, 0, 0]), "made up")
    assert cache.get(path, path.stat()) is None

    digest_path(path, cache)
    assert DigestCache(tmp_path / "store").get(path, path.stat()) is None, "a file this young may change within a tick of its clock"


def test_the_cache_is_kept_on_disk_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campana.core.digest.SETTLED_SECONDS", -1.0)
    path, other = tmp_path / "data.jsonl", tmp_path / "other.jsonl"
    path.write_text("one")
    other.write_text("other")
    digest_path(path, DigestCache(tmp_path))
    digest_path(other, DigestCache(tmp_path))
    cache = DigestCache(tmp_path)
    assert cache.get(path, path.stat()) == digest_path(path).removeprefix("sha256:")
    assert cache.get(other, other.stat()) is not None
    path.write_text("two")
    assert cache.get(path, path.stat()) is None
    (tmp_path / "digests.json").write_text("{")
    assert DigestCache(tmp_path).get(other, other.stat()) is None


def test_a_cache_that_holds_something_else_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("a")
    (tmp_path / "digests.json").write_text(json.dumps({str(path.resolve()): 5}))
    assert digest_path(path, DigestCache(tmp_path)) == digest_path(path)


def test_what_cannot_be_digested_is_said(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"trian\.jsonl: there is no such file[\s\S]*did you mean 'train\.jsonl'"):
        digest_path(tmp_path / "trian.jsonl")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        digest_path(tmp_path / "pipe")
    loop = tmp_path / "loop"
    loop.mkdir()
    (loop / "self").symlink_to(loop)
    with pytest.raises(DataError, match="leads back into its own folder"):
        digest_path(loop)
    dangling = tmp_path / "dangling"
    dangling.mkdir()
    (dangling / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match="leads nowhere"):
        digest_path(dangling)
