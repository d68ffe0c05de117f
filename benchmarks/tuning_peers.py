"""The other trainers' environments: each in a folder of its own under the cache, pinned, made once.

    python = environment("trl", cache_dir)      # its interpreter; installs what is missing
    versions(python)                            # {"torch": "2.13.0+cpu", "trl": "1.16.0", ...}

torchaudio and torchvision of the index fit another torch than the one that all systems use here. LLaMA-Factory imports torchaudio and
requires both, but calls them only for sound and pictures: its environment gets an empty module `torchaudio` in place of both. It says so
when something is called after all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
PINS: dict[str, tuple[str, ...]] = {
    "trl": ("trl==1.16.0", "transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets==5.2.0"),
    "llamafactory": (
        *("trl==0.24.0", "transformers==5.6.0", "peft==0.18.1", "accelerate==1.11.0", "datasets==4.0.0", "torchdata==0.11.0"),
        *("av<=16.0.0,>=10.0.0", "einops", "fastapi", "fire", "gradio<=5.50.0,>=4.38.0", "hf-transfer", "matplotlib>=3.7.0", "modelscope"),
        *("numpy", "omegaconf", "packaging", "pandas", "protobuf", "pydantic", "pyyaml", "safetensors", "scipy", "sentencepiece"),
        *("sse-starlette", "tiktoken", "tyro<0.9.0", "uvicorn"),
    ),
}
"""What pip installs. LLaMA-Factory's own requirements are written out here, without the two packages of the stub."""
WITHOUT_REQUIREMENTS = {"trl": (), "llamafactory": ("llamafactory==0.9.5",)}
STUB = '''"""An empty stand-in: the benchmark trains on text, and torchaudio for this torch is not there."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(f"torchaudio.{name} was used, but this is the benchmark's empty stand-in")
'''
SHOWN = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "llamafactory")


def environment(name: str, cache_dir: Path) -> Path:
    """The interpreter of a peer's environment. CalledProcessError where pip cannot install it (pip's own words go to stderr)."""
    folder = cache_dir / "benchmarks" / name
    python = folder / "bin" / "python"
    done = folder / "installed.json"
    wanted = [TORCH, *PINS[name], *WITHOUT_REQUIREMENTS[name]]
    if done.exists() and json.loads(done.read_text()) == wanted:
        return python
    print(f"installing {name} into {folder} (once)", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    _pip(python, TORCH)  # first and alone: a machine may have this build at hand, where pip would fetch a larger one
    _pip(python, TORCH, *PINS[name])
    if extra := WITHOUT_REQUIREMENTS[name]:
        _pip(python, "--no-deps", *extra)
        packages = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        (Path(packages) / "torchaudio.py").write_text(STUB)
    done.write_text(json.dumps(wanted))
    return python


def _pip(python: Path, *what: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=True, stdout=sys.stderr)


def versions(python: Path) -> dict[str, str]:
    """Of the packages that matter, as that interpreter sees them."""
    code = f"""
import importlib.metadata as m, json
print(json.dumps({{n: m.version(n) for n in {SHOWN!r} if any(True for _ in m.distributions(name=n))}}))
"""
    return json.loads(subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)


def settings(threads: int, scratch: Path) -> dict[str, str]:
    """The process environment of every system, campana included: the same threads, no network, caches of its own."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "5000"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(scratch / "hf"),
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_DISABLED": "true",
        "DO_NOT_TRACK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
