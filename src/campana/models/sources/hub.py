"""`hub`: a model repository of the Hugging Face hub, pinned by its commit.

    hf:HuggingFaceTB/SmolLM2-135M@93efa2f097d58c2a74874c7e644dbc9b0cee75a2

Only configurations, tokenizers and safetensors are downloaded: no pickled weights, no code. The hub's own cache folder is used, so
that what other tools have downloaded is not downloaded twice, and what is there works without a network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from campana.errors import ModelError
from campana.models.source import ModelSource

WANTED = (
    *("model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", "LICENSE*", "README.md"),
)
"""File patterns that are downloaded; `README.md` for the licence it declares."""


def _repository(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"{name!r} is not a repository; write org/name")
    return name


class Hub(ModelSource):
    """A repository at one commit."""

    kind: Literal["hub"] = "hub"
    repository: Annotated[str, AfterValidator(_repository)]
    """`org/name`."""
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    """The commit, 40 hex digits: a branch moves, a commit does not."""

    def fetch(self, cache_dir: Path, local_path: Path | None) -> Path:
        """The snapshot's folder: from the hub's cache where it is whole, else downloaded."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars

        from campana.models.folder import is_whole

        del cache_dir, local_path
        try:
            kept = Path(snapshot_download(self.repository, revision=self.revision, allow_patterns=list(WANTED), local_files_only=True))
        except OSError:
            kept = None  # nothing of this commit is here yet
        if kept is not None and is_whole(kept):
            return kept
        try:
            with disable_progress_bars():
                return Path(snapshot_download(self.repository, revision=self.revision, allow_patterns=list(WANTED)))
        except Exception as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> ModelError:
        from huggingface_hub import errors

        name = f"{self.repository}@{self.revision[:12]}"
        page = f"https://huggingface.co/{self.repository}"
        if isinstance(error, errors.GatedRepoError):
            return ModelError(f"{name} is gated", hint=f"accept its terms at {page}, then log in with: hf auth login")
        if isinstance(error, errors.RepositoryNotFoundError):
            return ModelError(
                f"the hub has no repository {self.repository!r} that you may read",
                hint="check its spelling; a private one needs: hf auth login",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelError(f"{self.repository} has no commit {self.revision}", hint=f"take one from {page}/commits")
        short = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return ModelError(
            f"cannot download {name}: the hub is out of reach ({short})",
            hint="download it where there is a network, and give the folder as the model: "
            f"hf download {self.repository} --revision {self.revision} --local-dir DIR",
        )


def resolve_branch(repository: str, name: str) -> str | None:
    """The commit that a branch or tag had when the hub's cache last saw it, or None."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    ref = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "refs" / name
    try:
        commit = ref.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return commit if re.fullmatch(r"[0-9a-f]{40}", commit) else None
