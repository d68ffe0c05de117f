"""What stages that work with models import: an executor that forks loads it once for all of them."""

MODELS = (
    "torch",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "safetensors.torch",
)
TUNING = (*MODELS, "torch.optim", "peft")
