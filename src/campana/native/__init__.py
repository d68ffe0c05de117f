"""Compiled code of ours, for what no library computes at the machine's rate: built from C on the machine that runs it, at first use.

    compiled = Compiled.load(cache_dir)                   # Unavailable, with its reason, where it cannot be had
    out, lse = compiled.attention.forward(q, k, v, bounds, scale=1 / 8, window=None)
    out, inverse = compiled.elementwise.norm(x, weight, eps=1e-5)

`bf16`: training, reading and answers on CPUs with AVX512-BF16; `fp32`: the attention of answers on those with AVX2. Whatever is here has
a form in torch's own operations as well, which is used everywhere else.
Nothing is imported here: plans ask `build` without loading torch.
"""
